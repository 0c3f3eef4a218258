"""What a weigher is, and the scale its values are brought to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from novactl.model.facts import Facts
from novactl.scheduler import lanes
from novactl.scheduler.request import NodeView, Request


class Weigher(Protocol):
    """A raw value per node, more is better; the pipeline normalises. `minval` and `maxval` fix the scale's ends where they are not None.

    It may have `applies` and `by_facts` as a filter has, `columns(request, fleet)` (the floats of `__call__` for the nodes that
    pass the filters, or one float where it is the same for all), and `multiplier_key` with `negated` (see `multiplier_of`).
    """

    name: str
    minval: float | None
    maxval: float | None

    def __call__(self, request: Request, node: NodeView) -> float: ...


def multiplier_of(weigher: Weigher, multiplier: float, facts: Facts) -> float:
    """The profile's multiplier, or the least that the node's aggregates give under the weigher's `multiplier_key`.

    Nova writes some of those as how much a thing counts against a node: where the weigher is `negated`, the sign is turned.
    """
    key = getattr(weigher, "multiplier_key", "")
    found = facts.least(key) if key and facts.aggregates else None
    if found is None:
        return multiplier
    return -found if getattr(weigher, "negated", False) else found


def normalise(raw: Sequence[float], minval: float | None = None, maxval: float | None = None) -> list[float]:
    """Raw values -> [0, 1] by (x - min) / (max - min), as nova/weights.py does.

    `minval` and `maxval` replace the ends found, and values are clamped to them first. All equal ends give 0, and so
    does a single value: one candidate is not weighed.
    """
    if len(raw) < 2:
        return [0.0] * len(raw)
    low = min(raw) if minval is None else minval
    high = max(raw) if maxval is None else maxval
    if not high > low:
        return [0.0] * len(raw)
    span = high - low
    return [(min(max(value, low), high) - low) / span for value in raw]


def normalised(xp: Any, raw: Any, count: int, minval: float | None = None, maxval: float | None = None) -> Any:
    """`normalise` over a column of `count` values."""
    if count < 2:
        return xp.full(count, 0.0)
    least, most = (min(raw), max(raw)) if xp is lanes else (raw.min(), raw.max())
    low, high = least if minval is None else minval, most if maxval is None else maxval
    if not high > low:
        return xp.full(count, 0.0)
    if least < low:
        raw = xp.maximum(raw, low)
    if most > high:
        raw = xp.minimum(raw, high)
    if low == 0 and high == 1:                                # the scale is there already: what follows would change no bit
        return raw
    return (raw - low) / (high - low)
