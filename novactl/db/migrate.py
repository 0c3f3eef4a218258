"""Bringing a database to the schema this code knows. The only place that imports alembic."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy
from alembic import command
from alembic.config import Config as AlembicConfig
from sqlalchemy.exc import SQLAlchemyError

from novactl.db import derived, mariadb, meta
from novactl.db.core import CoreTx, connecting, explained
from novactl.db.engine import ALONE, SCHEMA, Database, SqliteDatabase, sqlite_explained
from novactl.db.statements import Tx


def upgrade(database: Database, url: str, cluster_id: str, note: Callable[[Tx], None] = lambda tx: None) -> None:
    """Create or upgrade the schema, and give a new cluster its id. Calling it again changes nothing.

    One transaction, or on MariaDB, where each change of a table ends it, steps that an interrupted upgrade repeats when it is
    begun again. What the database keeps that follows from other rows is written anew. `note` is the last that is written with it.
    """
    if isinstance(database, SqliteDatabase):
        database.create()
    with migrating(database, url) as connection:
        command.upgrade(alembic_config(connection), "head")
        tx = CoreTx(connection, {})
        meta.put(tx, "schema", str(SCHEMA))
        derived.everything(tx)
        if meta.get(tx, "cluster_id") is None:
            meta.put(tx, "cluster_id", cluster_id)
        note(tx)


@contextlib.contextmanager
def migrating(database: Database, url: str) -> Iterator[sqlalchemy.Connection]:
    """A transaction in which tables may be changed, by one process at a time."""
    with transaction(database, url) as connection:
        kind = connection.dialect.name
        if kind == "mariadb":
            sqlalchemy.event.listen(connection, "before_cursor_execute", _repeatable, retval=True)
        if kind in _LOCKS:
            connection.exec_driver_sql(_LOCKS[kind])
        yield connection


@contextlib.contextmanager
def transaction(database: Database, url: str, *, reads: bool = False) -> Iterator[sqlalchemy.Connection]:
    """A transaction on a connection of its own; with `reads` one that sees a single moment of the whole database."""
    if isinstance(database, SqliteDatabase):
        engine = sqlite_engine(url, database.busy_timeout_s, "BEGIN" if reads else "BEGIN IMMEDIATE", alone=reads and database.is_cut_off())
    else:
        engine = connecting(url, database.busy_timeout_s)[0]
        if reads:
            engine = engine.execution_options(isolation_level="REPEATABLE READ")
    connected = False
    try:
        with engine.begin() as connection:
            connected = True
            yield connection
    except SQLAlchemyError as failed:
        cause = getattr(failed, "orig", None)
        if isinstance(cause, sqlite3.Error):
            raise sqlite_explained(cause, database.where, database.busy_timeout_s) from failed
        raise explained(failed, database.where, database.busy_timeout_s, connected=connected, committing=False) from failed
    finally:
        engine.dispose()


_LOCKS = {
    "postgresql": "SELECT pg_advisory_xact_lock(7766)",
    "mariadb": "SELECT GET_LOCK(CONCAT('novactl ', DATABASE()), 3600)",
}


def _repeatable(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> tuple[str, Any]:
    return mariadb.repeatable(statement), parameters


def alembic_config(connection: sqlalchemy.Connection) -> AlembicConfig:
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["connection"] = connection
    return config


def sqlite_engine(url: str, busy_timeout_s: float = 60.0, begin: str = "BEGIN IMMEDIATE", *, alone: bool = False) -> sqlalchemy.Engine:
    """SQLAlchemy on SQLite with writers that queue: the driver's own transactions are off, ours begin IMMEDIATE.

    Foreign keys are not enforced: a table that is made anew is dropped in between, which would take along what refers to it.
    """
    engine = sqlalchemy.create_engine(url, connect_args={"timeout": busy_timeout_s})

    @sqlalchemy.event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys=OFF")
        if alone:
            connection.execute(f"PRAGMA {ALONE}")

    @sqlalchemy.event.listens_for(engine, "begin")
    def on_begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine
