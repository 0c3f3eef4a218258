"""Traits and resource classes: which there are, and how many nodes have them."""

from __future__ import annotations

from typing import NamedTuple

from novactl.cluster import Cluster
from novactl.db import nodes, placement
from novactl.db.statements import Tx
from novactl.model.extra_specs import is_custom
from novactl.model.resources import DISK_GB, STANDARD_CLASSES


class TraitRow(NamedTuple):
    """`origin`: reported or custom."""

    name: str
    nodes: int
    origin: str


class ClassRow(NamedTuple):
    """What all nodes have together of a class; a disk that several share counts once. `origin`: standard or custom."""

    name: str
    origin: str
    nodes: int
    total: int
    capacity: int
    used: int


def list_traits(cluster: Cluster) -> tuple[TraitRow, ...]:
    """Those that a node has, by name."""
    with cluster.db.read() as tx:
        counts = _counts(tx)
    return tuple(TraitRow(name, count, "custom" if is_custom(name) else "reported") for name, count in sorted(counts.items()))


def names(tx: Tx, prefix: str) -> list[str]:
    return sorted(name for name in _counts(tx) if name.startswith(prefix))


def list_classes(cluster: Cluster) -> tuple[ClassRow, ...]:
    """The standard classes, and the custom ones that a node has."""
    with cluster.db.read() as tx:
        return class_rows(tx)


def class_rows(tx: Tx) -> tuple[ClassRow, ...]:
    """As `list_classes`."""
    stock, used = nodes.inventories(tx), placement.used(tx)
    sums: dict[str, list[int]] = {name: [0, 0, 0, 0] for name in STANDARD_CLASSES}
    pools: set[str] = set()
    for node in nodes.rows(tx):
        held, inventories = used.get(node.id, {}), stock.get(node.id, {})
        for name in {**inventories, **held}:
            row, inventory = sums.setdefault(name, [0, 0, 0, 0]), inventories.get(name)
            row[0] += inventory is not None
            if name == DISK_GB and node.shared_disk in pools:
                continue                                      # what its pool has, and holds, was counted with another node
            row[1] += inventory.total if inventory else 0
            row[2] += inventory.capacity if inventory else 0
            row[3] += held.get(name, 0)
        if node.shared_disk:
            pools.add(node.shared_disk)
    order = {name: number for number, name in enumerate(STANDARD_CLASSES)}
    return tuple(
        ClassRow(name, "standard" if name in order else "custom", *row)
        for name, row in sorted(sums.items(), key=lambda item: (order.get(item[0], len(order)), item[0])))


def _counts(tx: Tx) -> dict[str, int]:
    """Trait -> nodes that have it."""
    counts: dict[str, int] = {}
    shapes = nodes.shapes(tx)
    for node in nodes.rows(tx):
        for trait in shapes[node.shape].traits if node.shape in shapes else ():
            counts[trait] = counts.get(trait, 0) + 1
    return counts
