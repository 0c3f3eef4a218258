"""What a node has and has left in the host's own units: ratios are left out, as Nova does where it speaks of free memory and disk."""

from __future__ import annotations

from novactl.model.resources import DISK_GB
from novactl.scheduler.request import NodeView


def total(node: NodeView, resource_class: str) -> int:
    """In the class's own unit; 0 where the node has none."""
    inventory = node.inventories.get(resource_class)
    return inventory.total if inventory else 0


def free(node: NodeView, resource_class: str) -> int:
    """Neither reserved, nor in the image cache, nor claimed. Less than 0 where more is claimed than there is."""
    inventory = node.inventories.get(resource_class)
    has = inventory.total - inventory.reserved - inventory.cached if inventory else 0
    return has - node.used.get(resource_class, 0)


def free_disk_gb(node: NodeView) -> float:
    """The lesser of what is unclaimed and what the last report found empty (Nova's disk_available_least)."""
    unclaimed, measured = free(node, DISK_GB), node.metrics.get("disk_used_gb")
    return float(unclaimed) if measured is None else min(float(unclaimed), total(node, DISK_GB) - measured)
