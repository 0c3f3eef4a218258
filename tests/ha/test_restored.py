"""A database that was restored knows nothing of what its nodes have done since: until it is adopted nothing is begun on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from novactl.api import database, ha, power, rebuild
from novactl.api import nodes as nodes_api
from novactl.api import servers as servers_api
from novactl.conductor import background, delete_server, fleet
from novactl.conductor import ha as conductor_ha
from novactl.conductor.leader import Leadership
from novactl.conductor.recover import recover
from novactl.db import events, operations, servers
from novactl.errors import Conflict, NotFound
from novactl.model.server import Server
from tests import databases
from tests.ha.test_fencing import power_cut, server_on
from tests.world import World, small_world


@pytest.fixture(params=databases.EACH)
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(background, "hand_over", lambda cluster, ids: None)
    with databases.database(request.param) as url, small_world(tmp_path, count=3, url=url) as made:
        yield made


def under_way(world: World) -> int:
    with world.cluster.db.read() as tx:
        return len(operations.under_way(tx))


def row(world: World, name: str = "web") -> Server:
    with world.cluster.db.read() as tx:
        found = servers.by_name(tx, name)
    assert found is not None
    return found


def moved_since(world: World, file: Path) -> str:
    """A backup; then n1 dies, and its server runs elsewhere with the next epoch; then the backup again. The server's id."""
    server = server_on(world, "n1")
    receive = world.endpoints["n1"].dispatcher.receive
    database.backup(world.cluster, file)
    power_cut(world, "n1")
    ha.fence(world.cluster, "n1", by_hand=True)
    assert row(world).node_name != "n1" and row(world).epoch == 2
    database.restore(world.cluster, file, force=True)
    assert (row(world).node_name, row(world).epoch) == ("n1", 1)
    world.reboot("n1")
    world.endpoints["n1"].dispatcher.receive = receive  # type: ignore[method-assign]
    return server


def running(world: World, server: str) -> list[str]:
    return [name for name, agent in world.agents.items() if agent.driver.run_id(server)]


def test_what_runs_elsewhere_by_now_is_not_started_a_second_time(world: World, tmp_path: Path) -> None:
    """The host that is back is not told to start it, whoever looks or asks; adopted, the rows are again what is."""
    server = moved_since(world, tmp_path / "b.nova")
    (where,) = running(world, server)
    for _ in range(2):
        fleet.refresh(world.cluster, max_age_s=-1.0)
    assert under_way(world) == 0
    assert "was restored" in conductor_ha.look_after(world.cluster)[1][0]
    for act in (
        lambda: power.reboot(world.cluster, "web", hard=True),
        lambda: servers_api.create(world.cluster, servers_api.CreateServer(name="new", flavor="small", image="guest")),
        lambda: ha.fence(world.cluster, "n3", by_hand=False),
    ):
        with pytest.raises(Conflict) as refused:
            act()
        assert "was restored from a backup of" in refused.value.message or "no way of being fenced" in refused.value.message
    assert running(world, server) == [where]

    assert not rebuild.adopt(world.cluster).waits
    fleet.refresh(world.cluster, max_age_s=-1.0)
    assert (row(world).node_name, row(world).epoch) == (where, 2) and running(world, server) == [where]
    power.reboot(world.cluster, "web", hard=True)
    assert running(world, server) == [where]


def test_a_silent_node_may_run_anything(world: World, tmp_path: Path) -> None:
    """It was not heard: nothing is begun until it is, or its admin says that it is off."""
    server = moved_since(world, tmp_path / "b.nova")
    (where,) = running(world, server)
    silent = "n3" if where != "n3" else "n2"
    receive = world.endpoints[silent].dispatcher.receive
    power_cut(world, silent)
    with pytest.raises(NotFound):
        rebuild.adopt(world.cluster, without=["n9"])
    assert rebuild.adopt(world.cluster).waits
    with pytest.raises(Conflict, match="was restored"):
        power.reboot(world.cluster, "web", hard=True)
    assert not rebuild.adopt(world.cluster, without=[silent]).waits
    power.reboot(world.cluster, "web", hard=True)
    assert running(world, server) == [where] and receive


def test_what_was_under_way_then_is_not_driven(world: World, tmp_path: Path) -> None:
    """Its end, whatever it was, is not in the backup."""
    server_on(world, "n1")
    disks = world.disks()
    with world.cluster.db.write() as tx:
        web = servers.by_name(tx, "web")
        assert web is not None
        delete_server.begin_one(world.cluster, tx, web, grace_s=0.0, lost=False, detached=True)
    database.backup(world.cluster, tmp_path / "b.nova")
    database.restore(world.cluster, tmp_path / "b.nova", force=True)
    with world.cluster.db.read() as tx:
        (open_,) = operations.under_way(tx)
    world.abandon(open_)
    assert recover(world.cluster) == () and under_way(world) == 1
    assert world.disks() == disks


def test_who_leads_begins_anew_and_nothing_is_deaf(world: World, tmp_path: Path) -> None:
    """The lease is nobody's, under an epoch that no leader had; events have numbers above those that were told."""
    leader = Leadership(world.cluster)
    assert leader.take() and leader.lease is not None
    database.backup(world.cluster, tmp_path / "b.nova")
    for number in range(5):
        nodes_api.set_(world.cluster, "n1", nodes_api.SetNode(labels={"n": str(number)}))
    with world.cluster.db.read() as tx:
        told, _ = events.last(tx, events.Asked(), 1)
    database.restore(world.cluster, tmp_path / "b.nova", force=True)
    with world.cluster.db.read() as tx:
        assert events.last(tx, events.Asked(), 1)[0] > told
    with pytest.raises(Exception, match="lease|leads|overtaken"), leader.write():
        pass
    other = Leadership(world.cluster)
    assert other.take() and other.lease is not None and other.lease.epoch > leader.lease.epoch
