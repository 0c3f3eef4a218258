"""The database by SQLAlchemy: PostgreSQL and MariaDB."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, IntegrityError, SQLAlchemyError

from novactl.db import crossing, leases, mariadb, meta, schema
from novactl.db.engine import Clock, Database, held, raced
from novactl.db.refusals import Crossed
from novactl.db.statements import Row, Statement, Tx
from novactl.errors import DatabaseFailed, DatabaseLost, DatabaseUnavailable, NovaError, Uncertain

IDLE_S = 1.0
"""A connection unused for so long may have been closed by the other side."""
CONNECT_S = 10
ASK_TIME_S = 60.0
IDLE_AT_LEAST_S = 10
ONE_MOMENT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"
DRIVERS = {"postgresql": "psycopg", "mariadb": "pymysql"}

CROSSED = frozenset({"40001", "40P01", 1213})
"""Serialization failure and deadlock: SQLSTATEs of PostgreSQL, and MariaDB's numbers."""
HELD = frozenset({"55P03", 1205})
"""A row was waited for as long as may be."""
FULL = frozenset({"53100", 1021, 1114})


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
        self.connection = connection
        self._built = built

    def _construct(self, query: Statement) -> Any:
        found = self._built.get(query.name)
        if found is None:
            found = self._built[query.name] = query.build(sqlalchemy, schema)
        return found

    def all(self, query: Statement, **params: Any) -> Sequence[Row]:
        return self.connection.execute(self._construct(query), params).mappings().all()

    def one(self, query: Statement, **params: Any) -> Row | None:
        return self.connection.execute(self._construct(query), params).mappings().first()

    def run(self, query: Statement, **params: Any) -> int:
        return self.connection.execute(self._construct(query), params).rowcount

    def run_many(self, query: Statement, params: Sequence[Mapping[str, Any]]) -> None:
        if params:
            self.connection.execute(self._construct(query), list(params))

    def stream(self, query: Statement, **params: Any) -> Iterator[tuple]:
        return (tuple(row) for row in self.connection.execute(self._construct(query), params))


class CoreDatabase(Database):
    def __init__(self, url: str, busy_timeout_s: float = 60.0) -> None:
        self.busy_timeout_s = busy_timeout_s
        self.engine, self.where = connecting(url, busy_timeout_s)
        _ask_the_idle(self.engine)
        self._told: tuple[float, float] | None = None
        self._telling = threading.Lock()
        self._built: dict[str, Any] = {}

    @contextlib.contextmanager
    def _transaction(self, *, writes: bool) -> Iterator[CoreTx]:
        connected = committing = False
        try:
            with self.engine.connect() as connection, connection.begin():
                connected = True
                if not writes:
                    connection.exec_driver_sql(ONE_MOMENT)
                yield CoreTx(connection, self._built)
                committing = writes
            if writes:
                crossing.has_written()
        except SQLAlchemyError as failed:
            raise explained(failed, self.where, self.busy_timeout_s, connected=connected, committing=committing) from failed

    def read(self) -> contextlib.AbstractContextManager[Tx]:
        return self._transaction(writes=False)

    def write(self) -> contextlib.AbstractContextManager[Tx]:
        return self._transaction(writes=True)

    def now(self, clock: Clock) -> float:
        """Asked once a minute, and gone on with by this machine's stop watch: its clock may be wrong, and be set."""
        here_s = clock.monotonic()
        if (self._told is None or here_s - self._told[0] > ASK_TIME_S) and self._telling.acquire(blocking=self._told is None):
            try:
                if self._told is None or here_s - self._told[0] > ASK_TIME_S:
                    with self.read() as tx:
                        self._told = clock.monotonic(), leases.now(tx, clock.now())
            except DatabaseFailed:
                if self._told is None:
                    raise
            finally:
                self._telling.release()
        assert self._told is not None
        then_s, time_s = self._told
        return time_s + clock.monotonic() - then_s

    def schema(self) -> int:
        with self._transaction(writes=False) as tx:
            if not sqlalchemy.inspect(tx.connection).has_table("meta"):
                return 0
            return meta.schema_number(tx)

    def close(self) -> None:
        """Connections belong to the pool, not to a thread: nothing is held between transactions."""


def connecting(url: str, busy_timeout_s: float, **more: Any) -> tuple[sqlalchemy.Engine, str]:
    """The engine of a database server, and its URL without the password. Raises DatabaseFailed for a bad URL.

    A row that another transaction holds is waited for `busy_timeout_s`, as SQLite waits for the whole database; who holds one and
    does nothing for half as long (stopped, or no longer there) loses its connection, and what it had not committed.
    """
    try:
        parsed = sqlalchemy.make_url(url)
        where, backend = parsed.render_as_string(hide_password=True), parsed.get_backend_name()
        if backend not in DRIVERS:
            raise DatabaseFailed(
                f"database.url: {where}: {backend} is not supported", hint="sqlite, postgresql+psycopg and mariadb+pymysql are")
        given: dict[str, Any] = {"connect_timeout": CONNECT_S}
        if backend == "mariadb":
            given |= {"init_command": mariadb.session(busy_timeout_s, idle_s(busy_timeout_s)), "read_timeout": round(busy_timeout_s) + 30}
        else:
            limits = {"lock_timeout": busy_timeout_s, "idle_in_transaction_session_timeout": idle_s(busy_timeout_s)}
            given["options"] = " ".join(
                filter(None, [parsed.query.get("options", ""), *(f"-c {name}={round(s * 1000)}" for name, s in limits.items())]))
        given = {name: value for name, value in given.items() if name == "options" or name not in parsed.query}
        return sqlalchemy.create_engine(parsed, isolation_level="READ COMMITTED", connect_args=given, **more), where
    except ArgumentError as bad:                              # also one that names no driver there is
        raise DatabaseFailed(
            f"database.url: {bad}", hint="postgresql+psycopg://USER:PASSWORD@HOST/NAME, mariadb+pymysql://..., sqlite:////PATH") from None
    except ModuleNotFoundError as bad:
        raise DatabaseFailed(
            f"database.url: {bad}", hint="pip install 'novactl[postgres]' for PostgreSQL, 'novactl[mariadb]' for MariaDB") from None


def idle_s(busy_timeout_s: float) -> float:
    """No transaction of ours waits for anything but the database, or computes for so long."""
    return max(IDLE_AT_LEAST_S, busy_timeout_s / 2)


def explained(failed: SQLAlchemyError, where: str, busy_timeout_s: float, *, connected: bool, committing: bool) -> NovaError:
    """The error of ours that a failure of the driver is."""
    if not isinstance(failed, DBAPIError) or failed.orig is None:
        return DatabaseFailed(f"database {where}: {failed}")
    text = str(failed.orig).strip()
    codes = {getattr(failed.orig, "sqlstate", None), *failed.orig.args[:1]}
    if isinstance(failed, IntegrityError):
        return raced(text.splitlines()[0], Crossed)           # begun anew, the check sees it, and says whose it is
    if codes & CROSSED:
        return Crossed("two commands waited for each other, and the database ended this one", hint="look again, then try again")
    if codes & HELD:
        return held(where, busy_timeout_s)
    if codes & FULL:
        return DatabaseUnavailable(f"no space left for the database {where}: {text}", hint="free some space; nothing was changed")
    if not connected:
        return DatabaseLost(f"cannot reach the database {where}: {text}", hint="is its server running? Nothing was changed")
    if failed.connection_invalidated and committing:
        return Uncertain(
            f"lost the database {where} while it was to make a change lasting: {text}",
            hint="either all of it was written or nothing: look again", command="novactl operation list --all")
    if failed.connection_invalidated:
        return DatabaseLost(f"lost the database {where}: {text}", hint="nothing was changed; what was under way will be ended")
    return DatabaseFailed(f"database {where}: {text}")
