"""MariaDB for tests: a server with its own directory, its own socket, an unprivileged user and no port; a database for each test."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pymysql


class Server:
    """`durable`: what was committed outlives the server's being killed."""

    def __init__(self, *, durable: bool = False) -> None:
        assert shutil.which("mariadbd", path=_PATH), "MariaDB's server is not installed: tests/run installs it"
        self._folder = Path(tempfile.mkdtemp(prefix="novactl-maria-", dir="/tmp"))
        self._user = pwd.getpwnam("mysql" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name)
        self._made, self._durable = itertools.count(1), durable
        os.chown(self._folder, self._user.pw_uid, self._user.pw_gid)
        try:
            self._popen(
                "mariadb-install-db", "--no-defaults", f"--datadir={self._folder}/data", "--auth-root-authentication-method=normal",
                "--skip-test-db", "--innodb-log-file-size=16M").wait(300)
            self.start()
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def start(self) -> None:
        self._server = self._popen(
            "mariadbd", "--no-defaults", f"--datadir={self._folder}/data", f"--socket={self._folder}/socket", "--skip-networking",
            "--max-connections=200", "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M",
            *(() if self._durable else _HASTY))
        deadline = time.monotonic() + 300
        while not self._answers():
            assert self._server.poll() is None and time.monotonic() < deadline, (self._folder / "log").read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        """As if the machine had lost its power: nothing is said to those who are connected."""
        self._server.send_signal(signal.SIGKILL)
        self._server.wait()

    def create(self) -> str:
        """The URL of a new, empty database. Its default collation is one that novactl must not rest on."""
        name = f"novactl{next(self._made)}"
        assert self._server.poll() is None, (self._folder / "log").read_text()[-2000:]
        self.sql(f"CREATE DATABASE {name} CHARACTER SET latin1 COLLATE latin1_swedish_ci")
        return f"mariadb+pymysql://root@localhost/{name}?unix_socket={self._folder}/socket"

    def drop(self, url: str) -> None:
        """Whoever is still connected is cut off."""
        name = url.partition("@localhost/")[2].partition("?")[0]
        for (number,) in self.sql("SELECT id FROM information_schema.processlist WHERE db = %s", name):
            with contextlib.suppress(pymysql.err.MySQLError):
                self.sql(f"KILL {number}")
        self.sql(f"DROP DATABASE {name}")

    def sql(self, text: str, *values: str) -> list[tuple]:
        with contextlib.closing(self._connection()) as connection, connection.cursor() as cursor:
            cursor.execute(text, values)
            return list(cursor.fetchall())

    def close(self) -> None:
        self._server.kill()
        self._server.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _connection(self) -> pymysql.Connection:
        return pymysql.connect(user="root", unix_socket=f"{self._folder}/socket", autocommit=True, connect_timeout=5)

    def _answers(self) -> bool:
        try:
            self._connection().close()
        except pymysql.err.OperationalError:
            return False
        return True

    def _popen(self, program: str, *argv: str) -> subprocess.Popen:
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [program, *argv], user=self._user.pw_uid, group=self._user.pw_gid, extra_groups=[], cwd=self._folder,
                env={"PATH": _PATH, "LC_ALL": "C.UTF-8", "HOME": str(self._folder)}, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


_HASTY = ("--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync", "--skip-innodb-doublewrite")
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
