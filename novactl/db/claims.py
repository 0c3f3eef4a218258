"""The rows of the ledger: who holds how much of what, and which pieces. Written by `novactl.db.placement` alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from novactl.db.derived import COLUMN_OF, q_claimed
from novactl.db.statements import Tx, from_json, statement, to_json, updates
from novactl.model.topology import Fitting

_SUMS = tuple(f"{name}_used" for name in COLUMN_OF.values())


class ClaimRow(NamedTuple):
    """`amount` is in the class's own unit."""

    consumer_kind: str
    consumer_id: str
    node_id: str
    resource_class: str
    amount: int


class Held(NamedTuple):
    """What one consumer holds on one node."""

    kind: str
    project_id: str
    amounts: Mapping[str, int]


@statement
def q_used(sa: Any, t: Any) -> Any:
    n = t.node.c
    return sa.select(n.id, *(n[name] for name in _SUMS)).where(sa.or_(*(n[name] > 0 for name in _SUMS)))


@statement
def q_used_other(sa: Any, t: Any) -> Any:
    c = t.claim.c
    return sa.select(c.node_id, c.resource_class, sa.func.sum(c.amount)).where(
        *(c.resource_class != name for name in COLUMN_OF)).group_by(c.node_id, c.resource_class)


@statement
def q_consumers(sa: Any, t: Any) -> Any:
    return sa.select(t.node.c.id, t.node.c.servers).where(t.node.c.servers > 0)


@statement
def q_all(sa: Any, t: Any) -> Any:
    c = t.claim.c
    return sa.select(*(c[name] for name in ClaimRow._fields)).order_by(c.node_id, c.consumer_id, c.resource_class)


@statement
def q_held(sa: Any, t: Any) -> Any:
    c = t.claim.c
    return sa.select(c.consumer_kind, c.project_id, c.resource_class, c.amount).where(
        c.consumer_id == sa.bindparam("by_consumer_id"), c.node_id == sa.bindparam("by_node_id"))


@statement
def q_insert(sa: Any, t: Any) -> Any:
    return sa.insert(t.claim)


@statement
def q_insert_hot(sa: Any, t: Any) -> Any:
    """A row for each of the classes that every server asks for, where it asks for any of it: one statement for the usual claim."""
    c = t.claim.c
    amounts = sa.union_all(*(
        sa.select(sa.literal_column(f"'{name}'").label("name"), sa.bindparam(f"new_{column}", type_=sa.BigInteger).label("amount"))
        for name, column in COLUMN_OF.items())).subquery()
    given = {name: sa.bindparam(f"new_{name}", type_=c[name].type) for name in ("consumer_id", "node_id", "consumer_kind", "project_id")}
    return sa.insert(t.claim).from_select(
        [*given, "resource_class", "amount"], sa.select(*given.values(), amounts.c.name, amounts.c.amount).where(amounts.c.amount > 0))


@statement
def q_delete(sa: Any, t: Any) -> Any:
    c = t.claim.c
    return sa.delete(t.claim).where(c.consumer_id == sa.bindparam("by_consumer_id"), c.node_id == sa.bindparam("by_node_id"))


@statement
def q_delete_class(sa: Any, t: Any) -> Any:
    c = t.claim.c
    return sa.delete(t.claim).where(
        c.consumer_id == sa.bindparam("by_consumer_id"), c.node_id == sa.bindparam("by_node_id"),
        c.resource_class == sa.bindparam("by_resource_class"))


@statement
def q_rename(sa: Any, t: Any) -> Any:
    c = t.claim.c
    return updates(sa, t.claim, "consumer_id", "consumer_kind").where(
        c.consumer_id == sa.bindparam("by_consumer_id"), c.node_id == sa.bindparam("by_node_id"))


@statement
def q_fitting_rename(sa: Any, t: Any) -> Any:
    f = t.fitting.c
    return updates(sa, t.fitting, "consumer_id").where(
        f.consumer_id == sa.bindparam("by_consumer_id"), f.node_id == sa.bindparam("by_node_id"))


@statement
def q_fittings(sa: Any, t: Any) -> Any:
    return sa.select(t.fitting.c.node_id, t.fitting.c.body).order_by(t.fitting.c.node_id, t.fitting.c.consumer_id)


@statement
def q_fittings_on(sa: Any, t: Any) -> Any:
    return sa.select(t.fitting.c.body).where(t.fitting.c.node_id == sa.bindparam("by_node_id"))


@statement
def q_fitting_of(sa: Any, t: Any) -> Any:
    return sa.select(t.fitting.c.body).select_from(t.fitting).where(t.fitting.c.consumer_id == sa.bindparam("by_consumer_id"))


@statement
def q_fitting_insert(sa: Any, t: Any) -> Any:
    return sa.insert(t.fitting)


@statement
def q_fitting_delete(sa: Any, t: Any) -> Any:
    f = t.fitting.c
    return sa.delete(t.fitting).where(f.consumer_id == sa.bindparam("by_consumer_id"), f.node_id == sa.bindparam("by_node_id"))


def used(tx: Tx) -> dict[str, dict[str, int]]:
    """Node id -> resource class -> what is claimed of it; of a shared disk, what all its nodes' servers hold."""
    found = used_other(tx)
    for node_id, *sums in tx.stream(q_used):
        found.setdefault(node_id, {}).update({name: amount for name, amount in zip(COLUMN_OF, sums, strict=True) if amount})
    return found


def used_other(tx: Tx) -> dict[str, dict[str, int]]:
    """As `used`, of the classes that a node's row has no sums of."""
    found: dict[str, dict[str, int]] = {}
    for node_id, name, amount in tx.stream(q_used_other):
        found.setdefault(node_id, {})[name] = int(amount)
    return found


def used_on(tx: Tx, node_id: str) -> dict[str, int]:
    """What is held on the node itself, by resource class."""
    return {name: int(amount) for name, amount in tx.stream(q_claimed, by_node_id=node_id)}


def consumers(tx: Tx) -> dict[str, int]:
    """Node id -> how many servers hold claims there."""
    return dict(tx.stream(q_consumers))


def all_(tx: Tx) -> list[ClaimRow]:
    return [ClaimRow(*row) for row in tx.stream(q_all)]


def held(tx: Tx, consumer_id: str, node_id: str) -> Held | None:
    """None where it holds nothing."""
    rows = list(tx.stream(q_held, by_consumer_id=consumer_id, by_node_id=node_id))
    return Held(rows[0][0], rows[0][1], {name: amount for _, _, name, amount in rows}) if rows else None


def fittings(tx: Tx) -> dict[str, list[Fitting]]:
    """Node id -> the pieces that its servers hold, one entry a server that was fitted."""
    found: dict[str, list[Fitting]] = {}
    for node_id, body in tx.stream(q_fittings):
        found.setdefault(node_id, []).append(Fitting.from_plain(from_json(body)))
    return found


def fittings_on(tx: Tx, node_id: str) -> list[Fitting]:
    """One a server that was fitted."""
    return [Fitting.from_plain(from_json(body)) for (body,) in tx.stream(q_fittings_on, by_node_id=node_id)]


def fitting_of(tx: Tx, consumer_id: str) -> Fitting | None:
    """None where it holds no pieces."""
    row = tx.one(q_fitting_of, by_consumer_id=consumer_id)
    return None if row is None else Fitting.from_plain(from_json(row["body"]))


def write(tx: Tx, consumer_id: str, node_id: str, holding: Held, fitting: Fitting | None) -> None:
    """The rows of a claim, and nothing that follows from them (sums, usage)."""
    key = {"consumer_id": consumer_id, "node_id": node_id, "consumer_kind": holding.kind, "project_id": holding.project_id}
    tx.run(q_insert_hot, **{f"new_{name}": value for name, value in key.items()},
           **{f"new_{column}": holding.amounts.get(name, 0) for name, column in COLUMN_OF.items()})
    others = holding.amounts.keys() - COLUMN_OF.keys()
    if others:
        tx.run_many(q_insert, [key | {"resource_class": name, "amount": holding.amounts[name]} for name in sorted(others)])
    if fitting is not None:
        tx.run(q_fitting_insert, consumer_id=consumer_id, node_id=node_id, body=to_json(fitting.to_plain()))


def rename(tx: Tx, consumer_id: str, node_id: str, new_id: str, new_kind: str) -> None:
    """The rows go to another consumer, and nothing that follows from them."""
    key = {"by_consumer_id": consumer_id, "by_node_id": node_id, "new_consumer_id": new_id}
    tx.run(q_fitting_rename, **key)
    tx.run(q_rename, **key, new_consumer_kind=new_kind)


def less(tx: Tx, consumer_id: str, node_id: str, resource_class: str) -> None:
    """Of this class it holds nothing any more there; what follows from that is not written."""
    tx.run(q_delete_class, by_consumer_id=consumer_id, by_node_id=node_id, by_resource_class=resource_class)


def remove(tx: Tx, consumer_id: str, node_id: str) -> int:
    """Take the rows away; how many there were."""
    tx.run(q_fitting_delete, by_consumer_id=consumer_id, by_node_id=node_id)
    return tx.run(q_delete, by_consumer_id=consumer_id, by_node_id=node_id)
