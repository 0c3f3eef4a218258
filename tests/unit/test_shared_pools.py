"""Disks that several nodes share: what is the server's own is never taken for something that was left behind."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.poolid import NAME, PoolId
from novactl.api import cluster as api_cluster
from novactl.api import nodes as api_nodes
from novactl.api import rebuild
from novactl.api import servers as api
from novactl.api import verify as verifying
from novactl.api.nodes import SetNode, UnsetNode
from novactl.api.servers import CreateServer
from novactl.cluster import Cluster
from novactl.conductor import background, node_file
from novactl.db import operations
from novactl.model.server import Server
from tests.sagas.scenarios import leave_behind
from tests.world import World

NODES = ("n1", "n2")


def built(tmp_path: Path, *, shared: bool) -> World:
    world = World(tmp_path)
    for name in NODES:
        world.add_node(name)
    if shared:
        world.share_pool(*NODES)
    world.add_flavor()
    world.add_image()
    return world.start()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Two nodes, one pool; no row says so."""
    monkeypatch.setattr(background, "hand_over", lambda cluster, ids: None)
    made = built(tmp_path, shared=True)
    yield made
    made.stop()


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[World]:
    """Two nodes, each with its own pool."""
    made = built(tmp_path, shared=False)
    yield made
    made.stop()


def web(world: World) -> Server:
    return api.create(world.cluster, CreateServer(name="web", flavor="small", image="guest", node="n1")).servers[0]


def files(world: World, server: Server, name: str = "n1") -> list[str]:
    return sorted(path.name[:5] for path in (world.folder / name / "pool").iterdir() if server.id in path.name)


def found(world: World) -> list[tuple[str, str, str, bool]]:
    return [(one.kind, one.object, one.node, bool(one.repair)) for one in verifying.verify(world.cluster) if one.is_fault]


def said_to_share(world: World, *names: str) -> None:
    for name in names:
        api_nodes.set_(world.cluster, name, SetNode(shared_disk="nfs"))


def older(world: World, name: str) -> None:
    """An agent that does not know of pools' ids."""
    world.agents[name].pool_id.read = lambda: ""  # type: ignore[method-assign]
    world.agents[name]._report = None


def test_a_rebuilt_database_does_not_take_disks_from_running_servers(world: World) -> None:
    """What `node set` said of shared disks outlives the database; and where it does not, their pools' ids say that they are one."""
    node_file.remember(world.cluster)
    said_to_share(world, *NODES)
    server = web(world)
    assert found(world) == [] and files(world, server) == ["disk-", "seed-"]
    remembered = (world.config.data_dir / node_file.NAME).read_text()
    for forgotten in (False, True):
        world.cluster.close()
        for path in world.config.data_dir.glob("novactl.db*"):
            path.unlink()
        if forgotten:
            (world.config.data_dir / node_file.NAME).write_text(remembered.replace('"nfs"', '""'))
        world.cluster = Cluster(world.config, actor="tester@world")
        api_cluster.init(world.cluster)
        assert rebuild.rebuild(world.cluster).servers == ("web",)
        assert found(world) == ([("pool", "node n1", "n1", False), ("pool", "node n2", "n2", False)] if forgotten else [])
        verifying.repair(world.cluster)
        assert files(world, server) == ["disk-", "seed-"] and world.domains() == {server.id: "RUNNING"}


def test_what_was_set_is_remembered_beside_the_key(world: World) -> None:
    """Set and unset alike; a dry run is not."""
    def kept() -> list[str]:
        return [node.shared_disk for node in node_file.recall(world.cluster).nodes]

    said_to_share(world, *NODES)
    assert kept() == ["nfs", "nfs"]
    api_nodes.set_(world.cluster, "n1", SetNode(shared_disk="other"), dry_run=True)
    assert kept() == ["nfs", "nfs"]
    api_nodes.unset(world.cluster, "n1", UnsetNode(shared_disk=True))
    assert kept() == ["", "nfs"]


def test_rows_that_do_not_say_what_pools_are(world: World) -> None:
    """Of nodes that have one pool each is told whose row does not say so, with the command that does."""
    assert [(one.node, one.command) for one in verifying.verify(world.cluster)] == [
        ("n1", "novactl node set n1 --shared-disk POOL"), ("n2", "novactl node set n2 --shared-disk POOL")]
    said_to_share(world, "n2")
    (one,) = verifying.verify(world.cluster)
    assert (one.node, one.command) == ("n1", "novactl node set n1 --shared-disk nfs")
    assert one.what.startswith("its pool is node n2's too, and its row says that its disks are its own")
    said_to_share(world, "n1")
    assert verifying.verify(world.cluster) == ()


def test_rows_that_say_of_two_pools_that_they_are_one(apart: World) -> None:
    """It is told, and files there are no leftovers: which of the two is wrong a person must say."""
    said_to_share(apart, *NODES)
    (one,) = verifying.verify(apart.cluster)
    assert (one.kind, one.node, one.command) == ("pool", "n2", "novactl node unset n2 --shared-disk")
    assert "its row says that its disks are in nfs, and its pool is another than node n1's" in one.what


def test_a_copy_goes_without_the_files_that_are_the_servers_own(world: World) -> None:
    """The domain that was left on the other node of one pool is removed; the disk stays, though no row says that it is shared."""
    server = web(world)
    other = leave_behind(world, server)
    assert ("superseded", "server web", other, True) in found(world)
    said = verifying.repair(world.cluster, node=other)
    assert {one.result for one in said if one.kind == "superseded"} == {"mended"}
    assert server.id not in {spec.server for spec in world.agents[other].driver.specs()}
    assert files(world, server) == ["disk-", "seed-"]
    with world.cluster.db.read() as tx:
        (operation,) = [one for one in operations.recent(tx, ended=True, limit=9) if one.kind == "server.clean"]
    assert operation.record["kept"] == "its files stay: they are those that it has on node n1"


@pytest.mark.parametrize("whose", NODES)
def test_where_it_is_not_known_whose_they_are_files_are_told_and_stay(apart: World, whose: str) -> None:
    """Of an agent that does not tell its pool, the home's or the other's: what lies there may be all that the server has."""
    server = web(apart)
    other = leave_behind(apart, server)
    apart.agents[other].driver._guests.clear()  # type: ignore[attr-defined]
    older(apart, whose)
    (one,) = verifying.verify(apart.cluster)
    assert (one.kind, one.node, one.repair) == ("leftover", other, "") and f"node {whose} does not tell its pool" in one.what
    verifying.repair(apart.cluster)
    assert files(apart, server, other) == ["disk-", "seed-"]
    del apart.agents[whose].pool_id.read  # type: ignore[attr-defined]
    apart.agents[whose]._report = None
    verifying.repair(apart.cluster)
    assert found(apart) == [] and files(apart, server, other) == []


def test_while_its_own_node_is_silent_a_servers_files_elsewhere_stay(apart: World) -> None:
    """Nobody can say then that it has others; the copy's domain goes all the same."""
    server = web(apart)
    other = leave_behind(apart, server)
    apart.endpoints["n1"].dispatcher.receive = lambda *args: None  # type: ignore[method-assign]
    verifying.repair(apart.cluster, node=other)
    assert files(apart, server, other) == ["disk-", "seed-"]
    assert server.id not in {spec.server for spec in apart.agents[other].driver.specs()}


# ---------------------------------------------------------------- the id itself


def test_all_who_make_it_at_once_have_the_same(tmp_path: Path) -> None:
    """Twenty agents on one directory: one id, readable to all, and nothing else stays."""
    heard: list[str] = []
    threads = [threading.Thread(target=lambda: heard.append(PoolId(str(tmp_path)).read())) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(heard) == 20 and len(set(heard)) == 1 and len(heard[0]) == 32
    assert os.listdir(tmp_path) == [NAME] and (tmp_path / NAME).stat().st_mode & 0o777 == 0o644


def test_what_is_no_id_is_not_known(tmp_path: Path) -> None:
    """A file of something else, a link, a FIFO, a directory that is not there: '', and nothing is changed."""
    assert PoolId(str(tmp_path / "nowhere")).read() == ""
    (tmp_path / NAME).write_text("half an i")
    assert PoolId(str(tmp_path)).read() == "" and (tmp_path / NAME).read_text() == "half an i"
    (tmp_path / NAME).unlink()
    os.mkfifo(tmp_path / NAME)
    assert PoolId(str(tmp_path)).read() == ""
    (tmp_path / NAME).unlink()
    (tmp_path / NAME).symlink_to("/etc/machine-id")
    assert PoolId(str(tmp_path)).read() == ""


def test_it_goes_with_the_last_node_and_not_before(tmp_path: Path) -> None:
    """Beside anything else it stays; alone it goes, and is not made again until the node is prepared again."""
    pool = PoolId(str(tmp_path))
    first = pool.read()
    (tmp_path / "disk-of-another.qcow2").touch()
    pool.drop()
    assert pool.read() == first
    (tmp_path / "disk-of-another.qcow2").unlink()
    pool.drop()
    assert pool.read() == "" and os.listdir(tmp_path) == []
    pool.keep()
    assert os.listdir(tmp_path) == [NAME] and pool.read() not in ("", first)


def test_it_is_what_is_mounted_there_now(tmp_path: Path) -> None:
    """Another file system on the same path is another pool."""
    pool = PoolId(str(tmp_path / "pool"))
    (tmp_path / "pool").mkdir()
    first = pool.read()
    (tmp_path / "pool").rename(tmp_path / "before")
    (tmp_path / "pool").mkdir()
    assert pool.read() not in ("", first)
