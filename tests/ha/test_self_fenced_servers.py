"""Servers that their node stopped for want of a lease are shown so, and run again when it has one, or elsewhere once it is fenced."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from novactl.api import cluster as cluster_api
from novactl.api import ha as ha_api
from novactl.api import nodes as nodes_api
from novactl.api import power, verify
from novactl.api import servers as api
from novactl.conductor import background, fleet, ha, reconcile
from novactl.conductor.recover import find, resume, take_over
from novactl.db import events, nodes, operations, servers
from novactl.errors import Conflict, NovaError, NoValidHost
from novactl.model.node import Node
from novactl.model.operation import OperationState
from novactl.model.server import Server
from novactl.states import PowerState, VmState
from tests import databases
from tests.contract.kit import until
from tests.ha.test_fencing import power_cut
from tests.world import World, small_world


@pytest.fixture(params=databases.EACH)
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Two nodes, n1 fences itself; operations that would go to a process of their own are driven by the test."""
    monkeypatch.setattr(background, "hand_over", lambda cluster, ids: None)
    with databases.database(request.param) as url, small_world(tmp_path, count=2, url=url) as made:
        nodes_api.set_(made.cluster, "n1", nodes_api.SetNode(fencing={"method": "self", "self_fence_s": "5"}))
        until(lambda: leased(made))
        refresh(made)
        yield made


def leased(world: World) -> bool:
    """Whether n1 took a lease that was offered; on a busy machine it may answer too late."""
    ha.renew_leases(world.cluster)
    return node(world).lease_until is not None


def refresh(world: World) -> None:
    fleet.refresh(world.cluster, max_age_s=-1.0)


def node(world: World, name: str = "n1") -> Node:
    with world.cluster.db.read() as tx:
        found = nodes.by_name(tx, name)
    assert found is not None
    return found


def row(world: World, server: Server) -> Server:
    with world.cluster.db.read() as tx:
        found = servers.by_id(tx, server.id)
    assert found is not None
    return found


def made(world: World, count: int = 1, where: str = "n1", name: str = "web") -> tuple[Server, ...]:
    return api.create(world.cluster, api.CreateServer(name=name, flavor="small", image="guest", node=where, count=count)).servers


def begun(world: World) -> tuple[str, ...]:
    with world.cluster.db.read() as tx:
        return tuple(op.id for op in operations.recent(tx, ended=False))


def drive(world: World) -> list[OperationState]:
    ids = begun(world)
    for id_ in ids:
        resume(world.cluster, take_over(world.cluster, find(world.cluster, id_), forward=True), forward=False)
    return [find(world.cluster, id_).state for id_ in ids]


def without_lease(world: World) -> None:
    """Nobody has renewed n1's lease for long: it has stopped all its servers, and somebody has asked it since."""
    lapse(world)
    stopped_without_lease(world)


def stopped_without_lease(world: World) -> None:
    agent = world.agents["n1"]
    agent.self_fence.until_s -= 100
    deadline = time.monotonic() + 60
    while any(agent.driver.run_id(state.server) for state in agent.driver.states()[0]):
        assert time.monotonic() < deadline, "it stops its servers"
        time.sleep(0.05)
    refresh(world)


def lapse(world: World) -> None:
    n1 = node(world)
    with world.cluster.db.write() as tx:
        assert nodes.grant_lease(tx, n1.id, world.cluster.clock.now() - 1, 5.0)


def seen_on(world: World) -> list[servers.PowerRow]:
    n1 = node(world)
    with world.cluster.db.read() as tx:
        return servers.powers(tx, n1.id)


def told(world: World, server: Server) -> list[str]:
    with world.cluster.db.read() as tx:
        return [event.event for event in events.of(tx, server.id)]


def test_its_row_says_that_it_does_not_run_and_why(world: World) -> None:
    """Every screen says ERROR, the fault says what to do; said once, however often it is looked at."""
    (server,) = made(world)
    without_lease(world)
    refresh(world)
    shown = api.show(world.cluster, server.name)
    assert (shown.status, shown.power_state) == ("ERROR", PowerState.SHUTDOWN)
    assert "node n1 fences itself and has no lease" in shown.fault and "novactl conductor run" in shown.fault
    assert [line.status for line in api.list_servers(world.cluster)] == ["ERROR"]
    assert [line.name for line in api.list_servers(world.cluster, status="ERROR")] == [server.name]
    assert told(world, server).count("found_fenced") == 1 and begun(world) == ()


def test_it_runs_again_with_the_next_lease_and_what_was_stopped_does_not(world: World) -> None:
    """Of three: one its admin had stopped before, one he stops while there is no lease."""
    stopped, runs, given_up = made(world, 3)
    power.stop(world.cluster, stopped.name)
    without_lease(world)
    power.stop(world.cluster, given_up.name)
    ha.renew_leases(world.cluster)
    refresh(world)
    assert [find(world.cluster, id_).object_id for id_ in begun(world)] == [runs.id]
    assert drive(world) == [OperationState.OK]
    refresh(world)
    assert begun(world) == ()
    assert [row(world, one).status for one in (stopped, runs, given_up)] == ["SHUTOFF", "ACTIVE", "SHUTOFF"]
    assert (row(world, runs).power_state, row(world, runs).fault) == (PowerState.RUNNING, "")
    driver = world.agents["n1"].driver
    assert [bool(driver.run_id(one.id)) for one in (stopped, runs, given_up)] == [False, True, False]


def test_a_lease_whose_conductor_died_before_it_wrote_it_down(world: World) -> None:
    """What its agent says of itself counts: what it stopped waits for a lease, and is not begun to be started there."""
    (server,) = made(world)
    n1 = node(world)
    with world.cluster.db.write() as tx:
        nodes.end_lease(tx, n1.id)
    stopped_without_lease(world)
    assert node(world).lacks_lease(world.cluster.clock.now())
    assert row(world, server).status == "ERROR" and told(world, server).count("found_fenced") == 1 and begun(world) == ()
    ha.renew_leases(world.cluster)
    refresh(world)
    assert drive(world) == [OperationState.OK] and row(world, server).status == "ACTIVE"


def test_a_host_that_started_anew_without_a_lease(world: World) -> None:
    """It has counted nothing in its new boot: its servers wait for the lease all the same, and are shown so."""
    (server,) = made(world)
    lapse(world)
    world.reboot("n1")
    world.agents["n1"].self_fence._clock = world.agents["n1"].clock
    refresh(world)
    assert row(world, server).status == "ERROR" and begun(world) == ()
    ha.renew_leases(world.cluster)
    refresh(world)
    assert drive(world) == [OperationState.OK] and row(world, server).status == "ACTIVE"


def test_a_node_that_does_not_fence_itself_any_more_starts_them(world: World) -> None:
    (server,) = made(world)
    without_lease(world)
    nodes_api.unset(world.cluster, "n1", nodes_api.UnsetNode(fencing=True))
    refresh(world)
    assert drive(world) == [OperationState.OK] and row(world, server).status == "ACTIVE"


def test_the_conductor_starts_it_elsewhere_once_its_node_is_fenced(world: World) -> None:
    """It was seen to be down before its host died. What an admin had stopped stays where it is."""
    server, stopped = made(world, 2)
    power.stop(world.cluster, stopped.name)
    for one in (server, stopped):
        ha_api.set_server(world.cluster, one.name, wants_ha=True)
    without_lease(world)
    nodes_api.set_(world.cluster, "n1", nodes_api.SetNode(fencing={"method": "command", "command": _switch(world)}))
    power_cut(world, "n1")
    began, _ = ha.look_after(world.cluster)
    assert [find(world.cluster, id_).kind for id_ in began] == ["node.fence"]
    assert drive(world) == [OperationState.OK]
    ha.look_after(world.cluster)
    assert [find(world.cluster, id_).object_id for id_ in begun(world)] == [server.id]
    assert drive(world) == [OperationState.OK]
    after = row(world, server)
    assert (after.status, after.node_name, after.fault) == ("ACTIVE", "n2", "")
    assert row(world, stopped).node_name == "n1" and not world.agents["n2"].driver.run_id(stopped.id)


def _switch(world: World) -> str:
    path = world.folder / "switch"
    path.write_text("#!/bin/sh\nexit 0\n")
    path.chmod(0o755)
    return str(path)


def test_starting_it_says_what_it_waits_for(world: World) -> None:
    """Nothing is begun that the node would refuse; with the lease back, it is started as it would be anyway."""
    (server,) = made(world)
    without_lease(world)
    with pytest.raises(Conflict, match=r"web.* cannot be started now: node n1 fences itself and has no lease") as refused:
        power.start(world.cluster, server.name)
    assert refused.value.command == "novactl conductor run" and begun(world) == ()
    ha.renew_leases(world.cluster)
    with pytest.raises(NovaError):
        power.start(world.cluster, server.name)               # it is being started
    assert drive(world) == [OperationState.OK] and row(world, server).status == "ACTIVE"


def test_a_restart_that_the_node_refuses_leaves_it_waiting(world: World) -> None:
    """Turned back, or given up: it is what it was, and runs with the next lease."""
    (server,) = made(world)
    without_lease(world)
    with pytest.raises(NovaError):
        power.reboot(world.cluster, server.name)
    assert row(world, server).vm_state is VmState.ACTIVE and row(world, server).power_state is PowerState.SHUTDOWN


def test_repairing_says_what_it_waits_for(world: World) -> None:
    """It is not mended, and says so; with the lease it is."""
    (server,) = made(world)
    without_lease(world)
    (boot,) = [drift for drift in verify.repair(world.cluster) if drift.kind == "boot"]
    assert "node n1 fences itself and has no lease" in boot.result and "novactl conductor run" in boot.result
    ha.renew_leases(world.cluster)
    assert [drift.result for drift in verify.repair(world.cluster) if drift.kind == "boot"] == ["mended"]
    assert row(world, server).status == "ACTIVE" and [drift for drift in verify.verify(world.cluster) if drift.is_fault] == []


def test_the_doctor_says_so(world: World) -> None:
    def of_n1() -> list[tuple[str, str]]:
        return [(finding.verdict, finding.fix) for finding in cluster_api.doctor(world.cluster) if finding.check == "node n1"]

    assert of_n1() == [("ok", "")] and nodes_api.show(world.cluster, "n1", refresh=False).status == "up"
    lapse(world)
    assert of_n1() == [("fail", "novactl conductor run")]
    seen = nodes_api.show(world.cluster, "n1", refresh=False)
    assert seen.status == "stale" and "has no lease" in seen.reason


@pytest.mark.parametrize("count", [1, 20])
def test_nothing_is_placed_there(world: World, count: int) -> None:
    """One by one or many at once, and the refusal of the node asked for says why."""
    lapse(world)
    assert {server.node_name for server in made(world, count, "")} == {"n2"}
    with pytest.raises(NoValidHost) as refused:
        made(world, name="there")
    assert "fences itself and has no lease" in f"{refused.value.message} {refused.value.reasons}"


def test_of_two_that_look_at_once_the_one_without_a_lease_undoes_nothing(world: World) -> None:
    """Its row was read before the lease: what is being started by then stays so."""
    (server,) = made(world)
    without_lease(world)
    before, rows = node(world), seen_on(world)
    ha.renew_leases(world.cluster)
    (report,) = fleet.reports(world.cluster, [before], 0.0, timeout_s=5.0).values()
    assert not isinstance(report, NovaError)
    refresh(world)
    assert len(begun(world)) == 1
    assert reconcile._believe(world.cluster, before, rows, report) == ()
    assert drive(world) == [OperationState.OK] and row(world, server).status == "ACTIVE"


def test_of_two_that_look_at_once_none_is_forgotten(world: World) -> None:
    """Another wrote that it waits, just as this one has seen the lease: the boot does not count as looked after without it."""
    (server,) = made(world)
    rows = seen_on(world)
    without_lease(world)
    ha.renew_leases(world.cluster)
    (report,) = fleet.reports(world.cluster, [node(world)], 0.0, timeout_s=5.0).values()
    assert not isinstance(report, NovaError)
    assert reconcile._believe(world.cluster, node(world), rows, report) == ()
    refresh(world)
    assert drive(world) == [OperationState.OK] and row(world, server).status == "ACTIVE"
