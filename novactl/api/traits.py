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
    pools: set[str] = set()
    totals: dict[str, list[int]] = {name: [0, 0, 0] for name in STANDARD_CLASSES}
    shared = {node.id: node.shared_disk for node in nodes.rows(tx) if node.shared_disk}
    for node_id, inventories in stock.items():
        for name, inventory in inventories.items():
            sums = totals.setdefault(name, [0, 0, 0])
            sums[0] += 1
            pool = shared.get(node_id, "") if name == DISK_GB else ""
            if pool not in pools or not pool:
                sums[1] += inventory.total
                sums[2] += inventory.capacity
                pools.add(pool)
    held: dict[str, int] = {}
    for amounts in used.values():
        for name, amount in amounts.items():
            held[name] = held.get(name, 0) + amount
    for name in held:
        totals.setdefault(name, [0, 0, 0])
    order = {name: number for number, name in enumerate(STANDARD_CLASSES)}
    return tuple(
        ClassRow(name, "standard" if name in order else "custom", *sums, held.get(name, 0))
        for name, sums in sorted(totals.items(), key=lambda item: (order.get(item[0], len(order)), item[0])))


def _counts(tx: Tx) -> dict[str, int]:
    """Trait -> nodes that have it."""
    counts: dict[str, int] = {}
    shapes = nodes.shapes(tx)
    for node in nodes.rows(tx):
        for trait in shapes[node.shape].traits if node.shape in shapes else ():
            counts[trait] = counts.get(trait, 0) + 1
    return counts
