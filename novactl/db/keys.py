"""The admins' keys, public halves only, and the version of their table that the agents have or are to get."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from novactl.db import meta
from novactl.db.named import Named, plain_row
from novactl.db.statements import Row, Tx, statement, updates
from novactl.model.key import AdminKey, Role

VERSION = "admins_version"
"""The key under which stands how often the table was changed."""


def _record(row: Row) -> AdminKey:
    return AdminKey(**{**dict(row), "role": Role(row["role"])})


def _row(key: AdminKey) -> dict[str, Any]:
    return plain_row(key) | {"role": key.role.value}


keys: Named[AdminKey] = Named("admin_key", _record, _row)
all_, by_name, by_id, by_id_prefix, names = keys.all_, keys.by_name, keys.by_id, keys.by_id_prefix, keys.names


@statement
def q_by_public(sa: Any, t: Any) -> Any:
    return sa.select(t.admin_key).where(t.admin_key.c.public_key == sa.bindparam("by_public_key"))


@statement
def q_any(sa: Any, t: Any) -> Any:
    return sa.select(t.admin_key.c.id).limit(1)


@statement
def q_update(sa: Any, t: Any) -> Any:
    return updates(sa, t.admin_key, "name", "role", "revoked_at").where(t.admin_key.c.id == sa.bindparam("by_id"))


@statement
def q_lock(sa: Any, t: Any) -> Any:
    return sa.select(t.meta.c.value).where(t.meta.c.key == sa.bindparam("by_key")).with_for_update(key_share=True)


@statement
def q_last(sa: Any, t: Any) -> Any:
    o = t.operation.c
    return sa.select(o.actor_key, sa.func.max(o.created_at)).group_by(o.actor_key)


@statement
def q_told(sa: Any, t: Any) -> Any:
    return updates(sa, t.node, "admins_version").where(
        t.node.c.id == sa.bindparam("by_id"), t.node.c.admins_version != sa.bindparam("new_admins_version"))


def version(tx: Tx) -> int:
    """0: no key has been recorded yet."""
    return int(meta.get(tx, VERSION) or 0)


def lock(tx: Tx) -> None:
    """Nobody else changes the table until the transaction ends."""
    tx.one(q_lock, by_key=VERSION)


def raise_version(tx: Tx, *, above: int = 0) -> int:
    """The table's next version, larger than `above` too."""
    following = max(version(tx), above) + 1
    meta.put(tx, VERSION, str(following))
    return following


def any_(tx: Tx) -> bool:
    """Whether a key has ever been recorded."""
    return tx.one(q_any) is not None


def by_public(tx: Tx, public_key: str) -> AdminKey | None:
    row = tx.one(q_by_public, by_public_key=public_key)
    return None if row is None else _record(row)


def active(tx: Tx) -> tuple[AdminKey, ...]:
    """Those that are not revoked, by name."""
    return tuple(key for key in all_(tx) if key.revoked_at is None)


def insert(tx: Tx, key: AdminKey) -> None:
    keys.insert(tx, key)


def update(tx: Tx, key: AdminKey) -> None:
    """Write its name, role and when it was revoked."""
    tx.run(q_update, by_id=key.id, new_name=key.name, new_role=key.role.value, new_revoked_at=key.revoked_at)


def last_used(tx: Tx) -> dict[str, float]:
    """Public key -> when it last began an operation."""
    return {key: at for key, at in tx.stream(q_last) if key}


def told(tx: Tx, node_ids: Iterable[str], version: int) -> None:
    """These nodes' agents have that version of the table."""
    for node_id in sorted(node_ids):
        tx.run(q_told, by_id=node_id, new_admins_version=version)
