"""What the conductors' leader may do by itself when a node is silent."""

from __future__ import annotations

import pytest

from novactl.api import nodes as nodes_api
from novactl.conductor import ha, service
from novactl.conductor.journal import Journal
from novactl.conductor.leader import LEADER, Leadership
from novactl.db import leases, nodes, operations
from novactl.errors import Superseded
from novactl.model.node import NodeState
from tests.ha.test_fencing import power_cut, server_on, world
from tests.world import World

__all__ = ["world"]


def test_the_conductor_asks_a_node_before_it_fences_it(world: World) -> None:
    """That it was silent may be what an earlier leader wrote, before all conductors were down."""
    server_on(world, "n1")
    nodes_api.set_(world.cluster, "n1", nodes_api.SetNode(fencing={"method": "command", "command": "/bin/true"}))
    with world.cluster.db.write() as tx:
        found = nodes.by_name(tx, "n1")
        assert found is not None and nodes.silent(tx, found.id, world.cluster.clock.now() - 1000.0)
    assert ha.look_after(world.cluster) == ([], [])
    power_cut(world, "n1")
    begun, _said = ha.look_after(world.cluster)
    assert len(begun) == 1


def test_a_leader_that_was_overtaken_fences_nothing(world: World) -> None:
    """It was stopped between finding a node silent and writing that it is to be fenced."""
    server_on(world, "n1")
    nodes_api.set_(world.cluster, "n1", nodes_api.SetNode(fencing={"method": "command", "command": "/bin/true"}))
    power_cut(world, "n1")
    before = Leadership(world.cluster)
    assert before.take()
    with world.cluster.db.write() as tx:
        assert leases.take(tx, LEADER, "another", world.cluster.clock.now() + 10.0, before.lease)
    with pytest.raises(Superseded):
        service._look_after(before, Journal(lambda line: None, world.cluster.clock))
    with world.cluster.db.read() as tx:
        found = nodes.by_name(tx, "n1")
        assert found is not None and found.state is NodeState.ENABLED and not operations.open_of(tx, found.id)
