"""Versions of hypervisors as one number, 1000000*major + 1000*minor + release, as libvirt counts; and what is asked of them. Pure."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping

_ASKED = re.compile(r"\s*(<=|>=|==|!=|<|>)\s*(\d{1,6}(?:\.\d{1,3}){0,2})\s*\Z", re.ASCII)
_COMPARED: Mapping[str, Callable[[int, int], bool]] = {
    "<": operator.lt, "<=": operator.le, "==": operator.eq, "!=": operator.ne, ">=": operator.ge, ">": operator.gt,
}

MAX_DIGITS = 6
"""Of each number of a version: whoever reports it says what they like."""

Comparison = tuple[Callable[[int, int], bool], int]


def version_number(text: str) -> int:
    """'7.2.17' -> 7002017; what follows a third number is left out; 0 for what is not a version."""
    parts = text.split(".")[:3]
    if not all(part.isdecimal() and len(part) <= MAX_DIGITS for part in parts):
        return 0
    major, minor, release = (*map(int, parts), 0, 0)[:3]
    return 1_000_000 * major + 1000 * minor + release


def version_text(number: int) -> str:
    """7002000 -> '7.2.0'."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def comparisons(text: str) -> tuple[Comparison, ...]:
    """'>=7.2, <9' -> what a version is compared by, and with; () where the text is not of that form."""
    found = [_ASKED.match(part) for part in text.split(",")]
    return tuple((_COMPARED[one[1]], version_number(one[2])) for one in found if one) if all(found) else ()
