"""The three laws of sagas, for enrolment and removal, on a real host; and a process killed in their middle."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from novactl.conductor import enroll_node, recover, remove_node
from novactl.conductor.enrolment import ENROLL_NODE
from novactl.conductor.remove_node import REMOVE_NODE
from novactl.conductor.saga import Run, Saga, Step
from novactl.errors import EnrolFailed, NovaError
from tests.integration.enroll_world import World, await_true, home_of
from tests.lab import Lab
from tests.lab.fleet import REPOSITORY

ENROLL_STEPS = [step.name for step in ENROLL_NODE.steps]
REMOVE_STEPS = [step.name for step in REMOVE_NODE.steps]


@pytest.fixture(scope="module")
def bare_lab() -> Iterator[Lab]:
    with Lab(count=1) as lab:
        yield lab


@pytest.fixture
def world(bare_lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    home_of(bare_lab, monkeypatch)
    made = World(bare_lab, tmp_path / "data")
    yield made
    made.close()


def changed(saga: Saga[Any], name: str, do: Any = None, undo: Any = None) -> Saga[Any]:
    """The saga with one step's `do` or `undo` wrapped."""
    return dataclasses.replace(saga, steps=tuple(
        Step(step.name, do(step.do) if do else step.do, undo(step.undo) if undo else step.undo) if step.name == name else step
        for step in saga.steps))


def failing_after(do: Any) -> Any:
    """The effect happens, then the step fails."""
    def act(run: Run, record: Any) -> Any:
        do(run, record)
        raise EnrolFailed("on purpose")
    return act


def twice(do: Any) -> Any:
    return lambda run, record: do(run, do(run, record) or record)


@pytest.mark.parametrize("name", ENROLL_STEPS)
def test_a_failure_at_any_step_leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Whatever step of enrolment fails after its effect, host and database are as before; each undo also runs twice."""
    bare = world.slate()
    saga = changed(ENROLL_NODE, name, do=failing_after)
    for step in ENROLL_STEPS:
        saga = changed(saga, step, undo=twice)
    monkeypatch.setattr(enroll_node, "ENROLL_NODE", saga)
    with pytest.raises(EnrolFailed, match="on purpose"):
        world.enroll()
    assert world.slate() == bare


def test_every_step_may_run_twice(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Enrolment and removal with every step done twice end as with every step done once."""
    bare = world.slate()
    world.enroll()
    enrolled = world.slate()
    world.remove()
    saga: Saga[Any] = ENROLL_NODE
    for step in ENROLL_STEPS:
        saga = changed(saga, step, do=twice)
    monkeypatch.setattr(enroll_node, "ENROLL_NODE", saga)
    world.enroll()
    assert world.slate() == enrolled
    saga = REMOVE_NODE
    for step in REMOVE_STEPS[1:]:
        saga = changed(saga, step, do=twice)
    monkeypatch.setattr(remove_node, "REMOVE_NODE", saga)
    world.remove()
    assert world.slate() == bare


@pytest.mark.parametrize("name", REMOVE_STEPS)
def test_a_removal_that_fails(world: World, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Before the point of no return the node is whole again; after it, going on ends the removal."""
    bare = world.slate()
    world.enroll()
    enrolled = world.slate()
    monkeypatch.setattr(remove_node, "REMOVE_NODE", changed(REMOVE_NODE, name, do=failing_after))
    with pytest.raises(NovaError, match="on purpose") as failed:
        world.remove()
    monkeypatch.setattr(remove_node, "REMOVE_NODE", REMOVE_NODE)
    if name == REMOVE_STEPS[0]:
        assert world.slate() == enrolled
        world.remove()
    else:
        recover.resume(world.cluster, recover.take_over(world.cluster, recover.find(world.cluster, failed.value.operation), forward=True))
    assert world.slate() == bare


_KILLED = """
import os, signal, sys
from novactl.cluster import Cluster
from novactl.conductor import enroll_node, remove_node
from novactl.config import load_config
from novactl.db import nodes
from novactl.enroll.request import EnrollNode
act, target, step, state = sys.argv[1:]
cluster = Cluster(load_config())
def watch(progress):
    if (progress.step, progress.state) == (step, state):
        os.kill(os.getpid(), signal.SIGKILL)
if act == "enroll":
    enroll_node.enroll(cluster, EnrollNode(target=target), watch=watch)
else:
    with cluster.db.read() as tx:
        node = nodes.by_name(tx, "h1")
    remove_node.remove(cluster, node.id, watch=watch)
"""


def killed(world: World, act: str, step: str, state: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, act, f"root@{world.host.address}", step, state], cwd=REPOSITORY, timeout=240, capture_output=True,
        env={**os.environ, "HOME": str(world.lab.home), "NOVACTL_DATA_DIR": str(world.folder)})
    assert done.returncode == -9, done.stderr.decode()


@pytest.mark.parametrize(("step", "state"), [("keys", "done"), ("service", "done"), ("verify", "started"), ("unlock", "started")])
def test_enrolment_killed(world: World, step: str, state: str) -> None:
    """After SIGKILL in its middle the next command undoes it over a connection of its own: nothing stays."""
    bare = world.slate()
    killed(world, "enroll", step, state)
    assert world.slate()["nodes"] == ["h1"]
    ended = recover.recover(world.cluster, budget_s=60)
    assert [error for _, error in ended] == [None]
    assert world.slate() == bare


@pytest.mark.parametrize(("step", "state"), [("unprepare", "done"), ("no service", "done"), ("no directories", "started")])
def test_removal_killed(world: World, step: str, state: str) -> None:
    """After SIGKILL in its middle the node is either whole or gone, and ends gone."""
    bare = world.slate()
    world.enroll()
    killed(world, "remove", step, state)
    ended = recover.recover(world.cluster, budget_s=60)
    assert [error for _, error in ended] == [None]
    if world.slate()["nodes"]:
        await_true(lambda: world.cluster.agents.call(world.node(), "agent.ping"))
        world.remove()
    assert world.slate() == bare
