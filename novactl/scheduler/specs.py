"""The operators of extra specs: what `capabilities:free_ram_mb` = '>= 4096' asks of a value. Pure.

The grammar is Nova's (nova/scheduler/filters/extra_specs_ops.py), the trap of '=' included: between numbers it means at least.
What Nova would pass over in silence, or fail on while placing, is refused here when the spec is set: an operator that does not
exist or that nothing follows, a number that is none, and words that would never be looked at.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from novactl.errors import UsageError

Value = str | int | float | tuple[str, ...] | None
"""What a node has: a text, a number, several texts, or nothing."""

NUMERIC: Mapping[str, Callable[[float, float], bool]] = {
    "=": operator.ge, "==": operator.eq, "!=": operator.ne, ">=": operator.ge, "<=": operator.le,
}
TEXTUAL: Mapping[str, Callable[[str, str], bool]] = {
    "s==": operator.eq, "s!=": operator.ne, "s<": operator.lt, "s<=": operator.le, "s>": operator.gt, "s>=": operator.ge,
}
IN, ALL_IN, OR = "<in>", "<all-in>", "<or>"
OPERATORS = (*NUMERIC, *TEXTUAL, IN, ALL_IN, OR)
ACCEPTED = (
    "operators, a space after each: '= N' (at least N), == != >= <= (numbers), s== s!= s< s<= s> s>= (texts), <in> TEXT,"
    " <all-in> TEXT TEXT, <or> TEXT <or> TEXT; without an operator the text itself is compared")
_LIKE_AN_OPERATOR = re.compile(r"s?[<>=!~]")


class Spec(NamedTuple):
    """`operator` "" compares the one operand as a text."""

    operator: str
    operands: tuple[str, ...]


def check(text: str) -> None:
    """Raises UsageError, naming what is accepted, where `parse` does."""
    parse(text)


@lru_cache(maxsize=256)
def parse(text: str) -> Spec:
    """'<or> a <or> b' -> ('<or>', ('a', 'b')). Raises UsageError naming what is accepted."""
    words = text.split()
    if not words:
        raise _refused(text, "it asks nothing")
    first, rest = words[0], words[1:]
    if first not in OPERATORS:
        if _LIKE_AN_OPERATOR.match(first):
            raise _refused(text, f"{first!r} is no operator")
        return Spec("", (text.strip(),))
    if not rest:
        raise _refused(text, f"nothing follows {first}")
    if first == OR:
        return Spec(OR, _alternatives(text, rest))
    if first == ALL_IN:
        return Spec(ALL_IN, tuple(rest))
    if len(rest) > 1:
        raise _refused(text, f"{first} takes one value, and {len(rest)} follow")
    if first in NUMERIC and _number(rest[0]) is None:
        raise _refused(text, f"{first} compares numbers, and {rest[0]!r} is none")
    return Spec(first, tuple(rest))


def matches(value: Value, text: str) -> bool:
    """Whether `value` is what `text` asks. Nothing is never what is asked, nor does a text that `check` refuses match. Never raises.

    Several values match where one of them does; with s!= where none of them is the text.
    """
    try:
        spec = parse(text)
    except UsageError:
        return False
    if value is None:
        return False
    if isinstance(value, tuple):
        return _among(value, spec)
    return _one(value, spec)


def _one(value: str | int | float, spec: Spec) -> bool:
    asked = spec.operands[0]
    if spec.operator in NUMERIC:
        number, other = _number(value), _number(asked)
        return number is not None and other is not None and NUMERIC[spec.operator](number, other)
    told = str(value)
    if spec.operator in TEXTUAL:
        return TEXTUAL[spec.operator](told, asked)
    if spec.operator in (IN, ALL_IN):
        return all(operand in told for operand in spec.operands)
    return told in spec.operands


def _among(values: tuple[str, ...], spec: Spec) -> bool:
    if spec.operator in (IN, ALL_IN):
        return all(operand in values for operand in spec.operands)
    if spec.operator == "s!=":
        return spec.operands[0] not in values
    return any(_one(value, spec) for value in values)


def _alternatives(text: str, words: list[str]) -> tuple[str, ...]:
    """x <or> y <or> z -> (x, y, z)."""
    if len(words) % 2 == 0 or any(word != OR for word in words[1::2]) or OR in words[::2]:
        raise _refused(text, f"{OR} stands before each of several words")
    return tuple(words[::2])


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _refused(text: str, why: str) -> UsageError:
    return UsageError(f"extra spec {text!r}: {why}", hint=ACCEPTED)
