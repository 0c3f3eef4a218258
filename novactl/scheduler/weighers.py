"""Weighers: of the nodes that will do, which is better. More is better; a profile's multiplier may turn that round.

Adding one is a class here, a row in WEIGHERS and its entry point in pyproject.toml; a plug-in's come by the entry
point alone (`novactl.weighers`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol
from zlib import crc32

from novactl.scheduler.request import NodeView, Request


class Weigher(Protocol):
    """A raw value per node; the pipeline normalises. `minval` and `maxval` fix the scale's ends where they are not None."""

    name: str
    minval: float | None
    maxval: float | None

    def __call__(self, request: Request, node: NodeView) -> float: ...


class Balance:
    """What would be left of the resource the server makes scarcest: 1 - max over classes of (used + amount) / capacity.

    The dominant share (Ghodsi et al., "Dominant Resource Fairness", 2011), after placement and on what the ratios
    allow. The scale is fixed at 0..1: the value of a node does not depend on which other nodes there are.
    """

    name = "balance"
    minval: float | None = 0.0
    maxval: float | None = 1.0

    def __call__(self, request: Request, node: NodeView) -> float:
        dominant = 0.0
        for name, inventory in node.inventories.items():
            wanted = node.used.get(name, 0) + request.amounts.get(name, 0)
            if wanted <= 0:
                continue
            capacity = inventory.capacity
            share = wanted / capacity if capacity > 0 else 1.0
            if share > dominant:
                dominant = share
        return 1.0 - dominant


class Servers:
    """How many servers it has (Nova's NumInstancesWeigher)."""

    name = "servers"
    minval: float | None = None
    maxval: float | None = None

    def __call__(self, request: Request, node: NodeView) -> float:
        return float(node.servers)


class Chance:
    """A number of [0, 1) that depends on `request.seed`, the server and the node alone."""

    name = "chance"
    minval: float | None = 0.0
    maxval: float | None = 1.0

    def __call__(self, request: Request, node: NodeView) -> float:
        return crc32(f"{request.seed}/{request.server}/{node.id}".encode()) / 2**32


balance, servers, chance = Balance(), Servers(), Chance()

WEIGHERS: Mapping[str, Weigher] = {w.name: w for w in (balance, servers, chance)}


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
