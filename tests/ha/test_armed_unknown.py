"""An agent that fences itself, and a database that does not know: a backup from before, a rebuilt one, a node that was enrolled anew."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from novactl.api import cluster as cluster_api
from novactl.api import nodes as nodes_api
from novactl.api import servers as api
from novactl.api import verify
from novactl.conductor import background, fleet, ha
from novactl.db import nodes
from novactl.model.node import Node, NodeState
from tests.contract.kit import until
from tests.world import World, small_world


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """n1's agent fences itself, and its row is the one of before that."""
    monkeypatch.setattr(background, "hand_over", lambda cluster, ids: None)
    with small_world(tmp_path, count=1) as made:
        nodes_api.set_(made.cluster, "n1", nodes_api.SetNode(fencing={"method": "self", "self_fence_s": "5"}))
        until(lambda: ha.renew_leases(made.cluster) == [] and is_armed(made))
        forget(made)
        yield made


def forget(world: World, state: NodeState = NodeState.ENABLED) -> None:
    with world.cluster.db.write() as tx:
        known = nodes.by_name(tx, "n1")
        assert known is not None
        nodes.update(tx, dataclasses.replace(known, fencing={}, state=state))
        nodes.disarm(tx, known.id)
    assert row(world).armed_s is None and is_armed(world)


def row(world: World) -> Node:
    with world.cluster.db.read() as tx:
        found = nodes.by_name(tx, "n1")
    assert found is not None
    return found


def is_armed(world: World) -> bool:
    return world.agents["n1"].self_fence.self_fence_s > 0


def refresh(world: World) -> None:
    fleet.refresh(world.cluster, max_age_s=-1.0)


def test_the_conductor_tells_it_before_it_stops_anything(world: World) -> None:
    """As soon as it has reported."""
    refresh(world)
    assert row(world).armed_s == 5
    assert ha.renew_leases(world.cluster) == [] and not is_armed(world) and row(world).armed_s is None
    refresh(world)
    assert row(world).armed_s is None


def test_one_that_is_to_fence_itself_after_all_is_leased(world: World) -> None:
    refresh(world)
    nodes_api.set_(world.cluster, "n1", nodes_api.SetNode(fencing={"method": "self", "self_fence_s": "5"}))
    ha.renew_leases(world.cluster)
    assert is_armed(world) and not row(world).lacks_lease(world.cluster.clock.now()) and row(world).lease_until is not None


def test_an_admin_can_tell_it(world: World) -> None:
    refresh(world)
    assert nodes_api.unset(world.cluster, "n1", nodes_api.UnsetNode(fencing=True)).warnings == ()
    assert not is_armed(world) and row(world).armed_s is None


def test_a_node_that_was_fenced_is_known_by_its_first_report_when_it_runs_servers_again(world: World) -> None:
    """While it is fenced nobody arms, leases or disarms it; that it said so then is no reason not to hear it later."""
    forget(world, NodeState.FENCED)
    for _ in range(2):
        fleet.refresh(world.cluster, max_age_s=-1.0, fenced=True)
    assert row(world).armed_s is None
    fenced = row(world)
    with world.cluster.db.write() as tx:
        nodes.update(tx, dataclasses.replace(fenced, state=NodeState.ENABLED))
    refresh(world)
    assert row(world).armed_s == 5


def test_the_doctor_says_so(world: World) -> None:
    refresh(world)
    (finding,) = [finding for finding in cluster_api.doctor(world.cluster) if finding.check == "node n1"]
    assert finding.verdict == "fail" and "no --fence self" in finding.detail and finding.fix == "novactl conductor run"
    ha.renew_leases(world.cluster)
    assert [finding.verdict for finding in cluster_api.doctor(world.cluster) if finding.check == "node n1"] == ["ok"]


def test_what_it_stopped_meanwhile_is_not_said_to_be_mended_and_runs_again_once_it_was_told(world: World) -> None:
    server = api.create(world.cluster, api.CreateServer(name="web", flavor="small", image="guest")).servers[0]
    forget(world)
    agent = world.agents["n1"]
    agent.self_fence.until_s -= 100
    deadline = time.monotonic() + 60
    while agent.driver.run_id(server.id):
        assert time.monotonic() < deadline, "it stops its servers"
        time.sleep(0.05)
    (boot,) = [drift for drift in verify.repair(world.cluster) if drift.kind == "boot"]
    assert boot.result != "mended" and "novactl conductor run" in boot.result
    refresh(world)
    assert api.show(world.cluster, "web").status == "ERROR"
    ha.renew_leases(world.cluster)
    assert not is_armed(world)
    assert [drift.result for drift in verify.repair(world.cluster) if drift.kind == "boot"] == ["mended"]
    assert api.show(world.cluster, "web").status == "ACTIVE" and agent.driver.run_id(server.id)
