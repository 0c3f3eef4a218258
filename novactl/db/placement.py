"""The ledger of claims: who holds how much of which node.

The capacity rule is `novactl.model.resources.shortage`; it is checked again here, in the transaction that writes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from novactl.db import nodes
from novactl.db.statements import Tx, statement
from novactl.errors import Conflict
from novactl.model.node import NodeState
from novactl.model.resources import Amounts, shortage


class Moved(Conflict):
    """The node is no longer what the scheduler saw: place again."""

    code = "placement.moved"


class OverCapacity(Moved):
    """The node no longer has the room."""

    code = "placement.over_capacity"


class ClaimRow(NamedTuple):
    consumer_kind: str
    consumer_id: str
    node_id: str
    resource_class: str
    amount: int


@statement
def q_used(sa: Any, t: Any) -> Any:
    c = t.claim.c
    return sa.select(c.node_id, c.resource_class, sa.func.sum(c.amount)).group_by(c.node_id, c.resource_class)


@statement
def q_used_on(sa: Any, t: Any) -> Any:
    c = t.claim.c
    return sa.select(c.resource_class, sa.func.sum(c.amount)).where(c.node_id == sa.bindparam("by_node_id")).group_by(c.resource_class)


@statement
def q_consumers(sa: Any, t: Any) -> Any:
    c = t.claim.c
    return sa.select(c.node_id, sa.func.count(sa.distinct(c.consumer_id))).group_by(c.node_id)


@statement
def q_held(sa: Any, t: Any) -> Any:
    c = t.claim.c
    return sa.select(c.resource_class, c.amount).where(
        c.consumer_id == sa.bindparam("by_consumer_id"), c.node_id == sa.bindparam("by_node_id"))


@statement
def q_all(sa: Any, t: Any) -> Any:
    c = t.claim.c
    return sa.select(c.consumer_kind, c.consumer_id, c.node_id, c.resource_class, c.amount).order_by(
        c.node_id, c.consumer_id, c.resource_class)


@statement
def q_insert(sa: Any, t: Any) -> Any:
    return sa.insert(t.claim)


@statement
def q_release(sa: Any, t: Any) -> Any:
    c = t.claim.c
    return sa.delete(t.claim).where(c.consumer_id == sa.bindparam("by_consumer_id"), c.node_id == sa.bindparam("by_node_id"))


def used(tx: Tx) -> dict[str, dict[str, int]]:
    """Node id -> resource class -> claimed amount."""
    found: dict[str, dict[str, int]] = {}
    for node_id, name, amount in tx.stream(q_used):
        found.setdefault(node_id, {})[name] = int(amount)
    return found


def used_on(tx: Tx, node_id: str) -> dict[str, int]:
    return {name: int(amount) for name, amount in tx.stream(q_used_on, by_node_id=node_id)}


def consumers(tx: Tx) -> dict[str, int]:
    """Node id -> how many servers hold claims there."""
    return dict(tx.stream(q_consumers))


def all_(tx: Tx) -> list[ClaimRow]:
    return [ClaimRow(*row) for row in tx.stream(q_all)]


def claim(
    tx: Tx, consumer_id: str, node_id: str, amounts: Amounts, *, generation: int | None = None, kind: str = "server",
) -> None:
    """Write that `consumer_id` holds `amounts` on `node_id`.

    Capacity and the node's eligibility are checked again here, in `tx`, with the node's row locked: the scheduler's
    view may be stale by now. `generation` is the node's as the scheduler saw it (None: the room alone decides).
    Repeating a claim that the same consumer already holds changes nothing.
    Raises OverCapacity when it no longer fits and Moved when the node takes no servers now, or has moved on.
    """
    wanted = {name: amount for name, amount in amounts.items() if amount}
    locked = nodes.lock(tx, node_id)
    if locked is None or locked[1] is not NodeState.ENABLED:
        raise Moved(f"node {node_id} takes no servers any more", hint="place again")
    held = dict(tx.stream(q_held, by_consumer_id=consumer_id, by_node_id=node_id))
    if held == wanted:
        return
    if generation is not None and locked[0] != generation:
        raise Moved(f"node {node_id} moved on from generation {generation} to {locked[0]}", hint="place again")
    if held:
        raise Conflict(f"{kind} {consumer_id} holds other amounts on node {node_id}")
    inventories, taken = nodes.inventories_of(tx, node_id), used_on(tx, node_id)
    short = [shortage(inventories.get(name), name, taken.get(name, 0), amount) for name, amount in wanted.items()]
    lacks = [one.text for one in short if one]
    if lacks:
        raise OverCapacity(f"node {node_id} is full by now: {'; '.join(lacks)}", reasons=lacks)
    tx.run_many(q_insert, [
        {"consumer_id": consumer_id, "node_id": node_id, "resource_class": name, "consumer_kind": kind, "amount": amount}
        for name, amount in wanted.items()
    ])
    nodes.bump(tx, node_id, locked[0])


def release(tx: Tx, consumer_id: str, node_id: str) -> None:
    """Give back what `consumer_id` holds on `node_id`; nothing held is success."""
    if tx.run(q_release, by_consumer_id=consumer_id, by_node_id=node_id):
        locked = nodes.lock(tx, node_id)
        if locked is not None:
            nodes.bump(tx, node_id, locked[0])
