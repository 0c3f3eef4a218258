"""The history of every object, one line an event."""

from __future__ import annotations

from typing import Any, NamedTuple

from novactl.db.statements import Tx, statement
from novactl.model.operation import EventRecord

_COLUMNS = tuple(EventRecord.__dataclass_fields__)


@statement
def q_insert(sa: Any, t: Any) -> Any:
    return sa.insert(t.event).values({name: sa.bindparam(f"new_{name}", type_=t.event.c[name].type) for name in _COLUMNS})


@statement
def q_of(sa: Any, t: Any) -> Any:
    return sa.select(*(t.event.c[name] for name in _COLUMNS)).where(
        t.event.c.object_id == sa.bindparam("by_object_id")).order_by(t.event.c.id)


@statement
def q_last(sa: Any, t: Any) -> Any:
    e = t.event.c

    def any_or(column: Any, name: str) -> Any:
        wanted = sa.bindparam(name, type_=sa.String)
        return sa.or_(wanted == "", column == wanted)

    named = sa.bindparam("by_object", type_=sa.String)
    return sa.select(e.id, *(e[name] for name in _COLUMNS)).where(
        e.at >= sa.bindparam("by_since"), any_or(e.object_kind, "by_object_kind"), any_or(e.actor, "by_actor"), any_or(e.event, "by_event"),
        sa.or_(named == "", e.object_name == named, e.object_id == named),
    ).order_by(e.id.desc()).limit(sa.bindparam("limit", type_=sa.BigInteger))


class Asked(NamedTuple):
    """Which events; "" is any. `named` is an object's name or id, `since` seconds since the epoch."""

    object_kind: str = ""
    named: str = ""
    event: str = ""
    actor: str = ""
    since: float = 0.0

    def takes(self, event: EventRecord) -> bool:
        return (
            event.at >= self.since and self.object_kind in ("", event.object_kind) and self.actor in ("", event.actor)
            and self.event in ("", event.event) and self.named in ("", event.object_name, event.object_id))


def record(tx: Tx, event: EventRecord) -> None:
    tx.run(q_insert, **{f"new_{name}": getattr(event, name) for name in _COLUMNS})


def of(tx: Tx, object_id: str) -> tuple[EventRecord, ...]:
    """Oldest first."""
    return tuple(EventRecord(**row) for row in tx.all(q_of, by_object_id=object_id))


def last(tx: Tx, asked: Asked, limit: int) -> tuple[int, tuple[EventRecord, ...]]:
    """The newest of them, oldest first, and the number of the last one (0: there is none)."""
    found = list(tx.stream(
        q_last, by_since=asked.since, by_object_kind=asked.object_kind, by_actor=asked.actor, by_event=asked.event, by_object=asked.named,
        limit=limit))
    return (found[0][0] if found else 0), tuple(
        EventRecord(**dict(zip(_COLUMNS, row[1:], strict=True))) for row in reversed(found))
