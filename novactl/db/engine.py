"""Opening the database. SQLite by the standard library and the compiled text; any other by SQLAlchemy.

SQLite: `isolation_level=None` with our own `BEGIN IMMEDIATE` for writers (a deferred one loses the race for the write
lock when it is too late to wait), WAL, `synchronous=FULL`, a busy timeout, foreign keys, 0600 in a 0700 directory. On a full file
system the index of the log cannot be made: who only reads then keeps it in memory, and lets nobody else in meanwhile.
Other databases: READ COMMITTED, rows locked by `FOR UPDATE` where a decision rests on them, compare-and-set besides.
No transaction spans a call to an agent.
"""

from __future__ import annotations

import abc
import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from novactl.db import meta
from novactl.db.statements import Row, Statement, Tx
from novactl.errors import Conflict, DatabaseFailed, DatabaseUnavailable, NotInitialised, NovaError, SchemaNewer, SchemaOlder

SCHEMA = 3
"""The newest migration (novactl/db/migrations/versions)."""


class Clock(Protocol):
    """As `novactl.cluster.Clock`."""

    def now(self) -> float: ...
    def monotonic(self) -> float: ...


class Database(abc.ABC):
    """A database and its transactions. Safe to share between threads; each thread has its own connection."""

    where: str
    busy_timeout_s: float

    @abc.abstractmethod
    def read(self) -> contextlib.AbstractContextManager[Tx]:
        """A transaction that sees one moment and writes nothing."""

    @abc.abstractmethod
    def write(self) -> contextlib.AbstractContextManager[Tx]: ...

    @abc.abstractmethod
    def now(self, clock: Clock) -> float:
        """The time (UTC, seconds since the epoch) that all who share the database reckon leases and deadlines in."""

    @abc.abstractmethod
    def schema(self) -> int:
        """The schema's number, 0 where there is none."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close what this thread holds open; the next transaction opens it anew."""

    def check_schema(self) -> None:
        """Raises NotInitialised, SchemaOlder or SchemaNewer; returns when the schema is the one this code knows."""
        found = self.schema()
        if found == 0:
            raise NotInitialised(self.where)
        if found > SCHEMA:
            raise SchemaNewer(self.where, found, SCHEMA)
        if found < SCHEMA:
            raise SchemaOlder(self.where, found, SCHEMA)


def open_database(url: str, *, busy_timeout_s: float = 60.0) -> Database:
    """The database at `url`; nothing is opened before the first transaction. Raises DatabaseFailed for a bad URL."""
    if url.startswith("sqlite:///"):
        return SqliteDatabase(Path(url.removeprefix("sqlite:///")), busy_timeout_s)
    if url.startswith("sqlite"):
        raise DatabaseFailed(f"database.url: {url!r} names no file", hint="sqlite:////absolute/path, or leave it empty")
    from novactl.db.core import CoreDatabase

    return CoreDatabase(url, busy_timeout_s)


# ---------------------------------------------------------------- SQLite

ALONE = "locking_mode=EXCLUSIVE"
"""The file is locked for as long as the connection is open, and the index of the log is in memory (sqlite.org/wal.html#noshm)."""


class SqliteTx:
    def __init__(self, connection: sqlite3.Connection) -> None:
        from novactl.db.compiled import SQLITE

        self._connection = connection
        self._text = SQLITE

    def all(self, query: Statement, **params: Any) -> Sequence[Row]:
        return self._connection.execute(self._text[query.name], params).fetchall()

    def one(self, query: Statement, **params: Any) -> Row | None:
        return self._connection.execute(self._text[query.name], params).fetchone()

    def run(self, query: Statement, **params: Any) -> int:
        return self._connection.execute(self._text[query.name], params).rowcount

    def run_many(self, query: Statement, params: Sequence[Mapping[str, Any]]) -> None:
        self._connection.executemany(self._text[query.name], params)

    def stream(self, query: Statement, **params: Any) -> Iterator[tuple]:
        cursor = self._connection.cursor()
        cursor.row_factory = None
        return cursor.execute(self._text[query.name], params)


class SqliteDatabase(Database):
    def __init__(self, path: Path, busy_timeout_s: float) -> None:
        self.path = path
        self.where = str(path)
        self.busy_timeout_s = busy_timeout_s
        self._local = threading.local()

    def create(self) -> None:
        """Make the empty file, private to its owner, in a private directory. An existing one is left as it is."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        self._connection().execute("PRAGMA journal_mode=WAL")

    def _connection(self) -> sqlite3.Connection:
        found = getattr(self._local, "connection", None)
        if found is None:
            found = self._local.connection = self._opened()
        return found

    def _opened(self, *pragmas: str) -> sqlite3.Connection:
        if not self.path.exists():
            raise NotInitialised(self.where)
        opened = sqlite3.connect(
            f"file:{_quoted(self.path)}?mode=rw", uri=True, isolation_level=None, timeout=self.busy_timeout_s, check_same_thread=False)
        opened.row_factory = sqlite3.Row
        try:
            for pragma in (*pragmas, "synchronous=FULL", "foreign_keys=ON"):
                opened.execute(f"PRAGMA {pragma}")
        except sqlite3.Error:
            opened.close()                                    # what it has locked it would keep
            raise
        return opened

    def is_cut_off(self) -> bool:
        """Whether there is no room for the index of the log: nothing can be written, and read only ALONE."""
        if getattr(self._local, "connection", None) is not None or not is_full(self.where) or not self.path.exists():
            return False
        try:
            with contextlib.closing(self._opened()) as tried:
                tried.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as failed:
            return "disk I/O" in str(failed)
        except sqlite3.Error:
            pass                                              # who opens it says what it is
        return False

    @contextlib.contextmanager
    def read(self) -> Iterator[Tx]:
        """A transaction that sees one moment and writes nothing; also where there is no room left."""
        try:
            cut_off = self.is_cut_off()
            if cut_off:
                self._local.connection = self._opened(ALONE)
        except sqlite3.Error as failed:
            raise sqlite_explained(failed, self.where, self.busy_timeout_s) from failed
        try:
            with self._transaction("BEGIN") as tx:
                yield tx
        finally:
            if cut_off:
                self.close()

    def write(self) -> contextlib.AbstractContextManager[Tx]:
        return self._transaction("BEGIN IMMEDIATE")

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[Tx]:
        try:
            connection = self._connection()
            if connection.in_transaction:                     # left by an interruption that came before its first line
                connection.execute("ROLLBACK")
            mine = self._local.current = SqliteTx(connection)
            try:
                connection.execute(begin)
                yield mine
                connection.execute("COMMIT")
            except BaseException:                             # also late, when what was left so is collected: then another is under way
                if getattr(self._local, "current", None) is mine and connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as failed:
            raise sqlite_explained(failed, self.where, self.busy_timeout_s) from failed

    def now(self, clock: Clock) -> float:
        """All who share a file are on one machine."""
        return clock.now()

    def schema(self) -> int:
        if not self.path.exists():
            return 0
        try:
            with self.read() as tx:
                return meta.schema_number(tx)
        except DatabaseFailed as failed:
            if "no such table" in failed.message:
                return 0
            raise

    def close(self) -> None:
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            self._local.connection = None
            connection.close()


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(str(path))


def raced(text: str, error: type[Conflict] = Conflict) -> Conflict:
    """A constraint held where a check before it had not yet seen the other's row."""
    return error(f"another command changed the same thing at this moment: {text}", hint="look again, then try again")


def held(where: str, waited_s: float) -> DatabaseUnavailable:
    """Another transaction did not end while this one could wait."""
    return DatabaseUnavailable(
        f"another process has held the database {where} for {waited_s:g} s", hint="`novactl operation list` shows who is at work")


FULL_BYTES = 1 << 20


def free_bytes(where: str) -> int | None:
    """For those who are not root; None where it cannot be told."""
    try:
        stat = os.statvfs(os.path.dirname(where))
    except OSError:
        return None
    return stat.f_bavail * stat.f_frsize


def is_full(where: str) -> bool:
    """SQLite calls a full disk an I/O error where it happens beside the database itself (the log, the index of the log)."""
    free = free_bytes(where)
    return free is not None and free < FULL_BYTES


def _full(where: str, text: str) -> DatabaseUnavailable:
    folder, free = os.path.dirname(where), free_bytes(where)
    while not os.path.ismount(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    return DatabaseUnavailable(
        f"no space left for the database {where}: {text}; its file system, mounted at {folder}, has {free or 0} bytes free",
        hint="nothing was changed. Free some space there; lists, `show` and `novactl db backup FILE` to another file system work meanwhile",
        command=f"df -h {folder}; du -xah {folder} | sort -h | tail")


def sqlite_explained(failed: sqlite3.Error, where: str, busy_timeout_s: float) -> NovaError:
    text = str(failed)
    if isinstance(failed, sqlite3.IntegrityError):
        return raced(text)
    if "locked" in text or "busy" in text:
        return held(where, busy_timeout_s)
    if "readonly" in text or "unable to open" in text:
        return DatabaseFailed(f"cannot write the database {where}: {text}", hint="check its owner, mode and file system")
    if "full" in text or ("disk I/O" in text and is_full(where)):
        return _full(where, text)
    damaged = "not a database" in text or "malformed" in text
    return DatabaseFailed(f"database {where}: {text}", hint=meta.DAMAGED if damaged else "")
