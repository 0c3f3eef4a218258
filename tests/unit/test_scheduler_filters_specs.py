"""The operators of extra specs, Nova's golden values among them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novactl.errors import UsageError
from novactl.scheduler import specs


@pytest.mark.parametrize(("value", "text", "expected"), [
    # no operator: the text itself
    ("x86_64", "x86_64", True),
    ("x86_64", "x86", False),
    ("2", "2.0", False),                                      # texts, not numbers
    ("a b", "a b", True),
    ("a", " a ", True),
    # numbers; '=' is at least
    ("3", "= 2", True),
    ("2", "= 2", True),
    ("1", "= 2", False),
    ("2", "== 2.0", True),
    ("2", "== 3", False),
    ("2", "!= 3", True),
    ("2", "!= 2.0", False),
    ("2.5", ">= 2.5", True),
    ("2.4", ">= 2.5", False),
    ("2.4", "<= 2.5", True),
    (4096, ">= 4096", True),
    (4095, ">= 4096", False),
    (0.5, "<= 0.5", True),
    ("many", ">= 1", False),                                  # Nova fails here
    ("nan", "!= 1", False),
    # texts
    ("10", "s< 9", True),                                     # '1' sorts before '9'
    ("10", "s> 9", False),
    ("abc", "s== abc", True),
    ("abc", "s!= abc", False),
    ("abc", "s<= abd", True),
    ("abc", "s>= abd", False),
    # parts and alternatives
    ("abc", "<in> b", True),
    ("abc", "<in> d", False),
    ("aes mmx sse", "<all-in> aes mmx", True),
    ("aes sse", "<all-in> aes mmx", False),
    ("abc", "<or> x <or> abc", True),
    ("abc", "<or> abc", True),
    ("ab", "<or> x <or> abc", False),
    # several values: one of them
    (("kvm", "qemu"), "kvm", True),
    (("kvm", "qemu"), "kv", False),
    (("kvm", "qemu"), "<in> kvm", True),
    (("kvm", "qemu"), "<in> kv", False),                      # a whole value, not a part of one
    (("kvm", "qemu"), "<all-in> kvm qemu", True),
    (("kvm",), "<all-in> kvm qemu", False),
    (("kvm", "qemu"), "<or> xen <or> qemu", True),
    (("kvm", "qemu"), "s!= kvm", False),
    (("qemu",), "s!= kvm", True),
    (("1", "5"), ">= 4", True),
    ((), "kvm", False),
    ((), "s!= kvm", True),
    # nothing matches nothing
    (None, "x", False),
    (None, "!= 1", False),
    (None, "s!= x", False),
    # what check refuses does not match
    ("5", "==", False),
    ("<or>", "<or>", False),                                  # IndexError in Nova
    (">=4", ">=4", False),
])
def test_matches(value: specs.Value, text: str, expected: bool) -> None:
    """A value is what the text asks, or is not."""
    assert specs.matches(value, text) is expected


@pytest.mark.parametrize(("text", "why"), [
    ("", "it asks nothing"),
    ("   ", "it asks nothing"),
    (">=4096", "'>=4096' is no operator"),
    ("< 4", "'<' is no operator"),
    ("> 4", "'>' is no operator"),
    ("=> 4", "'=>' is no operator"),
    ("s= abc", "'s=' is no operator"),
    ("~= 4", "'~=' is no operator"),
    ("<not-in> x", "'<not-in>' is no operator"),
    ("!x", "'!x' is no operator"),
    ("==", "nothing follows =="),
    ("<or>", "nothing follows <or>"),
    ("<all-in>", "nothing follows <all-in>"),
    ("= abc", "= compares numbers, and 'abc' is none"),
    (">= inf", ">= compares numbers, and 'inf' is none"),
    ("== 1 2", "== takes one value, and 2 follow"),
    ("<in> a b", "<in> takes one value, and 2 follow"),
    ("<or> a b <or> c", "<or> stands before each of several words"),
    ("<or> a <or>", "<or> stands before each of several words"),
    ("<or> <or> a", "<or> stands before each of several words"),
])
def test_what_is_not_in_the_grammar_is_refused(text: str, why: str) -> None:
    """The refusal names the spec, what is wrong with it, and every operator."""
    with pytest.raises(UsageError) as refused:
        specs.check(text)
    assert refused.value.message == f"extra spec {text!r}: {why}"
    assert all(operator in refused.value.hint for operator in specs.OPERATORS)


@pytest.mark.parametrize("text", ["x86_64", "s== <x>", "<or> a <or> b", "= 2", "<= -0.5", "<all-in> a", "say", "s", "1.0"])
def test_what_is_in_the_grammar_is_accepted(text: str) -> None:
    """Words that only begin as an operator's letters do are texts."""
    specs.check(text)


WORDS = st.sampled_from([*specs.OPERATORS, "a", "b", "1", "2.5", "<x>", "nan", "=1"])


@given(st.none() | st.text() | st.integers() | st.floats() | st.lists(st.text(), max_size=3).map(tuple),
       st.text() | st.lists(WORDS, max_size=5).map(" ".join))
def test_matching_never_raises(value: specs.Value, text: str) -> None:
    """Whatever was stored, a decision is taken; and only what `check` accepts can match."""
    matched = specs.matches(value, text)
    try:
        specs.check(text)
    except UsageError:
        assert not matched
