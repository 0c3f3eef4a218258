"""Columns without numpy: the few array operations that vectorised filters and weighers use, on plain lists.

Importing numpy takes longer than deciding among 10,000 nodes, so a command that decides once uses these, and a process that
decides often uses numpy (novactl/scheduler/fleet.py). The names and the meaning are numpy's; a law test holds the two equal.
Both count in 64 bits exactly and divide as IEEE doubles, so the two give the same bits.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from itertools import compress, repeat
from typing import Any


class Lane(list):
    """A column: operators work entry by entry, with another column of the same length or with one number."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __invert__(self) -> Lane:
        return Lane(map(operator.not_, self))

    def __abs__(self) -> Lane:
        return Lane(map(abs, self))


def _elementwise(function: Callable[[Any, Any], Any], *, mirrored: bool = False) -> Callable[[Lane, Any], Lane]:
    def act(self: Lane, other: Any) -> Lane:
        others = other if isinstance(other, list) else repeat(other)
        return Lane(map(function, others, self) if mirrored else map(function, self, others))

    return act


for _name, _function in (
    ("add", operator.add), ("sub", operator.sub), ("mul", operator.mul), ("truediv", operator.truediv), ("mod", operator.mod),
    ("and", operator.and_), ("or", operator.or_),
):
    setattr(Lane, f"__{_name}__", _elementwise(_function))
    setattr(Lane, f"__r{_name}__", _elementwise(_function, mirrored=True))
for _name, _function in (
    ("lt", operator.lt), ("le", operator.le), ("gt", operator.gt), ("ge", operator.ge), ("eq", operator.eq), ("ne", operator.ne),
):
    setattr(Lane, f"__{_name}__", _elementwise(_function))


def asarray(values: Iterable[Any]) -> Lane:
    return Lane(values)


def full(length: int, value: Any) -> Lane:
    return Lane(repeat(value, length))


def take(values: Sequence[Any], indices: Sequence[int]) -> Lane:
    """values[i] for each i of `indices`."""
    return Lane(map(values.__getitem__, indices))


def where(mask: Sequence[Any], this: Any, that: Any) -> Lane:
    these = this if isinstance(this, list) else repeat(this)
    those = that if isinstance(that, list) else repeat(that)
    return Lane(a if keep else b for keep, a, b in zip(mask, these, those, strict=False))


def maximum(one: Any, other: Any) -> Lane:
    return _picked(max, one, other)


def minimum(one: Any, other: Any) -> Lane:
    return _picked(min, one, other)


def _picked(choose: Callable[[Any, Any], Any], one: Any, other: Any) -> Lane:
    ones = one if isinstance(one, list) else repeat(one)
    others = other if isinstance(other, list) else repeat(other)
    return Lane(map(choose, ones, others))


def flatnonzero(mask: Sequence[Any]) -> Lane:
    return Lane(compress(range(len(mask)), mask))


def arrays() -> Any:
    """numpy, imported now: for a process that will decide often. (The plain Lanes of this file are the other choice.)"""
    import numpy

    return numpy
