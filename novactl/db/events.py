"""The history of every object, one line an event."""

from __future__ import annotations

from typing import Any

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


def record(tx: Tx, event: EventRecord) -> None:
    tx.run(q_insert, **{f"new_{name}": getattr(event, name) for name in _COLUMNS})


def of(tx: Tx, object_id: str) -> tuple[EventRecord, ...]:
    """Oldest first."""
    return tuple(EventRecord(**row) for row in tx.all(q_of, by_object_id=object_id))
