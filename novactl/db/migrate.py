"""Bringing a database to the schema this code knows. The only place that imports alembic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy
from alembic import command
from alembic.config import Config as AlembicConfig

from novactl.db import derived, meta
from novactl.db.core import CoreTx
from novactl.db.engine import SCHEMA, Database, SqliteDatabase


def upgrade(database: Database, url: str, cluster_id: str) -> None:
    """Create or upgrade the schema, in one transaction, and give a new cluster its id. Calling it again changes nothing.

    What the database keeps that follows from other rows is written anew.
    """
    if isinstance(database, SqliteDatabase):
        database.create()
        engine = sqlite_engine(url, database.busy_timeout_s)
    else:
        engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        command.upgrade(alembic_config(connection), "head")
        tx = CoreTx(connection, {})
        meta.put(tx, "schema", str(SCHEMA))
        derived.everything(tx)
        if meta.get(tx, "cluster_id") is None:
            meta.put(tx, "cluster_id", cluster_id)
    engine.dispose()


def alembic_config(connection: sqlalchemy.Connection) -> AlembicConfig:
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["connection"] = connection
    return config


def sqlite_engine(url: str, busy_timeout_s: float = 60.0) -> sqlalchemy.Engine:
    """SQLAlchemy on SQLite with writers that queue: the driver's own transactions are off, ours begin IMMEDIATE.

    Foreign keys are not enforced: a table that is made anew is dropped in between, which would take along what refers to it.
    """
    engine = sqlalchemy.create_engine(url, connect_args={"timeout": busy_timeout_s})

    @sqlalchemy.event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys=OFF")

    @sqlalchemy.event.listens_for(engine, "begin")
    def on_begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine
