"""The three laws of every saga, with real sockets, a real database and the fake driver; and recovery from a death anywhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from novactl.conductor.driver import Driver
from novactl.conductor.recover import find, recover, resume, take_over
from novactl.conductor.saga import Saga, Step
from novactl.conductor.sagas import SAGAS
from novactl.db import operations
from novactl.errors import NovaError, Stuck, Superseded
from novactl.model.operation import OperationState
from tests import databases
from tests.sagas.scenarios import SCENARIOS, Scenario, slate
from tests.world import World, small_world

KINDS = sorted(SCENARIOS)
EVERYWHERE = ("server.create", "server.delete", "server.start")
"""What is tried on each kind of database."""
POINTS = [
    (database, kind, position) for database in databases.EACH for kind in (KINDS if database == "sqlite" else EVERYWHERE)
    for position in range(len(SCENARIOS[kind].saga.steps))]
TIMES = [(*point, when) for point in POINTS for when in (("before", "after") if point[0] == "sqlite" else ("after",))]
TURNS = [(database, kind, position, when) for database, kind, position, when in TIMES
         if database == "sqlite" or (kind, position) == ("server.create", len(SCENARIOS[kind].saga.steps) - 1)]


class Killed(BaseException):
    """The process dies here: nothing after this line runs."""


class Failed(NovaError):
    """A step that fails."""


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with databases.cluster(getattr(request, "param", "sqlite")) as url, small_world(tmp_path, url=url) as made:
        yield made


def altered(saga: Saga[Any], position: int, **functions: Callable[..., Any]) -> Saga[Any]:
    """The saga with one step's `do` or `undo` wrapped: the wrapper is given the original."""
    step = saga.steps[position]

    def wrapped(name: str) -> Callable[..., Any]:
        inner, wrap = getattr(step, name), functions.get(name)
        return (lambda run, record: wrap(inner, run, record)) if wrap else inner

    changed = Step(step.name, wrapped("do"), wrapped("undo"))
    return dataclasses.replace(saga, steps=(*saga.steps[:position], changed, *saga.steps[position + 1:]))


def begun(world: World, scenario: Scenario) -> tuple[Any, Any, Any]:
    """(the slate before, the operation, the slate that a plain run reaches)."""
    subject = scenario.prepare(world)
    before = slate(world)
    return before, scenario.start(world, subject), None


def done_slate(scenario: Scenario, folder: Path) -> Any:
    """The slate that a plain run reaches."""
    if scenario.saga.kind not in _DONE:
        with small_world(folder / "plain") as other:
            _, operation, _ = begun(other, scenario)
            Driver(other.cluster, scenario.saga, operation).drive()
            _DONE[scenario.saga.kind] = slate(other)
    return _DONE[scenario.saga.kind]


_DONE: dict[str, Any] = {}


def ended(world: World, operation: Any) -> OperationState:
    with world.cluster.db.read() as tx:
        found = operations.by_id(tx, operation.id)
    assert found is not None
    return found.state


def test_every_saga_is_held_to_the_laws() -> None:
    """A saga is either in these scenarios or, changing a machine over SSH, in the ones of the test hosts."""
    assert set(SAGAS) == set(SCENARIOS) | {"node.enroll", "node.remove"}


@pytest.mark.parametrize(("world", "kind", "position"), POINTS, indirect=["world"])
def test_each_step_may_run_twice(world: World, tmp_path: Path, kind: str, position: int) -> None:
    """Running any step's `do` twice ends as running it once."""
    scenario = SCENARIOS[kind]
    _, operation, _ = begun(world, scenario)
    twice = altered(scenario.saga, position, do=lambda do, run, record: do(run, do(run, record)))
    Driver(world.cluster, twice, operation).drive()
    assert ended(world, operation) is OperationState.OK
    assert slate(world) == done_slate(scenario, tmp_path)


@pytest.mark.parametrize(("world", "kind", "position", "when"), TURNS, indirect=["world"])
def test_a_failure_at_any_step_unwinds_to_a_clean_slate(world: World, tmp_path: Path, kind: str, position: int, when: str) -> None:
    """A step that fails, before or after its effect, leaves the world as it was; past the point of no return, as when done."""
    scenario = SCENARIOS[kind]
    before, operation, _ = begun(world, scenario)

    def failing(do: Any, run: Any, record: Any) -> Any:
        if when == "after":
            do(run, record)
        raise Failed("as the test wants it")

    broken = altered(scenario.saga, position, do=failing)
    with pytest.raises((Failed, Stuck)):
        Driver(world.cluster, broken, operation).drive()
    if scenario.saga.no_way_back(position):
        assert ended(world, operation) is OperationState.STUCK
        resume(world.cluster, take_over(world.cluster, find(world.cluster, operation.id), forward=True))
        assert slate(world) == done_slate(scenario, tmp_path)
    else:
        assert ended(world, operation) is OperationState.FAILED
        assert slate(world) == before


@pytest.mark.parametrize(("world", "kind", "position", "when"), TURNS, indirect=["world"])
def test_unwinding_may_be_interrupted_and_repeated(world: World, tmp_path: Path, kind: str, position: int, when: str) -> None:
    """A process that dies while it undoes any step leaves work that the next one ends: the world is as it was."""
    scenario = SCENARIOS[kind]
    if scenario.saga.no_way_back(position):
        return
    before, operation, _ = begun(world, scenario)

    def failing(do: Any, run: Any, record: Any) -> Any:
        do(run, record)
        raise Failed("as the test wants it")

    def dying(undo: Any, run: Any, record: Any) -> None:
        if when == "after":
            undo(run, record)
        raise Killed

    last = max(p for p in range(len(scenario.saga.steps)) if not scenario.saga.no_way_back(p))
    broken = altered(altered(scenario.saga, last, do=failing), position, undo=dying)
    with pytest.raises(Killed):
        Driver(world.cluster, broken, operation).drive()
    world.abandon(operation)
    assert [error for _, error in recover(world.cluster)] == [None]
    assert ended(world, operation) is OperationState.FAILED
    assert slate(world) == before


@pytest.mark.parametrize(("world", "kind", "position", "when"), TIMES, indirect=["world"])
def test_a_death_at_any_step_is_ended_by_the_next_command(world: World, tmp_path: Path, kind: str, position: int, when: str) -> None:
    """Killed before or after any step's effect, the operation is ended by recovery: the world is as before, or as when done."""
    scenario = SCENARIOS[kind]
    before, operation, _ = begun(world, scenario)

    def dying(do: Any, run: Any, record: Any) -> Any:
        if when == "after":
            do(run, record)
        raise Killed

    with pytest.raises(Killed):
        Driver(world.cluster, altered(scenario.saga, position, do=dying), operation).drive()
    world.abandon(operation)
    assert [error for _, error in recover(world.cluster)] == [None]
    finished = ended(world, operation)
    assert finished.ended
    assert slate(world) == (done_slate(scenario, tmp_path) if finished is OperationState.OK else before)


def test_the_overtaken_change_nothing_more(world: World) -> None:
    """A process that was paused, overtaken and resumed is refused at its next write, and what its successor did stands."""
    scenario = SCENARIOS["server.create"]
    before, operation, _ = begun(world, scenario)

    def paused(do: Any, run: Any, record: Any) -> Any:
        record = do(run, record)
        world.abandon(operation)
        recover(world.cluster)
        return record

    with pytest.raises(Superseded):
        Driver(world.cluster, altered(scenario.saga, 2, do=paused), operation).drive()
    assert slate(world) == before


def test_the_next_node_is_tried(tmp_path: Path) -> None:
    """A node that cannot start the server gives its claim back, and the server runs on the next."""
    world = World(tmp_path)
    world.add_node("n1", fake={"vcpus": 64, "memory_mb": 65536, "disk_gb": 1000, "fail": {"start_domain": "out of order"}})
    world.add_node("n2")
    world.add_flavor()
    world.add_image()
    world.start()
    try:
        from novactl.api import servers as api

        made = api.create(world.cluster, api.CreateServer(name="web", flavor="small", image="guest"))
        assert made.servers[0].node_name == "n2"
        assert world.domains() == {made.servers[0].id: "RUNNING"}
        assert {row.node: row.verdict for row in api.why(world.cluster, "web").rows} == {"n2": "chosen", "n1": "rejected"}
        api.delete(world.cluster, "web")
        assert world.leftovers() == []
    finally:
        world.stop()
