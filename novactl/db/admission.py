"""Whether an admin's key may do what is asked: the one rule, for opening the database and for each function of the api."""

from __future__ import annotations

from typing import TYPE_CHECKING

from novactl.db import keys
from novactl.db.statements import Tx
from novactl.errors import Denied
from novactl.model.key import Role

if TYPE_CHECKING:
    from novactl.db.engine import Database


def admit(database: Database, public_key: str) -> None:
    """Raises Denied where the key may not even read."""
    with database.read() as tx:
        check(tx, public_key, Role.READER, "reading this cluster's database")


def check(tx: Tx, public_key: str, needed: Role, act: str) -> None:
    """Raises Denied naming the key, its role, the role that `act` needs, and the way to it.

    In a database in which no key has ever been recorded everything is allowed: `novactl init` records the first.
    """
    found = keys.by_public(tx, public_key) if public_key else None
    if found is None:
        if not keys.any_(tx):
            return
        raise _unknown(tx, public_key, needed, act)
    if found.revoked_at is not None:
        raise Denied(
            f"{act} needs the role {needed}; key {found.name} was revoked", hint=f"an admin can make another: {_admins(tx)}",
            command="novactl key create NAME --role " + needed)
    if not found.role.allows(needed):
        raise Denied(
            f"{act} needs the role {needed}; key {found.name} has {found.role}", hint=f"an admin can change that: {_admins(tx)}",
            command=f"novactl key set {found.name} --role {needed}")


def may(tx: Tx, public_key: str, needed: Role) -> bool:
    try:
        check(tx, public_key, needed, "")
    except Denied:
        return False
    return True


def _unknown(tx: Tx, public_key: str, needed: Role, act: str) -> Denied:
    if not public_key:
        return Denied(
            f"{act} needs the role {needed}; there is no admin key in this data directory", hint="`novactl init` makes one, and"
            " `novactl init --key FILE` takes one that an admin made for you", command="novactl init")
    return Denied(
        f"{act} needs the role {needed}; the key {public_key} is not one of this cluster's",
        hint=f"an admin can make it known: {_admins(tx)}",
        command=f"novactl key create NAME --role {needed} --public-key '{public_key}'")


def _admins(tx: Tx) -> str:
    return ", ".join(key.name for key in keys.active(tx) if key.role is Role.ADMIN)
