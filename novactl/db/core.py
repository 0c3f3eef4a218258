"""The database by SQLAlchemy: every URL that is not SQLite's."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from novactl.db import meta, schema
from novactl.db.engine import Database, raced
from novactl.db.refusals import Crossed
from novactl.db.statements import Row, Statement, Tx
from novactl.errors import DatabaseFailed

IDLE_S = 1.0
"""A connection unused for so long may have been closed by the other side."""


def _crossed(failed: DBAPIError) -> bool:
    """A deadlock or a serialization failure: PostgreSQL's SQLSTATE 40001, 40P01; MariaDB's error 1213."""
    return getattr(failed.orig, "sqlstate", "") in ("40001", "40P01") or (failed.orig is not None and failed.orig.args[:1] == (1213,))


def _ask_the_idle(engine: sqlalchemy.Engine) -> None:
    """A connection that lay idle is asked whether it still is one; asking before each transaction would cost a tenth of a claim."""

    def returned(_connection: Any, record: Any) -> None:
        record.info["returned"] = time.monotonic()

    def taken(connection: Any, record: Any, _proxy: Any) -> None:
        if time.monotonic() - record.info.get("returned", math.inf) > IDLE_S:
            try:
                engine.dialect.do_ping(connection)
            except engine.dialect.dbapi.Error as gone:
                raise DisconnectionError() from gone           # the pool opens another one

    sqlalchemy.event.listen(engine, "checkin", returned)
    sqlalchemy.event.listen(engine, "checkout", taken)


class CoreTx:
    def __init__(self, connection: sqlalchemy.Connection, built: dict[str, Any]) -> None:
        self._connection = connection
        self._built = built

    def _construct(self, query: Statement) -> Any:
        found = self._built.get(query.name)
        if found is None:
            found = self._built[query.name] = query.build(sqlalchemy, schema)
        return found

    def all(self, query: Statement, **params: Any) -> Sequence[Row]:
        return self._connection.execute(self._construct(query), params).mappings().all()

    def one(self, query: Statement, **params: Any) -> Row | None:
        return self._connection.execute(self._construct(query), params).mappings().first()

    def run(self, query: Statement, **params: Any) -> int:
        return self._connection.execute(self._construct(query), params).rowcount

    def run_many(self, query: Statement, params: Sequence[Mapping[str, Any]]) -> None:
        if params:
            self._connection.execute(self._construct(query), list(params))

    def stream(self, query: Statement, **params: Any) -> Iterator[tuple]:
        return (tuple(row) for row in self._connection.execute(self._construct(query), params))


class CoreDatabase(Database):
    def __init__(self, url: str) -> None:
        try:
            parsed = sqlalchemy.make_url(url)
            self.engine = sqlalchemy.create_engine(
                parsed, isolation_level="READ COMMITTED", pool_size=8, max_overflow=24)
        except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as bad:
            raise DatabaseFailed(f"database.url: {bad}", hint="for PostgreSQL: pip install 'novactl[postgres]'") from None
        _ask_the_idle(self.engine)
        self.where = parsed.render_as_string(hide_password=True)
        self._built: dict[str, Any] = {}

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlalchemy.Connection]:
        try:
            with self.engine.begin() as connection:
                yield connection
        except IntegrityError as failed:
            raise raced(str(failed.orig).strip().splitlines()[0]) from failed
        except DBAPIError as failed:
            if _crossed(failed):
                raise Crossed(
                    "two commands waited for each other, and the database ended this one", hint="look again, then try again") from failed
            raise DatabaseFailed(f"database {self.where}: {str(failed.orig).strip()}") from failed
        except SQLAlchemyError as failed:
            raise DatabaseFailed(f"database {self.where}: {failed}") from failed

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Tx]:
        with self._connected() as connection:
            yield CoreTx(connection, self._built)

    def read(self) -> contextlib.AbstractContextManager[Tx]:
        return self._transaction()

    def write(self) -> contextlib.AbstractContextManager[Tx]:
        return self._transaction()

    def schema(self) -> int:
        with self._connected() as connection:
            if not sqlalchemy.inspect(connection).has_table("meta"):
                return 0
            return meta.schema_number(CoreTx(connection, self._built))

    def close(self) -> None:
        """Connections belong to the pool, not to a thread: nothing is held between transactions."""
