"""Servers of a fenced node whose disks are in a pool that others have, too: what is the server's own outlives every attempt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.handlers import HANDLERS
from nodeagent.poolid import NAME
from nodeagent.refusal import Refused
from nodeagent.wire import Code
from novactl.api import ha as api
from novactl.api import nodes as nodes_api
from novactl.api import servers as servers_api
from novactl.conductor import fleet
from novactl.db import servers
from novactl.errors import NovaError, NoValidHost
from tests.ha.test_fencing import power_cut
from tests.world import World

NODES = ("n1", "n2", "n3")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Three nodes on one pool; no row says so."""
    made = World(tmp_path)
    for name in NODES:
        made.add_node(name)
    made.share_pool(*NODES)
    made.add_flavor()
    made.add_image()
    made.start()
    fleet.refresh(made.cluster, max_age_s=-1)
    yield made
    made.stop()


def files(world: World) -> dict[str, bytes]:
    """Of servers, with what is in them."""
    return {path.name: path.read_bytes() for path in (world.folder / "n1" / "pool").iterdir() if path.name.startswith(("disk-", "seed-"))}


def built(world: World) -> str:
    """Server web on n1, whose host has died and is fenced. -> its id"""
    made = servers_api.create(world.cluster, servers_api.CreateServer(name="web", flavor="small", image="guest", node="n1"))
    power_cut(world, "n1")
    api.fence(world.cluster, "n1", by_hand=True)
    return made.servers[0].id


def test_an_evacuation_that_fails_leaves_disk_and_seed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """On every node that was tried, the server's own files are what they were: it can be started where it was."""
    def never(call: object, args: object, payload: object) -> None:
        raise Refused(Code.DRIVER, "no", elsewhere=True)

    for name in NODES:
        nodes_api.set_(world.cluster, name, nodes_api.SetNode(shared_disk="nfs"))
    id_ = built(world)
    before = files(world)
    assert sorted(before) == [f"disk-{id_}.qcow2", f"seed-{id_}.iso"]
    monkeypatch.setitem(HANDLERS, "domain.start", never)
    with pytest.raises(NovaError):
        api.evacuate(world.cluster, "web")
    assert files(world) == before
    with world.cluster.db.read() as tx:
        there = servers.by_id(tx, id_)
    assert there is not None and there.node_name == "n1"
    monkeypatch.undo()
    api.evacuate(world.cluster, "web")
    assert {name: before[name] for name in files(world) if name.startswith("disk-")} == {f"disk-{id_}.qcow2": before[f"disk-{id_}.qcow2"]}


def test_a_pool_that_no_row_calls_shared_is_not_built_over(world: World) -> None:
    """A node that would make the server's disk anew where the server has it is left out, and why is said, with the way; it can be
    gone while the server's node is off."""
    id_ = built(world)
    before = files(world)
    with pytest.raises(NoValidHost) as refused:
        api.evacuate(world.cluster, "web")
    assert "has node n1's pool of disks, and their rows do not say so: novactl node set NODE" in str(refused.value.reasons)
    assert files(world) == before
    for name in NODES[1:]:
        nodes_api.set_(world.cluster, name, nodes_api.SetNode(shared_disk="nfs"))
    with pytest.raises(NoValidHost):
        api.evacuate(world.cluster, "web")
    assert files(world) == before
    nodes_api.set_(world.cluster, "n1", nodes_api.SetNode(shared_disk="nfs"))
    assert api.evacuate(world.cluster, "web").node_name in ("n2", "n3")  # type: ignore[union-attr]
    assert files(world)[f"disk-{id_}.qcow2"] == before[f"disk-{id_}.qcow2"]


def test_a_node_that_has_not_mounted_the_pool_is_left_out(world: World) -> None:
    """What lies in its directory, perhaps an old disk of the server, is not what the server has; a pool that lost its id can be given it
    again."""
    for name in NODES:
        nodes_api.set_(world.cluster, name, nodes_api.SetNode(shared_disk="nfs"))
    for name in NODES[1:]:
        (world.folder / name / "pool").unlink()
        (world.folder / name / "pool").mkdir()
        world.agents[name]._report = None
    fleet.refresh(world.cluster, max_age_s=-1)
    id_ = built(world)
    (world.folder / "n2" / "pool" / f"disk-{id_}.qcow2").write_text("old")
    with pytest.raises(NoValidHost) as refused:
        api.evacuate(world.cluster, "web")
    assert "has another pool than node n1, though it is called nfs: is it mounted there?" in str(refused.value.reasons)
    assert (world.folder / "n2" / "pool" / f"disk-{id_}.qcow2").read_text() == "old"
    (world.folder / "n3" / "pool" / NAME).write_text((world.folder / "n1" / "pool" / NAME).read_text())
    (world.folder / "n3" / "pool" / f"disk-{id_}.qcow2").write_text("its own")
    world.agents["n3"]._report = None
    fleet.refresh(world.cluster, max_age_s=-1)
    assert api.evacuate(world.cluster, "web").node_name == "n3"  # type: ignore[union-attr]
    assert (world.folder / "n3" / "pool" / f"disk-{id_}.qcow2").read_text() == "its own"
