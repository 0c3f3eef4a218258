"""A database that is lost, restored from an old backup, or copied: what the nodes have makes it right again."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nodeagent import wire
from nodeagent.refusal import Refused
from nodeagent.wire import Code
from novactl.api import cluster as api_cluster
from novactl.api import operations as api_operations
from novactl.api import power, rebuild
from novactl.api import servers as api
from novactl.api import verify as verifying
from novactl.api.servers import CreateServer
from novactl.cluster import Cluster
from novactl.conductor import background, check_node, node_file
from novactl.config import load_config
from novactl.db import claims, flavors, images, meta, nodes, operations, placement, servers
from novactl.errors import AgentRefused, Conflict, Diverged, Stuck, UsageError
from novactl.model.operation import OperationState
from tests.world import World, small_world


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(background, "hand_over", lambda cluster, ids: None)
    with small_world(tmp_path) as made:
        yield made


def create(cluster: Cluster, name: str, **how: Any) -> None:
    api.create(cluster, CreateServer(name=name, flavor="small", image="guest", **how))


def picture(cluster: Cluster) -> dict[str, Any]:
    """All that must come back: who is where, as what, and what is claimed."""
    with cluster.db.read() as tx:
        return {
            "cluster": meta.cluster_id(tx),
            "nodes": [(n.id, n.name, n.address, n.public_key, n.state, n.boot_id) for n in nodes.all_(tx)],
            "servers": [(s.id, s.name, s.status, s.power_state, s.node_name, s.epoch, s.mac, s.vcpus, s.memory_mb, s.disk_gb,
                         s.flavor_name, s.image_name, s.image_sha256) for s in servers.all_(tx)],
            "flavors": [(f.name, f.vcpus, f.memory_mb, f.disk_gb) for f in flavors.all_(tx)],
            "images": [(i.name, i.sha256, i.disk_format, i.size_bytes, i.virtual_size_bytes) for i in images.all_(tx)],
            "claims": placement.all_(tx), "used": placement.used(tx), "counts": placement.consumers(tx)}


def lose(world: World) -> Cluster:
    """The database is gone; the key and what else is beside it are not."""
    world.cluster.close()
    for path in world.config.data_dir.glob("novactl.db*"):
        path.unlink()
    fresh = Cluster(world.config, actor="tester@world")
    api_cluster.init(fresh)
    world.cluster = fresh
    return fresh


def test_a_lost_database_is_made_again(world: World) -> None:
    """From the nodes known beside the key: every server with its epoch and claim, flavors and images; then all agrees, and life goes on."""
    create(world.cluster, "web", count=3)
    power.stop(world.cluster, "web-2")
    verifying.verify(world.cluster)
    node_file.remember(world.cluster)
    before = picture(world.cluster)
    cluster = lose(world)
    assert sorted(rebuild.rebuild(cluster, dry_run=True).servers) == ["web-1", "web-2", "web-3"]
    assert picture(cluster)["servers"] == []
    done = rebuild.rebuild(cluster)
    assert sorted(done.servers) == ["web-1", "web-2", "web-3"] and (done.nodes, done.silent) == (("n1", "n2"), ())
    assert (done.flavors, done.images, done.without_file, done.unclear) == (("small",), ("guest",), (), ())
    assert picture(cluster) == before
    assert verifying.verify(cluster) == ()
    again = rebuild.rebuild(cluster)
    assert again.servers == () and picture(cluster) == before
    create(cluster, "later")
    power.start(cluster, "web-2")
    api.delete(cluster, "web-1")
    assert set(world.domains().values()) == {"RUNNING"} and len(world.domains()) == 3
    assert verifying.verify(cluster) == ()


def test_the_nodes_may_be_given_by_hand(world: World) -> None:
    """Without the file, nodes are named with address and key; with neither, the way is told; a wrong one is refused as such."""
    create(world.cluster, "web")
    with world.cluster.db.read() as tx:
        given = [f"{node.name}={node.address},{node.public_key}" for node in nodes.all_(tx)]
        home = servers.all_(tx)[0].node_name
    cluster = lose(world)
    (world.config.data_dir / node_file.NAME).unlink(missing_ok=True)
    with pytest.raises(UsageError, match="no node is known"):
        rebuild.rebuild(cluster)
    with pytest.raises(UsageError, match="is not NAME=tcp"):
        rebuild.rebuild(cluster, extra=["n1=10.0.0.1"])
    done = rebuild.rebuild(cluster, extra=given)
    assert done.servers == ("web",) and api.show(cluster, "web").node_name == home
    assert (world.config.data_dir / node_file.NAME).stat().st_mode & 0o777 == 0o600


def test_a_node_whose_enrolment_was_lost_is_checked_all_the_same(world: World) -> None:
    """Its agent is asked whether it is of this cluster; that SSH is not known is a finding, with the command that mends it."""
    node_file.remember(world.cluster)
    cluster = lose(world)
    rebuild.rebuild(cluster)
    with cluster.db.read() as tx:
        node = nodes.by_name(tx, "n1")
    found = {finding.check: finding for finding in check_node.check(cluster, node)}
    assert found["agent"].detail == "the agent on n1 drives fake, not libvirt"
    assert found["ssh"].verdict == "warn" and found["ssh"].fix == "novactl node enroll [user@]HOST --name n1"
    with cluster.db.write() as tx:
        meta.put(tx, "cluster_id", cluster.ids.uuid())
    assert "is another agent" in check_node.check(cluster, node)[0].detail


def test_images_whose_file_is_gone_are_told(world: World) -> None:
    """Their rows come back from the nodes' caches, and that the file is missing is said."""
    create(world.cluster, "web")
    node_file.remember(world.cluster)
    shutil.rmtree(world.config.data_dir / "images")
    assert rebuild.rebuild(lose(world)).without_file == ("guest",)


def test_another_clusters_database_takes_nothing_in(world: World, tmp_path: Path) -> None:
    """Into a database that has nodes of its own, nodes of another cluster are not taken."""
    create(world.cluster, "web")
    with world.cluster.db.read() as tx:
        there = nodes.all_(tx)
    with world.cluster.db.write() as tx:
        meta.put(tx, "cluster_id", world.cluster.ids.uuid())
    with pytest.raises(Conflict, match="are of cluster"):
        rebuild.rebuild(world.cluster)
    assert len(there) == 2


def backup(world: World) -> Path:
    """A copy of the database as it is now."""
    with world.cluster.db.read() as tx:
        tx.one(meta.q_unfinished)
    world.cluster.close()
    kept = world.folder / "backup.db"
    source, target = sqlite3.connect(world.config.data_dir / "novactl.db"), sqlite3.connect(kept)
    source.backup(target)
    source.close()
    target.close()
    world.cluster = Cluster(world.config, actor="tester@world")
    return kept


def restore(world: World, kept: Path) -> Cluster:
    world.cluster.close()
    for path in world.config.data_dir.glob("novactl.db*"):
        path.unlink()
    shutil.copy(kept, world.config.data_dir / "novactl.db")
    world.cluster = Cluster(world.config, actor="tester@world")
    return world.cluster


def test_an_old_backup_is_refused_until_it_is_adopted(world: World) -> None:
    """After a restore agents refuse the numbers they have seen with other operations; adopted, the database goes on above them,
    and has what was done since."""
    create(world.cluster, "old", node="n1")
    kept = backup(world)
    for name in ("new", "newer"):
        create(world.cluster, name, node="n1")
    before, domains = picture(world.cluster)["servers"], world.domains()
    cluster = restore(world, kept)
    with pytest.raises(Diverged, match="which this database does not know") as refused:
        create(cluster, "again", node="n1")
    assert refused.value.command == "novactl cluster adopt" and world.domains() == domains
    assert {drift.command for drift in verifying.verify(cluster) if drift.kind in ("diverged", "unknown")} == {
        "novactl cluster adopt", "novactl db rebuild"}
    done = rebuild.adopt(cluster, dry_run=True)
    assert picture(cluster)["servers"] != before
    done = rebuild.adopt(cluster)
    assert sorted(done.taken_in.servers) == ["new", "newer"] and done.begins > done.highest
    verifying.repair(cluster)
    assert picture(cluster)["servers"] == before
    create(cluster, "again-2", node="n1")
    assert [drift for drift in verifying.verify(cluster) if drift.is_fault] == []


def test_what_was_open_is_ended_after_an_adoption(world: World) -> None:
    """Its nodes have obeyed it under its old number; under the new one they go on."""
    create(world.cluster, "web", node="n1")
    driver = world.agents["n1"].driver
    undefine = driver.undefine
    driver.undefine = refuse  # type: ignore[method-assign]
    with pytest.raises(Stuck):
        api.delete(world.cluster, "web")
    driver.undefine = undefine  # type: ignore[method-assign]
    rebuild.adopt(world.cluster)
    (stuck,) = api_operations.list_operations(world.cluster)
    (ended,) = api_operations.resume(world.cluster, [stuck.id])
    assert ended.state is OperationState.OK and world.leftovers() == []


def refuse(*_: object) -> None:
    raise Refused(Code.DRIVER, "libvirt is in the way", retryable=False)


def test_of_two_copies_one_is_refused(world: World) -> None:
    """Two copies of the file that work in turn: the second is refused, whichever is adopted works, and the other does not any more."""
    create(world.cluster, "web", node="n1")
    kept = backup(world)
    other_dir = world.folder / "other"
    shutil.copytree(world.config.data_dir, other_dir)
    for path in other_dir.glob("novactl.db*"):
        path.unlink()
    shutil.copy(kept, other_dir / "novactl.db")
    other = Cluster(load_config(env={**world.env, "NOVACTL_DATA_DIR": str(other_dir)}), actor="tester@other")
    try:
        power.stop(world.cluster, "web")
        with pytest.raises((AgentRefused, Stuck)):
            power.reboot(other, "web", hard=True)
        rebuild.adopt(other)
        verifying.repair(other)
        assert [drift for drift in verifying.verify(other) if drift.is_fault] == []
        power.reboot(other, "web", hard=True)
        create(other, "mine", node="n1")
        with pytest.raises((AgentRefused, Stuck, Conflict)):
            for number in range(3):
                create(world.cluster, f"theirs-{number}", node="n1")
                power.stop(world.cluster, f"theirs-{number}")
    finally:
        other.close()


def test_epochs_follow_the_agents(world: World) -> None:
    """A server that was moved after the backup is where its newest epoch is, its claim too; the copy it left is then superseded."""
    create(world.cluster, "web", node="n1")
    with world.cluster.db.read() as tx:
        (server,) = servers.all_(tx)
    there, home = world.agents["n2"].driver, world.agents["n1"].driver
    guest: Any = home._guests[server.id]  # type: ignore[attr-defined]
    there.define(dataclasses.replace(guest.spec, epoch=server.epoch + 1), "raw", guest.mark)
    assert {drift.kind for drift in verifying.verify(world.cluster)} == {"ahead"}
    done = rebuild.adopt(world.cluster)
    assert done.raised == ("web",)
    with world.cluster.db.read() as tx:
        (moved,) = servers.all_(tx)
        assert (moved.node_name, moved.epoch) == ("n2", server.epoch + 1)
        assert placement.consumers(tx) == {moved.node_id: 1}
        assert operations.recent(tx, ended=True, limit=1)[0].kind == "cluster.adopt"
    assert "superseded" in {drift.kind for drift in verifying.verify(world.cluster)}


def test_a_pinned_server_takes_its_pieces_along(world: World) -> None:
    """Where its newest epoch is, the CPUs that it is pinned to there are its own."""
    create(world.cluster, "web", node="n1")
    with world.cluster.db.read() as tx:
        (server,) = servers.all_(tx)
    home: Any = world.agents["n1"].driver
    guest = home._guests[server.id]
    pinned = dataclasses.replace(
        guest.spec, epoch=server.epoch + 1, pins=tuple(range(server.vcpus)), cells=(wire.DomainCell(server.vcpus, server.memory_mb, 0),))
    world.agents["n2"].driver.define(pinned, "raw", guest.mark)
    assert rebuild.adopt(world.cluster).raised == ("web",)
    with world.cluster.db.read() as tx:
        (moved,) = servers.all_(tx)
        held, fittings = claims.held(tx, moved.id, moved.node_id), claims.fittings_on(tx, moved.node_id)
    assert moved.node_name == "n2" and held is not None
    assert held.amounts == {"PCPU": server.vcpus, "MEMORY_MB": server.memory_mb, "DISK_GB": server.disk_gb}
    assert fittings[0].cells[0].cpus == pinned.pins


def test_of_two_copies_that_are_off_the_rows_is_the_server(world: World) -> None:
    """Both of one epoch: nothing is moved."""
    create(world.cluster, "web", node="n2")
    power.stop(world.cluster, "web")
    with world.cluster.db.read() as tx:
        (server,) = servers.all_(tx)
    home: Any = world.agents["n2"].driver
    guest = home._guests[server.id]
    world.agents["n1"].driver.define(guest.spec, "raw", guest.mark)
    assert rebuild.adopt(world.cluster).raised == ()
    with world.cluster.db.read() as tx:
        assert servers.all_(tx)[0].node_name == "n2"
