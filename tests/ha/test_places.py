"""Where servers of a fenced node find a place, although something of theirs is still counted on the node that is lost."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.handlers import HANDLERS
from nodeagent.refusal import Refused
from nodeagent.wire import Code
from novactl.api import groups as groups_api
from novactl.api import ha as api
from novactl.api import nodes as nodes_api
from novactl.api import servers as servers_api
from novactl.api.hints import Hints
from novactl.conductor import fleet
from novactl.db import derived, nodes, placement, projects, quotas
from novactl.errors import NovaError, NoValidHost
from novactl.model.group import Policy
from novactl.model.project import DEFAULT_PROJECT
from tests.ha.test_fencing import power_cut, server_on
from tests.world import World, small_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with small_world(tmp_path, count=3) as made:
        yield made


def fenced(world: World, name: str = "n1") -> api.Fenced:
    """Its host has died, and an admin says so."""
    power_cut(world, name)
    made = api.fence(world.cluster, name, by_hand=True)
    assert isinstance(made, api.Fenced)
    return made


def test_a_node_that_has_the_image_needs_no_file_of_it(world: World) -> None:
    """The machine that evacuates is not the one that took the image in: the next node is asked, and n2 has it."""
    server_on(world, "n2", "other", wants_ha=False)
    server_on(world, "n1")
    shutil.rmtree(world.config.data_dir / "images")
    (web,) = fenced(world).elsewhere
    assert web.node_name == "n2"


def test_where_no_node_has_the_image_it_is_said_on_which_machine_its_file_is_not(world: World) -> None:
    shutil.rmtree(world.config.data_dir / "images")
    with pytest.raises(NovaError, match="node n[123] does not have image [0-9a-f]+, and its file is not on this machine") as no:
        servers_api.create(world.cluster, servers_api.CreateServer(name="web", flavor="small", image="guest"))
    assert f"({os.uname().nodename})" in no.value.message and no.value.command == "novactl image create NAME FILE"


def servers_of(world: World, name: str, hints: Hints, *, count: int = 1, node: str | None = None) -> None:
    made = servers_api.create(
        world.cluster, servers_api.CreateServer(name=name, flavor="small", image="guest", count=count, hints=hints, node=node))
    for one in made.servers:
        api.set_server(world.cluster, one.name, wants_ha=True)


@pytest.mark.parametrize("scope", ["", "rack"])
def test_a_hard_affinity_group_moves_together(world: World, scope: str) -> None:
    """None of them waits for the others to be elsewhere: the first goes anywhere, the others follow it."""
    for name, rack in (("n1", "a"), ("n2", "b"), ("n3", "c")):
        nodes_api.set_(world.cluster, name, nodes_api.SetNode(labels={"rack": rack}))
    groups_api.create(world.cluster, groups_api.CreateGroup(name="close", policy=Policy.AFFINITY, scope=scope))
    servers_of(world, "web", Hints(group="close"), count=3)
    home = servers_api.show(world.cluster, "web-1").node_name
    moved = fenced(world, home)
    assert moved.stayed == () and len(moved.elsewhere) == 3
    (there,) = {one.node_name for one in moved.elsewhere}
    assert there != home


def test_a_new_member_does_not_go_where_its_group_is_not(world: World) -> None:
    """Only what leaves a lost node need not wait for members that are there."""
    groups_api.create(world.cluster, groups_api.CreateGroup(name="close", policy=Policy.AFFINITY))
    made = servers_api.CreateServer(name="web-1", flavor="small", image="guest", node="n1", hints=Hints(group="close"))
    servers_api.create(world.cluster, made)
    fenced(world)
    with pytest.raises(NoValidHost, match="web-1 is on another node"):
        servers_of(world, "web-2", Hints(group="close"))


def test_anti_affinity_counts_who_is_on_a_fenced_node(world: World) -> None:
    """It comes back with the node: two of them in its rack would be one too many."""
    for name, rack in (("n1", "a"), ("n2", "b"), ("n3", "b")):
        nodes_api.set_(world.cluster, name, nodes_api.SetNode(labels={"rack": rack}))
    groups_api.create(world.cluster, groups_api.CreateGroup(name="apart", policy=Policy.ANTI_AFFINITY, scope="rack"))
    servers_of(world, "web-1", Hints(group="apart"), node="n1")
    servers_of(world, "web-2", Hints(group="apart"), node="n2")
    api.set_server(world.cluster, "web-2", wants_ha=False)
    fenced(world, "n2")
    assert [name for name, _ in fenced(world).stayed] == ["web-1"]


def test_a_server_follows_no_other_that_is_lost_with_it(world: World) -> None:
    servers_of(world, "db", Hints(), node="n1")
    servers_of(world, "app", Hints(same_host=("db",)))
    assert fenced(world).stayed == ()


def test_a_project_above_its_limit_loses_no_server(world: World) -> None:
    """What moves is not asked for anew; afterwards the project uses what it used, and gets no more."""
    servers_of(world, "web", Hints(), count=2, node="n1")
    with world.cluster.db.write() as tx:
        before = projects.usage(tx, DEFAULT_PROJECT)
        quotas.set_(tx, DEFAULT_PROJECT, "servers", 1, force=True)
    assert fenced(world).stayed == ()
    with world.cluster.db.read() as tx:
        assert projects.usage(tx, DEFAULT_PROJECT) == before


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[World]:
    """Two nodes on one pool of 10 GB, their rows say so; server web of 6 GB on n1."""
    made = World(tmp_path)
    for name in ("n1", "n2"):
        made.add_node(name, fake={"disk_gb": 10})
    made.share_pool("n1", "n2")
    made.add_flavor("small", disk_gb=6)
    made.add_image()
    made.start()
    fleet.refresh(made.cluster, max_age_s=-1)
    for name in ("n1", "n2"):
        nodes_api.set_(made.cluster, name, nodes_api.SetNode(shared_disk="nfs"))
    servers_of(made, "web", Hints(), node="n1")
    yield made
    made.stop()


def ledger(world: World) -> tuple[object, ...]:
    """Claims, sums and usage."""
    with world.cluster.db.read() as tx:
        return placement.all_(tx), placement.used(tx), placement.consumers(tx), projects.usage(tx, DEFAULT_PROJECT)


def test_a_disk_that_stays_in_its_pool_is_claimed_once(pool: World) -> None:
    """There is no room for another one like it, and none is needed."""
    (web,) = fenced(pool).elsewhere
    assert web.node_name == "n2"
    claims, used, _, _ = ledger(pool)
    assert [(one.consumer_kind, one.amount) for one in claims if one.resource_class == "DISK_GB"] == [("server", 6)]   # type: ignore
    assert {amounts["DISK_GB"] for amounts in used.values()} == {6}                                # type: ignore[attr-defined]
    with pool.cluster.db.write() as tx:
        for node in nodes.all_(tx):
            derived.resum(tx, node.id)
    assert ledger(pool)[1] == used


@pytest.mark.parametrize("fails", ["decision", "define"])
def test_a_server_that_stays_in_its_pool_holds_what_it_held(pool: World, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    def never(call: object, args: object, payload: object) -> None:
        raise Refused(Code.DRIVER, "no", elsewhere=True)

    before = ledger(pool)
    if fails == "decision":
        nodes_api.disable(pool.cluster, "n2")
    else:
        monkeypatch.setitem(HANDLERS, "domain.define", never)
    assert [name for name, _ in fenced(pool).stayed] == ["web"]
    assert ledger(pool) == before
