"""Facts about the cluster itself: its id, the number of its schema, and whether anything is under way."""

from __future__ import annotations

from typing import Any

from novactl.db.statements import Tx, statement
from novactl.errors import DatabaseFailed

DAMAGED = (
    "it is damaged: with its -wal and -shm move it away, then novactl db restore FILE, from the last backup; without one: novactl init,"
    " novactl db rebuild")

N_PLUS_1 = "n_plus_1"
"""The key under which "1" says that no placement may leave the loss of one node without room."""

SEQ_OFFSET = "seq_offset"
"""The key under which stands what is added to the numbers of operations, since a database that fell behind was adopted."""

RESTORED = "restored"
"""The key under which stands from which backup this database was restored, until it is adopted; "" once it is."""


@statement
def q_value(sa: Any, t: Any) -> Any:
    return sa.select(t.meta.c.value).where(t.meta.c.key == sa.bindparam("by_key"))


@statement
def q_insert(sa: Any, t: Any) -> Any:
    return sa.insert(t.meta)


@statement
def q_update(sa: Any, t: Any) -> Any:
    return sa.update(t.meta).values(value=sa.bindparam("new_value")).where(t.meta.c.key == sa.bindparam("by_key"))


@statement
def q_unfinished(sa: Any, t: Any) -> Any:
    return sa.select(t.operation.c.id).where(t.operation.c.ended_at.is_(None)).limit(1)


def get(tx: Tx, key: str) -> str | None:
    row = tx.one(q_value, by_key=key)
    return None if row is None else row["value"]


def put(tx: Tx, key: str, text: str) -> None:
    """Set `key`, whether it is there or not."""
    if not tx.run(q_update, by_key=key, new_value=text):
        tx.run(q_insert, key=key, value=text)


def schema_number(tx: Tx) -> int:
    """0 where there is none. Raises DatabaseFailed where what is there is no number."""
    text = get(tx, "schema") or "0"
    try:
        return int(text)
    except ValueError:
        raise DatabaseFailed(f"the number of the database's schema is {text[:40]!r}", hint=DAMAGED) from None


def cluster_id(tx: Tx) -> str:
    """This cluster's id. The schema check has made sure that there is one."""
    return get(tx, "cluster_id") or ""


def anything_under_way(tx: Tx) -> bool:
    """Whether any operation has not ended. Here, because every command asks it and few need the operations themselves."""
    return tx.one(q_unfinished) is not None
