"""A machine whose clock is an hour off looks after the same nodes as all others: the time is the database server's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from novactl.api import nodes as nodes_api
from novactl.api import power
from novactl.cluster import Cluster, SystemClock
from novactl.conductor import fleet, ha
from novactl.db import events, nodes, servers
from tests import databases
from tests.ha.test_fencing import power_cut, server_on
from tests.world import World, small_world


@pytest.fixture(params=[kind for kind in databases.EACH if kind != "sqlite"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with databases.database(request.param) as url, small_world(tmp_path, count=3, url=url) as made:
        yield made


@pytest.fixture(params=[-3600, 3600])
def wrong(request: pytest.FixtureRequest, world: World) -> Iterator[Cluster]:
    class Off(SystemClock):
        now = staticmethod(lambda: SystemClock.now() + request.param)  # type: ignore[assignment]

    cluster = Cluster(world.config, clock=Off(), actor="other@machine")
    yield cluster
    cluster.close()


def silent_since(world: World, name: str) -> float:
    with world.cluster.db.read() as tx:
        node = nodes.by_name(tx, name)
    assert node is not None and node.silent_since is not None
    return node.silent_since


def test_a_node_is_fenced_after_its_time_and_not_before(world: World, wrong: Cluster) -> None:
    """Silent for some seconds, by somebody else's word, and for an hour: whoever leads."""
    server_on(world, "n1")
    nodes_api.set_(world.cluster, "n1", nodes_api.SetNode(fencing={"method": "command", "command": "/bin/true"}))
    power_cut(world, "n1")
    n1, now = nodes_api.show(world.cluster, "n1", refresh=False).id, world.cluster.clock.now()
    for ago_s, fences in ((5.0, False), (600.0, True)):
        with world.cluster.db.write() as tx:
            tx.connection.exec_driver_sql(f"UPDATE node SET silent_since = {now - ago_s} WHERE id = '{n1}'")  # type: ignore[attr-defined]
        assert bool(ha.fence_the_silent(wrong, wrong.db.write)[0]) is fences


def test_what_it_hears_and_does_not_hear_is_of_the_same_time(world: World, wrong: Cluster) -> None:
    """Silence, reports, events and what was changed: others reckon with them."""
    server_on(world, "n2", wants_ha=False)
    power_cut(world, "n1")
    with world.cluster.db.write() as tx:
        tx.connection.exec_driver_sql("UPDATE node SET silent_since = NULL")  # type: ignore[attr-defined]
    fleet.refresh(wrong, max_age_s=-1.0)
    power.stop(wrong, "web")
    now = SystemClock.now()
    assert abs(silent_since(world, "n1") - now) < 60
    assert nodes_api.show(world.cluster, "n2", refresh=False).status == "up"
    with world.cluster.db.read() as tx:
        server = servers.by_name(tx, "web")
        assert server is not None and abs(server.updated_at - now) < 60
        assert all(abs(event.at - now) < 60 for event in events.of(tx, server.id))


def test_a_lease_is_as_long_for_it(world: World, wrong: Cluster) -> None:
    """It does not find that a node lacks the lease which another has just given, and gives none that never ends."""
    nodes_api.set_(world.cluster, "n1", nodes_api.SetNode(fencing={"method": "self", "self_fence_s": "5"}))
    for gives, looks in ((world.cluster, wrong), (wrong, world.cluster)):
        assert ha.renew_leases(gives) == []
        with looks.db.read() as tx:
            n1 = nodes.by_name(tx, "n1")
        assert n1 is not None and n1.lease_until is not None
        assert not n1.lacks_lease(looks.clock.now()) and n1.lacks_lease(looks.clock.now() + 60)
