"""Each kind of database that a cluster may be on, for tests that must hold on all of them.

    @pytest.fixture(params=databases.EACH)
    def world(request, tmp_path):
        with databases.database(request.param) as url, small_world(tmp_path, url=url) as made:
            yield made
"""

from __future__ import annotations

import atexit
import contextlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy

from novactl.db import migrate, schema
from novactl.db.engine import open_database
from tests import mariadb, postgres

Server = mariadb.Server | postgres.Server
_SERVERS = {"postgresql": postgres.Server, "mariadb": mariadb.Server}
SHARED = tuple(_SERVERS)
EACH = ("sqlite", *SHARED)


@contextmanager
def database(kind: str) -> Iterator[str]:
    """The URL of an empty database, which is gone afterwards; "" for SQLite, which is where nothing is said.

    All databases of a kind that one process asks for are on one server, which `stop` ends.
    """
    if kind == "sqlite":
        yield ""
        return
    shared = _shared(kind)
    url = shared.create()
    try:
        yield url
    finally:
        shared.drop(url)


@contextmanager
def cluster(kind: str) -> Iterator[str]:
    """As `database`, but with a cluster in it that has been made and not used: one that is lent again and again, because making one
    takes longer than most tests."""
    if kind == "sqlite":
        yield ""
        return
    url = _idle[kind].pop() if _idle.get(kind) else _with_cluster(_shared(kind).create())
    yield url
    _empty(url)
    _idle.setdefault(kind, []).append(url)


@contextmanager
def server(kind: str) -> Iterator[Server]:
    """A server of one's own, where a commit waits for the disk: to be measured, or killed."""
    with contextlib.closing(_SERVERS[kind](durable=True)) as own:
        yield own


def stop() -> None:
    """End this process's servers, if there are any."""
    _idle.clear()
    while _running:
        _running.popitem()[1].close()


def _shared(kind: str) -> Server:
    if not _running:
        atexit.register(stop)                                 # also where no test runner ends them
    if kind not in _running:
        _running[kind] = _SERVERS[kind]()
    return _running[kind]


def _with_cluster(url: str) -> str:
    migrate.upgrade(open_database(url), url, str(uuid.uuid4()))
    return url


def _empty(url: str) -> None:
    with migrate.migrating(open_database(url), url) as connection:
        for table in reversed(schema.metadata.sorted_tables):
            if table is not schema.meta:
                connection.execute(sqlalchemy.delete(table))
        connection.execute(sqlalchemy.insert(schema.project), {"id": "default", "name": "default", "description": "", "created_at": 0.0})
        connection.execute(sqlalchemy.delete(schema.meta).where(schema.meta.c.key.not_in(["schema", "cluster_id"])))


_running: dict[str, Server] = {}
_idle: dict[str, list[str]] = {}
