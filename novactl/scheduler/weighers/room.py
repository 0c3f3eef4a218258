"""How much room a node has, or would have."""

from __future__ import annotations

from typing import Any

from novactl.scheduler.fleet import Fleet
from novactl.scheduler.request import NodeView, Request


class Balance:
    """What would be left of the resource the server makes scarcest: 1 - max over classes of (used + amount) / capacity.

    The dominant share (Ghodsi et al., "Dominant Resource Fairness", 2011), after placement and on what the ratios
    allow. The scale is fixed at 0..1: the value of a node does not depend on which other nodes there are.
    """

    name = "balance"
    minval: float | None = 0.0
    maxval: float | None = 1.0
    multiplier_key = "balance_weight_multiplier"

    def __call__(self, request: Request, node: NodeView) -> float:
        dominant = 0.0
        for name in {**node.inventories, **node.used}:
            wanted = node.used.get(name, 0) + request.amounts.get(name, 0)
            if wanted <= 0:
                continue
            inventory = node.inventories.get(name)
            capacity = inventory.capacity if inventory else 0
            share = wanted / capacity if capacity > 0 else 1.0
            if share > dominant:
                dominant = share
        return 1.0 - dominant

    def columns(self, request: Request, fleet: Fleet) -> Any:
        xp, dominant = fleet.xp, None
        for name in fleet.capacity:
            share = fleet.share(name, request.amounts.get(name, 0))
            if name in fleet.lacking:
                share = xp.where(fleet.after(name, request.amounts.get(name, 0)) > 0, share, 0.0)
            dominant = share if dominant is None else xp.maximum(dominant, share)
        return 1.0 - (xp.full(fleet.size, 0.0) if dominant is None else dominant)


balance = Balance()
