"""An admin's side for the lab: a data directory, an SSH key, and the command line run as a user runs it."""

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.lab.lab import Lab

REPOSITORY = Path(__file__).parents[2]
READY = "novactl-guest ready: "
PATIENCE_S = 240.0
"""What is waited for at most on a machine that has other things to do; only a test that fails waits so long."""
T = TypeVar("T")


@dataclass(frozen=True)
class Ran:
    """A command that ended: its exit status and streams."""

    words: tuple[str, ...]
    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def items(self) -> list[dict[str, Any]]:
        return self.json["items"]


class Unexpected(AssertionError):
    """A command ended otherwise than the test says it must."""


def until(probe: Callable[[], T], what: str, *, within_s: float = PATIENCE_S) -> T:
    """Ask again and again until `probe()` is true, and return that. Raises AssertionError naming `what` when time is up."""
    deadline = time.monotonic() + within_s
    while not (found := probe()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.05)
    return found


class Fleet:
    """The lab's hosts as nodes of one cluster in `data_dir`."""

    def __init__(self, lab: Lab, data_dir: Path) -> None:
        self.lab, self.data_dir = lab, data_dir
        self._begun: list[subprocess.Popen[str]] = []
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("NOVACTL_", "XDG_", "SSH_"))}
        self.env = {
            **kept, "HOME": str(lab.home), "NOVACTL_DATA_DIR": str(data_dir), "NOVACTL_CONFIG": str(data_dir / "config.toml"),
            "PYTHONPATH": str(REPOSITORY), "TERM": "dumb",
        }

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "novactl", *words]

    def novactl(
        self, *words: str, status: int = 0, stdin: str = "", timeout_s: float = PATIENCE_S, env: Mapping[str, str] | None = None,
    ) -> Ran:
        """Run `novactl words` to its end, which must be exit `status`. Nobody can answer its questions."""
        done = subprocess.run(
            self.command(*words), input=stdin, capture_output=True, text=True, errors="replace", timeout=timeout_s,
            env={**self.env, "NOVACTL_NO_INPUT": "1", **(env or {})}, cwd=REPOSITORY,
        )
        if done.returncode != status:
            raise Unexpected(f"novactl {' '.join(words)}: exit {done.returncode}, not {status}\n{done.stdout}{done.stderr}")
        return Ran(words, done.returncode, done.stdout, done.stderr)

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Start `novactl words` and return it running."""
        begun = subprocess.Popen(
            self.command(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**self.env, "NOVACTL_NO_INPUT": "1"}, cwd=REPOSITORY,
        )
        self._begun.append(begun)
        return begun

    def status(self, *words: str) -> int:
        """Run `novactl words` to its end, whatever that is; its exit status."""
        begun = self.begin(*words)
        begun.communicate(timeout=PATIENCE_S)
        return begun.returncode

    # Between tests ---------------------------------------------------------------------------------------------------

    def mend(self) -> None:
        """The fleet as it was enrolled, but for its servers, wherever a test that failed has left it: no host off, hung or cut
        off, no command running, no operation under way, every node enabled and without a way of being fenced."""
        for begun in self._begun:
            begun.kill()
            if begun.stdout and not begun.stdout.closed:
                begun.communicate()
        self._begun.clear()
        self.lab.heal()
        for host in self.lab.hosts:
            host.power_on()
            host.run("sh", "-c", "kill -CONT $(cat /run/libvirtd.pid)", check=False)
            if host.run("virsh", "list", check=False).status:
                host.power_off()
                host.power_on()
            until(host.agent_listens, f"the agent of {host.name} runs")
        until(lambda: not self.under_way() or (self.novactl("node", "list"), False)[1], "nothing is under way")
        for name, in self.rows("SELECT name FROM node WHERE state <> 'enabled'"):
            self.novactl("node", "enable", name)
        for name, in self.rows("SELECT name FROM node JOIN node_file ON node_id = node.id WHERE fencing <> '{}'"):
            self.novactl("node", "unset", name, "--fence")

    def empty(self) -> None:
        """Delete all servers. What keeps one is raised when all are gone nevertheless: it is nothing to the next test."""
        names = self.novactl("server", "list", "-o", "name").stdout.split()
        if names:
            try:
                self.novactl("server", "delete", "--yes", *names)
            except Unexpected:
                until(lambda: self.status("server", "delete", "--yes", *names) in (0, 3) and not self.under_way(), "all are deleted")
                raise

    # What is there ---------------------------------------------------------------------------------------------------

    def server(self, name: str) -> dict[str, Any]:
        return self.novactl("server", "show", name, "-o", "json").json

    def create(self, name: str, *words: str) -> dict[str, Any]:
        """A running server of the lab's flavor and image."""
        self.novactl("server", "create", name, "--flavor", "tiny", "--image", "guest", *words)
        return self.server(name)

    def await_ready(self, name: str, *, boot: int = 1) -> str:
        """Wait for the guest's `boot`th ready line; the address it tells."""

        def address() -> str:
            log = self.novactl("server", "console-log", name).stdout
            found = re.search(rf"boot: {boot}\r?\n(?:.*\n)*?{READY}\S+ (\S+)", log)
            return found[1] if found else ""

        return until(address, f"boot {boot} of {name} is ready")

    def host_of(self, server: Mapping[str, Any]) -> Any:
        return self.lab.host(server["node_name"])

    @contextlib.contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """The cluster's own database, to read."""
        connection = sqlite3.connect(f"file:{self.data_dir}/novactl.db?mode=ro", uri=True, timeout=PATIENCE_S)
        try:
            yield connection
        finally:
            connection.close()

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.database() as database:
            return database.execute(query, values).fetchall()

    def under_way(self) -> list[tuple[str, str, str]]:
        return self.rows("SELECT kind, object_name, state FROM operation WHERE state NOT IN ('ok', 'failed')")

    def leftovers(self) -> dict[str, Any]:
        """What is there and belongs to no living server: empty when all is well. Base images stay by design."""
        living = {row[0] for row in self.rows("SELECT id FROM server WHERE deleted_at IS NULL")}
        found = {
            "claims": self.rows("SELECT consumer_id FROM claim WHERE consumer_id NOT IN (SELECT id FROM server WHERE deleted_at IS NULL)"),
            "operations": self.under_way(),
            "busy servers": self.rows("SELECT name, task_state FROM server WHERE deleted_at IS NULL AND task_state <> ''"),
        }
        for host in self.lab.hosts:
            if host.is_on:
                found[f"domains on {host.name}"] = [name for name in host.domains() if name.removeprefix("novactl-") not in living]
                found[f"files on {host.name}"] = [
                    name for name in host.pool_files() if not name.startswith("base-") and not any(server in name for server in living)]
        return {what: things for what, things in found.items() if things}
