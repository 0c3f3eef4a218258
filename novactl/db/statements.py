"""A statement is a query written once in SQLAlchemy Core, under a name.

    @statement
    def q_recent(sa, t):
        return sa.select(t.operation).where(t.operation.c.created_at > sa.bindparam("by_created_at"))

`sa` is the sqlalchemy module and `t` novactl.db.schema: both are handed in, so that a file of queries can be imported
without them. Parameters are named `by_…` where they select and `new_…` where they set (SQLAlchemy keeps the columns'
own names for inserts). Statements are static: no list is expanded, no clause is left out. Rows are locked with
`with_for_update(key_share=True)`: whoever has written a row that refers to one may then still lock it, as others do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol


class Statement(NamedTuple):
    name: str
    build: Callable[[Any, Any], Any]


REGISTRY: dict[str, Statement] = {}


def statement(build: Callable[[Any, Any], Any]) -> Statement:
    name = f"{build.__module__.rsplit('.', 1)[-1]}.{build.__name__}"
    made = Statement(name, build)
    if REGISTRY.setdefault(name, made) is not made:
        raise ValueError(f"two statements are named {name}")
    return made


Row = Mapping[str, Any]


class Tx(Protocol):
    """One transaction. Leaving its `with` block commits; an exception rolls back."""

    def all(self, query: Statement, **params: Any) -> Sequence[Row]: ...

    def one(self, query: Statement, **params: Any) -> Row | None:
        """The first row, or None."""

    def run(self, query: Statement, **params: Any) -> int:
        """Rows changed."""

    def run_many(self, query: Statement, params: Sequence[Mapping[str, Any]]) -> None: ...

    def stream(self, query: Statement, **params: Any) -> Iterator[tuple]:
        """Rows as plain tuples: for hot reads."""


def to_json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def from_json(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def updates(sa: Any, table: Any, *columns: str) -> Any:
    """An update that sets each of `columns` from the parameter `new_<column>`."""
    return sa.update(table).values({name: sa.bindparam(f"new_{name}", type_=table.c[name].type) for name in columns})


def like_prefix(sa: Any, column: Any) -> Any:
    """`column` begins with the parameter `by_prefix`, exactly (no wildcard is read in it)."""
    prefix = sa.bindparam("by_prefix", type_=sa.String)
    return sa.func.substr(column, 1, sa.func.length(prefix)) == prefix
