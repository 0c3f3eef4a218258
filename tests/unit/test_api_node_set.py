"""`node set` and `node unset`: what may be claimed, what is said, and what in use is held."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from novactl.api import cluster as api_cluster
from novactl.api import nodes, traits
from novactl.api.node_views import InventoryRow
from novactl.api.nodes import SetNode, UnsetNode
from novactl.cluster import Cluster
from novactl.db import events, placement
from novactl.db import nodes as db_nodes
from novactl.db.placement import Claim
from novactl.errors import Conflict, InUse, NotFound, UsageError
from novactl.model.amounts import custom_inventory
from novactl.model.node import NodeState
from novactl.model.topology import FittedCell, Fitting
from tests.unit.nouns_world import put_server, quiet_world
from tests.world import World

GPU = SetNode(inventories=(custom_inventory("CUSTOM_GPU=4,max=2"),), traits=("CUSTOM_NVLINK",), labels={"rack": "r1"})


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = quiet_world(tmp_path)
    yield made
    made.stop()


def inventory(cluster: Cluster, name: str, resource_class: str) -> InventoryRow:
    shown = nodes.show(cluster, name, refresh=False)
    return next(one for one in shown.inventories if one.resource_class == resource_class)


def history(cluster: Cluster, name: str) -> list[str]:
    with cluster.db.read() as tx:
        return [event.detail.removeprefix("ok: ") for event in events.of(tx, db_nodes.by_name(tx, name).id)
                if event.event in ("node.set", "node.unset") and event.detail != "ok"]


def test_ratios_and_reservations_are_exact(world: World) -> None:
    """Capacity follows in integers: (8 - 1) x 2.5 is 17, and (16384 - 4096) x 1.125 is 13824."""
    cluster = world.cluster
    changed = nodes.set_(cluster, "n1", SetNode(
        ratios={"VCPU": 2500, "MEMORY_MB": 1125}, reserved={"VCPU": 1, "MEMORY_MB": 4096, "DISK_GB": 20}))
    assert changed.warnings == ()
    assert [(one.resource_class, one.reserved, one.ratio, one.capacity) for one in changed.node.inventories] == [
        ("VCPU", 1, "2.5", 17), ("MEMORY_MB", 4096, "1.125", 13824), ("DISK_GB", 20, "1.0", 80)]
    assert history(cluster, "n1") == [
        "VCPU: total 8, reserved 1, ratio 2.5; MEMORY_MB: total 16.0 GiB, reserved 4.0 GiB, ratio 1.125;"
        " DISK_GB: total 100 GiB, reserved 20 GiB, ratio 1.0"]


def test_what_is_set_is_what_placement_reads(world: World) -> None:
    """Custom classes, traits and labels are in the node's inventories and facts, and in the lists of classes and traits."""
    cluster = world.cluster
    nodes.set_(cluster, "n1", GPU)
    assert inventory(cluster, "n1", "CUSTOM_GPU")[1:8] == (4, 0, "1.0", 4, 0, 4, 0)
    with cluster.db.read() as tx:
        facts = db_nodes.facts_of(tx, db_nodes.by_name(tx, "n1").id)
    assert "CUSTOM_NVLINK" in facts.traits and facts.labels == {"rack": "r1"}
    listed = {row.name: (row.nodes, row.origin) for row in traits.list_traits(cluster)}
    assert listed["CUSTOM_NVLINK"] == (1, "custom") and listed["HW_ARCH_X86_64"] == (2, "reported")
    assert traits.list_classes(cluster)[-1] == ("CUSTOM_GPU", "custom", 1, 4, 4, 0)


def test_setting_and_unsetting_can_be_repeated(world: World) -> None:
    """The same again changes nothing, no generation, and its event says so; what is taken away can be taken away again."""
    cluster = world.cluster
    before = nodes.show(cluster, "n1", refresh=False)
    nodes.set_(cluster, "n1", GPU)
    with cluster.db.read() as tx:
        generation = db_nodes.by_name(tx, "n1").generation
    nodes.set_(cluster, "n1", GPU)
    with cluster.db.read() as tx:
        assert db_nodes.by_name(tx, "n1").generation == generation
    gone = UnsetNode(
        traits=("CUSTOM_NVLINK",), labels=("rack",), inventories=("CUSTOM_GPU",), zone=True, shared_disk=True, dedicated_cpus=True)
    nodes.unset(cluster, "n1", gone)
    nodes.unset(cluster, "n1", gone)
    after = nodes.show(cluster, "n1", refresh=False)
    assert (after.inventories, after.traits, after.labels) == (before.inventories, before.traits, before.labels)
    assert len(history(cluster, "n1")) == 2


def test_a_dry_run_shows_what_would_be(world: World) -> None:
    """It goes all the way, shows the node as it would be with its warnings, and takes it back."""
    cluster = world.cluster
    put_server(world, "web", "n1", amounts={"MEMORY_MB": 4096})
    before = nodes.show(cluster, "n1", refresh=False)
    tried = nodes.set_(cluster, "n1", SetNode(reserved={"MEMORY_MB": 16384}, zone="z1"), dry_run=True)
    assert tried.node.zone == "z1" and tried.node.memory_capacity_mb == 0 and tried.warnings
    after = nodes.show(cluster, "n1", refresh=False)
    assert (after.zone, after.inventories) == ("", before.inventories) and history(cluster, "n1") == []


def test_less_than_is_in_use_is_allowed_with_a_warning(world: World) -> None:
    """As in Nova servers go on and nothing more fits; the warning has both numbers, and free is below nothing."""
    cluster = world.cluster
    put_server(world, "web", "n1", amounts={"VCPU": 8, "MEMORY_MB": 4096})
    changed = nodes.set_(cluster, "n1", SetNode(ratios={"VCPU": 500}, reserved={"MEMORY_MB": 14336}))
    assert changed.warnings == (
        "node n1: 4.0 GiB of MEMORY_MB in use, of 2.0 GiB that may be claimed now: servers go on, and nothing more fits",
        "node n1: 8 of VCPU in use, of 4 that may be claimed now: servers go on, and nothing more fits")
    assert inventory(cluster, "n1", "VCPU").free == -4


def test_a_class_in_use_is_not_taken_away(world: World) -> None:
    """A custom class that a server holds stays, with the number that is held."""
    cluster = world.cluster
    nodes.set_(cluster, "n1", GPU)
    put_server(world, "render", "n1", amounts={"VCPU": 1, "CUSTOM_GPU": 2})
    with pytest.raises(InUse, match="node n1: CUSTOM_GPU is in use, 2 of it is claimed"):
        nodes.unset(cluster, "n1", UnsetNode(inventories=("CUSTOM_GPU",)))
    nodes.unset(cluster, "n2", UnsetNode(inventories=("CUSTOM_GPU",)))
    shrunk = nodes.set_(cluster, "n1", SetNode(inventories=(custom_inventory("CUSTOM_GPU=1"),)))
    assert len(shrunk.warnings) == 1


def test_cpus_are_shared_out(world: World) -> None:
    """Dedicated CPUs are PCPU and no longer VCPU; all is as before when they are taken away."""
    cluster = world.cluster
    nodes.set_(cluster, "n1", SetNode(dedicated_cpus=(2, 3, 4, 5)))
    assert (inventory(cluster, "n1", "VCPU").total, inventory(cluster, "n1", "PCPU").total) == (4, 4)
    assert inventory(cluster, "n1", "PCPU").ratio == "1.0"
    with pytest.raises(UsageError, match="node n1 has no CPU 8-9"):
        nodes.set_(cluster, "n1", SetNode(dedicated_cpus=(7, 8, 9)))
    nodes.unset(cluster, "n1", UnsetNode(dedicated_cpus=True))
    shown = nodes.show(cluster, "n1", refresh=False)
    assert [one.resource_class for one in shown.inventories] == ["VCPU", "MEMORY_MB", "DISK_GB"]
    assert shown.inventories[0].total == 8 and shown.dedicated_cpus == ""


def test_reserved_cpus_stay_shared(world: World) -> None:
    """No more CPUs are dedicated than the host's own share leaves."""
    cluster = world.cluster
    nodes.set_(cluster, "n1", SetNode(reserved={"VCPU": 2}))
    with pytest.raises(UsageError, match="2 CPUs are reserved for the host, and 1 would stay shared"):
        nodes.set_(cluster, "n1", SetNode(dedicated_cpus=tuple(range(1, 8))))


def test_a_pinned_cpu_stays_dedicated(world: World) -> None:
    """A CPU that a server is pinned to is not shared again; others may be."""
    cluster = world.cluster
    nodes.set_(cluster, "n1", SetNode(dedicated_cpus=(4, 5, 6, 7)))
    with cluster.db.write() as tx:
        node = db_nodes.by_name(tx, "n1")
        placement.claim(tx, Claim("pinned", node.id, {"PCPU": 2}, fitting=Fitting((FittedCell(0, 2, 0, (4, 5)),))))
    with pytest.raises(InUse, match="servers are pinned to CPU 5"):
        nodes.set_(cluster, "n1", SetNode(dedicated_cpus=(4, 6)))
    with pytest.raises(InUse, match="servers are pinned to CPU 4-5"):
        nodes.unset(cluster, "n1", UnsetNode(dedicated_cpus=True))
    assert nodes.set_(cluster, "n1", SetNode(dedicated_cpus=(4, 5))).node.dedicated_cpus == "4-5"


def test_a_shared_disk_counts_once(world: World) -> None:
    """Two nodes on one pool have its disk once in the sums of the cluster; memory is each one's own."""
    cluster = world.cluster
    put_server(world, "web", "n1", amounts={"DISK_GB": 30})
    for name in ("n1", "n2"):
        nodes.set_(cluster, name, SetNode(shared_disk="nfs1"))
    shown = {one.resource_class: one for one in api_cluster.show(cluster).resources}
    assert shown["DISK_GB"] == ("DISK_GB", 100, 100, 30, 70) and shown["MEMORY_MB"].total == 2 * 16384
    nodes.unset(cluster, "n2", UnsetNode(shared_disk=True))
    assert {one.resource_class: one for one in api_cluster.show(cluster).resources}["DISK_GB"].total == 200


def test_the_cluster_as_a_whole(world: World) -> None:
    """Its nodes by state, its servers, its default quotas, and the switch for N+1."""
    cluster = world.cluster
    put_server(world, "web", "n1")
    nodes.disable(cluster, "n2", reason="")
    shown = api_cluster.show(cluster)
    assert dict(shown.nodes) == {"enabled": 1, "disabled": 1} and shown.servers == 1 and shown.projects == 1 and not shown.n_plus_1
    assert ("servers", -1) in shown.quotas
    assert api_cluster.set_(cluster, n_plus_1=True, dry_run=True).n_plus_1 and not api_cluster.show(cluster).n_plus_1
    assert api_cluster.set_(cluster, n_plus_1=True).n_plus_1 and api_cluster.show(cluster).n_plus_1
    assert not api_cluster.set_(cluster, n_plus_1=False).n_plus_1
    with pytest.raises(UsageError, match="nothing to set"):
        api_cluster.set_(cluster)


@pytest.mark.parametrize("change,said", [
    (SetNode(), "nothing to set"),
    (SetNode(reserved={"MEMORY_MB": 102400}), "node n1: 100.0 GiB reserved is more than the 16.0 GiB it has of MEMORY_MB"),
    (SetNode(reserved={"VCPU": 9}), "node n1: 9 reserved is more than the 8 it has of VCPU"),
    (SetNode(traits=("AVX2",)), "did you mean HW_CPU_X86_AVX2"),
    (SetNode(traits=("HW_CPU_X86_AVX2",)), "a trait of your own begins with CUSTOM_"),
    (SetNode(labels={"a b": "c"}), "label name"), (SetNode(labels={"a": ""}), "label a"), (SetNode(labels={"a": "x" * 64}), "label a"),
    (SetNode(labels={f"l{number}": "x" for number in range(65)}), "more than 64 labels"),
    (SetNode(zone="a b"), "zone name"), (SetNode(shared_disk="a/b"), "disk pool name"), (SetNode(dedicated_cpus=()), "names no CPU"),
])
def test_what_cannot_be_set(world: World, change: SetNode, said: str) -> None:
    """A value that cannot be is refused with the numbers, and nothing of the rest is set."""
    before = nodes.show(world.cluster, "n1", refresh=False)
    with pytest.raises(UsageError) as refused:
        nodes.set_(world.cluster, "n1", change)
    assert said in f"{refused.value.message} {refused.value.hint}"
    after = nodes.show(world.cluster, "n1", refresh=False)
    assert (after.inventories, after.labels, after.traits, after.zone) == (before.inventories, before.labels, before.traits, before.zone)


def test_which_nodes_cannot_be_set(world: World) -> None:
    """One that is not there, one that is on its way out, and one that has not said what it has."""
    cluster = world.cluster
    with pytest.raises(NotFound, match="no node 'n9'"):
        nodes.set_(cluster, "n9", GPU)
    with pytest.raises(UsageError, match="nothing to take away"):
        nodes.unset(cluster, "n1", UnsetNode())
    with pytest.raises(UsageError, match="its agent reports"):
        nodes.unset(cluster, "n1", UnsetNode(inventories=("VCPU",)))
    with cluster.db.write() as tx:
        node = db_nodes.by_name(tx, "n2")
        db_nodes.update(tx, dataclasses.replace(node, state=NodeState.REMOVING))
        db_nodes.insert(tx, dataclasses.replace(node, id=cluster.ids.uuid(), name="n3", report=None))
    with pytest.raises(Conflict, match="node n2 is removing"):
        nodes.set_(cluster, "n2", GPU)
    with pytest.raises(Conflict, match="node n3 has not reported how much VCPU it has"):
        nodes.set_(cluster, "n3", SetNode(ratios={"VCPU": 1000}))


def test_disabling_is_tried_and_its_reason_is_one_line(world: World) -> None:
    """A dry run shows the node as it would be and leaves it; control characters never become a reason."""
    tried = nodes.disable(world.cluster, "n1", reason="new kernel", dry_run=True)
    assert (tried.state, tried.reason) == ("disabled", "new kernel")
    assert nodes.show(world.cluster, "n1", refresh=False).state == "enabled"
    for reason in ("a\nb", "\x1b[31m", "x" * 256):
        with pytest.raises(UsageError, match="a reason is printable text of at most 255 characters"):
            nodes.disable(world.cluster, "n1", reason=reason)


def test_what_could_not_fence_is_told_when_it_is_set(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By SSH only a node whose SSH is known; else it is refused. A program that is missing may be where the conductor runs: a warning."""
    cluster = world.cluster
    with pytest.raises(Conflict, match="how to reach node n1 by SSH is not known") as refused:
        nodes.set_(cluster, "n1", SetNode(fencing={"method": "ssh"}), dry_run=True)
    assert refused.value.command == "novactl node enroll [user@]HOST --name n1"
    with cluster.db.write() as tx:
        node = db_nodes.by_name(tx, "n1")
        db_nodes.update(tx, dataclasses.replace(node, undo={"access": {"host": "h", "user": "root", "port": 22}}))
    assert nodes.set_(cluster, "n1", SetNode(fencing={"method": "ssh"})).warnings == ()
    monkeypatch.setenv("PATH", str(tmp_path))
    for fencing, program in (
        ({"method": "ipmi", "ip": "10.0.0.1"}, "fence_ipmilan"), ({"method": "redfish", "ip": "10.0.0.1"}, "fence_redfish"),
        ({"method": "agent", "program": "fence_apc"}, "fence_apc"), ({"method": "command", "command": "/no/such"}, "/no/such"),
    ):
        (warning,) = nodes.set_(cluster, "n1", SetNode(fencing=fencing)).warnings
        assert warning.startswith(f"node n1: {program}, which is to fence it, is not on this machine")
        assert ("apt install fence-agents" in warning) is program.startswith("fence_")
    (tmp_path / "fence_apc").write_text("#!/bin/sh\n")
    (tmp_path / "fence_apc").chmod(0o755)
    assert nodes.set_(cluster, "n1", SetNode(fencing={"method": "agent", "program": "fence_apc"})).warnings == ()
    assert nodes.set_(cluster, "n1", SetNode(fencing={"method": "self"})).warnings == ()
