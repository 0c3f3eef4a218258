"""What a weigher is, and the scale its values are brought to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from novactl.scheduler.request import NodeView, Request


class Weigher(Protocol):
    """A raw value per node; the pipeline normalises. `minval` and `maxval` fix the scale's ends where they are not None."""

    name: str
    minval: float | None
    maxval: float | None

    def __call__(self, request: Request, node: NodeView) -> float: ...


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
