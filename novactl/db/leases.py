"""Leases: who may do what only one may do, until when. The epoch rises with each new holder and fences the ones before it.

On PostgreSQL and MariaDB both the end of a lease and whether it has come are reckoned by the database's own clock, so that
the holders' clocks may say what they like. On SQLite all are on one machine and have its clock.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from novactl.db.statements import Row, Tx, like_prefix, statement, updates
from novactl.errors import Superseded

LATER_S = 0.001
"""What is renewed ends later by more than this; a number that went to a database and back differs by less."""


class Lease(NamedTuple):
    """`owner` as conductor/owner.py names processes, "" for nobody; `until` in seconds since the epoch."""

    name: str
    owner: str
    until: float
    epoch: int


@statement
def q_now(sa: Any, t: Any) -> Any:
    from novactl.db.server_clock import server_time

    return sa.select(server_time(sa.bindparam("by_now", type_=sa.Double)))


@statement
def q_of(sa: Any, t: Any) -> Any:
    return sa.select(t.lease).where(t.lease.c.name == sa.bindparam("by_name"))


@statement
def q_beginning(sa: Any, t: Any) -> Any:
    return sa.select(t.lease).where(like_prefix(sa, t.lease.c.name)).order_by(t.lease.c.name)


@statement
def q_insert(sa: Any, t: Any) -> Any:
    return sa.insert(t.lease)


@statement
def q_take(sa: Any, t: Any) -> Any:
    c = t.lease.c
    return updates(sa, t.lease, "owner", "until", "epoch").where(
        c.name == sa.bindparam("by_name"), c.epoch == sa.bindparam("by_epoch"), c.until < sa.bindparam("by_until", type_=sa.Double))


@statement
def q_renew(sa: Any, t: Any) -> Any:
    c = t.lease.c
    return updates(sa, t.lease, "until").where(
        c.name == sa.bindparam("by_name"), c.epoch == sa.bindparam("by_epoch"), c.owner == sa.bindparam("by_owner"))


@statement
def q_release(sa: Any, t: Any) -> Any:
    c = t.lease.c
    return sa.update(t.lease).values(owner="", until=0).where(
        c.name == sa.bindparam("by_name"), c.epoch == sa.bindparam("by_epoch"), c.owner == sa.bindparam("by_owner"))


@statement
def q_delete(sa: Any, t: Any) -> Any:
    c = t.lease.c
    return sa.delete(t.lease).where(c.name == sa.bindparam("by_name"), c.until < sa.bindparam("by_until", type_=sa.Double))


@statement
def q_fenced(sa: Any, t: Any) -> Any:
    """A shared lock: the holder's own threads do not wait for each other, and who would take the lease waits for them."""
    c = t.lease.c
    return sa.select(c.epoch).where(
        c.name == sa.bindparam("by_name"), c.epoch == sa.bindparam("by_epoch"), c.owner == sa.bindparam("by_owner"),
    ).with_for_update(read=True)


def now(tx: Tx, here: float) -> float:
    """The time that leases are reckoned in; `here` is the caller's own."""
    ((found,),) = tx.stream(q_now, by_now=here)
    return float(found)


def _lease(row: Row) -> Lease:
    return Lease(*(row[name] for name in Lease._fields))


def read(tx: Tx, name: str) -> Lease | None:
    """None when nobody has ever taken it."""
    row = tx.one(q_of, by_name=name)
    return None if row is None else _lease(row)


def beginning(tx: Tx, prefix: str) -> list[Lease]:
    """Those whose names begin so."""
    return [_lease(row) for row in tx.all(q_beginning, by_prefix=prefix)]


def take(tx: Tx, name: str, owner: str, until: float, seen: Lease | None) -> Lease | None:
    """Become its holder in the place of `seen`, with a new epoch; whether that one may lose it is the caller's to know.

    None: somebody was faster, or its holder has renewed it. Where there was none yet, two at once are told apart by the table's key:
    Conflict.
    """
    if seen is None:
        tx.run(q_insert, name=name, owner=owner, until=until, epoch=1)
        return Lease(name, owner, until, 1)
    taken = Lease(name, owner, until, seen.epoch + 1)
    done = tx.run(
        q_take, by_name=name, by_epoch=seen.epoch, by_until=seen.until + LATER_S, new_owner=owner, new_until=until, new_epoch=taken.epoch)
    return taken if done == 1 else None


def renew(tx: Tx, lease: Lease, until: float) -> bool:
    """False: it was taken by another, or let go."""
    return tx.run(q_renew, by_name=lease.name, by_epoch=lease.epoch, by_owner=lease.owner, new_until=until) == 1


def release(tx: Tx, lease: Lease) -> bool:
    """Let it go, if it is still held: the next one need not wait. Its epoch stays."""
    return tx.run(q_release, by_name=lease.name, by_epoch=lease.epoch, by_owner=lease.owner) == 1


def forget(tx: Tx, lease: Lease, before: float) -> None:
    """Delete its row, if it had ended by then: for leases that nothing is fenced by."""
    tx.run(q_delete, by_name=lease.name, by_until=before)


def fence(tx: Tx, lease: Lease) -> None:
    """Raises Superseded unless it is still held: the first line of every write that only its holder may do."""
    if tx.one(q_fenced, by_name=lease.name, by_epoch=lease.epoch, by_owner=lease.owner) is None:
        raise Superseded(f"the lease {lease.name!r} was taken over by another process", command="novactl conductor show")
