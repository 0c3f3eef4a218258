"""Nova's three of free room, each by itself. What is less than nothing counts as nothing (`minval`)."""

from __future__ import annotations

from typing import Any

from novactl.model.resources import MEMORY_MB, VCPU
from novactl.scheduler import physical
from novactl.scheduler.fleet import Fleet
from novactl.scheduler.request import NodeView, Request


class Ram:
    """MiB of memory that are free physically: the ratio is left out (Nova's RAMWeigher)."""

    name = "ram"
    minval: float | None = 0.0
    maxval: float | None = None
    multiplier_key = "ram_weight_multiplier"

    def __call__(self, request: Request, node: NodeView) -> float:
        return float(physical.free(node, MEMORY_MB))


class Cpu:
    """VCPU that may still be claimed, the ratio included (Nova's CPUWeigher)."""

    name = "cpu"
    minval: float | None = 0.0
    maxval: float | None = None
    multiplier_key = "cpu_weight_multiplier"

    def __call__(self, request: Request, node: NodeView) -> float:
        inventory = node.inventories.get(VCPU)
        return float((inventory.capacity if inventory else 0) - node.used.get(VCPU, 0))

    def columns(self, request: Request, fleet: Fleet) -> Any:
        return (fleet.capacity[VCPU] - fleet.used[VCPU]) * 1.0


class Disk:
    """GiB of disk that are free physically, by the claims and by what was measured (Nova's DiskWeigher, there in MiB)."""

    name = "disk"
    minval: float | None = 0.0
    maxval: float | None = None
    multiplier_key = "disk_weight_multiplier"

    def __call__(self, request: Request, node: NodeView) -> float:
        return physical.free_disk_gb(node)


ram, cpu, disk = Ram(), Cpu(), Disk()
