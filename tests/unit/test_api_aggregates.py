"""Aggregates and zones: metadata, membership, and the rule that a node is in one zone at most."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from novactl.api import aggregates, nodes, projects, zones
from novactl.api.nodes import SetNode, UnsetNode
from novactl.cluster import Cluster
from novactl.db import events
from novactl.db import nodes as db_nodes
from novactl.errors import AlreadyExists, Conflict, InUse, NotFound, UsageError
from tests import databases
from tests.unit.nouns_world import put_server, quiet_world
from tests.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = quiet_world(tmp_path)
    yield made
    made.stop()


def facts(cluster: Cluster, name: str) -> tuple[str, dict[str, dict[str, str]]]:
    """(zone, aggregates with metadata) as placement reads them of a node."""
    with cluster.db.read() as tx:
        node = db_nodes.by_name(tx, name)
        found = db_nodes.facts_of(tx, node.id)
    return found.zone, {one.name: dict(one.metadata) for one in found.aggregates}


def test_the_life_of_an_aggregate(world: World) -> None:
    """Created, filled, changed, emptied and deleted; placement's facts of its nodes follow at each step."""
    cluster = world.cluster
    aggregates.create(cluster, name="fast", zone="z1", properties={"ssd": "true"})
    assert aggregates.add_nodes(cluster, "fast", ["n1", "n2", "n1"]).nodes == ("n1", "n2")
    assert aggregates.add_nodes(cluster, "fast", ["n1"]).nodes == ("n1", "n2")
    assert facts(cluster, "n1") == ("z1", {"fast": {"ssd": "true", "availability_zone": "z1"}})
    assert aggregates.set_(cluster, "fast", zone="z2", properties={"nvme": "2"}).zone == "z2"
    assert facts(cluster, "n2") == ("z2", {"fast": {"ssd": "true", "nvme": "2", "availability_zone": "z2"}})
    assert dict(aggregates.unset(cluster, "fast", zone=True, keys=["ssd", "not there"]).metadata) == {"nvme": "2"}
    assert facts(cluster, "n1") == ("", {"fast": {"nvme": "2"}})
    assert aggregates.remove_nodes(cluster, "fast", ["n2"]).nodes == ("n1",)
    with pytest.raises(InUse, match="aggregate fast has 1 node: n1"):
        aggregates.delete(cluster, "fast")
    aggregates.delete(cluster, "fast", force=True)
    assert facts(cluster, "n1") == ("", {}) and aggregates.list_aggregates(cluster) == ()
    with cluster.db.read() as tx:
        node = db_nodes.by_name(tx, "n1")
        said = [event.detail for event in events.of(tx, node.id) if event.event == "aggregate"]
    assert said == ["joined aggregate fast", "aggregate fast changed", "aggregate fast changed", "aggregate fast deleted"]


def test_dry_runs_change_nothing(world: World) -> None:
    """Every verb's dry run shows what would be, and leaves what is."""
    cluster = world.cluster
    aggregates.create(cluster, name="a", dry_run=True)
    assert aggregates.list_aggregates(cluster) == ()
    made = aggregates.create(cluster, name="a")
    assert aggregates.add_nodes(cluster, "a", ["n1"], dry_run=True).nodes == ("n1",)
    assert aggregates.set_(cluster, "a", properties={"x": "1"}, dry_run=True).metadata == {"x": "1"}
    aggregates.delete(cluster, "a", dry_run=True)
    assert aggregates.list_aggregates(cluster) == (made,)


def test_a_node_is_in_one_zone(world: World) -> None:
    """What would put a node in two zones is refused, naming both and who says so, whichever way it comes."""
    cluster = world.cluster
    aggregates.create(cluster, name="a", zone="z1")
    aggregates.create(cluster, name="b", zone="z2")
    aggregates.create(cluster, name="c")
    aggregates.add_nodes(cluster, "a", ["n1"])
    aggregates.add_nodes(cluster, "c", ["n1"])
    with pytest.raises(Conflict, match=r"node n1 would be in two zones: z1 \(aggregate a\) and z2 \(aggregate b\)"):
        aggregates.add_nodes(cluster, "b", ["n2", "n1"])
    assert aggregates.show(cluster, "b").nodes == ()
    with pytest.raises(Conflict, match=r"z1 \(aggregate a\) and z3 \(aggregate c\)"):
        aggregates.set_(cluster, "c", zone="z3", properties={})
    with pytest.raises(Conflict, match=r"z2 \(the node itself\) and z1 \(aggregate a\)"):
        nodes.set_(cluster, "n1", SetNode(zone="z2"))
    nodes.set_(cluster, "n1", SetNode(zone="z1"))
    aggregates.set_(cluster, "c", zone="z1", properties={})


@pytest.mark.parametrize("kind", databases.SHARED)
def test_two_admins_do_not_put_a_node_in_two_zones(tmp_path: Path, kind: str) -> None:
    """Of eight at once that each put a node in a zone of its own, by aggregate and by hand, none makes it two."""
    with databases.cluster(kind) as url:
        world = quiet_world(tmp_path, url=url)
        for number in range(4):
            aggregates.create(world.cluster, name=f"a{number}", zone=f"z{number}")
        together, outcomes = threading.Barrier(8), []

        def put(number: int) -> None:
            mine = Cluster(world.config, actor="tester")
            together.wait()
            try:
                if number < 4:
                    aggregates.add_nodes(mine, f"a{number}", ["n1"])
                else:
                    nodes.set_(mine, "n1", SetNode(zone=f"z{number}"))
                outcomes.append("done")
            except Conflict:
                outcomes.append("refused")
            finally:
                mine.close()

        threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with world.cluster.db.read() as tx:
            said = [belonging.said for belonging in zones.belongings(tx).values() if belonging.node.name == "n1"]
        world.stop()
    assert [len(zone) for zone in said] == [1] and len(outcomes) == 8 and "refused" in outcomes


def test_a_zone_that_servers_asked_for_stays(world: World) -> None:
    """A node does not leave the zone that its servers were placed by; they are named. Servers that asked for none do not mind."""
    cluster = world.cluster
    aggregates.create(cluster, name="a", zone="z1")
    aggregates.add_nodes(cluster, "a", ["n1", "n2"])
    for number in range(7):
        put_server(world, f"web{number}", "n1", amounts={"VCPU": 1}, zone="z1")
    put_server(world, "free", "n2")
    said = r"node n1 cannot leave zone z1.*: 7 servers asked for that zone: web\d, web\d, web\d, web\d, web\d and 2 more"
    for act in (
        lambda: aggregates.set_(cluster, "a", zone="z2", properties={}), lambda: aggregates.unset(cluster, "a", zone=True, keys=()),
        lambda: aggregates.remove_nodes(cluster, "a", ["n1"]), lambda: aggregates.delete(cluster, "a", force=True),
    ):
        with pytest.raises(Conflict, match=said):
            act()
    assert aggregates.remove_nodes(cluster, "a", ["n2"]).nodes == ("n1",)
    nodes.set_(cluster, "n2", SetNode(zone="z9"))
    put_server(world, "bound", "n2", zone="z9")
    with pytest.raises(Conflict, match="node n2 cannot leave zone z9: 1 server asked for that zone: bound"):
        nodes.unset(cluster, "n2", UnsetNode(zone=True))


def test_zones_are_counted(world: World) -> None:
    """A zone is listed with its nodes and servers, from whichever side it was made, and also when nobody is in it."""
    cluster = world.cluster
    aggregates.create(cluster, name="a", zone="z1")
    aggregates.create(cluster, name="a2", zone="z1")
    aggregates.create(cluster, name="empty", zone="z0")
    aggregates.add_nodes(cluster, "a", ["n1"])
    nodes.set_(cluster, "n2", SetNode(zone="z2"))
    put_server(world, "web", "n1")
    assert zones.list_zones(cluster) == (("z0", 0, 0, ("empty",)), ("z1", 1, 1, ("a", "a2")), ("z2", 1, 0, ()))
    with cluster.db.read() as tx:
        assert zones.names(tx, "z") == ["z0", "z1", "z2"]
        zones.check_zone(tx, "z2")
        with pytest.raises(NotFound, match="no zone 'z3'"):
            zones.check_zone(tx, "z3")


def test_projects_are_kept_by_id_and_shown_by_name(world: World) -> None:
    """Nodes kept for projects: named by name or id, compared by id, shown by name; one that is not there is refused."""
    cluster = world.cluster
    shop = projects.create(cluster, name="shop")
    aggregates.create(cluster, name="a", properties={"filter_tenant_id": f"shop, {shop.id}", "filter_tenant_id_2": "default"})
    aggregates.add_nodes(cluster, "a", ["n1"])
    assert facts(cluster, "n1")[1]["a"] == {"filter_tenant_id": f"{shop.id},{shop.id}", "filter_tenant_id_2": "default"}
    assert aggregates.show(cluster, "a").metadata["filter_tenant_id"] == "shop,shop"
    with pytest.raises(NotFound, match="no project 'nobody'"):
        aggregates.set_(cluster, "a", properties={"filter_tenant_id": "nobody"})


def test_what_an_aggregate_cannot_be(world: World) -> None:
    """Names, keys and values that cannot be, and sets of nothing, are refused."""
    cluster = world.cluster
    aggregates.create(cluster, name="a")
    for name, error in (("a", AlreadyExists), ("a b", UsageError), ("", UsageError)):
        with pytest.raises(error):
            aggregates.create(cluster, name=name)
    with pytest.raises(UsageError, match="contradict each other"):
        aggregates.create(cluster, name="b", zone="z1", properties={"availability_zone": "z2"})
    with pytest.raises(UsageError, match="no weigher reads rams_weight_multiplier"):
        aggregates.set_(cluster, "a", properties={"rams_weight_multiplier": "2"})
    with pytest.raises(UsageError, match="nothing to set"):
        aggregates.set_(cluster, "a", properties={})
    with pytest.raises(UsageError, match="nothing to take away"):
        aggregates.unset(cluster, "a", keys=())
    with pytest.raises(NotFound, match="no node 'n9'"):
        aggregates.add_nodes(cluster, "a", ["n1", "n9"])
    assert aggregates.show(cluster, "a").nodes == ()
