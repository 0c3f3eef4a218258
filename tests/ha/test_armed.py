"""A node counts as fencing itself when its agent has said so, and for as long as it may have been told at most."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.handlers import HANDLERS
from novactl.agents import wire
from novactl.api import ha as api
from novactl.api import nodes as nodes_api
from novactl.api.nodes import SetNode, UnsetNode
from novactl.conductor import fence_node, fences, ha
from novactl.db import nodes, operations
from novactl.errors import FencingFailed
from novactl.model.node import Node
from tests.world import World, small_world

SELF = {"method": "self"}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with small_world(tmp_path, count=1) as made:
        yield made


@pytest.fixture
def slept(world: World, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the conductor waited, which takes no time here."""
    waited: list[float] = []
    monkeypatch.setattr(world.cluster.clock, "sleep", waited.append)
    return waited


def row(world: World) -> Node:
    with world.cluster.db.read() as tx:
        found = nodes.by_name(tx, "n1")
    assert found is not None
    return found


def is_to(world: World, fencing: dict[str, str]) -> None:
    nodes_api.set_(world.cluster, "n1", SetNode(fencing=fencing))


def cut_off(world: World) -> None:
    world.endpoints["n1"].dispatcher.receive = lambda peer, key, frames: None  # type: ignore[method-assign]


def fence(world: World) -> str:
    node = row(world)
    return fences.power_off(world.cluster, node, node.fencing)


def test_an_agent_that_knows_no_leases_fences_nothing(world: World, slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """An older one. Its guests run on, whatever it is sent; the conductor says so."""
    monkeypatch.delitem(HANDLERS, "lease.renew")
    is_to(world, SELF)
    for _ in range(2):
        (said,) = ha.renew_leases(world.cluster)
        assert said.startswith("node n1 does not fence itself, as it is to: ")
    with pytest.raises(FencingFailed, match="never answered that it has a lease"):
        fence(world)
    assert slept == [] and row(world).lease_until is None


def test_an_agent_that_was_replaced_by_one_that_knows_no_leases(world: World, slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    is_to(world, SELF)
    assert ha.renew_leases(world.cluster) == []
    assert row(world).lease_until is not None
    monkeypatch.delitem(HANDLERS, "lease.renew")
    ha.renew_leases(world.cluster)
    with pytest.raises(FencingFailed):
        fence(world)


def test_a_lease_from_before_does_not_count(world: World, slept: list[float]) -> None:
    """It was told to fence itself no more; that it is to do so again it has not heard."""
    is_to(world, SELF)
    ha.renew_leases(world.cluster)
    nodes_api.unset(world.cluster, "n1", UnsetNode(fencing=True))
    assert world.agents["n1"].self_fence.self_fence_s == 0 and row(world).armed_s is None
    cut_off(world)
    is_to(world, SELF)
    with pytest.raises(FencingFailed):
        fence(world)
    assert slept == []


def test_a_shorter_delay_counts_when_it_was_heard(world: World, slept: list[float]) -> None:
    is_to(world, {**SELF, "self_fence_s": "600"})
    ha.renew_leases(world.cluster)
    receive = world.endpoints["n1"].dispatcher.receive
    cut_off(world)
    is_to(world, {**SELF, "self_fence_s": "60"})
    ha.renew_leases(world.cluster)
    assert world.agents["n1"].self_fence.self_fence_s == 600
    assert "after 600 s without one" in fence(world)
    world.endpoints["n1"].dispatcher.receive = receive  # type: ignore[method-assign]
    ha.renew_leases(world.cluster)
    assert world.agents["n1"].self_fence.self_fence_s == 60
    assert "after 60 s without one" in fence(world)
    assert slept == [600 + fences.NODE_LEASE_S + fences.MARGIN_S, 60 + fences.NODE_LEASE_S + fences.MARGIN_S]


def hears_and_answers_nothing(world: World) -> None:
    """Of leases: what it says is lost."""
    dispatcher = world.endpoints["n1"].dispatcher
    receive = dispatcher.receive

    def heard(peer: bytes, key: str, frames: list[bytes]) -> list[bytes] | None:
        reply = receive(peer, key, frames)
        return None if b"lease.renew" in b"".join(frames) else reply

    dispatcher.receive = heard  # type: ignore[assignment, method-assign]


def test_a_node_that_may_have_been_disarmed_does_not_count(world: World, slept: list[float]) -> None:
    """Its answer to that was lost, it is to fence itself again, and cannot be told."""
    is_to(world, SELF)
    ha.renew_leases(world.cluster)
    hears_and_answers_nothing(world)
    assert nodes_api.unset(world.cluster, "n1", UnsetNode(fencing=True)).warnings
    assert world.agents["n1"].self_fence.self_fence_s == 0
    cut_off(world)
    is_to(world, SELF)
    with pytest.raises(FencingFailed):
        fence(world)


def test_what_an_agent_may_have_heard_counts_though_it_did_not_answer(world: World, slept: list[float]) -> None:
    """A longer delay arrived, its answer did not; then it was to be shorter again."""
    is_to(world, {**SELF, "self_fence_s": "60"})
    ha.renew_leases(world.cluster)
    hears_and_answers_nothing(world)
    is_to(world, {**SELF, "self_fence_s": "600"})
    ha.renew_leases(world.cluster)
    assert world.agents["n1"].self_fence.self_fence_s == 600
    cut_off(world)
    is_to(world, {**SELF, "self_fence_s": "60"})
    assert "after 600 s without one" in fence(world)


def test_a_node_that_is_being_fenced_hears_of_no_lease_that_was_begun_before(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The conductor was stopped between greeting the agent and sending the lease."""
    is_to(world, SELF)
    ha.renew_leases(world.cluster)
    until_s, fan_out = world.agents["n1"].self_fence.until_s, world.cluster.agents.fan_out

    def stopped(peers: list[Node], method: str, *rest: object, **terms: object) -> object:
        answers = fan_out(peers, method, *rest, **terms)  # type: ignore[arg-type]
        if method == "agent.hello":
            node = row(world)
            with world.cluster.db.write() as tx:
                operation = ha.begin_fencing(world.cluster, tx, node, dict(SELF), detached=False)
            _hold(world, operation.id)
        return answers

    monkeypatch.setattr(world.cluster.agents, "fan_out", stopped)
    ha.renew_leases(world.cluster)
    assert world.agents["n1"].self_fence.until_s == until_s


def test_an_answer_from_before_it_was_disarmed_does_not_count(world: World, slept: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """The conductor was stopped between hearing of it and writing it down; meanwhile it was to fence itself no more, and then to again."""
    is_to(world, SELF)
    fan_out = world.cluster.agents.fan_out

    def stopped(peers: list[Node], method: str, *rest: object, **terms: object) -> object:
        answers = fan_out(peers, method, *rest, **terms)  # type: ignore[arg-type]
        if method == "lease.renew":
            monkeypatch.setattr(world.cluster.agents, "fan_out", fan_out)
            nodes_api.unset(world.cluster, "n1", UnsetNode(fencing=True))
            cut_off(world)
            is_to(world, SELF)
        return answers

    monkeypatch.setattr(world.cluster.agents, "fan_out", stopped)
    ha.renew_leases(world.cluster)
    assert world.agents["n1"].self_fence.self_fence_s == 0
    with pytest.raises(FencingFailed):
        fence(world)


def _hold(world: World, operation_id: str) -> None:
    from novactl.conductor.saga import Run

    with world.cluster.db.read() as tx:
        operation = operations.by_id(tx, operation_id)
    assert operation is not None
    fence_node.hold(Run(world.cluster, operation, lambda told: None), wire.from_plain(fence_node.FenceNode, operation.record))


def test_a_node_that_is_to_fence_itself_no_more_hears_of_it(world: World) -> None:
    is_to(world, SELF)
    ha.renew_leases(world.cluster)
    assert nodes_api.unset(world.cluster, "n1", UnsetNode(fencing=True)).warnings == ()
    assert world.agents["n1"].self_fence.self_fence_s == 0 and not world.agents["n1"].self_fence.is_due()


def test_one_that_does_not_answer_hears_of_it_from_the_conductor(world: World) -> None:
    """Its servers would be stopped: nobody renews the lease of a node that fences itself no more."""
    is_to(world, SELF)
    ha.renew_leases(world.cluster)
    receive = world.endpoints["n1"].dispatcher.receive
    cut_off(world)
    (warning,) = nodes_api.unset(world.cluster, "n1", UnsetNode(fencing=True)).warnings
    assert "node n1 could not be told that it fences itself no more: it stops its servers within 90 s" in warning
    world.endpoints["n1"].dispatcher.receive = receive  # type: ignore[method-assign]
    assert world.agents["n1"].self_fence.self_fence_s == 60
    ha.renew_leases(world.cluster)
    assert world.agents["n1"].self_fence.self_fence_s == 0 and row(world).armed_s is None


def test_the_time_an_agent_is_given_is_not_the_operations(world: World, slept: list[float]) -> None:
    """An hour of patience beside an hour's limit: it would always be turned back."""
    is_to(world, {**SELF, "self_fence_s": "3600"})
    ha.renew_leases(world.cluster)
    begun, node = world.cluster.clock.now(), row(world)
    api.fence(world.cluster, "n1")
    with world.cluster.db.read() as tx:
        operation = operations.last_of(tx, node.id, "node.fence")
    assert operation is not None and operation.deadline is not None and operation.deadline >= begun + 3600 + slept[0]
