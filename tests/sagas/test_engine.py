"""What the engine does with an error, with time that is over, and with a process that was overtaken."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nodeagent.refusal import Refused
from nodeagent.wire import Code
from novactl.api import nodes as nodes_api
from novactl.api import servers as api
from novactl.cluster import SystemClock
from novactl.conductor import create_server, delete_server
from novactl.conductor.driver import Driver
from novactl.conductor.faults import Verdict, trace_of, verdict, waits
from novactl.conductor.holding import busy, owned_by_the_living
from novactl.conductor.power import REBOOT, Power
from novactl.conductor.progress import Progress
from novactl.conductor.recover import find, recover, take_over
from novactl.conductor.saga import begin
from novactl.db import nodes as db_nodes
from novactl.db import operations
from novactl.errors import (
    AgentRefused,
    AgentTimeout,
    Busy,
    Cancelled,
    Conflict,
    DatabaseFailed,
    NovaError,
    NoValidHost,
    Overdue,
    Stuck,
    Superseded,
    Unreachable,
)
from novactl.model.node import NodeState
from novactl.model.operation import OperationState
from tests.sagas.scenarios import SCENARIOS, slate
from tests.sagas.test_laws import altered
from tests.world import World, small_world

WANTED = api.CreateServer(name="web", flavor="small", image="guest")


class Hurried(SystemClock):
    """The real time, but nobody waits; `late_s` puts it forward."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.late_s = 0.0

    def now(self) -> float:                                    # type: ignore[override]
        return SystemClock.now() + self.late_s

    def sleep(self, seconds: float) -> None:                   # type: ignore[override]
        self.slept.append(seconds)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with small_world(tmp_path) as made:
        made.cluster.clock = Hurried()
        yield made


def clock(world: World) -> Hurried:
    assert isinstance(world.cluster.clock, Hurried)
    return world.cluster.clock


def refused(code: str, *, retryable: bool = False, elsewhere: bool = False) -> AgentRefused:
    return AgentRefused("n1", "domain.start", {"code": code, "message": "no", "retryable": retryable, "elsewhere": elsewhere})


@pytest.mark.parametrize(("error", "expected"), [
    (refused(Code.BUSY, retryable=True), Verdict.HERE),
    (refused(Code.DRIVER, retryable=True, elsewhere=True), Verdict.HERE),
    (refused(Code.NO_SPACE, retryable=True, elsewhere=True), Verdict.ELSEWHERE),
    (refused(Code.NO_FIT, elsewhere=True), Verdict.ELSEWHERE),
    (refused(Code.BAD_REQUEST), Verdict.STOP),
    (refused(Code.DIVERGED), Verdict.STOP),
    (Unreachable("silent"), Verdict.ELSEWHERE),
    (AgentTimeout("n1", "domain.start", 120.0), Verdict.ELSEWHERE),
    (DatabaseFailed("disk full"), Verdict.STOP),
    (NoValidHost("nowhere"), Verdict.STOP),
    (Conflict("no"), Verdict.STOP),
    (Overdue("late"), Verdict.STOP),
    (ValueError("a fault of ours"), Verdict.STOP),
], ids=lambda value: getattr(value, "code", getattr(value, "value", type(value).__name__)))
def test_every_error_has_one_verdict(error: BaseException, expected: Verdict) -> None:
    """Try again here, on another node, or stop: by the error's type and what the agent said of it."""
    assert verdict(error) is expected


def failing(world: World, times: int, code: str = Code.BUSY, **how: Any) -> list[str]:
    """Every agent refuses to start a domain so many times; the servers that it was asked to start."""
    asked: list[str] = []
    for agent in world.agents.values():
        driver = agent.driver

        def start(server: str, inner: Any = driver.start_domain) -> Any:
            asked.append(server)
            if len(asked) <= times:
                raise Refused(code, "as the test wants it", **how)
            return inner(server)

        driver.start_domain = start
    return asked


def test_what_may_pass_is_tried_again_where_it_failed(world: World) -> None:
    """A refusal that may pass is asked again on the same node, after waits that double; the attempt stays the first."""
    asked, seen = failing(world, 3), list[Progress]()
    made = api.create(world.cluster, WANTED, watch=seen.append)
    assert len(asked) == 4 and find(world.cluster, made.operations[0]).attempt == 0
    first, second, third = clock(world).slept
    assert 0.375 <= first <= 0.625 and 0.75 <= second <= 1.25 and 1.5 <= third <= 2.5
    told = [progress.detail for progress in seen if progress.detail.startswith("waiting")]
    assert told[0].startswith(f"waiting {first:.1f} s to try again: domain.start on node n") and len(told) == 3


def test_the_waits_of_one_operation_are_always_the_same(world: World) -> None:
    """Chance is seeded by the operation, so that a simulation repeats exactly; two operations do not wait alike."""
    assert list(waits(world.cluster, "a")) == list(waits(world.cluster, "a")) != list(waits(world.cluster, "b"))


def test_what_does_not_pass_goes_to_the_next_node(world: World) -> None:
    """After operation.retries tries on one node another one is taken, where the agent says that another may do it."""
    failing(world, 4, elsewhere=True)
    made = api.create(world.cluster, WANTED)
    assert find(world.cluster, made.operations[0]).attempt == 1 and len(clock(world).slept) == 3


def test_what_does_not_pass_ends(world: World) -> None:
    """Without another node the operation ends as failed, undone, with the error that did not pass."""
    before = slate(world)
    failing(world, 4)
    with pytest.raises(AgentRefused):
        api.create(world.cluster, WANTED)
    assert slate(world) == before and len(clock(world).slept) == 3


def test_no_retries_is_none(world: World) -> None:
    """operation.retries = 0: what fails has failed."""
    world.cluster.config = world.cluster.config.replace(operation__retries=0)
    failing(world, 1)
    with pytest.raises(AgentRefused):
        api.create(world.cluster, WANTED)
    assert clock(world).slept == []


def test_undoing_is_patient_too(world: World) -> None:
    """A refusal that may pass, met on the way back, does not leave the operation stuck."""
    before = slate(world)
    operation = SCENARIOS["server.create"].start(world, None)
    tried: list[int] = []

    def undo(inner: Any, run: Any, record: Any) -> None:
        tried.append(1)
        if len(tried) < 3:
            raise refused(Code.BUSY, retryable=True)
        inner(run, record)

    def do(inner: Any, run: Any, record: Any) -> Any:
        inner(run, record)
        raise NovaError("as the test wants it")

    with pytest.raises(NovaError, match="as the test wants it"):
        Driver(world.cluster, altered(altered(create_server.CREATE, 2, undo=undo), 5, do=do), operation).drive()
    assert len(tried) == 3 and slate(world) == before


# ---------------------------------------------------------------- time that is over

def hanging(world: World, position: int, saga: Any) -> Any:
    """The saga, during whose step of `position` its whole time passes."""
    def do(inner: Any, run: Any, record: Any) -> Any:
        record = inner(run, record)
        clock(world).late_s += 7200
        return record

    return altered(saga, position, do=do)


def test_time_that_is_over_turns_an_operation_back(world: World) -> None:
    """Before its next step, with the setting named; on the way back it has time again."""
    before = slate(world)
    operation = SCENARIOS["server.create"].start(world, None)
    with pytest.raises(Overdue, match="timeout.build_s"):
        Driver(world.cluster, hanging(world, 2, create_server.CREATE), operation).drive()
    ended = find(world.cluster, operation.id)
    assert (ended.state, ended.error and ended.error["code"]) == (OperationState.FAILED, "overdue")
    assert ended.deadline and ended.deadline > world.cluster.clock.now() and slate(world) == before


def test_past_the_point_of_no_return_it_is_stuck(world: World) -> None:
    """Where there is only forward an operation whose time is over is stuck, until somebody goes on with it."""
    server = SCENARIOS["server.delete"].prepare(world)
    operation = SCENARIOS["server.delete"].start(world, server)
    with pytest.raises(Stuck, match="timeout.delete_s"):
        Driver(world.cluster, hanging(world, 1, delete_server.DELETE), operation).drive()
    assert [error for _, error in recover(world.cluster)] == [None]
    assert find(world.cluster, operation.id).state is OperationState.OK and world.leftovers() == []


def test_without_a_timeout_it_may_take_for_ever(world: World) -> None:
    """A timeout of 0 is none."""
    world.cluster.config = world.cluster.config.replace(timeout__build_s=0.0)
    operation = SCENARIOS["server.create"].start(world, None)
    assert operation.deadline is None
    Driver(world.cluster, hanging(world, 2, create_server.CREATE), operation).drive()
    assert find(world.cluster, operation.id).state is OperationState.OK


def test_the_grace_of_a_guest_is_not_counted(world: World) -> None:
    """A guest that is given two hours to shut down is not cut off by the timeout of stopping."""
    api.create(world.cluster, WANTED)
    api.stop(world.cluster, "web", grace_s=7200.0)
    with world.cluster.db.read() as tx:
        stop = operations.recent(tx, ended=True)[0]
    assert stop.deadline and stop.deadline - stop.created_at == pytest.approx(7800, abs=1)


def test_an_owner_that_hangs_loses_what_is_overdue(world: World) -> None:
    """The next command turns it back although its owner lives; that one changes nothing more, and says who has it."""
    before, hung, overtaken = slate(world), threading.Event(), threading.Event()
    operation, said = SCENARIOS["server.create"].start(world, None), list[NovaError]()

    def do(inner: Any, run: Any, record: Any) -> Any:
        record = inner(run, record)
        hung.set()
        assert overtaken.wait(60)
        return record

    def drive() -> None:
        try:
            Driver(world.cluster, altered(create_server.CREATE, 4, do=do), operation).drive()
        except NovaError as error:
            said.append(error)

    thread = threading.Thread(target=drive)
    thread.start()
    assert hung.wait(60)
    assert recover(world.cluster) == () and owned_by_the_living(find(world.cluster, operation.id), clock(world).now())
    clock(world).late_s = 7200
    assert [error for _, error in recover(world.cluster)] == [None]
    overtaken.set()
    thread.join(60)
    (error,) = said
    assert isinstance(error, Superseded) and "taken over" in error.message and "timeout.build_s" in error.message
    assert find(world.cluster, operation.id).state is OperationState.FAILED and slate(world) == before


# ---------------------------------------------------------------- what the journal keeps

def test_the_journal_keeps_the_trace_of_an_error(world: World) -> None:
    """Where it was raised, and its causes, stand in the operation; the error that is printed has no trace."""
    operation = SCENARIOS["server.create"].start(world, None)

    secret = "hunter" + "2"

    def do(inner: Any, run: Any, record: Any) -> Any:
        try:
            raise ValueError(f"the cause\n[parameters: {secret}]")
        except ValueError as cause:
            raise NovaError("as the test wants it") from cause

    with pytest.raises(NovaError) as caught:
        Driver(world.cluster, altered(create_server.CREATE, 1, do=do), operation).drive()
    trace = (find(world.cluster, operation.id).error or {})["trace"]
    assert "test_engine.py" in trace and trace.index("ValueError: the cause") < trace.index("NovaError: as the test wants it")
    assert secret not in trace and "trace" not in caught.value.as_dict()


def test_a_trace_is_bounded() -> None:
    """However deep it goes, its end is kept."""
    def deeper(depth: int) -> None:
        if depth:
            deeper(depth - 1)
        raise ValueError("x" * 100_000)

    with pytest.raises(ValueError) as caught:
        deeper(400)
    assert len(trace_of(caught.value)) <= 8000 and trace_of(caught.value).endswith("x\n") and trace_of(ValueError("not raised")) == ""


def test_progress_is_there_for_other_processes(world: World) -> None:
    """Each step as it begins, and in a long one its progress once a second at most."""
    operation, told = SCENARIOS["server.create"].start(world, None), list[Progress | None]()

    def kept() -> Progress | None:
        return Progress.from_text(operation.id, "web", find(world.cluster, operation.id).progress)

    def do(inner: Any, run: Any, record: Any) -> Any:
        told.append(kept())
        run.progress(1, 9)
        told.append(kept())
        run._kept_at -= 1.0
        run.progress(5, 9, "half way")
        run.progress(6, 9, "a little later")
        told.append(kept())
        return inner(run, record)

    Driver(world.cluster, altered(create_server.CREATE, 1, do=do), operation).drive()
    started = Progress(operation.id, "web", "image", "started")
    assert told == [started, started, Progress(operation.id, "web", "image", "running", 5, 9, "half way")]


def test_progress_stops_who_was_overtaken(world: World) -> None:
    """A process that lost its operation in the middle of a long step learns it when it tells how far it is."""
    operation = SCENARIOS["server.create"].start(world, None)

    def do(inner: Any, run: Any, record: Any) -> Any:
        because = Cancelled("operation 1 was cancelled by bob@there")
        take_over(world.cluster, operation, forward=False, because=because)
        run._kept_at -= 1.0
        run.progress(1, 9)
        raise AssertionError("went on")

    with pytest.raises(Superseded, match="cancelled by bob@there") as caught:
        Driver(world.cluster, altered(create_server.CREATE, 1, do=do), operation).drive()
    assert caught.value.exit_status == 4


def test_a_begun_operation_is_known_by_all_that_it_is(world: World) -> None:
    """Actor, key, reason, deadline and number are written with it; who finds it busy is told kind, owner, age and actor."""
    world.cluster.reason = "ticket 4711"
    operation = find(world.cluster, SCENARIOS["server.create"].start(world, None).id)
    assert (operation.actor, operation.reason, operation.actor_key) == ("tester@world", "ticket 4711", world.cluster.key)
    assert operation.deadline == pytest.approx(operation.created_at + 3600, abs=1) and operation.seq > 0
    error = busy(world.cluster, operation)
    assert isinstance(error, Busy) and error.operation == operation.id
    for word in (operation.id[:8], "server.create", "for 0 s", "pid ", "by tester@world", "ticket 4711"):
        assert word in error.message, error.message
    assert error.command == f"novactl operation watch {operation.id[:8]}"


# ---------------------------------------------------------------- interruptions

def interrupted(position: int, **how: Any) -> Any:
    """server.create, interrupted after the effect of a step; `how` are fields of the saga."""
    def do(inner: Any, run: Any, record: Any) -> Any:
        inner(run, record)
        raise KeyboardInterrupt

    return dataclasses.replace(altered(create_server.CREATE, position, do=do), **how)


def test_what_can_go_on_elsewhere_is_left_as_it_is(world: World) -> None:
    """An interruption changes nothing: the operation is among those that this process drives, and another goes on with it."""
    operation = SCENARIOS["server.create"].start(world, None)
    with pytest.raises(KeyboardInterrupt):
        Driver(world.cluster, interrupted(3), operation).drive()
    assert find(world.cluster, operation.id).state is OperationState.RUNNING and list(world.cluster.driving) == [operation.id]


def test_what_cannot_is_undone_at_once(world: World) -> None:
    """A saga that needs this process is turned back, and says that another Ctrl-C leaves that to `operation resume`."""
    before, operation, seen = slate(world), SCENARIOS["server.create"].start(world, None), list[Progress]()
    with pytest.raises(KeyboardInterrupt):
        Driver(world.cluster, interrupted(3, detaches=False), operation, seen.append).drive()
    ended = find(world.cluster, operation.id)
    assert ended.state is OperationState.FAILED and ended.error and "was interrupted by tester@world" in ended.error["message"]
    assert slate(world) == before and not world.cluster.driving
    assert any(f"novactl operation resume {operation.id[:8]}" in progress.detail for progress in seen)


def test_interrupted_again_it_is_left_half_way(world: World) -> None:
    """The second interruption stops the undoing; whoever resumes it ends that."""
    before, operation = slate(world), SCENARIOS["server.create"].start(world, None)

    def undo(inner: Any, run: Any, record: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Driver(world.cluster, altered(interrupted(3, detaches=False), 2, undo=undo), operation).drive()
    left = find(world.cluster, operation.id)
    assert left.state is OperationState.UNWINDING and list(world.cluster.driving) == [operation.id]
    world.abandon(left)
    assert [error for _, error in recover(world.cluster)] == [None] and slate(world) == before


# ---------------------------------------------------------------- many, silent, late

def test_of_a_silent_node_one_operation_is_asked_about(tmp_path: Path) -> None:
    """Twelve deletions on a node that is gone: all are stuck, with the reason, in the time that a few connections take."""
    with small_world(tmp_path, count=1) as world:
        world.cluster.config = world.cluster.config.replace(operation__parallel=1)
        made = api.create(world.cluster, api.CreateServer(name="web", flavor="small", image="guest", count=12))
        def do(inner: Any, run: Any, record: Any) -> Any:
            raise KeyboardInterrupt                           # the process dies, past the point of no return

        for server in made.servers:
            operation = SCENARIOS["server.delete"].start(world, server)
            with pytest.raises(KeyboardInterrupt):
                Driver(world.cluster, altered(delete_server.DELETE, 2, do=do), operation).drive()
            world.abandon(operation)
        world.loop.stop()
        began = world.cluster.clock.monotonic()
        ended = recover(world.cluster, budget_s=60)
        assert world.cluster.clock.monotonic() - began < 20
        assert len(ended) == 12 and all(error and error.exit_status == 6 and "n1" in error.message for _, error in ended)
        assert {find(world.cluster, operation.id).state for operation, _ in ended} == {OperationState.STUCK}


def test_a_command_ends_what_stands_in_its_own_way(world: World) -> None:
    """What recovery had no time for is ended by the command that touches its server, although the background has it already."""
    scenario = SCENARIOS["server.stop"]
    operation = scenario.start(world, scenario.prepare(world))
    assert owned_by_the_living(operation, clock(world).now())
    with pytest.raises(Busy):
        api.start(world.cluster, "web")
    world.cluster.late.add(operation.id)                      # as it is when this process has handed it over
    assert api.start(world.cluster, "web").status == "ACTIVE"
    assert find(world.cluster, operation.id).state is OperationState.OK


def test_a_busy_node_names_its_operation(world: World) -> None:
    """As a busy server does: which operation, of what kind, whose, for how long, and what to do."""
    with world.cluster.db.write() as tx:
        node = db_nodes.by_name(tx, "n1")
        assert node is not None
        db_nodes.update(tx, dataclasses.replace(node, state=NodeState.REMOVING))
        operation = begin(world.cluster, tx, REBOOT, Power(server="", node=node.id, epoch=1), ("node", node.id, node.name))
    with pytest.raises(Busy) as caught:
        nodes_api.disable(world.cluster, "n1")
    for word in ("node n1 is busy: operation", operation.id[:8], "running for 0 s", "pid ", "by tester@world"):
        assert word in caught.value.message
    assert caught.value.command == f"novactl operation watch {operation.id[:8]}"
