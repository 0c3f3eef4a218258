"""The journal: operations, their steps, and who drives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from novactl.db import meta
from novactl.db.statements import Row, Tx, from_json, like_prefix, statement, to_json, updates
from novactl.errors import Superseded
from novactl.model.operation import Operation, OperationState, OperationStep, StepState


def _record(row: Row) -> Operation:
    plain = dict(row)
    del plain["decision"], plain["open_object_id"]
    plain["state"] = OperationState(plain["state"])
    plain["record"], plain["error"] = from_json(plain["record"]), from_json(plain["error"])
    return Operation(**plain)


def _row(operation: Operation) -> dict[str, Any]:
    plain = {name: getattr(operation, name) for name in Operation.__dataclass_fields__}
    plain["state"] = operation.state.value
    plain["record"] = to_json(operation.record)
    plain["error"] = None if operation.error is None else to_json(operation.error)
    plain["decision"] = None
    plain["open_object_id"] = operation.object_id if operation.ended_at is None else None
    return plain


@statement
def q_ticket(sa: Any, t: Any) -> Any:
    return sa.insert(t.ticket).values(operation_id=sa.bindparam("new_operation_id"))


@statement
def q_ticket_of(sa: Any, t: Any) -> Any:
    return sa.select(t.ticket.c.id).where(t.ticket.c.operation_id == sa.bindparam("by_operation_id"))


@statement
def q_ticket_at(sa: Any, t: Any) -> Any:
    return sa.select(t.ticket.c.operation_id).where(t.ticket.c.id == sa.bindparam("by_id"))


@statement
def q_ticket_last(sa: Any, t: Any) -> Any:
    return sa.select(sa.func.coalesce(sa.func.max(t.ticket.c.id), 0))


@statement
def q_renumber(sa: Any, t: Any) -> Any:
    o = t.operation.c
    drawn = sa.select(t.ticket.c.id).where(t.ticket.c.operation_id == o.id).scalar_subquery()
    return sa.update(t.operation).values(
        seq=sa.func.coalesce(drawn, 0) + sa.bindparam("new_by", type_=sa.BigInteger),
        epoch=o.epoch + sa.bindparam("new_epochs", type_=sa.BigInteger)).where(o.ended_at.is_(None))


@statement
def q_by_id(sa: Any, t: Any) -> Any:
    return sa.select(t.operation).where(t.operation.c.id == sa.bindparam("by_id"))


@statement
def q_locked(sa: Any, t: Any) -> Any:
    return sa.select(t.operation).where(t.operation.c.id == sa.bindparam("by_id")).with_for_update(key_share=True)


@statement
def q_by_id_prefix(sa: Any, t: Any) -> Any:
    return sa.select(t.operation).where(like_prefix(sa, t.operation.c.id)).order_by(t.operation.c.created_at)


def _recent(sa: Any, t: Any, *which: Any) -> Any:
    o = t.operation.c

    def any_or(column: Any, name: str) -> Any:
        wanted = sa.bindparam(name, type_=sa.String)
        return sa.or_(wanted == "", column == wanted)

    named = sa.bindparam("by_object", type_=sa.String)
    return (
        sa.select(t.operation).where(
            *which, any_or(o.kind, "by_kind"), any_or(o.state, "by_state"), any_or(o.object_kind, "by_object_kind"),
            sa.or_(named == "", o.object_name == named, o.object_id == named))
        .order_by(o.created_at.desc(), o.id).limit(sa.bindparam("limit", type_=sa.BigInteger))
    )


@statement
def q_recent(sa: Any, t: Any) -> Any:
    return _recent(sa, t)


@statement
def q_recent_open(sa: Any, t: Any) -> Any:
    """By its own index, however long the history is: commands ask it before anything else."""
    return _recent(sa, t, t.operation.c.ended_at.is_(None))


@statement
def q_open_of(sa: Any, t: Any) -> Any:
    return sa.select(t.operation).where(
        t.operation.c.object_id == sa.bindparam("by_object_id"), t.operation.c.ended_at.is_(None))


@statement
def q_last_of(sa: Any, t: Any) -> Any:
    o = t.operation.c
    return sa.select(t.operation).where(
        o.object_id == sa.bindparam("by_object_id"), o.kind == sa.bindparam("by_kind")).order_by(o.created_at.desc()).limit(1)


@statement
def q_insert(sa: Any, t: Any) -> Any:
    return sa.insert(t.operation)


@statement
def q_write(sa: Any, t: Any) -> Any:
    o = t.operation.c
    return updates(
        sa, t.operation, "state", "attempt", "record", "error", "ended_at", "lease_until", "deadline", "open_object_id").where(
        o.id == sa.bindparam("by_id"), o.epoch == sa.bindparam("by_epoch"))


@statement
def q_take(sa: Any, t: Any) -> Any:
    o = t.operation.c
    return updates(sa, t.operation, "state", "owner", "lease_until", "epoch").where(
        o.id == sa.bindparam("by_id"), o.epoch == sa.bindparam("by_epoch"), o.ended_at.is_(None))


@statement
def q_renew(sa: Any, t: Any) -> Any:
    o = t.operation.c
    return updates(sa, t.operation, "lease_until").where(o.id == sa.bindparam("by_id"), o.epoch == sa.bindparam("by_epoch"))


@statement
def q_tell(sa: Any, t: Any) -> Any:
    o = t.operation.c
    return updates(sa, t.operation, "progress").where(o.id == sa.bindparam("by_id"), o.epoch == sa.bindparam("by_epoch"))


@statement
def q_fenced(sa: Any, t: Any) -> Any:
    o = t.operation.c
    return sa.select(o.id).where(o.id == sa.bindparam("by_id"), o.epoch == sa.bindparam("by_epoch")).with_for_update()


@statement
def q_decide(sa: Any, t: Any) -> Any:
    return updates(sa, t.operation, "decision").where(t.operation.c.id == sa.bindparam("by_id"))


@statement
def q_decision_of(sa: Any, t: Any) -> Any:
    return sa.select(t.operation.c.id, t.operation.c.decision).where(
        t.operation.c.object_id == sa.bindparam("by_object_id"), t.operation.c.decision.is_not(None),
    ).order_by(t.operation.c.created_at.desc()).limit(1)


@statement
def q_steps(sa: Any, t: Any) -> Any:
    s = t.operation_step
    return sa.select(s).where(s.c.operation_id == sa.bindparam("by_operation_id")).order_by(s.c.attempt, s.c.position)


@statement
def q_step_insert(sa: Any, t: Any) -> Any:
    return sa.insert(t.operation_step)


@statement
def q_step_update(sa: Any, t: Any) -> Any:
    s = t.operation_step.c
    return updates(sa, t.operation_step, "state", "ended_at").where(
        s.operation_id == sa.bindparam("by_operation_id"), s.attempt == sa.bindparam("by_attempt"),
        s.position == sa.bindparam("by_position"))


@statement
def q_ids(sa: Any, t: Any) -> Any:
    return sa.select(t.operation.c.id).where(like_prefix(sa, t.operation.c.id)).order_by(t.operation.c.created_at.desc()).limit(200)


def by_id(tx: Tx, id_: str) -> Operation | None:
    row = tx.one(q_by_id, by_id=id_)
    return None if row is None else _record(row)


def locked(tx: Tx, id_: str) -> Operation | None:
    """As `by_id`, once whoever writes it has written: for who takes it over, and decides by what it says."""
    row = tx.one(q_locked, by_id=id_)
    return None if row is None else _record(row)


def by_name(tx: Tx, name: str) -> Operation | None:
    """Operations have no names: always None, so that they are looked up as other nouns are."""
    return None


def by_id_prefix(tx: Tx, prefix: str) -> list[Operation]:
    return [_record(row) for row in tx.all(q_by_id_prefix, by_prefix=prefix)]


def names(tx: Tx, prefix: str) -> list[str]:
    return [id_ for (id_,) in tx.stream(q_ids, by_prefix=prefix)]


MANY = 1_000_000


def recent(
    tx: Tx, *, ended: bool, limit: int = 1000, kind: str = "", state: str = "", object_kind: str = "", named: str = "",
) -> tuple[Operation, ...]:
    """Newest first; those not ended, or with `ended` all. "" is any; `named` is an object's name or id."""
    return tuple(_record(row) for row in tx.all(
        q_recent if ended else q_recent_open, limit=limit, by_kind=kind, by_state=state, by_object_kind=object_kind, by_object=named))


def under_way(tx: Tx) -> tuple[Operation, ...]:
    """All that have not ended, newest first."""
    return recent(tx, ended=False, limit=MANY)


def open_of(tx: Tx, object_id: str) -> tuple[Operation, ...]:
    return tuple(_record(row) for row in tx.all(q_open_of, by_object_id=object_id))


def number(tx: Tx, operation_id: str) -> int:
    """The next number of an operation: larger than all before, except beside one that begins at the same moment."""
    tx.run(q_ticket, new_operation_id=operation_id)
    ((drawn,),) = tx.stream(q_ticket_of, by_operation_id=operation_id)
    return drawn + int(meta.get(tx, meta.SEQ_OFFSET) or 0)


def number_of(tx: Tx, seq: int) -> str:
    """The operation that has that number; "" where none is known to have."""
    row = tx.one(q_ticket_at, by_id=seq - int(meta.get(tx, meta.SEQ_OFFSET) or 0))
    return "" if row is None else row["operation_id"]


def highest_number(tx: Tx) -> int:
    """The highest that was given, of those the journal still has; 0 for none."""
    ((drawn,),) = tx.stream(q_ticket_last)
    return drawn + int(meta.get(tx, meta.SEQ_OFFSET) or 0) if drawn else 0


def is_ours(tx: Tx, seq: int, operation_id: str) -> bool:
    """Whether that number is, or may well have been, that operation's: of old ones the journal may know no more."""
    highest = highest_number(tx)
    if not highest or seq <= int(meta.get(tx, meta.SEQ_OFFSET) or 0):
        return True
    known = number_of(tx, seq)
    return known == operation_id if known else seq <= highest


def renumber(tx: Tx, by: int, epochs: int) -> None:
    """Operations that have not ended get numbers above `by`, and epochs higher by `epochs`: nobody drives them as they were."""
    tx.run(q_renumber, new_by=by, new_epochs=epochs)


def insert(tx: Tx, operation: Operation) -> None:
    tx.run(q_insert, **_row(operation))


def write(tx: Tx, operation: Operation) -> None:
    """Write the run-time fields, if the operation still has its epoch. Raises Superseded."""
    changed = tx.run(
        q_write, by_id=operation.id, by_epoch=operation.epoch, new_state=operation.state.value, new_attempt=operation.attempt,
        new_record=to_json(operation.record), new_error=None if operation.error is None else to_json(operation.error),
        new_ended_at=operation.ended_at, new_lease_until=operation.lease_until, new_deadline=operation.deadline,
        new_open_object_id=operation.object_id if operation.ended_at is None else None,
    )
    if changed != 1:
        raise superseded(operation)


def take(tx: Tx, operation: Operation, *, state: OperationState, owner: str, lease_until: float) -> bool:
    """Raise the epoch and become the owner, in one compare-and-set. False: somebody was faster, or it has ended."""
    return tx.run(
        q_take, by_id=operation.id, by_epoch=operation.epoch, new_state=state.value, new_owner=owner,
        new_lease_until=lease_until, new_epoch=operation.epoch + 1,
    ) == 1


def renew(tx: Tx, operation: Operation, until: float) -> bool:
    return tx.run(q_renew, by_id=operation.id, by_epoch=operation.epoch, new_lease_until=until) == 1


def tell(tx: Tx, operation: Operation, progress: str) -> None:
    """Write what its step tells, for whoever watches from another process. Raises Superseded."""
    if tx.run(q_tell, by_id=operation.id, by_epoch=operation.epoch, new_progress=progress) != 1:
        raise superseded(operation)


def fence(tx: Tx, operation: Operation) -> None:
    """Raises Superseded unless the operation still has its epoch: the first line of every write on its behalf."""
    if tx.one(q_fenced, by_id=operation.id, by_epoch=operation.epoch) is None:
        raise superseded(operation)


def superseded(operation: Operation) -> Superseded:
    return Superseded(
        f"operation {operation.id[:8]} ({operation.kind} {operation.object_name}) was taken over by another process",
        command=f"novactl operation show {operation.id[:8]}",
    )


def last_of(tx: Tx, object_id: str, kind: str) -> Operation | None:
    """The newest operation of that kind on an object, ended or not."""
    row = tx.one(q_last_of, by_object_id=object_id, by_kind=kind)
    return None if row is None else _record(row)


def decide(tx: Tx, operation_id: str, decision: Mapping[str, Any]) -> None:
    tx.run(q_decide, by_id=operation_id, new_decision=to_json(decision))


def decision_of(tx: Tx, object_id: str) -> tuple[str, Mapping[str, Any]] | None:
    """(operation id, decision) of the last placement of an object, None when it was never placed."""
    row = tx.one(q_decision_of, by_object_id=object_id)
    return None if row is None else (row["id"], from_json(row["decision"]))


def steps(tx: Tx, operation_id: str) -> tuple[OperationStep, ...]:
    return tuple(
        OperationStep(**{**dict(row), "state": StepState(row["state"])}) for row in tx.all(q_steps, by_operation_id=operation_id))


def step(tx: Tx, step: OperationStep) -> None:
    """Write a step's state, whether it has been written before or not."""
    key = {"by_operation_id": step.operation_id, "by_attempt": step.attempt, "by_position": step.position}
    if not tx.run(q_step_update, **key, new_state=step.state.value, new_ended_at=step.ended_at):
        tx.run(
            q_step_insert, operation_id=step.operation_id, attempt=step.attempt, position=step.position, name=step.name,
            state=step.state.value, started_at=step.started_at, ended_at=step.ended_at,
        )
