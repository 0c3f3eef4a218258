"""A node that was fenced comes back: nothing on it that is not its own any more outlasts its being enabled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from novactl.api import ha as api
from novactl.api import nodes as nodes_api
from novactl.api import operations as operations_api
from novactl.api import servers as servers_api
from novactl.conductor import power
from novactl.conductor.saga import begin
from novactl.db import servers
from novactl.errors import Conflict
from novactl.model.node import NodeState
from novactl.states import Event, advance
from tests.ha.test_fencing import power_cut, state_of
from tests.world import World, small_world

OLD = b"DATA OF LAST YEAR"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with small_world(tmp_path, count=2) as made:
        yield made


def rebooting(world: World) -> str:
    """Somebody reboots server web at this moment. -> the operation's id"""
    with world.cluster.db.write() as tx:
        web = servers.by_name(tx, "web")
        assert web is not None
        operation = begin(
            world.cluster, tx, power.REBOOT, power.Power(server=web.id, node=web.node_id, epoch=web.epoch, hard=False),
            ("server", web.id, web.name), detached=True)
        servers.move_state(tx, web, advance(web.state, Event.BEGIN_REBOOT, web.name), operation_id=operation.id, at=1.0)
    world.abandon(operation)
    return operation.id


def test_a_copy_of_a_server_that_is_busy_elsewhere_is_waited_for(world: World) -> None:
    """Enabling is refused, names the server and what it does; when that has ended the copy goes with its files, and what is evacuated
    to the node later begins with a disk of its own."""
    made = servers_api.create(world.cluster, servers_api.CreateServer(name="web", flavor="small", image="guest", node="n1")).servers[0]
    api.set_server(world.cluster, "web", wants_ha=True)
    disk = world.folder / "n1" / "pool" / f"disk-{made.id}.qcow2"
    disk.write_bytes(OLD)
    receive = world.endpoints["n1"].dispatcher.receive
    power_cut(world, "n1")
    api.fence(world.cluster, "n1", by_hand=True)
    world.endpoints["n1"].dispatcher.receive = receive  # type: ignore[method-assign]
    world.reboot("n1")
    operation = rebooting(world)
    with pytest.raises(Conflict) as refused:
        nodes_api.enable(world.cluster, "n1")
    assert refused.value.reasons == (f"server web: it is on node n2, and reboot_started for operation {operation[:8]}",)
    assert "node n1 still has domains of servers that live elsewhere" in refused.value.message
    assert state_of(world, "n1") is NodeState.FENCED and disk.read_bytes() == OLD
    operations_api.resume(world.cluster, [operation])
    nodes_api.enable(world.cluster, "n1")
    assert state_of(world, "n1") is NodeState.ENABLED and not disk.exists()
    power_cut(world, "n2")
    api.fence(world.cluster, "n2", by_hand=True)
    assert disk.read_bytes() != OLD
