"""Whether what is asked for fits."""

from __future__ import annotations

from typing import Any

from novactl.model.resources import shortage
from novactl.scheduler.fleet import Fleet
from novactl.scheduler.request import NodeView, Reject, Request


class Resources:
    """Every amount fits by the capacity rule (Placement's, in integers); all that do not are named."""

    name = "resources"

    def __call__(self, request: Request, node: NodeView) -> Reject | None:
        inventories, used = node.inventories, node.used
        short = [
            found for name, amount in request.amounts.items()
            if (found := shortage(inventories.get(name), name, used.get(name, 0), amount))
        ]
        if not short:
            return None
        return Reject(
            self.name, "; ".join(s.text for s in short),
            needs={s.resource_class: s.needs for s in short}, has={s.resource_class: s.free for s in short},
        )

    def columns(self, request: Request, fleet: Fleet) -> Any:
        mask: Any = None
        for name, amount in request.amounts.items():
            if not amount:
                continue
            if name not in fleet.capacity:
                return fleet.xp.full(fleet.size, False)
            fits = fleet.after(name, amount) <= fleet.capacity[name]
            if fleet.smallest_max[name] < amount:
                fits = fits & (fleet.max_unit[name] >= amount)
            if name in fleet.min_unit:
                fits = fits & (fleet.min_unit[name] <= amount)
            if name in fleet.step_size:
                fits = fits & (amount % fleet.step_size[name] == 0)
            mask = fits if mask is None else mask & fits
        return mask


resources = Resources()
