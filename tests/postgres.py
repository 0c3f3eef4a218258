"""PostgreSQL for tests: a server with its own directory, its own socket, an unprivileged user and no port; a database for each test."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path


def programs() -> Path:
    """Where the newest installed server's programs are."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    assert found, "PostgreSQL's server is not installed: tests/run installs it"
    return found[-1].parent


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return False


class Server:
    """`durable`: a commit waits for the disk."""

    def __init__(self, *, durable: bool = False) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="novactl-pg-", dir="/tmp"))
        self._user = pwd.getpwnam("postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name)
        self._bin, self._data, self._made = programs(), self._folder / "data", itertools.count(1)
        self._options = f"-k {self._folder} -c listen_addresses='' -c fsync={'on' if durable else 'off'} -c max_connections=200"
        os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        try:
            self._run("initdb", "-D", self._data, "-A", "trust", "-U", "novactl", "--no-sync")
            self.start()
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def start(self) -> None:
        self._run("pg_ctl", "-D", self._data, "-o", self._options, "-l", self._folder / "log", "-w", "-t", "300", "start")

    def kill(self) -> None:
        """As if the machine had lost its power: nothing is said to those who are connected."""
        lock = self._data / "postmaster.pid"
        postmaster = int(lock.read_text().splitlines()[0])
        os.kill(postmaster, signal.SIGSTOP)                   # it starts no more children
        everyone = [*map(int, Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()), postmaster]
        for pid in everyone:
            os.kill(pid, signal.SIGKILL)
        while any(_runs(pid) for pid in everyone):
            time.sleep(0.01)
        for left in (lock, *self._folder.glob(".s.PGSQL.*")):  # the dead that nobody has reaped yet count as another server
            left.unlink()

    def create(self) -> str:
        """The URL of a new, empty database."""
        name = f"novactl{next(self._made)}"
        self._run("createdb", "-h", self._folder, "-U", "novactl", name)
        return f"postgresql+psycopg://novactl@/{name}?host={self._folder}"

    def drop(self, url: str) -> None:
        """Whoever is still connected is cut off."""
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
