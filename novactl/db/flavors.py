"""Flavors."""

from __future__ import annotations

from typing import Any

from novactl.db.named import Named, plain_row
from novactl.db.statements import Row, Tx, from_json, statement, to_json, updates
from novactl.model.flavor import Flavor


def _record(row: Row) -> Flavor:
    return Flavor(**{**dict(row), "specs": from_json(row["specs"])})


def _row(flavor: Flavor) -> dict[str, Any]:
    return plain_row(flavor) | {"specs": to_json(dict(flavor.specs))}


flavors: Named[Flavor] = Named("flavor", _record, _row)
all_, by_name, by_id, by_id_prefix, names = flavors.all_, flavors.by_name, flavors.by_id, flavors.by_id_prefix, flavors.names
insert, delete = flavors.insert, flavors.delete


@statement
def q_lock(sa: Any, t: Any) -> Any:
    return sa.select(t.flavor.c.id).where(t.flavor.c.id == sa.bindparam("by_id")).with_for_update()


@statement
def q_update(sa: Any, t: Any) -> Any:
    return updates(sa, t.flavor, "specs", "description").where(t.flavor.c.id == sa.bindparam("by_id"))


def lock(tx: Tx, flavor_id: str) -> bool:
    """Nobody else changes it until the transaction ends. False when it is gone."""
    return tx.one(q_lock, by_id=flavor_id) is not None


def update(tx: Tx, flavor: Flavor) -> None:
    """Write its specs and description. Its size never changes: servers were counted by it."""
    tx.run(q_update, by_id=flavor.id, new_specs=to_json(dict(flavor.specs)), new_description=flavor.description)
