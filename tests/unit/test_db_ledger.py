"""What the database keeps of nodes, projects and groups: reports, facts, sums, limits, and the sentences of refusals."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from novactl.agents import wire
from novactl.cluster import Cluster
from novactl.conductor import fleet
from novactl.db import aggregates, groups, nodes, operations, placement, projects, quotas, servers
from novactl.db.placement import Claim
from novactl.errors import Conflict, InUse, QuotaExceeded
from novactl.model.aggregate import Aggregate
from novactl.model.facts import AggregateFacts
from novactl.model.group import Policy
from novactl.model.keypair import Keypair
from novactl.model.node import NodeState
from novactl.model.operation import Operation, OperationState
from novactl.model.project import DEFAULT_PROJECT, UNLIMITED
from novactl.model.resources import DISK_GB, MEMORY_MB, PCPU, VCPU, Inventory
from novactl.model.topology import Hardware, HostCell, PciDevice
from novactl.model.traits import CPU_TRAITS, STANDARD_TRAITS, reported_traits
from novactl.model.wants import Wants
from tests.laws.ledger import group, made, node, project, server, sums

REPORT = wire.Report(
    node_id="n1", agent_version="1.2", boot_id="b", taken_s=1.0, age_s=2.0, hostname="h", architecture="x86_64", cpu_model="EPYC",
    cpu_features=("sse4_2", "pni", "unheard-of"), virt_types=("kvm", "qemu"), virt_type="kvm", vcpus=8, memory_mb=4096, memory_used_mb=100,
    disk_gb=50, disk_used_gb=5, load_1m=0.5, versions={"hypervisor": "8.2.0"}, domains=(), images=(), machines=("pc", "q35"))

GUEST = wire.DomainState(
    server="00000000-0000-4000-8000-000000000000", epoch=1, name="web", power_state="RUNNING", vcpus=1, memory_mb=64,
    addresses=("10.0.0.9",))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Two nodes, n1 with 8 CPUs (x 4), 4 GiB and 50 GiB, n2 with nothing."""
    found = made(tmp_path)
    with found.db.write() as tx:
        nodes.insert(tx, node("n1", zone="z"))
        nodes.insert(tx, node("n2"))
        nodes.ensure_inventory(tx, "n1", fleet.first_inventories(found.config, REPORT))
        fleet.take_report(tx, "n1", REPORT, 100.0)
    yield found
    found.close()


def generation(tx: Any) -> int:
    return sums(tx)["n1"]["generation"]


class Counting:
    """A transaction that notes what is asked of it."""

    def __init__(self, tx: Any) -> None:
        self.tx, self.asked = tx, list[str]()

    def __getattr__(self, name: str) -> Any:
        def ask(query: Any, *args: Any, **params: Any) -> Any:
            self.asked.append(query.name)
            return getattr(self.tx, name)(query, *args, **params)

        return ask


# ---------------------------------------------------------------- reports

def test_a_report_with_no_news_is_one_statement(cluster: Cluster) -> None:
    """Time and load change with every report: that is one update, and no decision that rests on the node is disturbed."""
    again = dataclasses.replace(REPORT, taken_s=11.0, age_s=0.5, load_1m=3.5, memory_used_mb=900)
    with cluster.db.write() as tx:
        before, counting = generation(tx), Counting(tx)
        fleet.take_report(counting, "n1", again, 110.0)       # type: ignore[arg-type]
        assert counting.asked == ["nodes.q_measured"]
        assert generation(tx) == before
        (view,) = fleet.views(tx, only=["n1"])
        assert view.reported_at == 109.5 and view.metrics == {"load_1m": 3.5, "memory_used_mb": 900, "disk_used_gb": 5}
        kept = nodes.by_id(tx, "n1")
        assert kept is not None and kept.report is not None and kept.report["load_1m"] == 3.5 and kept.report["hostname"] == "h"


@pytest.mark.parametrize(("change", "disturbs"), [
    ({"vcpus": 16}, True), ({"memory_mb": 8192}, True), ({"cpu_features": ("avx2",)}, True), ({"machines": ("q35",)}, True),
    ({"images": (wire.CachedImage("0" * 64, 1),)}, True), ({"boot_id": "another"}, False),
    ({"domains": (GUEST,)}, False),
])
def test_news_is_taken_in(cluster: Cluster, change: dict[str, Any], disturbs: bool) -> None:
    """What placing rests on raises the generation, once a report brings it; the same report again does not."""
    news = dataclasses.replace(REPORT, **change)
    with cluster.db.write() as tx:
        before = generation(tx)
        fleet.take_report(tx, "n1", news, 110.0)
        once = generation(tx)
        fleet.take_report(tx, "n1", news, 120.0)
        assert (once > before) == disturbs and generation(tx) == once


def test_a_node_that_answers_again_is_not_silent(cluster: Cluster) -> None:
    """A report ends the silence; being silent twice keeps the first moment."""
    with cluster.db.write() as tx:
        nodes.silent(tx, "n1", 105.0)
        nodes.silent(tx, "n1", 106.0)
        assert [peer.silent_since for peer in nodes.agent_rows(tx)] == [105.0, None]
        fleet.take_report(tx, "n1", REPORT, 107.0)
        assert [peer.silent_since for peer in nodes.agent_rows(tx)] == [None, None]


def test_the_image_cache_is_used_disk(cluster: Cluster) -> None:
    """2.5 GiB of images take 3 GiB off what may be claimed."""
    gib = 1 << 30
    cached = (wire.CachedImage("0" * 64, 2 * gib), wire.CachedImage("1" * 64, gib // 2))
    with cluster.db.write() as tx:
        fleet.take_report(tx, "n1", dataclasses.replace(REPORT, images=cached), 110.0)
        assert nodes.inventories_of(tx, "n1")[DISK_GB].cached == 3 and sums(tx)["n1"]["capacity DISK_GB"] == 47


def test_cpus_kept_for_pinned_servers_are_pcpus(cluster: Cluster) -> None:
    """Of 8 CPUs '2-4' are kept: 3 PCPU, never overcommitted, and 5 x 4 VCPU; given back they are VCPU again."""
    with cluster.db.write() as tx:
        kept = nodes.by_id(tx, "n1")
        assert kept is not None
        for dedicated, wanted in (("2-4", {VCPU: 20, PCPU: 3}), ("", {VCPU: 32})):
            nodes.update(tx, dataclasses.replace(kept, dedicated_cpus=dedicated))
            fleet.take_report(tx, "n1", REPORT, 110.0)
            stock = nodes.inventories_of(tx, "n1")
            assert {name: stock[name].capacity for name in (VCPU, PCPU) if name in stock} == wanted
            assert bool(sums(tx)["n1"]["odd"]) == (PCPU in stock)


def test_what_a_host_gives_away_piece_by_piece(cluster: Cluster) -> None:
    """Cells and devices come with the report; which CPUs are kept is the node's own word."""
    plain = wire.to_plain(REPORT) | {
        "cells": [{"id": 0, "cpus": [0, 1, 2, 3], "memory_mb": 4096, "siblings": [[0, 1]], "pages": {"2048": 8}}],
        "pci": [{"address": "0000:01:00.0", "vendor_id": "10de", "product_id": "1eb8", "cell": 0}]}
    with cluster.db.write() as tx:
        fleet.take_report(tx, "n1", wire.from_plain(wire.Report, plain), 110.0)
        nodes.update(tx, dataclasses.replace(nodes.by_id(tx, "n1") or node("n1"), dedicated_cpus="2-3"))
        wanted = Hardware(
            (HostCell(0, (0, 1, 2, 3), 4096, ((0, 1),), {2048: 8}),), (PciDevice("0000:01:00.0", "10de", "1eb8", 0),), dedicated=(2, 3))
        assert nodes.hardware(tx) == {"n1": wanted} and nodes.hardware_of(tx, "n1") == wanted and nodes.hardware_of(tx, "n2") == Hardware()
        by_name = {view.name: view for view in fleet.views(tx, hardware=True)}
        assert by_name["n1"].hardware == wanted and by_name["n1"].fittings == ()
        assert {view.hardware for view in fleet.views(tx)} == {None}


# ---------------------------------------------------------------- facts

def test_facts_come_from_row_report_and_aggregates(cluster: Cluster) -> None:
    """Reported and custom traits together; a zone of its own goes before an aggregate's."""
    with cluster.db.write() as tx:
        nodes.update(tx, dataclasses.replace(nodes.by_id(tx, "n1") or node("n1"), traits=("CUSTOM_GOLD",), labels={"rack": "r1"}))
        rack = Aggregate(id="a1", name="fast", metadata={"availability_zone": "z2", "ssd": "true"}, created_at=0.0)
        aggregates.insert(tx, rack)
        assert aggregates.add_node(tx, "a1", "n1") and not aggregates.add_node(tx, "a1", "n1")
        aggregates.add_node(tx, "a1", "n2")
        one, other = nodes.facts_of(tx, "n1"), nodes.facts_of(tx, "n2")
        assert one.traits == {
            "HW_CPU_X86_SSE42", "HW_CPU_X86_SSE3", "HW_ARCH_X86_64", "COMPUTE_VIRT_KVM", "COMPUTE_VIRT_QEMU", "CUSTOM_GOLD"}
        assert (one.zone, other.zone, one.labels, one.machines) == ("z", "z2", {"rack": "r1"}, ("pc", "q35"))
        assert (one.hypervisor_version, one.virt_type, one.cpu_model) == (8_002_000, "kvm", "EPYC")
        assert one.aggregates == other.aggregates == (AggregateFacts("fast", rack.metadata),)
        aggregates.update(tx, dataclasses.replace(rack, metadata={}))
        assert nodes.facts_of(tx, "n2").zone == "" and aggregates.memberships(tx)["n1"][0].metadata == {}
        assert aggregates.remove_node(tx, "a1", "n2") and not aggregates.remove_node(tx, "a1", "n2")
        assert aggregates.delete(tx, "a1") and nodes.facts_of(tx, "n1").aggregates == ()


def test_equal_nodes_share_a_shape(cluster: Cluster) -> None:
    """Nodes of one kind have one row of facts; kinds that no node is of are not read; a change of kind raises the generation."""
    with cluster.db.write() as tx:
        for number in range(5):
            nodes.insert(tx, node(f"m{number}"))
        assert len(nodes.shapes(tx)) == 2
        before = sums(tx)["m0"]["generation"]
        nodes.update(tx, node("m0", labels={"rack": "r"}))
        assert len(nodes.shapes(tx)) == 3 and sums(tx)["m0"]["generation"] > before
        nodes.update(tx, node("m0"))
        assert len(nodes.shapes(tx)) == 2 and {row[1] for row in nodes.lean_rows(tx)} == set(nodes.shapes(tx))


def test_traits_have_the_names_of_os_traits() -> None:
    """Linux' and libvirt's spellings of a flag mean the same; what has no name is passed over."""
    assert reported_traits(["sse4_1"], "", ()) == reported_traits(["sse4.1"], "", ()) == {"HW_CPU_X86_SSE41"}
    assert reported_traits(["vmx"], "aarch64", ["kvm", "xen"]) == {
        "HW_CPU_X86_VMX", "HW_CPU_X86_INTEL_VMX", "HW_ARCH_AARCH64", "COMPUTE_VIRT_KVM"}
    assert {trait for traits in CPU_TRAITS.values() for trait in traits} <= STANDARD_TRAITS


# ---------------------------------------------------------------- what placing reads

def test_views_say_what_rows_say(cluster: Cluster) -> None:
    """The views of all, of a few and of many are the same ones; lean rows have the same sums."""
    with cluster.db.write() as tx:
        nodes.set_inventory(tx, "n1", Inventory("CUSTOM_GPU", 2))
        servers.insert(tx, dataclasses.replace(server("s1"), wants=Wants(properties={"os": "linux"})))
        placement.claim(tx, Claim("s1", "n1", {VCPU: 2, MEMORY_MB: 64, "CUSTOM_GPU": 1}))
        servers.place(tx, "s1", "n1", 1, 0.0)
        operations.insert(tx, Operation(
            id="o1", kind="server.create", object_kind="server", object_id="s1", object_name="s1", state=OperationState.RUNNING, epoch=1,
            attempt=0, owner="", lease_until=0.0, actor="", record={}, error=None, created_at=0.0, ended_at=None))
        nodes.build_failed(tx, "n1")
        everyone = fleet.views(tx, images=True)
        one = everyone[0]
        assert one.used == {VCPU: 2, MEMORY_MB: 64, "CUSTOM_GPU": 1} and (one.servers, one.building, one.failed_builds) == (1, 1, 1)
        assert one.images == {"s1": {"os": "linux"}} and everyone[1].images == {}
        assert fleet.views(tx, only=["n1", "n2", "gone"], images=True) == everyone
        assert fleet.views(tx, only=[*(f"x{number}" for number in range(fleet.FEW)), "n1"], images=True) == everyone[:1]
        assert placement.used(tx) == {"n1": one.used} == {"n1": placement.used_on(tx, "n1")}
        assert [(usage.node.name, usage.allocated, usage.servers) for usage in fleet.usages(tx)] == [("n1", one.used, 1), ("n2", {}, 0)]
        nodes.built(tx, "n1")
        assert nodes.row_of(tx, "n1").failed_builds == 0      # type: ignore[union-attr]


def test_a_claim_that_was_decided_is_three_statements(cluster: Cluster) -> None:
    """Usage, sums, rows: the usual claim reads nothing, and returns the generation it made."""
    with cluster.db.write() as tx:
        seen, counting = generation(tx), Counting(tx)
        asked = Claim("a", "n1", {VCPU: 1, MEMORY_MB: 64, DISK_GB: 1}, generation=seen)
        assert placement.claim(counting, asked) == seen + 1 == generation(tx)                # type: ignore[arg-type]
        assert counting.asked == ["quotas.q_charge", "placement.q_take_decided", "claims.q_insert_hot"]


# ---------------------------------------------------------------- refusals

def test_a_class_in_use_is_not_removed(cluster: Cluster) -> None:
    """Total 0 removes a class that nobody holds; less than what is held is allowed, and then nothing more fits."""
    with cluster.db.write() as tx:
        placement.claim(tx, Claim("a", "n1", {VCPU: 6}))
        nodes.set_inventory(tx, "n1", Inventory(VCPU, 4))
        assert placement.used(tx)["n1"][VCPU] == 6
        with pytest.raises(placement.OverCapacity, match="node n1 is full by now: vcpu: needs 1, free -2 of 4"):
            placement.claim(tx, Claim("b", "n1", {VCPU: 1}))
        with pytest.raises(InUse, match="VCPU is in use, 6 of it"):
            nodes.set_inventory(tx, "n1", Inventory(VCPU, 0))
        nodes.set_inventory(tx, "n1", Inventory(MEMORY_MB, 0))
        assert MEMORY_MB not in nodes.inventories_of(tx, "n1")


def test_a_moved_node_is_named(cluster: Cluster) -> None:
    """Whoever decided on what is no more is told what it is now."""
    with cluster.db.write() as tx:
        now = generation(tx)
        with pytest.raises(placement.Moved, match=f"node n1 moved on from generation {now - 1} to {now}"):
            placement.claim(tx, Claim("a", "n1", {VCPU: 1}, generation=now - 1))
        nodes.update(tx, dataclasses.replace(nodes.by_id(tx, "n1") or node("n1"), state=NodeState.DISABLED))
        with pytest.raises(placement.Moved, match="node n1 takes no servers"):
            placement.claim(tx, Claim("a", "n1", {VCPU: 1}, generation=generation(tx)))
        with pytest.raises(placement.Moved, match="node gone takes no servers"):
            placement.claim(tx, Claim("a", "gone", {VCPU: 1}))


def test_an_exceeded_quota_says_all_of_it(cluster: Cluster) -> None:
    """Project, resource, used, asked, limit and by how much; every resource that is short is told."""
    with cluster.db.write() as tx:
        projects.insert(tx, project("blue"))
        quotas.set_(tx, "", "cores", 4)
        quotas.set_(tx, "blue", "ram_mb", 100)
        placement.claim(tx, Claim("a", "n1", {VCPU: 3, MEMORY_MB: 64}, project_id="blue"))
        with pytest.raises(QuotaExceeded) as refused:
            placement.claim(tx, Claim("b", "n1", {VCPU: 2, MEMORY_MB: 64}, project_id="blue"))
    error = refused.value
    assert error.message == "quota cores of project blue: 3 of 4 used, 2 more asked: over by 1"
    assert error.reasons == ("quota ram_mb of project blue: 64 of 100 MiB used, 64 more asked: over by 28",)
    assert error.command == "novactl quota show blue"
    assert error.details == {"project": "blue", "resource": "cores", "used": 3, "asked": 2, "limit": 4}


def test_limits_are_own_else_default_else_none(cluster: Cluster) -> None:
    """Own before default; taking one away brings the other back; a project made later has the defaults at once."""
    with cluster.db.write() as tx:
        quotas.set_(tx, "", "servers", 5)
        projects.insert(tx, project("blue"))
        quotas.set_(tx, "blue", "servers", 1)
        assert quotas.limits(tx, "blue")["servers"] == 1 and quotas.limits(tx, DEFAULT_PROJECT)["servers"] == 5
        assert quotas.own(tx, "blue") == {"servers": 1} and quotas.limits(tx, "blue")["volumes"] == UNLIMITED
        quotas.set_(tx, "blue", "servers", None)
        assert quotas.limits(tx, "blue")["servers"] == 5
        placement.claim(tx, Claim("a", "n1", {VCPU: 1}, project_id="blue"))
        placement.claim(tx, Claim("b", "n1", {VCPU: 1}, project_id="blue"))
    with pytest.raises(Conflict, match="project blue uses 2 of 1 already"), cluster.db.write() as tx:
        quotas.set_(tx, "", "servers", 1)
    with cluster.db.write() as tx:
        quotas.set_(tx, "blue", "servers", 1, force=True)
        with pytest.raises(QuotaExceeded):
            placement.claim(tx, Claim("c", "n1", {VCPU: 1}, project_id="blue"))


def test_what_is_not_claimed_is_counted_where_it_is(cluster: Cluster) -> None:
    """Key pairs and groups have limits too, asked where they are made."""
    from novactl.db import keypairs

    with cluster.db.write() as tx:
        quotas.set_(tx, "", "keypairs", 1)
        quotas.check(tx, DEFAULT_PROJECT, "keypairs", 1)
        keypairs.insert(tx, Keypair(id="k", name="k", key_type="x", public_key="x", fingerprint="x", created_at=0.0))
        groups.insert(tx, group("g", Policy.AFFINITY))
        assert projects.usage(tx, DEFAULT_PROJECT)["keypairs"] == projects.usage(tx, DEFAULT_PROJECT)["groups"] == 1
        with pytest.raises(QuotaExceeded, match="1 of 1 used, 1 more asked"):
            quotas.check(tx, DEFAULT_PROJECT, "keypairs", 1)


def test_a_group_that_refuses_names_its_members(cluster: Cluster) -> None:
    """By node or by the label that is its domain; members without a place do not count."""
    with cluster.db.write() as tx:
        nodes.update(tx, dataclasses.replace(nodes.by_id(tx, "n1") or node("n1"), labels={"rack": "r1"}))
        groups.insert(tx, group("racks", Policy.ANTI_AFFINITY, scope="rack"))
        groups.insert(tx, group("near", Policy.AFFINITY))
        for name, of in (("web", "racks"), ("db", "racks"), ("idle", "racks"), ("x", "near"), ("y", "near")):
            servers.insert(tx, server(name, group=of))
        nodes.ensure_inventory(tx, "n2", {VCPU: Inventory(VCPU, 4)})
        placement.claim(tx, Claim("web", "n1", {VCPU: 1}, group_id="racks"))
        with pytest.raises(placement.GroupPolicy, match=r"server group racks \(anti-affinity, 1 a rack\) has web on rack r1"):
            placement.claim(tx, Claim("db", "n1", {VCPU: 1}, group_id="racks"))
        placement.claim(tx, Claim("db", "n2", {VCPU: 1}, group_id="racks"))
        placement.claim(tx, Claim("x", "n1", {VCPU: 1}, group_id="near"))
        with pytest.raises(placement.GroupPolicy, match=r"server group near \(affinity\) has x elsewhere than on node n2"):
            placement.claim(tx, Claim("y", "n2", {VCPU: 1}, group_id="near"))
        assert [member.name for member in groups.members(tx, "racks")] == ["db", "idle", "web"]
        assert groups.delete(tx, "racks") and groups.members(tx, "racks") == []
