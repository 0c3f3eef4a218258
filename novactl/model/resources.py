"""Resource classes, inventories and the one capacity rule. Exact: integers only, ratios in thousandths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping

VCPU, MEMORY_MB, DISK_GB = "VCPU", "MEMORY_MB", "DISK_GB"
STANDARD_CLASSES = (VCPU, MEMORY_MB, DISK_GB)

Amounts = Mapping[str, int]
"""Resource class -> integer amount in the class's own unit."""


@dataclass(frozen=True)
class Inventory:
    """What a node has of one resource class (openstack/placement's inventory).

    `ratio_milli` is the allocation ratio times 1000. `max_unit` is the most one server may hold (Nova sets it to
    the physical total: no server overcommits against itself).
    """

    resource_class: str
    total: int
    reserved: int = 0
    ratio_milli: int = 1000
    min_unit: int = 1
    max_unit: int = 2**31 - 1
    step_size: int = 1

    @property
    def capacity(self) -> int:
        """What may be claimed in all: (total - reserved) x ratio, rounded down."""
        return (self.total - self.reserved) * self.ratio_milli // 1000


@dataclass(frozen=True)
class Shortage:
    """Why an amount does not fit: the numbers, and a sentence."""

    resource_class: str
    needs: int
    free: int
    text: str


def shortage(inventory: Inventory | None, resource_class: str, used: int, amount: int) -> Shortage | None:
    """None when `amount` more fits; otherwise why not. The one capacity rule (DESIGN: placement ledger):

        used + amount <= (total - reserved) * ratio,  min <= amount <= max,  amount % step == 0

    Source: openstack/placement, objects/allocation.py `_check_capacity_exceeded`, there in floats.
    """
    if amount == 0:
        return None
    if inventory is None:
        return Shortage(resource_class, amount, 0, f"has no {resource_class}")
    free = inventory.capacity - used
    if amount > free:
        ratio = f"{inventory.ratio_milli / 1000:g}"
        return Shortage(
            resource_class, amount, free,
            f"{resource_class}: needs {amount}, free {free} of {inventory.capacity}"
            f" (total {inventory.total}, reserved {inventory.reserved}, ratio {ratio}, used {used}): short by {amount - free}",
        )
    if amount > inventory.max_unit:
        return Shortage(
            resource_class, amount, free,
            f"{resource_class}: needs {amount} for one server, the node allows at most {inventory.max_unit}")
    if amount < inventory.min_unit:
        return Shortage(resource_class, amount, free, f"{resource_class}: needs {amount}, the node gives at least {inventory.min_unit}")
    if amount % inventory.step_size:
        return Shortage(resource_class, amount, free, f"{resource_class}: {amount} is not a multiple of {inventory.step_size}")
    return None
