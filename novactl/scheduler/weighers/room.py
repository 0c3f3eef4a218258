"""How much room a node has, or would have."""

from __future__ import annotations

from novactl.scheduler.request import NodeView, Request


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


balance = Balance()
