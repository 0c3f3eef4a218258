"""Images."""

from __future__ import annotations

from typing import Any

from novactl.db.named import Named
from novactl.db.statements import Tx, statement
from novactl.model.image import Image

images: Named[Image] = Named("image", lambda row: Image(**row))
all_, by_name, by_id, by_id_prefix, names = images.all_, images.by_name, images.by_id, images.by_id_prefix, images.names
insert, delete = images.insert, images.delete


@statement
def q_count_sha256(sa: Any, t: Any) -> Any:
    return sa.select(sa.func.count().label("n")).where(t.image.c.sha256 == sa.bindparam("by_sha256"))


def with_sha256(tx: Tx, sha256: str) -> int:
    """How many images share this content."""
    row = tx.one(q_count_sha256, by_sha256=sha256)
    return row["n"] if row else 0
