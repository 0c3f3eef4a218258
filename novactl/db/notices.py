"""What the conductor tells of: events by their numbers."""

from __future__ import annotations

from typing import Any

from novactl.db.statements import Tx, statement
from novactl.model.operation import EventRecord

_COLUMNS = tuple(EventRecord.__dataclass_fields__)


@statement
def q_after(sa: Any, t: Any) -> Any:
    e = t.event.c
    return sa.select(e.id, *(e[name] for name in _COLUMNS)).where(e.id > sa.bindparam("by_id")).order_by(e.id).limit(
        sa.bindparam("limit", type_=sa.BigInteger))


@statement
def q_newest(sa: Any, t: Any) -> Any:
    return sa.select(sa.func.coalesce(sa.func.max(t.event.c.id), 0))


def after(tx: Tx, id_: int, limit: int) -> list[tuple[int, EventRecord]]:
    """Events with larger numbers, in their order.

    Numbers are drawn before a transaction commits: on PostgreSQL and MariaDB a smaller one may still appear after a larger.
    """
    return [(row[0], EventRecord(**dict(zip(_COLUMNS, row[1:], strict=True)))) for row in tx.stream(q_after, by_id=id_, limit=limit)]


def newest(tx: Tx) -> int:
    """0 while there is none."""
    ((found,),) = tx.stream(q_newest)
    return int(found)
