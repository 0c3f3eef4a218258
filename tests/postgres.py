"""PostgreSQL for tests: a server with its own directory, its own socket, an unprivileged user and no port; a database for each test."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def programs() -> Path:
    """Where the newest installed server's programs are."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    assert found, "PostgreSQL's server is not installed: tests/run installs it"
    return found[-1].parent


@contextmanager
def server(*, durable: bool = False) -> Iterator[str]:
    """The SQLAlchemy URL of an empty database, which is gone afterwards.

    All databases of one process are on one server, which `stop` ends; with `durable`, where a commit waits for the disk, it is one
    of its own.
    """
    if durable:
        with contextlib.closing(_Server(durable=True)) as own:
            yield own.create()
        return
    if not _running:
        atexit.register(stop)                                 # also where no test runner ends it
        _running.append(_Server(durable=False))
    shared = _running[0]
    url = shared.create()
    try:
        yield url
    finally:
        shared.drop(url)


def stop() -> None:
    """End this process's server, if there is one."""
    while _running:
        _running.pop().close()


class _Server:
    def __init__(self, *, durable: bool) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="novactl-pg-", dir="/tmp"))
        self._user = pwd.getpwnam("postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name)
        self._bin, self._data, self._made = programs(), self._folder / "data", itertools.count(1)
        os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        options = f"-k {self._folder} -c listen_addresses='' -c fsync={'on' if durable else 'off'} -c max_connections=200"
        try:
            self._run("initdb", "-D", self._data, "-A", "trust", "-U", "novactl", "--no-sync")
            self._run("pg_ctl", "-D", self._data, "-o", options, "-l", self._folder / "log", "-w", "start")
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def create(self) -> str:
        name = f"novactl{next(self._made)}"
        self._run("createdb", "-h", self._folder, "-U", "novactl", name)
        return f"postgresql+psycopg://novactl@/{name}?host={self._folder}"

    def drop(self, url: str) -> None:
        name = url.partition("@/")[2].partition("?")[0]
        self._run("dropdb", "--force", "-h", self._folder, "-U", "novactl", name)

    def close(self) -> None:
        try:
            self._run("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *argv: str | Path) -> None:
        subprocess.run(
            [str(self._bin / program), *map(str, argv)], check=True, user=self._user.pw_uid, group=self._user.pw_gid, cwd=self._folder,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


_running: list[_Server] = []
