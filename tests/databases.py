"""Each kind of database that a cluster may be on, for tests that must hold on all of them.

    @pytest.fixture(params=databases.EACH)
    def world(request, tmp_path):
        with databases.database(request.param) as url, small_world(tmp_path, url=url) as made:
            yield made
"""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Iterator
from contextlib import contextmanager

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
    if not _running:
        atexit.register(stop)                                 # also where no test runner ends them
    if kind not in _running:
        _running[kind] = _SERVERS[kind]()
    url = _running[kind].create()
    try:
        yield url
    finally:
        _running[kind].drop(url)


@contextmanager
def server(kind: str) -> Iterator[Server]:
    """A server of one's own, where a commit waits for the disk: to be measured, or killed."""
    with contextlib.closing(_SERVERS[kind](durable=True)) as own:
        yield own


def stop() -> None:
    """End this process's servers, if there are any."""
    while _running:
        _running.popitem()[1].close()


_running: dict[str, Server] = {}
