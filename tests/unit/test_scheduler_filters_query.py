"""The JSON query: what it finds, what it refuses, and that answering it cannot fail."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novactl.scheduler.filters import query
from novactl.scheduler.filters.capabilities import CAPABILITIES
from novactl.scheduler.filters.query import BadQuery
from tests.unit.scheduler_world import NODE, kind, node, verdict, wanting


@pytest.mark.parametrize(("asked", "failing"), [
    # NODE: 11776 MiB free (16384 - 512 - 4096), 65 GiB of disk, 3 servers, zone z1, rack r1, tier 3
    ([">=", "$free_ram_mb", 11776], ""),
    ([">", "$free_ram_mb", 11776], "$free_ram_mb (is 11776) > 11776"),
    (["<", 1024, "$free_ram_mb"], ""),
    (["<", 1024, "$free_ram_mb", "$free_disk_mb"], ""),                        # 1024 < 11776 and 1024 < 66560
    (["<", 20000, "$free_ram_mb", "$free_disk_mb"], "20000 < $free_ram_mb (is 11776), $free_disk_mb (is 66560)"),
    (["=", "$zone", "z1"], ""),
    (["=", "$zone", "z1", "z2"], "$zone (is z1) = \"z1\", \"z2\""),              # equal to each
    (["<=", "$vcpus_used", "$vcpus_total"], ""),                               # 6 <= 8
    (["in", "$zone", "z2", "z1"], ""),
    (["in", "$zone", "z2", "z3"], "$zone (is z1) in \"z2\", \"z3\""),
    (["in", "CUSTOM_SSD", "$traits"], ""),
    (["in", "CUSTOM_GPU", "$traits"], "\"CUSTOM_GPU\" in $traits (has CUSTOM_SSD, HW_CPU_X86_AVX2)"),
    (["in", "fast", "$aggregates"], "\"fast\" in $aggregates (has none)"),
    (["in", 3, 1, 2, 3], ""),
    (["=", "$labels.rack", "r1"], ""),
    (["=", "$labels:rack", "r2"], "$labels:rack (is r1) = \"r2\""),
    (["=", "$labels.row", "1"], "$labels.row (not known) = \"1\""),
    (["<", "$labels.row", "z"], "$labels.row (not known) < \"z\""),
    (["=", "z1", "$zone", "$labels.row"], "\"z1\" = $zone (is z1), $labels.row (not known)"),
    (["not", ["=", "$labels.row", "1"]], ""),                                  # not known is not equal
    (["not", ["=", "$zone", "z1"]], "not ($zone (is z1) = \"z1\")"),
    (["and", ["=", "$zone", "z1"], [">=", "$num_instances", 1]], ""),
    (["and", ["=", "$zone", "z1"], [">=", "$num_instances", 4], ["=", "$host", "n2"]],
     "$num_instances (is 3) >= 4; $host (is n1) = \"n2\""),                      # those that fail
    (["or", ["=", "$zone", "z2"], ["=", "$zone", "z1"]], ""),
    (["or", ["=", "$zone", "z2"], ["=", "$zone", "z3"]], "($zone (is z1) = \"z2\") or ($zone (is z1) = \"z3\")"),
    (["not", ["and", ["=", "$zone", "z1"], ["=", "$host", "n1"]]], "not (($zone (is z1) = \"z1\") and ($host (is n1) = \"n1\"))"),
    ([], ""),                                                                  # asks nothing
])
def test_query(asked: Any, failing: str) -> None:
    """A query holds, or the sentence shows the parts that do not, with what the node has."""
    assert verdict("query", wanting(query=json.dumps(asked)), NODE) == (f"query: does not hold: {failing}" if failing else None)


@pytest.mark.parametrize(("text", "why"), [
    ("{", "the query is not JSON: Expecting property name"),
    ("[\"=\", \"$zone\", NaN]", "the query is not JSON: NaN is no number"),
    ("1", "query: 1 is no expression"),
    ("{}", "query: {} is no expression"),
    ("[\"~\", 1, 2]", "query: \"~\" is no operator"),
    ("[1, 2, 3]", "query: 1 is no operator"),
    ("[[\"=\", 1, 1]]", "query: [\"=\", 1, 1] is no operator"),
    ("[\"=\", \"$zone\"]", "query: = takes two values or more, 1 given"),
    ("[\"in\"]", "query: in takes two values or more, 0 given"),
    ("[\"and\"]", "query: and takes expressions, 0 are given"),
    ("[\"not\"]", "query: not takes one expression, 0 are given"),
    ("[\"not\", [\"=\", 1, 1], [\"=\", 1, 2]]", "query: not takes one expression, 2 are given"),
    ("[\"and\", true]", "query: true is no expression"),
    ("[\"or\", []]", "query: [] is no expression"),
    ("[\"=\", \"$free_ram\", 1]", "query: there is no \"$free_ram\""),
    ("[\"=\", \"$\", 1]", "query: there is no \"$\""),
    ("[\"=\", \"$labels.\", \"x\"]", "query: there is no \"$labels.\""),
    ("[\"=\", \"$zone\", null]", "query: null is neither a number nor a text"),
    ("[\"=\", 1, true]", "query: true is neither a number nor a text"),
    ("[\"=\", [\"=\", 1, 1], 1]", "query: [\"=\", 1, 1] is neither a number nor a text"),
    ("[\">\", \"$free_ram_mb\", \"4096\"]", "query: > compares a number with a text: $free_ram_mb (number), \"4096\" (text)"),
    ("[\"=\", \"$labels.tier\", 3]", "query: = compares a number with a text: $labels.tier (text), 3 (number)"),
    ("[\"in\", 3, \"$traits\"]", "query: in compares a number with a text: 3 (number), $traits (texts)"),
    ("[\"=\", \"$traits\", \"X\"]", "query: $traits is several texts"),
    ("[\"in\", \"$traits\", \"X\"]", "query: $traits is several texts"),
    ("[\"not\", " * 17 + "[\"=\", 1, 1]" + "]" * 17, "the query is nested deeper than 16 levels"),
    ("\"" + "x" * 4095 + "\"", "the query has 4097 characters, at most 4096 are read"),
])
def test_what_is_no_query_is_refused(text: str, why: str) -> None:
    """The refusal says what is wrong and what is accepted; a query that got by it all the same rejects nodes with that sentence."""
    with pytest.raises(BadQuery) as refused:
        query.check(text)
    assert refused.value.message.startswith(why)
    assert (verdict("query", wanting(query=text), NODE) or "").startswith(why)


def test_the_refusals_name_what_is_accepted() -> None:
    """Operators, capabilities and the form are in the hints."""
    for text, accepted in (
        ("[\"~\", 1, 2]", query.OPERATORS), ("[\"=\", \"$x\", 1]", [*CAPABILITIES, "$labels.KEY"]),
        ("{", ["[\">=\", \"$free_ram_mb\", 4096]"]),
    ):
        with pytest.raises(BadQuery) as refused:
            query.check(text)
        assert all(word in refused.value.hint for word in accepted)


@pytest.mark.parametrize("depth", [100, 500, 990, 2000])
def test_brackets_without_end_are_refused(depth: int) -> None:
    """However deep the nesting, closed or not, it ends in a refusal."""
    for text in ("[" * depth, "[" * depth + "]" * depth, "[\"=\", 1, " + "[" * depth + "]" * depth + "]"):
        with pytest.raises(BadQuery):
            query.check(text)


def test_sixteen_levels_are_read() -> None:
    """At the bound itself a query is answered: an even number of nots changes nothing."""
    query.check("[\"not\", " * 15 + "[\"=\", 1, 1]" + "]" * 15)
    assert verdict("query", wanting(query="[\"not\", " * 14 + "[\"=\", 1, 1]" + "]" * 14), NODE) is None


ATOMS = st.one_of(
    st.sampled_from([f"${name}" for name in CAPABILITIES] + ["$labels.rack", "$nothing", "$"]), st.text(max_size=3), st.integers(),
    st.floats(), st.booleans(), st.none(), st.sampled_from(query.OPERATORS))
PLAIN = st.recursive(ATOMS, lambda inner: st.lists(inner, max_size=4), max_leaves=12)
SHAPED = st.recursive(
    st.tuples(st.sampled_from([*query.COMPARED, "in"]), ATOMS, ATOMS).map(list),
    lambda inner: st.tuples(st.sampled_from(["and", "or", "not"]), inner).map(list) | st.tuples(st.just("or"), inner, inner).map(list),
    max_leaves=6)


@given(PLAIN | SHAPED, st.sampled_from([NODE, kind(labels={}, zone="", cpu_model="", traits=frozenset()), node(inventories={}, used={})]))
def test_answering_never_raises(plain: Any, seen: Any) -> None:
    """Any JSON is refused with BadQuery when it is asked, or answered; the filter itself never fails."""
    text = json.dumps(plain)
    verdict("query", wanting(query=text), seen)
    try:
        query.check(text)
    except BadQuery:
        return
    expression = query.parse(text)
    assert expression is None or query.holds(expression, seen) == (verdict("query", wanting(query=text), seen) is None)
