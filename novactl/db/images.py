"""Images."""

from __future__ import annotations

from typing import Any

from novactl.db.named import Named, plain_row
from novactl.db.statements import Row, Tx, from_json, statement, to_json, updates
from novactl.model.image import Image


def _record(row: Row) -> Image:
    return Image(**{**dict(row), "properties": from_json(row["properties"])})


def _row(image: Image) -> dict[str, Any]:
    return plain_row(image) | {"properties": to_json(dict(image.properties))}


images: Named[Image] = Named("image", _record, _row)
all_, by_name, by_id, by_id_prefix, names = images.all_, images.by_name, images.by_id, images.by_id_prefix, images.names
insert, delete = images.insert, images.delete


@statement
def q_count_sha256(sa: Any, t: Any) -> Any:
    return sa.select(sa.func.count().label("n")).where(t.image.c.sha256 == sa.bindparam("by_sha256"))


@statement
def q_lock(sa: Any, t: Any) -> Any:
    return sa.select(t.image.c.id).where(t.image.c.id == sa.bindparam("by_id")).with_for_update()


@statement
def q_update(sa: Any, t: Any) -> Any:
    return updates(sa, t.image, "properties").where(t.image.c.id == sa.bindparam("by_id"))


def lock(tx: Tx, image_id: str) -> bool:
    """Nobody else changes it until the transaction ends. False when it is gone."""
    return tx.one(q_lock, by_id=image_id) is not None


def update(tx: Tx, image: Image) -> None:
    """Write its properties."""
    tx.run(q_update, by_id=image.id, new_properties=to_json(dict(image.properties)))


def with_sha256(tx: Tx, sha256: str) -> int:
    """How many images share this content."""
    row = tx.one(q_count_sha256, by_sha256=sha256)
    return row["n"] if row else 0
