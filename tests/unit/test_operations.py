"""Operations as other commands see them: listed, shown, watched, waited for, cancelled from under a living owner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nodeagent.refusal import Refused
from nodeagent.wire import Code
from novactl.api import operations as api
from novactl.api import servers
from novactl.conductor.progress import Progress
from novactl.conductor.recover import find
from novactl.errors import ExitStatus, NotFound, NovaError, Stuck, Superseded, UsageError, WaitTimeout
from novactl.model.operation import Operation, OperationState
from tests import databases
from tests.contract import kit
from tests.sagas.scenarios import SCENARIOS, slate
from tests.unit.cli_world import Prompt
from tests.world import World, small_world

WANTED = servers.CreateServer(name="web", flavor="small", image="guest")
FLAGS = ("--flavor", "small", "--image", "guest")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with small_world(tmp_path, count=1) as made:
        yield made


@pytest.fixture(params=databases.EACH)
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """The same on each kind of database."""
    with databases.cluster(request.param) as url, small_world(tmp_path, count=1, url=url) as made:
        yield made


class Held:
    """A command in a thread of this process, held in the middle of starting its server until `go` is set."""

    def __init__(self, world: World, act: Callable[[], Any]) -> None:
        self.here, self.go, self.result = threading.Event(), threading.Event(), list[Any]()
        driver = world.agents["n1"].driver
        inner = driver.start_domain

        def start(server: str) -> Any:
            self.here.set()
            assert self.go.wait(300)
            return inner(server)

        driver.start_domain = start
        self._act = act
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self.here.wait(60)

    def _run(self) -> None:
        try:
            self.result.append(self._act())
        except NovaError as error:
            self.result.append(error)

    def end(self) -> Any:
        self.go.set()
        self._thread.join(60)
        return self.result[0]


def creating(world: World) -> tuple[Held, Operation]:
    held = Held(world, lambda: servers.create(world.cluster, WANTED))
    return held, api.list_operations(world.cluster)[0]


# ---------------------------------------------------------------- cancel

def test_a_living_owner_is_overtaken(anywhere: World) -> None:
    """Cancel takes an operation from the process that drives it and undoes it; that one ends with exit 4, saying who it was."""
    world = anywhere
    before = slate(world)
    held, operation = creating(world)
    other = world.cluster.__class__(world.config, actor="bob@there")
    other.reason = "the wrong image"
    (ended,) = api.cancel(other, [operation.id[:8]], watch=lambda progress: held.go.set())      # once it has been taken over
    other.close()
    overtaken = held.end()
    assert isinstance(overtaken, Superseded) and overtaken.exit_status is ExitStatus.CONFLICT
    assert overtaken.message == f"operation {operation.id[:8]} (server.create web) was cancelled by bob@there: the wrong image"
    assert ended.state is OperationState.FAILED and ended.error["code"] == "cancelled" and slate(world) == before
    with pytest.raises(NovaError, match="has ended"):
        api.cancel(world.cluster, [operation.id])


def test_past_the_point_of_no_return_nothing_is_cancelled(world: World) -> None:
    """A deletion that has destroyed the domain is not turned back: the refusal names what can be done."""
    scenario = SCENARIOS["server.delete"]
    server = scenario.prepare(world)
    undefine = world.agents["n1"].driver.undefine
    here, go = threading.Event(), threading.Event()

    def slow(server: str) -> Any:
        here.set()
        assert go.wait(300)
        return undefine(server)

    world.agents["n1"].driver.undefine = slow
    deleting = threading.Thread(target=servers.delete, args=(world.cluster, server.name), daemon=True)
    deleting.start()
    assert here.wait(60)
    (operation,) = api.list_operations(world.cluster)
    for dry_run in (True, False):
        with pytest.raises(NovaError, match="past the point") as caught:
            api.cancel(world.cluster, [operation.id], dry_run=dry_run)
        assert caught.value.command == f"novactl operation wait {operation.id[:8]}"
    go.set()
    deleting.join(60)
    assert find(world.cluster, operation.id).state is OperationState.OK


def test_a_dry_run_takes_nothing_over(world: World) -> None:
    """--dry-run of undo and cancel says what would become of an operation; its owner goes on and ends it."""
    held, operation = creating(world)
    (would,) = api.cancel(world.cluster, [operation.id], dry_run=True)
    assert would.state is OperationState.UNWINDING
    with pytest.raises(NovaError, match="is busy"):
        api.undo(world.cluster, [operation.id], dry_run=True)
    assert held.end().servers[0].status == "ACTIVE" and find(world.cluster, operation.id).epoch == 1


def test_cancelling_in_the_background(world: World) -> None:
    """--async hands the undoing over, and prints the operation's id; waiting for it exits as a cancelled operation does."""
    prompt = Prompt(world.env)
    held, operation = creating(world)
    ran = prompt.run("operation", "cancel", operation.id[:8], "--async", "--reason", "no more")
    held.go.set()
    assert (ran.status, ran.out) == (0, f"{operation.id}\n")
    waited = prompt.run("operation", "wait", operation.id[:8])
    assert waited.status == ExitStatus.CONFLICT and "error[cancelled]" in waited.err and "no more" in waited.err
    assert isinstance(held.end(), Superseded) and world.leftovers() == []


# ---------------------------------------------------------------- watch and wait

def test_watching_follows_to_the_end(world: World) -> None:
    """Each step of an operation that another process drives is told as it goes, and its end is the watch's."""
    held, operation = creating(world)
    seen: list[Progress] = []
    threading.Timer(0.5, held.go.set).start()
    (ended,) = api.watch(world.cluster, [operation.id], watch=seen.append)
    assert ended.state is OperationState.OK
    steps = [(progress.step, progress.state) for progress in seen]
    assert ("start", "started") in steps and steps[-1] == ("start", "done") and steps.index(("image", "done")) < len(steps) - 1
    held.end()


@pytest.mark.parametrize("kind", databases.SHARED)
def test_a_watch_outlives_a_restart_of_the_database(tmp_path: Path, kind: str) -> None:
    """While the server is away a watch waits, and then ends as its operation does; --timeout holds meanwhile."""
    with databases.server(kind) as server, small_world(tmp_path, count=1, url=server.create()) as world:
        held, operation = creating(world)
        watches = [_Watch(world, operation, timeout_s) for timeout_s in (None, 2.0)]
        time.sleep(0.5)
        server.kill()
        watches[1].join(120)
        server.start()
        held.go.set()
        watches[0].join(120)
        assert watches[0].ended == OperationState.OK and isinstance(watches[1].ended, WaitTimeout)
        assert held.end().servers[0].status == "ACTIVE"


class _Watch(threading.Thread):
    """What a watch ended with, in `ended`."""

    def __init__(self, world: World, operation: Operation, timeout_s: float | None) -> None:
        super().__init__(daemon=True)
        self.world, self.operation, self.timeout_s = world, operation, timeout_s
        self.ended: Any = None
        self.start()

    def run(self) -> None:
        try:
            self.ended = api.watch(self.world.cluster, [self.operation.id], timeout_s=self.timeout_s)[0].state
        except NovaError as error:
            self.ended = error


def test_a_watch_exits_as_its_operation_does(world: World) -> None:
    """What failed fails the watch, with the operation's own error and status; of several some failing is partial."""
    world.agents["n1"].driver.start_domain = refuse(Refused(Code.NO_FIT, "no room here"))
    with pytest.raises(NovaError):
        servers.create(world.cluster, WANTED)
    (failed,) = api.list_operations(world.cluster, all=True)
    prompt = Prompt(world.env)
    ran = prompt.run("operation", "watch", failed.id[:8])
    assert ran.status == ExitStatus.FAILED and "no room here" in ran.err and f"operation: {failed.id}" in ran.err
    del world.agents["n1"].driver.start_domain
    made = servers.create(world.cluster, WANTED)
    assert prompt.run("operation", "wait", made.operations[0]).status == 0
    both = prompt.run("operation", "wait", made.operations[0], failed.id)
    assert both.status == ExitStatus.PARTIAL and "1 of 2 operations done" in both.err


def refuse(refused: Refused) -> Callable[..., Any]:
    def act(*_: Any) -> Any:
        raise refused

    return act


def test_waiting_has_an_end(world: World) -> None:
    """After --timeout the wait exits 124 and the operation goes on."""
    held, operation = creating(world)
    began = time.monotonic()
    with pytest.raises(WaitTimeout, match=operation.id[:8]) as caught:
        api.watch(world.cluster, [operation.id], timeout_s=0.5)
    assert caught.value.exit_status is ExitStatus.TIMEOUT and 0.4 < time.monotonic() - began < 60
    assert held.end().servers[0].status == "ACTIVE"


def test_a_watch_ends_what_a_dead_process_left(world: World) -> None:
    """The owner of a watched operation dies: the watch ends it as its saga says, and tells so."""
    operation = SCENARIOS["server.create"].start(world, None)
    world.abandon(operation)
    with pytest.raises(NovaError, match="the process that ran it died"):
        api.watch(world.cluster, [operation.id])
    assert world.leftovers() == []


def test_a_stuck_operation_ends_a_watch(world: World) -> None:
    """Nobody drives it, so nobody waits: the error says how to go on."""
    server = SCENARIOS["server.delete"].prepare(world)
    driver = world.agents["n1"].driver
    driver.undefine = refuse(Refused(Code.DRIVER, "libvirt is in the way", retryable=False))
    with pytest.raises(Stuck):
        servers.delete(world.cluster, server.name)
    (operation,) = api.list_operations(world.cluster)
    with pytest.raises(Stuck, match="libvirt is in the way") as caught:
        api.watch(world.cluster, [operation.id])
    assert caught.value.command == f"novactl operation resume {operation.id[:8]}"
    del driver.undefine
    (would,) = api.resume(world.cluster, [operation.id], dry_run=True)
    assert would.state is OperationState.RUNNING and find(world.cluster, operation.id).state is OperationState.STUCK
    (begun,) = api.resume(world.cluster, [operation.id], wait=False)
    assert api.watch(world.cluster, [begun.id])[0].state is OperationState.OK and world.leftovers() == []


# ---------------------------------------------------------------- list and show

def test_operations_are_found_by_what_they_are(anywhere: World) -> None:
    """By kind, object (also one that is gone), state, and how many; the open alone unless asked."""
    world = anywhere
    world.cluster.reason = "ticket 4711"
    server = servers.create(world.cluster, WANTED).servers[0]
    servers.stop(world.cluster, "web", grace_s=0.0)
    servers.delete(world.cluster, "web")

    def kinds(**how: Any) -> list[str]:
        return [operation.kind for operation in api.list_operations(world.cluster, **how)]

    assert kinds() == [] and kinds(all=True) == ["server.delete", "server.stop", "server.create"]
    assert kinds(all=True, kind="server.stop") == kinds(all=True, server="web", limit=2)[1:] == ["server.stop"]
    assert len(kinds(state="ok", server=server.id)) == 3 and kinds(state="failed") == kinds(all=True, node="n1") == []
    assert kinds(all=True, kind="node.disable") == kinds(kind="server.create") == []
    for kind in ("bogus", "server.creat", "server"):
        with pytest.raises(UsageError, match=f"no kind of operation '{kind}'"):
            api.list_operations(world.cluster, kind=kind)
    for of in ({"server": "nosuch"}, {"node": "web"}, {"server": "n1"}):
        with pytest.raises(NotFound):
            api.list_operations(world.cluster, all=True, **of)
    with pytest.raises(UsageError, match="no state"):
        api.list_operations(world.cluster, state="done")
    ran = Prompt(world.env).run("operation", "list", "--all", "--server", "web", "--state", "OK", "-o", "json")
    assert [item["reason"] for item in ran.json["items"]] == ["ticket 4711"] * 3


def test_an_operation_is_shown_with_all_that_is_known_of_it(world: World) -> None:
    """Who, when, why, with which key, how long, step by step; who drives it now; and the error's trace for those who ask."""
    held, operation = creating(world)
    shown = api.shown(world.cluster, operation.id)
    assert shown.owner == f"pid {os.getpid()} on {os.uname().nodename}" and shown.owner_lives is True and shown.deadline_at
    assert shown.progress and shown.progress["step"] == "start" and shown.arguments["name"] == "web"
    held.end()
    world.agents["n1"].driver.destroy = refuse(Refused(Code.DRIVER, "no way", retryable=False))
    with pytest.raises(NovaError):
        servers.delete(world.cluster, "web")
    prompt, failed = Prompt(world.env), api.list_operations(world.cluster)[0].id
    told = prompt.run("operation", "show", failed, "-o", "json").json
    assert told["actor_key"] == world.cluster.key and told["error"]["message"].endswith("no way")
    assert [step["name"] for step in told["steps"]] == ["reach", "destroy"] and told["steps"][0]["duration_s"] < 5
    assert "delete_server.py" in told["trace"] and "trace" not in told["error"]
    plain, debug = prompt.run("operation", "show", failed, "-o", "table"), prompt.run("operation", "show", failed, "--debug", "-o", "table")
    assert "Traceback" not in plain.out and "delete_server.py" not in plain.out and "delete_server.py" in debug.out


def test_a_list_calls_everything_as_one_operation_does(world: World) -> None:
    """Who reads the JSON of `operation list` finds in `show` the same fields with the same values, and more; an id that is not known
    names the list that has the ended ones."""
    servers.create(world.cluster, WANTED)
    prompt = Prompt(world.env)
    (item,) = prompt.run("operation", "list", "--all", "-o", "json").json["items"]
    shown = prompt.run("operation", "show", item["id"], "-o", "json").json
    assert item.items() <= shown.items() and shown.keys() - item.keys() == {"schema_version", "steps", "trace"}
    assert prompt.run("operation", "wait", item["id"], "-o", "json").json == {"schema_version": shown["schema_version"], **item}
    assert "try: novactl operation list --all\n" in prompt.run("operation", "show", "ffff").err


# ---------------------------------------------------------------- real processes

def test_a_command_cancelled_from_another_terminal(world: World) -> None:
    """The overtaken command exits 4 and says who; nothing of its server is left."""
    here = held_start(world, until=lambda: find(world.cluster, api.list_operations(world.cluster)[0].id).epoch > 1)
    command = subprocess.Popen(
        [sys.executable, "-m", "novactl", "server", "create", "web", *FLAGS], env={**os.environ, **world.env}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True)
    assert here.wait(60)
    (found,) = api.list_operations(world.cluster)
    cancelled = Prompt(world.env).run("operation", "cancel", found.id, "--reason", "not now", "-o", "json")
    assert cancelled.status == 0 and cancelled.json["state"] == "failed", cancelled.err
    _, said = command.communicate(timeout=60)
    assert command.returncode == ExitStatus.CONFLICT and "error[superseded]" in said and "cancelled by " in said and "not now" in said
    assert world.leftovers() == []


def held_start(world: World, *, until: Callable[[], bool]) -> threading.Event:
    """The node's servers do not start before `until`. What is set when the first would."""
    driver, here = world.agents["n1"].driver, threading.Event()
    start = driver.start_domain

    def held(server: str) -> Any:
        here.set()
        try:
            kit.until(until)
        finally:
            world.cluster.db.close()
        return start(server)

    driver.start_domain = held
    return here


def test_leaving_a_watch_leaves_the_operation(world: World) -> None:
    """Ctrl-C on a watch ends the watch: what it followed goes on where it was, and is named."""
    left = threading.Event()
    held_start(world, until=left.is_set)
    begun = Prompt(world.env).run("server", "create", "web", *FLAGS, "--async").out.strip()
    watching = subprocess.Popen(
        [sys.executable, "-m", "novactl", "operation", "watch", begun], env={**os.environ, **world.env}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True)
    assert watching.stderr and "done" in watching.stderr.readline()
    watching.send_signal(signal.SIGINT)
    _, said = watching.communicate(timeout=60)
    left.set()
    assert watching.returncode == 130 and f"interrupted; operation {begun[:8]} (server.create web) goes on\n" in said, said
    assert Prompt(world.env).run("operation", "wait", begun).status == 0 and list(world.domains().values()) == ["RUNNING"]
