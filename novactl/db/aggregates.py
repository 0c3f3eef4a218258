"""Aggregates and who is in them. Every change brings the members' facts up to date."""

from __future__ import annotations

from typing import Any

from novactl.db.derived import lock, reshape
from novactl.db.named import Named
from novactl.db.statements import Row, Tx, from_json, statement, to_json, updates
from novactl.model.aggregate import Aggregate


def _record(row: Row) -> Aggregate:
    return Aggregate(id=row["id"], name=row["name"], metadata=from_json(row["metadata"]), created_at=row["created_at"])


def _row(aggregate: Aggregate) -> dict[str, Any]:
    return {"id": aggregate.id, "name": aggregate.name, "metadata": to_json(dict(aggregate.metadata)), "created_at": aggregate.created_at}


aggregates: Named[Aggregate] = Named("aggregate", _record, _row)
all_, by_name, by_id, by_id_prefix, names = (
    aggregates.all_, aggregates.by_name, aggregates.by_id, aggregates.by_id_prefix, aggregates.names)
insert = aggregates.insert


@statement
def q_update(sa: Any, t: Any) -> Any:
    return updates(sa, t.aggregate, "name", "metadata").where(t.aggregate.c.id == sa.bindparam("by_id"))


@statement
def q_members(sa: Any, t: Any) -> Any:
    m = t.aggregate_node.c
    return sa.select(m.node_id).where(m.aggregate_id == sa.bindparam("by_id")).order_by(m.node_id)


@statement
def q_is_member(sa: Any, t: Any) -> Any:
    m = t.aggregate_node.c
    return sa.select(m.node_id).where(m.aggregate_id == sa.bindparam("by_id"), m.node_id == sa.bindparam("by_node_id"))


@statement
def q_lock(sa: Any, t: Any) -> Any:
    """Before its nodes: MariaDB locks the rows that a membership refers to when it is written, and no more than to read them."""
    return sa.select(t.aggregate.c.id).where(t.aggregate.c.id == sa.bindparam("by_id")).with_for_update(key_share=True)


@statement
def q_add(sa: Any, t: Any) -> Any:
    return sa.insert(t.aggregate_node)


@statement
def q_remove(sa: Any, t: Any) -> Any:
    m = t.aggregate_node.c
    return sa.delete(t.aggregate_node).where(m.aggregate_id == sa.bindparam("by_id"), m.node_id == sa.bindparam("by_node_id"))


@statement
def q_memberships(sa: Any, t: Any) -> Any:
    a = t.aggregate
    return sa.select(t.aggregate_node.c.node_id, a.c.id, a.c.name, a.c.metadata, a.c.created_at).select_from(
        a.join(t.aggregate_node)).order_by(a.c.name)


def update(tx: Tx, aggregate: Aggregate) -> None:
    """Write its name and metadata."""
    tx.run(q_update, by_id=aggregate.id, new_name=aggregate.name, new_metadata=to_json(dict(aggregate.metadata)))
    reshape(tx, members(tx, aggregate.id))


def delete(tx: Tx, aggregate_id: str) -> bool:
    """True when there was one. Its members are no longer in it."""
    there = members(tx, aggregate_id)
    gone = aggregates.delete(tx, aggregate_id)
    reshape(tx, there)
    return gone


def members(tx: Tx, aggregate_id: str) -> list[str]:
    """Ids of its nodes."""
    return [node_id for (node_id,) in tx.stream(q_members, by_id=aggregate_id)]


def add_node(tx: Tx, aggregate_id: str, node_id: str) -> bool:
    """False when it is in it already."""
    tx.one(q_lock, by_id=aggregate_id)
    lock(tx, node_id)
    if tx.one(q_is_member, by_id=aggregate_id, by_node_id=node_id) is not None:
        return False
    tx.run(q_add, aggregate_id=aggregate_id, node_id=node_id)
    reshape(tx, [node_id])
    return True


def remove_node(tx: Tx, aggregate_id: str, node_id: str) -> bool:
    """False when it was not in it."""
    tx.one(q_lock, by_id=aggregate_id)
    lock(tx, node_id)
    if not tx.run(q_remove, by_id=aggregate_id, by_node_id=node_id):
        return False
    reshape(tx, [node_id])
    return True


def memberships(tx: Tx) -> dict[str, list[Aggregate]]:
    """Node id -> its aggregates by name, of the nodes that are in any."""
    found: dict[str, list[Aggregate]] = {}
    known: dict[str, Aggregate] = {}
    for node_id, id_, name, metadata, created_at in tx.stream(q_memberships):
        if id_ not in known:
            known[id_] = Aggregate(id=id_, name=name, metadata=from_json(metadata), created_at=created_at)
        found.setdefault(node_id, []).append(known[id_])
    return found
