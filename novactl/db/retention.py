"""Forgetting what ended long ago, a little at a time: nobody waits behind it."""

from __future__ import annotations

from typing import Any

from novactl.db.statements import Tx, statement

AT_ONCE = 500
DAY_S = 86400.0
VOUCHES_DAYS = (1, 8)
"""How old an event must be to show that the clock has not just jumped ahead."""


def _limit(sa: Any) -> Any:
    return sa.bindparam("limit", type_=sa.BigInteger)


@statement
def q_operations(sa: Any, t: Any) -> Any:
    """Not the one that holds the last decision about a server that lives (`server why` prints it), nor the one with the highest
    number: copies of the database are told apart by it."""
    o, s, n = t.operation.c, t.server.c, t.ticket.c
    newest = sa.select(sa.func.max(n.id)).scalar_subquery()
    is_newest = sa.exists().where(n.operation_id == o.id, n.id == newest)
    lives = sa.exists().where(s.id == o.object_id, s.deleted_at.is_(None))
    return sa.select(o.id).where(
        o.ended_at < sa.bindparam("by_ended_at", type_=sa.Double), sa.or_(o.decision.is_(None), ~lives), ~is_newest).limit(_limit(sa))


@statement
def q_events(sa: Any, t: Any) -> Any:
    e = t.event.c
    return sa.select(e.id).where(e.at < sa.bindparam("by_at", type_=sa.Double)).order_by(e.id).limit(_limit(sa))


@statement
def q_servers(sa: Any, t: Any) -> Any:
    s = t.server.c
    claimed = sa.exists().where(t.claim.c.consumer_id == s.id)
    return sa.select(s.id).where(s.deleted_at < sa.bindparam("by_deleted_at", type_=sa.Double), ~claimed).limit(_limit(sa))


@statement
def q_vouching(sa: Any, t: Any) -> Any:
    e = t.event.c
    return sa.select(e.id).where(
        e.at > sa.bindparam("after", type_=sa.Double), e.at < sa.bindparam("before", type_=sa.Double)).order_by(e.id.desc()).limit(1)


@statement
def q_steps_delete(sa: Any, t: Any) -> Any:
    return sa.delete(t.operation_step).where(t.operation_step.c.operation_id == sa.bindparam("by_id"))


@statement
def q_ticket_delete(sa: Any, t: Any) -> Any:
    return sa.delete(t.ticket).where(t.ticket.c.operation_id == sa.bindparam("by_id"))


@statement
def q_operation_delete(sa: Any, t: Any) -> Any:
    return sa.delete(t.operation).where(t.operation.c.id == sa.bindparam("by_id"), t.operation.c.ended_at.is_not(None))


@statement
def q_event_delete(sa: Any, t: Any) -> Any:
    return sa.delete(t.event).where(t.event.c.id == sa.bindparam("by_id"))


@statement
def q_server_delete(sa: Any, t: Any) -> Any:
    return sa.delete(t.server).where(t.server.c.id == sa.bindparam("by_id"), t.server.c.deleted_at.is_not(None))


def is_vouched(tx: Tx, now: float) -> bool:
    """Whether the newest rows say that it may be as late as `now`; what is written since a jump of the clock does not."""
    youngest, oldest = VOUCHES_DAYS
    return bool(list(tx.stream(q_vouching, after=now - oldest * DAY_S, before=now - youngest * DAY_S)))


def operations(tx: Tx, before: float) -> int:
    """Delete some operations that ended before then, with their steps; how many."""
    ids = [{"by_id": id_} for (id_,) in tx.stream(q_operations, by_ended_at=before, limit=AT_ONCE)]
    for query in (q_steps_delete, q_ticket_delete, q_operation_delete):
        tx.run_many(query, ids)
    return len(ids)


def events(tx: Tx, before: float) -> int:
    """Likewise of events."""
    ids = [{"by_id": id_} for (id_,) in tx.stream(q_events, by_at=before, limit=AT_ONCE)]
    tx.run_many(q_event_delete, ids)
    return len(ids)


def servers(tx: Tx, before: float) -> int:
    """Likewise of servers deleted before then."""
    ids = [{"by_id": id_} for (id_,) in tx.stream(q_servers, by_deleted_at=before, limit=AT_ONCE)]
    tx.run_many(q_server_delete, ids)
    return len(ids)
