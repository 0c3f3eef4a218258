"""What nodes have: inventories by resource class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from novactl.db.derived import inventory, lock, q_stock, resum
from novactl.db.statements import Tx, statement, updates
from novactl.errors import InUse
from novactl.model.resources import DISK_GB, PCPU, Inventory

_FIELDS = ("total", "reserved", "ratio_milli", "min_unit", "max_unit", "step_size", "cached")


@statement
def q_all(sa: Any, t: Any) -> Any:
    return sa.select(t.inventory).order_by(t.inventory.c.node_id, t.inventory.c.resource_class)


@statement
def q_insert(sa: Any, t: Any) -> Any:
    return sa.insert(t.inventory)


@statement
def q_write(sa: Any, t: Any) -> Any:
    return updates(sa, t.inventory, *_FIELDS).where(
        t.inventory.c.node_id == sa.bindparam("by_node_id"), t.inventory.c.resource_class == sa.bindparam("by_class"))


@statement
def q_delete(sa: Any, t: Any) -> Any:
    return sa.delete(t.inventory).where(
        t.inventory.c.node_id == sa.bindparam("by_node_id"), t.inventory.c.resource_class == sa.bindparam("by_class"))


@statement
def q_held(sa: Any, t: Any) -> Any:
    c = t.claim.c
    return sa.select(sa.func.coalesce(sa.func.sum(c.amount), 0)).where(
        c.node_id == sa.bindparam("by_node_id"), c.resource_class == sa.bindparam("by_class"))


def inventories(tx: Tx) -> dict[str, dict[str, Inventory]]:
    """Node id -> resource class -> inventory, of every node, in one query. Equal ones are one object."""
    found: dict[str, dict[str, Inventory]] = {}
    known: dict[tuple, Inventory] = {}
    for row in tx.stream(q_all):
        one = known.get(row[1:])
        if one is None:
            one = known[row[1:]] = Inventory(*row[1:])
        there = found.get(row[0])
        if there is None:
            there = found[row[0]] = {}
        there[one.resource_class] = one
    return found


def inventories_of(tx: Tx, node_id: str) -> dict[str, Inventory]:
    return {row["resource_class"]: inventory(row) for row in tx.all(q_stock, by_node_id=node_id)}


def ensure_inventory(tx: Tx, node_id: str, wanted: Mapping[str, Inventory]) -> None:
    """Write the inventories a node lacks; those it has stay as they were set."""
    lock(tx, node_id)
    there = inventories_of(tx, node_id)
    lacking = [one for name, one in wanted.items() if name not in there]
    for one in lacking:
        _insert(tx, node_id, one)
    if lacking:
        resum(tx, node_id)


def set_inventory(tx: Tx, node_id: str, wanted: Inventory) -> None:
    """Write one class of a node's inventory; a class with total 0 is removed.

    It may be less than what is claimed: what is held stays, and nothing more fits. Raises InUse where a class that
    somebody holds would be removed.
    """
    node = lock(tx, node_id)
    if node is None or inventories_of(tx, node_id).get(wanted.resource_class) == wanted:
        return
    if wanted.total == 0:
        ((held,),) = tx.stream(q_held, by_node_id=node_id, by_class=wanted.resource_class)
        if held:
            raise InUse(f"node {node['name']}: {wanted.resource_class} is in use, {held} of it is claimed",
                        hint="delete the servers that hold it first", command="novactl placement list")
        tx.run(q_delete, by_node_id=node_id, by_class=wanted.resource_class)
    else:
        _put(tx, node_id, wanted)
    resum(tx, node_id)


def set_totals(tx: Tx, node_id: str, totals: Mapping[str, int], cached_gb: int) -> bool:
    """What the host says it has now (memory added, a pool grown, images cached): ratios and reservations stay as they were set.

    A class the node has no inventory of is passed over, but for PCPU, which comes and goes with the CPUs kept for it.
    True when anything changed; then the generation is raised.
    """
    lock(tx, node_id)
    there, changed = inventories_of(tx, node_id), False
    for name, total in totals.items():
        old = there.get(name)
        if old is None:
            if name != PCPU or total == 0:
                continue
            old = Inventory(PCPU, total=0)
        new = dataclasses.replace(old, total=total, max_unit=old.max_unit if old.total == total else max(1, total),
                                  cached=cached_gb if name == DISK_GB else old.cached)
        if new != old:
            _put(tx, node_id, new)
            changed = True
    if PCPU in there and not totals.get(PCPU):
        changed = bool(tx.run(q_delete, by_node_id=node_id, by_class=PCPU)) or changed
    if changed:
        resum(tx, node_id)
    return changed


def _put(tx: Tx, node_id: str, one: Inventory) -> None:
    values = {f"new_{name}": getattr(one, name) for name in _FIELDS}
    if not tx.run(q_write, by_node_id=node_id, by_class=one.resource_class, **values):
        _insert(tx, node_id, one)


def _insert(tx: Tx, node_id: str, one: Inventory) -> None:
    tx.run(q_insert, node_id=node_id, **dataclasses.asdict(one))
