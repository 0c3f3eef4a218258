"""The queries every named noun has: all, by name, by id, by the beginning of an id, insert, delete."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from novactl.db.statements import REGISTRY, Row, Statement, Tx, like_prefix

R = TypeVar("R")


def plain_row(record: Any) -> dict[str, Any]:
    """A record whose fields are the columns."""
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}


class Named(Generic[R]):
    """Queries of one table with `id` and `name`. `name_column` is the one that holds living names only."""

    def __init__(
        self, table: str, record: Callable[[Row], R], row: Callable[[R], dict[str, Any]] = plain_row, *, name_column: str = "name",
        select: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        self._record, self._row = record, row
        selected = select or (lambda sa, t: sa.select(getattr(t, table)))

        def made(name: str, build: Callable[[Any, Any], Any]) -> Statement:
            return REGISTRY.setdefault(f"{table}s.{name}", Statement(f"{table}s.{name}", build))

        def column(t: Any, name: str) -> Any:
            return getattr(t, table).c[name]

        self.q_all = made("all", lambda sa, t: selected(sa, t).where(column(t, name_column).is_not(None)).order_by(column(t, "name")))
        self.q_by_name = made("by_name", lambda sa, t: selected(sa, t).where(column(t, name_column) == sa.bindparam("by_name")))
        self.q_by_id = made("by_id", lambda sa, t: selected(sa, t).where(column(t, "id") == sa.bindparam("by_id")))
        self.q_by_id_prefix = made("by_id_prefix", lambda sa, t: selected(sa, t).where(
            like_prefix(sa, column(t, "id")), column(t, name_column).is_not(None)).order_by(column(t, "name")))
        self.q_names = made("names", lambda sa, t: sa.select(column(t, name_column)).where(
            like_prefix(sa, column(t, name_column))).order_by(column(t, name_column)).limit(200))
        self.q_insert = made("insert", lambda sa, t: sa.insert(getattr(t, table)))
        self.q_delete = made("delete", lambda sa, t: sa.delete(getattr(t, table)).where(column(t, "id") == sa.bindparam("by_id")))

    def all_(self, tx: Tx) -> tuple[R, ...]:
        return tuple(self._record(row) for row in tx.all(self.q_all))

    def by_name(self, tx: Tx, name: str) -> R | None:
        return self._first(tx.one(self.q_by_name, by_name=name))

    def by_id(self, tx: Tx, id_: str) -> R | None:
        return self._first(tx.one(self.q_by_id, by_id=id_))

    def by_id_prefix(self, tx: Tx, prefix: str) -> Sequence[R]:
        return [self._record(row) for row in tx.all(self.q_by_id_prefix, by_prefix=prefix)]

    def names(self, tx: Tx, prefix: str) -> list[str]:
        """At most 200 living names that begin so."""
        return [name for (name,) in tx.stream(self.q_names, by_prefix=prefix)]

    def insert(self, tx: Tx, record: R) -> None:
        tx.run(self.q_insert, **self._row(record))

    def delete(self, tx: Tx, id_: str) -> bool:
        """True when there was one."""
        return tx.run(self.q_delete, by_id=id_) > 0

    def _first(self, row: Row | None) -> R | None:
        return None if row is None else self._record(row)
