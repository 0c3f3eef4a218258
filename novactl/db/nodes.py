"""Nodes, their last reports and their inventories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from novactl.db.named import Named
from novactl.db.statements import Row, Tx, from_json, statement, to_json, updates
from novactl.errors import Conflict
from novactl.model.node import Node, NodeState
from novactl.model.resources import Inventory


def _record(row: Row) -> Node:
    plain = dict(row)
    plain["state"] = NodeState(plain["state"])
    for name in ("labels", "report", "undo"):
        plain[name] = from_json(plain[name])
    return Node(**plain)


def _row(node: Node) -> dict[str, Any]:
    return {
        "id": node.id, "name": node.name, "state": node.state.value, "reason": node.reason, "address": node.address,
        "public_key": node.public_key, "ssh": node.ssh, "host_key": node.host_key, "zone": node.zone,
        "architecture": node.architecture, "agent_version": node.agent_version, "labels": to_json(dict(node.labels)),
        "generation": node.generation, "report": None if node.report is None else to_json(node.report),
        "reported_at": node.reported_at, "silent_since": node.silent_since, "undo": to_json(dict(node.undo)),
        "created_at": node.created_at,
    }


nodes: Named[Node] = Named("node", _record, _row)
all_, by_name, by_id, by_id_prefix, names = nodes.all_, nodes.by_name, nodes.by_id, nodes.by_id_prefix, nodes.names
insert, delete = nodes.insert, nodes.delete


@statement
def q_update(sa: Any, t: Any) -> Any:
    return updates(
        sa, t.node, "state", "reason", "address", "public_key", "ssh", "host_key", "zone", "architecture", "agent_version",
        "labels", "undo",
    ).where(t.node.c.id == sa.bindparam("by_id"))


@statement
def q_bump(sa: Any, t: Any) -> Any:
    return sa.update(t.node).values(generation=t.node.c.generation + 1).where(
        t.node.c.id == sa.bindparam("by_id"), t.node.c.generation == sa.bindparam("by_generation"))


@statement
def q_lock(sa: Any, t: Any) -> Any:
    return sa.select(t.node.c.generation, t.node.c.state).where(t.node.c.id == sa.bindparam("by_id")).with_for_update()


@statement
def q_report(sa: Any, t: Any) -> Any:
    return updates(sa, t.node, "report", "reported_at", "silent_since", "agent_version").where(t.node.c.id == sa.bindparam("by_id"))


@statement
def q_silent(sa: Any, t: Any) -> Any:
    return updates(sa, t.node, "silent_since").where(t.node.c.id == sa.bindparam("by_id"), t.node.c.silent_since.is_(None))


@statement
def q_inventories(sa: Any, t: Any) -> Any:
    return sa.select(t.inventory).order_by(t.inventory.c.node_id, t.inventory.c.resource_class)


@statement
def q_inventories_of(sa: Any, t: Any) -> Any:
    return sa.select(t.inventory).where(t.inventory.c.node_id == sa.bindparam("by_node_id"))


@statement
def q_inventory_insert(sa: Any, t: Any) -> Any:
    return sa.insert(t.inventory)


@statement
def q_inventory_total(sa: Any, t: Any) -> Any:
    return updates(sa, t.inventory, "total", "max_unit").where(
        t.inventory.c.node_id == sa.bindparam("by_node_id"), t.inventory.c.resource_class == sa.bindparam("by_class"),
        t.inventory.c.total != sa.bindparam("new_total"))


def update(tx: Tx, node: Node) -> None:
    """Write all of `node` but its report, its generation and its birth."""
    row = _row(node)
    for name in ("generation", "report", "reported_at", "silent_since", "created_at", "name"):
        del row[name]
    tx.run(q_update, by_id=row.pop("id"), **{f"new_{name}": value for name, value in row.items()})


def bump(tx: Tx, node_id: str, generation: int) -> None:
    """Raise the generation of a node seen, and locked, at `generation`. Raises Conflict when it has moved on all the same."""
    if tx.run(q_bump, by_id=node_id, by_generation=generation) != 1:
        raise Conflict(f"node {node_id} changed since it was read", hint="place again")


def lock(tx: Tx, node_id: str) -> tuple[int, NodeState] | None:
    """The node's generation and state, locked until the transaction ends; None when it is gone."""
    row = tx.one(q_lock, by_id=node_id)
    return None if row is None else (row["generation"], NodeState(row["state"]))


def take_report(tx: Tx, node_id: str, report: Mapping[str, Any], at: float) -> None:
    """Store a report (nodeagent.wire.Report as JSON) taken at `at`; the node is no longer silent."""
    tx.run(
        q_report, by_id=node_id, new_report=to_json(report), new_reported_at=at, new_silent_since=None,
        new_agent_version=report["agent_version"],
    )


def silent(tx: Tx, node_id: str, at: float) -> None:
    """Note that a call got no answer, if that is news."""
    tx.run(q_silent, by_id=node_id, new_silent_since=at)


def _inventory(row: Row) -> Inventory:
    plain = dict(row)
    del plain["node_id"]
    return Inventory(**plain)


def inventories(tx: Tx) -> dict[str, dict[str, Inventory]]:
    """Node id -> resource class -> inventory, of every node, in one query."""
    found: dict[str, dict[str, Inventory]] = {}
    for row in tx.all(q_inventories):
        found.setdefault(row["node_id"], {})[row["resource_class"]] = _inventory(row)
    return found


def inventories_of(tx: Tx, node_id: str) -> dict[str, Inventory]:
    return {row["resource_class"]: _inventory(row) for row in tx.all(q_inventories_of, by_node_id=node_id)}


def ensure_inventory(tx: Tx, node_id: str, wanted: Mapping[str, Inventory]) -> None:
    """Write the inventories a node lacks; those it has stay as they were set."""
    there = inventories_of(tx, node_id)
    for name, inventory in wanted.items():
        if name not in there:
            tx.run(
                q_inventory_insert, node_id=node_id, resource_class=name, total=inventory.total, reserved=inventory.reserved,
                ratio_milli=inventory.ratio_milli, min_unit=inventory.min_unit, max_unit=inventory.max_unit,
                step_size=inventory.step_size,
            )


def set_total(tx: Tx, node_id: str, resource_class: str, total: int) -> None:
    """The host has another total now (memory added, pool grown): ratio and reservation stay as they were set."""
    tx.run(q_inventory_total, by_node_id=node_id, by_class=resource_class, new_total=total, new_max_unit=max(1, total))
