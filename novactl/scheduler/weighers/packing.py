"""Packing: what a node would be left with should still be of use to the next server."""

from __future__ import annotations

from typing import Any

from novactl.model.resources import MEMORY_MB, VCPU
from novactl.scheduler.fleet import Fleet
from novactl.scheduler.request import NodeView, Request


class Imbalance:
    """How far apart the shares of processors and memory are once the server is there: |VCPU share - memory share|, less is better.

    What is left of one where the other is used up serves nobody. Both shares are (used + amount) / capacity, on what the
    ratios allow, so that hosts of different shape are compared by their own shape; a node without one of the two has none left
    of it. The scale is fixed at 0..1.
    """

    name = "imbalance"
    minval: float | None = 0.0
    maxval: float | None = 1.0
    multiplier_key = "imbalance_weight_multiplier"

    def __call__(self, request: Request, node: NodeView) -> float:
        return abs(_share(request, node, VCPU) - _share(request, node, MEMORY_MB))

    def columns(self, request: Request, fleet: Fleet) -> Any:
        vcpu, memory = (fleet.share(name, request.amounts.get(name, 0)) for name in (VCPU, MEMORY_MB))
        return abs(vcpu - memory)


def _share(request: Request, node: NodeView, name: str) -> float:
    inventory = node.inventories.get(name)
    capacity = inventory.capacity if inventory else 0
    return (node.used.get(name, 0) + request.amounts.get(name, 0)) / capacity if capacity > 0 else 1.0


imbalance = Imbalance()
