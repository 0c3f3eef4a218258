"""`novactl conductor run` as real processes on one database: killed, stopped, ended, asked who leads."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from novactl.agents import keys
from novactl.api import keys as api_keys
from novactl.api import nodes as api_nodes
from novactl.api import service
from novactl.conductor import notify
from novactl.conductor.service import JOBS
from novactl.db import events, nodes, retention
from novactl.db import keys as key_rows
from novactl.errors import Denied, UsageError
from novactl.model.key import Role
from novactl.model.operation import EventRecord
from tests import databases
from tests.contract.kit import is_gone, until
from tests.sagas.scenarios import SCENARIOS
from tests.world import World, small_world

LEASE_S = 2.0
PATIENCE_S = 60.0
"""A start of novactl takes seconds on a machine that has other things to do."""


class Process:
    """`next(act)` waits for a line of its log that tells of `act`."""

    def __init__(self, world: World, *words: str, **env: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "novactl", "conductor", "run", "--json-logs", *words], stderr=subprocess.PIPE, text=True,
            env={**os.environ, **world.env, "NOVACTL_CONDUCTOR_LEASE_S": str(LEASE_S), **env}, cwd=Path(__file__).parents[2])
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.log: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.log.append(line)
            self._lines.put(line)

    def next(self, act: str, within_s: float = PATIENCE_S) -> dict[str, Any]:
        deadline = time.monotonic() + within_s
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"{act} was not told within {within_s} s: {self.log}") from None
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                if found["act"] == act:
                    return found

    def end(self) -> int:
        """SIGTERM -> the exit status."""
        self.process.terminate()
        return self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE_S)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with small_world(tmp_path) as made:
        yield made


@contextlib.contextmanager
def conductors(world: World, *words: str, count: int = 1, **env: str) -> Iterator[list[Process]]:
    """The first of them leads."""
    made: list[Process] = []
    try:
        for number in range(count):
            made.append(Process(world, *words, **env))
            made[-1].next("runs" if number else "leads")
        yield made
    finally:
        for one in made:
            one.kill()


@pytest.mark.parametrize("kind", databases.EACH)
def test_when_the_leader_is_killed_another_leads(kind: str, tmp_path: Path) -> None:
    """Long before the lease's end, with a new epoch; reports go on, and the dead one is no longer listed."""
    lease_s = PATIENCE_S / 2
    with databases.database(kind) as url, small_world(tmp_path, url=url) as world, \
            conductors(world, count=2, NOVACTL_CONDUCTOR_LEASE_S=str(lease_s)) as (first, second):
        seen = service.show(world.cluster)
        assert str(first.process.pid) in seen.leader and [str(second.process.pid) in one for one in seen.waiting] == [True]
        first.kill()
        assert second.next("leads", lease_s / 2)["epoch"] == seen.epoch + 1
        now = world.cluster.clock.now()
        deadline = time.monotonic() + PATIENCE_S
        while min(row.reported_at or 0.0 for row in _rows(world)) < now:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        seen = service.show(world.cluster)
        assert str(second.process.pid) in seen.leader and seen.waiting == ()


def _rows(world: World) -> list[nodes.AgentRow]:
    with world.cluster.db.read() as tx:
        return nodes.agent_rows(tx)


def test_a_leader_that_was_stopped_leads_no_more_when_it_goes_on(world: World) -> None:
    """SIGSTOP is not death: after a lease's length another leads; the first, continued, finds that out and waits again."""
    with conductors(world, count=2) as (first, second):
        stop_between_transactions(first, world)
        second.next("leads")
        first.process.send_signal(signal.SIGCONT)
        first.next("leads no more")
        second.kill()
        first.next("leads")


def stop_between_transactions(process: Process, world: World) -> None:
    """One that is stopped in the middle of one keeps SQLite's lock, and nobody could lead."""
    while True:
        process.process.send_signal(signal.SIGSTOP)
        with contextlib.closing(sqlite3.connect(world.config.data_dir / "novactl.db", timeout=1.0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError:
                process.process.send_signal(signal.SIGCONT)


def test_sigterm_lets_go_at_once(world: World) -> None:
    """It ends with status 0, and who waits need not wait for the lease's end; so with one that waits."""
    with conductors(world, count=2, NOVACTL_CONDUCTOR_LEASE_S="3600") as (first, second):
        assert first.end() == 0
        second.next("leads")
        third = Process(world, NOVACTL_CONDUCTOR_LEASE_S="3600")
        third.next("runs")
        assert third.end() == 0
        assert service.show(world.cluster).waiting == ()


def test_no_hook_outlives_its_conductor(world: World, tmp_path: Path) -> None:
    """One that hangs is killed when the conductor ends, and does not keep it."""
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\necho $$ >>{tmp_path}/pids\nexec sleep 300\n")
    hook.chmod(0o755)
    with conductors(world, NOVACTL_CONDUCTOR_HOOK=str(hook), NOVACTL_CONDUCTOR_HOOK_TIMEOUT_S="600") as (one,):
        deadline = time.monotonic() + PATIENCE_S
        while not ((tmp_path / "pids").exists() and (tmp_path / "pids").read_text()) and time.monotonic() < deadline:
            with world.cluster.db.write() as tx:
                events.record(tx, EventRecord(
                    at=world.cluster.clock.now(), object_kind="node", object_id="", object_name="", operation_id="", event="e", actor="",
                    detail=""))
            time.sleep(0.2)
        assert one.end() == 0
        pids = (tmp_path / "pids").read_text().split()
        assert pids
        until(lambda: all(is_gone(pid) for pid in pids))


def test_what_hangs_is_ended_by_force(tmp_path: Path) -> None:
    """A process that was asked to end, and does not, is gone after a while: not before its last act, which may fail."""
    text = (
        "import time; from novactl.conductor import supervision as s; s.END_S = 0.1\n"
        "with s.until_told(s.Supervisor(''), lambda: [print('last', flush=True), 1 / 0]): print('runs', flush=True); time.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                          cwd=Path(__file__).parents[2]) as process:
        assert process.stdout and process.stdout.readline() == "runs\n"
        process.terminate()
        assert process.communicate(timeout=PATIENCE_S)[0] == "last\n" and process.returncode == 0


def test_one_whose_key_was_revoked_leads_no_more(world: World) -> None:
    """It ends, and says why; who waits leads. With its key rotated it leads on, and its socket has the new key."""
    folder = world.cluster.config.data_dir / "keys"
    with conductors(world, "--publish", "tcp://127.0.0.1:*") as (one,):
        api_keys.rotate(world.cluster)
        one.next("leads")
        assert one.next("publishes")["key"] == keys.load(folder).public
        second, first = keys.new(), (folder / keys.SECRET).read_text()
        api_keys.create(world.cluster, name="second", public_key=second.public, role=Role.ADMIN)
        (folder / keys.SECRET).write_text(f"{second.secret}\n{second.public}\n")
        waiting = Process(world)
        waiting.next("runs")
        (folder / keys.SECRET).write_text(first)
        with world.cluster.db.write() as tx:
            mine = key_rows.by_public(tx, world.cluster.key)
            assert mine
            key_rows.update(tx, dataclasses.replace(mine, revoked_at=world.cluster.clock.now()))
        try:
            waiting.next("leads")
            assert one.process.wait(PATIENCE_S) == Denied.exit_status and "was revoked" in "".join(one.log[-3:])
        finally:
            waiting.kill()


def test_who_asks_is_told_where_it_really_listens(world: World) -> None:
    """Nowhere while the address is another's; then the port that it got."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        with conductors(world, "--publish", taken) as (one,):
            assert "cannot publish at" in one.next("failed")["error"]
            assert (service.show(world.cluster).publish, service.show(world.cluster).key) == ("", "")
            other.close()
            one.next("publishes")
            shown(world, taken)
            assert service.show(world.cluster).key == world.cluster.key
    with conductors(world, "--publish", "tcp://*:0") as (one,):
        bound = one.next("publishes")["endpoint"]
        shown(world, bound.replace("0.0.0.0", os.uname().nodename))
        assert not bound.endswith(":0")


def shown(world: World, endpoint: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (seen := service.show(world.cluster).publish) != endpoint:
        assert time.monotonic() < deadline, seen
        time.sleep(0.1)


@pytest.mark.parametrize("endpoint", [
    "bogus", "ipc:///tmp/x", "inproc://x", "tcp://127.0.0.1", "tcp://127.0.0.1:", "tcp://127.0.0.1:99999", "tcp://:7767", "tcp://a:b:1"])
def test_an_endpoint_that_cannot_be_is_refused(world: World, endpoint: str) -> None:
    """Before anything is done; so is one in the settings."""
    for given, config in ((endpoint, world.cluster.config), ("", world.cluster.config.replace(conductor__publish=endpoint))):
        world.cluster.config = config
        with pytest.raises(UsageError, match="cannot publish at"):
            service.run(world.cluster, print, publish=given, once=True)
    assert service.show(world.cluster).epoch == 0


@pytest.mark.parametrize("endpoint", ["tcp://*:0", "tcp://0.0.0.0:7767", "tcp://127.0.0.1:*", "tcp://[::1]:65535", "tcp://eth0:1"])
def test_an_endpoint_that_may_be_is_not(world: World, endpoint: str) -> None:
    """Addresses of either kind, names and interfaces; any port."""
    assert notify.check_endpoint(endpoint) == endpoint


@pytest.mark.parametrize("hook", ["tell 'unfinished", " "])
def test_a_hook_that_cannot_be_is_refused(world: World, hook: str) -> None:
    """Before the lease is taken."""
    world.cluster.config = world.cluster.config.replace(conductor__hook=hook)
    with pytest.raises(UsageError, match=r"conductor\.hook"):
        service.run(world.cluster, print, once=True)
    assert service.show(world.cluster).epoch == 0


def test_a_supervisor_is_told(world: World, tmp_path: Path) -> None:
    """READY when it runs, WATCHDOG while it lives, STOPPING when it ends, by sd_notify's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.bind(str(tmp_path / "notify"))
        there.settimeout(PATIENCE_S)
        with conductors(world, NOTIFY_SOCKET=str(tmp_path / "notify")) as (one,):
            assert there.recv(100) == b"READY=1"
            assert there.recv(100) == b"WATCHDOG=1"
            one.process.terminate()
            said = b""
            while said != b"STOPPING=1":
                said = there.recv(100)
            assert one.process.wait(PATIENCE_S) == 0


def test_an_operation_whose_process_died_is_ended(world: World) -> None:
    """Nobody asks: the conductor finds it and ends it, and leaves nothing of it."""
    with conductors(world) as (one,):
        operation = SCENARIOS["server.create"].start(world, None)
        world.abandon(operation)
        assert one.next("ended")["operation"] == operation.id[:8]
        assert world.leftovers() == []


def test_once_is_one_round(world: World) -> None:
    """Every report is fresh afterwards; while another leads it leaves all to that one. Both are a success."""
    before = {row.name: row.reported_at for row in _rows(world)}
    one = Process(world, "--once")
    assert one.process.wait(PATIENCE_S) == 0
    assert all(row.reported_at > before[row.name] for row in _rows(world))
    with conductors(world, NOVACTL_CONDUCTOR_LEASE_S="3600"):
        other = Process(world, "--once")
        other.next("another conductor leads")
        assert other.process.wait(PATIENCE_S) == 0


def test_what_ended_long_ago_is_forgotten(world: World) -> None:
    """Events older than their retention go, some hundreds at a time, younger ones stay; 0 days keep all."""
    now, count = world.cluster.clock.now(), retention.AT_ONCE + 7
    with world.cluster.db.write() as tx:
        for age_days in [400.0] * count + [1.0]:
            events.record(tx, EventRecord(
                at=now - age_days * 86400, object_kind="node", object_id="the-id", object_name="", operation_id="", event="e", actor="",
                detail=""))
    one = Process(world, "--once", NOVACTL_RETENTION_EVENTS_DAYS="0")
    assert one.process.wait(PATIENCE_S) == 0 and _events(world) == count + 1
    one = Process(world, "--once")
    assert one.next("forgot")["events"] == count
    assert one.process.wait(PATIENCE_S) == 0 and _events(world) == 1


def _events(world: World) -> int:
    with world.cluster.db.read() as tx:
        return len(events.of(tx, "the-id"))


def test_a_duty_that_breaks_is_told_once_and_done_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of one job ends neither it nor the others, and fills no log."""
    from novactl.conductor import service as conductor
    from novactl.conductor.journal import Journal

    calls: list[int] = []

    def broken(leadership: object, journal: object) -> None:
        calls.append(1)
        raise RuntimeError("oh no")

    monkeypatch.setattr(conductor, "JOBS", (conductor.Job("broken", lambda config: 0.05, broken), *JOBS))
    lines: list[str] = []
    stop = threading.Event()
    made = conductor.Conductor(world.cluster, Journal(lines.append, world.cluster.clock))
    thread = threading.Thread(target=made.run, args=(stop,))
    thread.start()
    deadline = time.monotonic() + PATIENCE_S
    while len(calls) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    stop.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive() and len(calls) >= 5
    assert len([line for line in lines if "oh no" in line]) == 1 and lines[-1].endswith("ends\n")


def test_the_example_listens(world: World) -> None:
    """examples/listen finds the leader's socket and its key by itself, and prints what happens to a node."""
    root = Path(__file__).parents[2]
    with conductors(world, "--publish", "tcp://127.0.0.1:*") as (one,):
        one.next("publishes")
        env = {**os.environ, **world.env, "PYTHONPATH": str(root)}
        with subprocess.Popen([sys.executable, str(root / "examples" / "listen"), "--lines", "1", "node."], env=env, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as listener:
            assert listener.stderr
            first = listener.stderr.readline()
            assert first == "listening\n", first + listener.stderr.read()
            api_nodes.disable(world.cluster, "n1", reason="new kernel")
            said, lost = listener.communicate(timeout=PATIENCE_S)
        assert (json.loads(said)["object_name"], lost, listener.returncode) == ("n1", "", 0)
