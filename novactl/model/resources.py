"""Resource classes, inventories and the one capacity rule. Exact: integers only, ratios in thousandths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from novactl.model.units import human_gib, human_mib

VCPU, PCPU, MEMORY_MB, DISK_GB = "VCPU", "PCPU", "MEMORY_MB", "DISK_GB"
STANDARD_CLASSES = (VCPU, PCPU, MEMORY_MB, DISK_GB)
HOT = (VCPU, MEMORY_MB, DISK_GB)
"""The classes that every server asks for: what is read of every node, and written with every claim, is about these."""
MAX_INT = 2**31 - 1

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
    max_unit: int = MAX_INT
    step_size: int = 1
    cached: int = 0
    """DISK_GB: what the image cache holds of it, taken off as `reserved` is."""

    @property
    def capacity(self) -> int:
        """What may be claimed in all: (total - reserved - cached) x ratio, rounded down; never less than 0."""
        return max(0, (self.total - self.reserved - self.cached) * self.ratio_milli // 1000)


@dataclass(frozen=True)
class Shortage:
    """Why an amount does not fit: the numbers, and a sentence."""

    resource_class: str
    needs: int
    free: int
    text: str


_SPOKEN: Mapping[str, tuple[str, Callable[[int], str]]] = {
    VCPU: ("vcpu", str), PCPU: ("pcpu", str), MEMORY_MB: ("memory", human_mib), DISK_GB: ("disk", human_gib),
}


def spoken(resource_class: str, amount: int) -> str:
    """'memory 8.0 GiB', 'vcpu 4', 'CUSTOM_GPU 1'."""
    word, tell = _SPOKEN.get(resource_class, (resource_class, str))
    return f"{word} {tell(amount)}"


def amount_text(resource_class: str, amount: int) -> str:
    """8192 of MEMORY_MB -> '8.0 GiB'; 4 of VCPU -> '4'."""
    return _SPOKEN.get(resource_class, ("", str))[1](amount)


def shortage(inventory: Inventory | None, resource_class: str, used: int, amount: int) -> Shortage | None:
    """None when `amount` more fits; otherwise why not. The one capacity rule:

        used + amount <= (total - reserved - cached) * ratio,  min <= amount <= max,  amount % step == 0

    Source: openstack/placement, objects/allocation.py `_check_capacity_exceeded`, there in floats.
    """
    if amount == 0:
        return None
    free = inventory.capacity - used if inventory else 0
    if inventory and amount <= free and inventory.min_unit <= amount <= inventory.max_unit and amount % inventory.step_size == 0:
        return None
    return Shortage(resource_class, amount, free, _why(inventory, resource_class, used, amount))


def _why(inventory: Inventory | None, resource_class: str, used: int, amount: int) -> str:
    word, tell = _SPOKEN.get(resource_class, (resource_class, str))
    if inventory is None:
        return f"{word}: needs {tell(amount)}, the node has none"
    free = inventory.capacity - used
    if amount > free:
        return (
            f"{word}: needs {tell(amount)}, free {tell(free)} of {tell(inventory.capacity)}"
            f" (ratio {inventory.ratio_milli / 1000}, reserved {tell(inventory.reserved)}"
            f"{f', image cache {tell(inventory.cached)}' if inventory.cached else ''}): short by {tell(amount - free)}"
        )
    if amount > inventory.max_unit:
        return f"{word}: needs {tell(amount)}, the node gives one server at most {tell(inventory.max_unit)}"
    if amount < inventory.min_unit:
        return f"{word}: needs {tell(amount)}, the node gives at least {tell(inventory.min_unit)}"
    return f"{word}: needs {tell(amount)}, the node gives multiples of {tell(inventory.step_size)}"
