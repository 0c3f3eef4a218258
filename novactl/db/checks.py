"""What the database alone can show of its being right: its file, what is derived, and rows that must agree.

Each check is a generator of sentences, one for each thing that is wrong. Nothing is changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import sqlalchemy as sa

from novactl.db import derived, migrate, schema
from novactl.db.core import CoreTx
from novactl.db.engine import Database, SqliteDatabase
from novactl.model.operation import OperationState

CHUNK = 200
"""Nodes whose sums are written anew, and taken back, in one transaction: others wait no longer than for these."""
_NODE = schema.node.c
_KEPT = ("servers", "odd", "shape", *derived.SUMS)


def pages(database: Database, url: str) -> Iterator[str]:
    """The file and what its rows refer to. Elsewhere than on SQLite the server sees to both, but for MariaDB's CHECK TABLE."""
    with migrate.transaction(database, url, reads=True) as connection:
        if isinstance(database, SqliteDatabase):
            yield from (text for (text,) in connection.exec_driver_sql("PRAGMA quick_check(20)") if text != "ok")
            for name, _row, parent, _key in connection.exec_driver_sql("PRAGMA foreign_key_check"):
                yield f"a row of {name} refers to one of {parent} that is not there"
        elif connection.dialect.name == "mariadb":
            names = ", ".join(connection.dialect.identifier_preparer.quote(table) for table in schema.metadata.tables)
            for table, _op, kind, text in connection.exec_driver_sql(f"CHECK TABLE {names}"):
                if kind.lower() in ("error", "warning"):
                    yield f"{table}: {text}"


def sums(database: Database, url: str) -> Iterator[str]:
    """Of nodes and projects, what is kept beside the rows it follows from: written anew it is the same."""
    with migrate.transaction(database, url, reads=True) as connection:
        ids = list(connection.execute(sa.select(_NODE.id).order_by(_NODE.id)).scalars())
    for at in range(0, len(ids), CHUNK):
        yield from _differences(database, url, schema.node, ids[at:at + CHUNK])
    yield from _differences(database, url, schema.project, None)


class _Enough(Exception):
    """Ends a transaction without a trace."""


def _differences(database: Database, url: str, table: sa.Table, ids: list[str] | None) -> list[str]:
    names = _KEPT if table is schema.node else [column.name for column in table.c if column.name.endswith(("_used", "_max"))]
    query = sa.select(table.c.id, table.c.name, *(table.c[name].label(f"kept_{name}") for name in names))
    query = query if ids is None else query.where(table.c.id.in_(ids))
    found: list[str] = []
    with contextlib.suppress(_Enough), migrate.transaction(database, url) as connection:
        locked = sa.select(table.c.id).order_by(table.c.id).with_for_update(key_share=True)
        connection.execute(locked if ids is None else locked.where(table.c.id.in_(ids))).all()
        before = {row["id"]: row for row in connection.execute(query).mappings()}
        tx = CoreTx(connection, {})
        if ids is None:
            tx.run(derived.q_usage)
            derived.limit(tx, "")
        else:
            for id_ in ids:
                derived.resum(tx, id_)
            derived.reshape(tx, ids)
        for row in connection.execute(query).mappings():
            pairs = [(name, before[row["id"]][f"kept_{name}"], row[f"kept_{name}"]) for name in names if row["id"] in before]
            found += [f"{table.name} {row['name']}: {name} is {old}, and should be {new}" for name, old, new in pairs if old != new]
        raise _Enough
    return found


def claims(connection: sa.Connection) -> Iterator[str]:
    """Each claim has its server there, or its operation; each server on a node has claims there. Under way, either may be otherwise."""
    server, claim, operation = schema.server.c, schema.claim.c, schema.operation.c
    busy = set(connection.execute(sa.select(operation.object_id).where(operation.ended_at.is_(None))).scalars())
    open_ = set(connection.execute(sa.select(operation.id).where(operation.ended_at.is_(None))).scalars())
    names = {id_: name for id_, name in connection.execute(sa.select(_NODE.id, _NODE.name))}  # noqa: C416 - rows are no pairs
    living = {
        id_: (name, node) for id_, name, node in
        connection.execute(sa.select(server.id, server.name, server.node_id).where(server.live_name.is_not(None)))}
    held: set[tuple[str, str]] = set()
    for consumer, node, kind in connection.execute(
            sa.select(claim.consumer_id, claim.node_id, claim.consumer_kind).distinct().order_by(claim.node_id, claim.consumer_id)):
        held.add((consumer, node))
        if kind != "server":
            if consumer not in open_:
                yield f"node {names[node]}: claimed by operation {consumer[:8]}, which is not under way"
        elif consumer not in busy and living.get(consumer, ("", ""))[1] != node:
            who = living.get(consumer)
            yield f"node {names[node]}: claimed by server {who[0] if who else consumer[:8]}, which is not on it"
    for id_, (name, node) in living.items():
        if node and id_ not in busy and (id_, node) not in held:
            yield f"server {name} is on node {names[node]} and claims nothing there"


def room(connection: sa.Connection) -> Iterator[str]:
    """No node has more claimed than may be."""
    for name, column in derived.COLUMN_OF.items():
        used, capacity = _NODE[f"{column}_used"], _NODE[f"{column}_capacity"]
        for node, taken, most in connection.execute(sa.select(_NODE.name, used, capacity).where(used > capacity).order_by(_NODE.name)):
            yield f"node {node}: {taken} of {most} {name} claimed"
    claim, stock = schema.claim.c, schema.inventory.c
    sums = sa.select(claim.node_id, claim.resource_class, sa.func.sum(claim.amount).label("amount")).where(
        claim.resource_class.not_in(list(derived.COLUMN_OF))).group_by(claim.node_id, claim.resource_class).subquery()
    there = sa.and_(stock.node_id == sums.c.node_id, stock.resource_class == sums.c.resource_class)
    for node, name, taken, *of in connection.execute(
            sa.select(_NODE.name, sums.c.resource_class, sums.c.amount, stock.total, stock.reserved, stock.ratio_milli)
            .select_from(sums.join(schema.node, _NODE.id == sums.c.node_id).outerjoin(schema.inventory, there)).order_by(_NODE.name)):
        most = 0 if of[0] is None else (of[0] - of[1]) * of[2] // 1000
        if taken > most:
            yield f"node {node}: {taken} of {most} {name} claimed"


def servers(connection: sa.Connection) -> Iterator[str]:
    """A server is held by the operation on it that is under way, and by none otherwise; one that is gone is on no node."""
    server, operation = schema.server.c, schema.operation.c
    open_ = connection.execute(sa.select(operation.id, operation.object_id).where(operation.ended_at.is_(None)))
    holders = {id_: object_id for id_, object_id in open_}  # noqa: C416 - rows are no pairs
    for id_, name, live, task, holder, node, deleted in connection.execute(sa.select(
            server.id, server.name, server.live_name, server.task_state, server.operation_id, server.node_id, server.deleted_at)):
        if (live is None) != (deleted is not None) or (live is None and node is not None):
            yield f"server {name} ({id_[:8]}) is neither there nor gone"
        elif live is not None and holder and holders.get(holder) != id_:
            yield f"server {name} is held by operation {holder[:8]}, which is not under way on it"
        elif live is not None and task and not holder:
            yield f"server {name} is {task}, and no operation is under way on it"


def operations(connection: sa.Connection) -> Iterator[str]:
    """Each is under way, stuck or at its end, and holds its object exactly as long."""
    o = schema.operation.c
    for id_, kind, name, state, ended, held, object_id in connection.execute(
            sa.select(o.id, o.kind, o.object_name, o.state, o.ended_at, o.open_object_id, o.object_id).order_by(o.created_at)):
        known = state in set(OperationState) and OperationState(state).ended == (ended is not None)
        if not known or held != (object_id if ended is None else None):
            yield f"operation {id_[:8]} ({kind} {name}) is {state}, and {'has' if ended is not None else 'has not'} ended"
    lost = sa.select(o.id, o.kind, o.object_name).where(
        o.ended_at.is_(None), o.object_kind == "server", o.object_id.not_in(sa.select(schema.server.c.id)))
    for id_, kind, name in connection.execute(lost):
        yield f"operation {id_[:8]} ({kind} {name}) is under way on a server that is not there"
