"""What the database says against what runs: every kind of drift is found, told, and mended or left to a person."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from novactl import __version__
from novactl.agents import wire
from novactl.api import power
from novactl.api import servers as api
from novactl.api import verify as verifying
from novactl.api.servers import CreateServer
from novactl.conductor import background
from novactl.conductor.power import START
from novactl.conductor.saga import begin
from novactl.db import claims, meta, nodes, operations, placement, servers
from novactl.model.server import Server
from novactl.states import TaskState, VmState
from tests import databases
from tests.sagas.scenarios import leave_behind, slate
from tests.world import World, small_world

WILD = {"name": "legacy-db", "uuid": "2f0a8a86-35a5-4a6a-9a52-8c6c6ff8b0aa", "power_state": "RUNNING", "vcpus": 2, "memory_mb": 1024}


@pytest.fixture(params=databases.EACH)
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(background, "hand_over", lambda cluster, ids: None)
    with databases.database(request.param) as url, small_world(tmp_path, url=url) as made:
        yield made


@pytest.fixture
def web(world: World) -> Server:
    return api.create(world.cluster, CreateServer(name="web", flavor="small", image="guest")).servers[0]


def found(world: World) -> list[tuple[str, str, bool]]:
    """(kind, object, whether it can be mended), of the faults."""
    return [(drift.kind, drift.object, bool(drift.repair)) for drift in verifying.verify(world.cluster) if drift.is_fault]


def mended(world: World, **only: Any) -> None:
    """All that is found is mended, and is found no more."""
    assert {view.result for view in verifying.repair(world.cluster, **only)} == {"mended"}
    assert found(world) == []


def guest(world: World, server: Server) -> Any:
    return world.agents[server.node_name].driver._guests[server.id]  # type: ignore[attr-defined]


def row(world: World, server: Server) -> Server:
    with world.cluster.db.read() as tx:
        there = servers.by_id(tx, server.id)
    assert there is not None
    return there


def test_where_all_agrees_nothing_is_found(world: World, web: Server) -> None:
    """Servers that run, are off, and are gone, each as its row says: nothing to tell, nothing to mend, nothing changed."""
    others = api.create(world.cluster, CreateServer(name="more", flavor="small", image="guest", count=2)).servers
    power.stop(world.cluster, others[0].name)
    api.delete(world.cluster, others[1].name)
    before = slate(world)
    assert verifying.verify(world.cluster) == () and verifying.repair(world.cluster) == ()
    assert slate(world) == before


@pytest.mark.parametrize(("what", "kind", "status"), [
    ("off", "power", "SHUTOFF"), ("crash", "crashed", "ERROR"), ("vanish", "vanished", "ERROR")])
def test_powers(world: World, web: Server, what: str, kind: str, status: str) -> None:
    """A guest that is not what its row says is found, and repairing shows it as it is."""
    driver: Any = world.agents[web.node_name].driver
    {"off": driver.shut_down, "crash": driver.crash, "vanish": lambda id_: driver._guests.pop(id_)}[what](web.id)
    assert found(world) == [(kind, "server web", True)]
    mended(world)
    assert row(world, web).status == status


def test_a_host_that_started_anew(world: World, web: Server) -> None:
    """What ran before is started by repairing, and waited for; the host is told, not each of its guests."""
    verifying.verify(world.cluster)
    world.reboot(web.node_name)
    assert found(world) == [("boot", f"node {web.node_name}", True)]
    mended(world)
    assert row(world, web).status == "ACTIVE" and world.domains() == {web.id: "RUNNING"}


def test_a_copy_left_behind(world: World, web: Server) -> None:
    """An older copy that runs on another node is found, and removed with its files; the server itself runs on."""
    before = slate(world)
    other = leave_behind(world, web)
    (drift,) = verifying.verify(world.cluster)
    assert (drift.kind, drift.node, drift.repair) == ("superseded", other, "remove it from the node")
    assert f"it is on node {web.node_name} at epoch {web.epoch}" in drift.what
    (dry,) = verifying.repair(world.cluster, dry_run=True)
    assert dry == drift and found(world)
    mended(world, server="web")
    assert slate(world) == before
    with world.cluster.db.read() as tx:
        assert operations.recent(tx, ended=True, limit=1)[0].kind == "server.clean"


def test_a_copy_beside_a_shared_disk_leaves_the_disk(world: World) -> None:
    """Where both nodes' disks are one pool, the copy's domain goes and the disk, which is the server's own, stays."""
    world.share_pool("n1", "n2")
    web = api.create(world.cluster, CreateServer(name="web", flavor="small", image="guest")).servers[0]
    other = leave_behind(world, web)
    with world.cluster.db.write() as tx:
        for node in nodes.all_(tx):
            nodes.update(tx, dataclasses.replace(node, shared_disk="pool"))
    mended(world, node=other)
    assert (world.folder / other / "pool" / f"disk-{web.id}.qcow2").exists()
    assert web.id not in world.agents[other].driver._guests  # type: ignore[attr-defined]
    assert found(world) == []


def test_files_left_behind(world: World, web: Server) -> None:
    """A disk and a seed of a server that is elsewhere are removed; those of a server that has vanished from its node never are."""
    other = leave_behind(world, web)
    world.agents[other].driver._guests.clear()  # type: ignore[attr-defined]
    world.agents[other]._report = None
    assert found(world) == [("leftover", "server web", True)]
    mended(world)
    world.agents[web.node_name].driver._guests.clear()  # type: ignore[attr-defined]
    mended(world)
    assert (world.folder / web.node_name / "pool" / f"disk-{web.id}.qcow2").exists()


def test_what_was_deleted_while_its_node_was_away(world: World, web: Server) -> None:
    """The domain and files of a deleted server are removed, because the journal knows that it was deleted."""
    kept = guest(world, web)
    files = {path: path.read_bytes() for path in (world.folder / web.node_name / "pool").iterdir() if web.id in path.name}
    api.delete(world.cluster, "web")
    world.agents[web.node_name].driver._guests[web.id] = kept  # type: ignore[attr-defined]
    kept.power = "RUNNING"
    for path, content in files.items():
        path.write_bytes(content)
    assert found(world) == [("leftover", "server web", True)]
    mended(world)
    assert world.leftovers() == []


def test_what_this_database_has_never_known(world: World, web: Server) -> None:
    """A domain with our metadata that the journal knows nothing of is told, with the way, and not touched."""
    one = guest(world, web)
    strange = world.cluster.ids.uuid()
    spec = dataclasses.replace(one.spec, server=strange, name="lost")
    world.agents[web.node_name].driver._guests[strange] = type(one)(spec, one.mark, "RUNNING", 1)  # type: ignore[attr-defined]
    (drift,) = verifying.verify(world.cluster)
    assert (drift.kind, drift.object, drift.repair, drift.command) == ("unknown", "server lost", "", "novactl db rebuild")
    (view,) = verifying.repair(world.cluster)
    assert view.result == "" and world.domains()[strange] == "RUNNING"


def test_wild_domains_are_listed_and_never_touched(tmp_path: Path) -> None:
    """A domain that is not ours is told with its particulars, is no fault, and repairing does nothing about it."""
    world = World(tmp_path)
    world.add_node("n1", fake={"wild": [WILD]})
    world.start()
    try:
        (drift,) = verifying.verify(world.cluster)
        assert (drift.kind, drift.object, drift.is_fault, drift.repair) == ("wild", "domain legacy-db", False, "")
        assert drift.command == f"novactl server adopt n1 {WILD['uuid']}"
        assert verifying.repair(world.cluster) == ()
    finally:
        world.stop()


def test_a_database_that_is_behind(world: World, web: Server) -> None:
    """An agent that knows a newer epoch than the row says that the database is old: nothing is removed or moved."""
    one = guest(world, web)
    one.spec = dataclasses.replace(one.spec, epoch=web.epoch + 1)
    (drift,) = verifying.verify(world.cluster)
    assert (drift.kind, drift.repair, drift.command) == ("ahead", "", "novactl cluster adopt")
    with world.cluster.db.write() as tx:
        servers.place(tx, web.id, web.node_id, web.epoch + 2, world.cluster.clock.now())
    (drift,) = verifying.verify(world.cluster)
    assert (drift.kind, drift.command) == ("outdated", "novactl server reboot --hard web")


def test_a_copy_of_the_database(world: World, web: Server) -> None:
    """An agent that has done an operation of a number this database has not given, or gave another, is told as diverged."""
    with world.cluster.db.read() as tx:
        highest = operations.highest_number(tx)
        assert operations.number_of(tx, highest)
    ledger = world.agents["n1"].ledger
    ledger.raise_epochs("another", 1, "", 0, 1.0, seq=highest + 5)
    assert found(world) == [("diverged", "node n1", False)]
    with world.cluster.db.write() as tx:
        meta.put(tx, meta.SEQ_OFFSET, str(highest + 5))
    assert found(world) == []


def test_claims(world: World, web: Server) -> None:
    """A claim of nobody is released, a server without one gets it, and sums that are wrong are added up again."""
    with world.cluster.db.write() as tx:
        (node,) = [node for node in nodes.all_(tx) if node.id != web.node_id]
        placement.claim(tx, placement.Claim(world.cluster.ids.uuid(), node.id, {"VCPU": 1}, kind="move"))
        placement.release(tx, web.id, web.node_id)
    assert {kind for kind, _, _ in found(world)} == {"no-claim", "orphan-claim"}
    mended(world)
    with world.cluster.db.write() as tx:
        held = claims.held(tx, web.id, web.node_id)
        assert held is not None and held.amounts == {"VCPU": 1, "MEMORY_MB": 512, "DISK_GB": 1}
        claims.remove(tx, web.id, web.node_id)
    assert sorted(kind for kind, _, _ in found(world)) == ["no-claim", "sums", "sums"]
    mended(world)
    with world.cluster.db.read() as tx:
        assert placement.consumers(tx) == {web.node_id: 1}
    api.delete(world.cluster, "web")
    assert world.leftovers() == []


def test_a_claim_of_an_operation_that_has_ended(world: World, web: Server) -> None:
    """What an operation that is over still claims is released."""
    with world.cluster.db.write() as tx:
        (node,) = [node for node in nodes.all_(tx) if node.id != web.node_id]
        ended = operations.recent(tx, ended=True)[0]
        placement.claim(tx, placement.Claim(ended.id, node.id, {"VCPU": 1}, kind="move"))
    assert [kind for kind, _, _ in found(world)] == ["orphan-claim"]
    mended(world)


def test_a_server_held_by_what_has_ended(world: World, web: Server) -> None:
    """A server that is busy for an operation which is over is let go, in the state that its node tells."""
    with world.cluster.db.write() as tx:
        held = servers.by_id(tx, web.id)
        assert held is not None
        state = dataclasses.replace(held.state, task_state=TaskState.POWERING_OFF)
        servers.move_state(tx, held, state, operation_id=world.cluster.ids.uuid(), at=world.cluster.clock.now())
    assert found(world) == [("busy", "server web", True)]
    mended(world)
    after = row(world, web)
    assert (after.vm_state, after.task_state, after.operation_id) == (VmState.ACTIVE, TaskState.NONE, "")


def test_an_operation_that_nobody_drives(world: World, web: Server) -> None:
    """It is told with the way to end it, and ended; what it is about is not looked at meanwhile."""
    power.stop(world.cluster, "web")
    with world.cluster.db.write() as tx:
        stopped = servers.by_id(tx, web.id)
        assert stopped is not None
        operation = begin(world.cluster, tx, START, power._power(stopped), ("server", web.id, "web"))
        state = dataclasses.replace(stopped.state, task_state=TaskState.POWERING_ON)
        servers.move_state(tx, stopped, state, operation_id=operation.id, at=world.cluster.clock.now())
    assert found(world) == []
    world.abandon(operation)
    guest(world, web).spec = dataclasses.replace(guest(world, web).spec, epoch=web.epoch + 4)
    assert found(world) == [("operation", f"operation {operation.id[:8]}", True)]
    guest(world, web).spec = dataclasses.replace(guest(world, web).spec, epoch=web.epoch)
    mended(world)
    assert row(world, web).status == "ACTIVE"


def test_the_silent_are_named(world: World, web: Server) -> None:
    """A node that does not answer is told as not looked at, and is no fault; what is on it is not judged."""
    with world.cluster.db.write() as tx:
        node = nodes.by_id(tx, web.node_id)
        assert node is not None
        nodes.update(tx, dataclasses.replace(node, address="tcp://127.0.0.1:9"))
    guest(world, web).power = "SHUTDOWN"
    (drift,) = verifying.verify(world.cluster)
    assert (drift.kind, drift.node, drift.is_fault) == ("silent", web.node_name, False) and drift.what.startswith("not looked at: ")


def test_an_agent_of_another_version(world: World) -> None:
    """It is told, with the command that brings it up to date, and is no fault."""
    agent = world.agents["n1"]
    honest = agent.report
    agent.report = lambda age_s: dataclasses.replace(honest(age_s), agent_version="0.0.1")  # type: ignore[method-assign]
    (drift,) = verifying.verify(world.cluster)
    assert (drift.kind, drift.is_fault) == ("version", False)
    assert f"0.0.1, this novactl {__version__}" in drift.what and drift.command.startswith("novactl node enroll ")


def test_many_servers_are_verified(world: World, web: Server) -> None:
    """1,500 domains of one node are all compared, though they do not fit into one message."""
    one = guest(world, web)
    with world.cluster.db.write() as tx:
        held = servers.by_id(tx, web.id)
        assert held is not None
        for number in range(1499):
            id_ = world.cluster.ids.uuid()
            servers.insert(tx, dataclasses.replace(held, id=id_, name=f"m{number}"))
            placement.acknowledge(tx, placement.Claim(id_, web.node_id, {"VCPU": 1}))
            world.agents[web.node_name].driver._guests[id_] = type(one)(  # type: ignore[attr-defined]
                dataclasses.replace(one.spec, server=id_, name=f"m{number}"), one.mark, "RUNNING", 1)
    last = max(world.agents[web.node_name].driver._guests)  # type: ignore[attr-defined]
    world.agents[web.node_name].driver.crash(last)  # type: ignore[attr-defined]
    (drift,) = [drift for drift in verifying.verify(world.cluster) if drift.kind != "leftover"]
    assert (drift.kind, drift.object_id) == ("crashed", last)
    report = world.agents[web.node_name].report(0.0)
    assert isinstance(report, wire.Report) and report.domains_left > 0
