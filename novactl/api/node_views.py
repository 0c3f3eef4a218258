"""A node as it is shown: its row, its ledger, its last report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from novactl.api.zones import Belonging
from novactl.cluster import Cluster
from novactl.db import aggregates, nodes, placement
from novactl.db.statements import Tx
from novactl.errors import Denied
from novactl.model.aggregate import Aggregate
from novactl.model.amounts import ratio_text
from novactl.model.node import Node, NodeState, NodeUsage
from novactl.model.resources import DISK_GB, MEMORY_MB, STANDARD_CLASSES, VCPU, Inventory, amount_text
from novactl.model.units import human_seconds

DENIED = "it does not admit this admin's key: novactl key list"
"""The reason of a stale or down node that answers, but not this admin."""


@dataclass(frozen=True, kw_only=True)
class NodeView:
    """A node with its ledger and its last report. `…_used` is what the host really uses, `…_allocated` what is claimed,
    `…_capacity` what may be claimed; None before the first report.

    `status` is one of up, stale (its last report is too old to place by, or it has just stopped answering), down (it has not answered
    for `node.down_s`), disabled, drained (disabled, and no server is on it), enrolling, fencing, fenced, removing, removed; since
    `status_since`, for `reason`. `state_by` is who gave it its state. `silent_since`: no answer since then, None while it answers.
    """

    id: str
    name: str
    status: str
    status_since: float | None
    state: str
    state_by: str
    reason: str
    zone: str
    labels: Mapping[str, str]
    architecture: str
    virt_type: str
    agent_version: str
    address: str
    ssh: str
    servers: int
    vcpu_used: float | None
    vcpu_allocated: int
    vcpu_capacity: int | None
    memory_used_mb: int | None
    memory_allocated_mb: int
    memory_capacity_mb: int | None
    disk_used_gb: int | None
    disk_allocated_gb: int
    disk_capacity_gb: int | None
    report_age_s: float | None
    silent_since: float | None
    cpu_model: str
    versions: Mapping[str, str] = field(default_factory=dict)
    created_at: float = 0.0
    foreign_domains: int = 0
    aggregates: tuple[str, ...] = ()


class InventoryRow(NamedTuple):
    """What a node has of a class, in the class's own unit. `cached` is what the image cache holds; `free` may be below 0."""

    resource_class: str
    total: int
    reserved: int
    ratio: str
    capacity: int
    used: int
    free: int
    cached: int
    min_unit: int
    max_unit: int
    step_size: int

    @property
    def line(self) -> str:
        """For people."""
        def told(amount: int) -> str:
            return amount_text(self.resource_class, amount)

        cached = f", image cache {told(self.cached)}" if self.cached else ""
        return (f"{self.resource_class}: total {told(self.total)}, reserved {told(self.reserved)}{cached}, ratio {self.ratio};"
                f" used {told(self.used)} of {told(self.capacity)}, free {told(self.free)}")


@dataclass(frozen=True, kw_only=True)
class NodeShown(NodeView):
    """One node with all that placement knows of it. `traits` are reported and custom ones together."""

    shared_disk: str
    dedicated_cpus: str
    failed_builds: int
    inventories: tuple[InventoryRow, ...]
    traits: tuple[str, ...]


def views(cluster: Cluster, tx: Tx) -> tuple[NodeView, ...]:
    """By name."""
    from novactl.conductor.fleet import usages

    members = aggregates.memberships(tx)
    return tuple(NodeView(**_fields(cluster, usage, members.get(usage.node.id, ()))) for usage in usages(tx))


def held_on(tx: Tx, node: Node) -> dict[str, int]:
    """What is claimed of a node; of a disk that it shares, what all its pool's nodes hold."""
    return placement.used(tx).get(node.id, {}) if node.shared_disk else placement.used_on(tx, node.id)


def shown(cluster: Cluster, tx: Tx, node: Node) -> NodeShown:
    """As the rows have it in this transaction."""
    usage = NodeUsage(
        node=node, inventories=nodes.inventories_of(tx, node.id), allocated=held_on(tx, node),
        servers=row.servers if (row := nodes.row_of(tx, node.id)) else 0)
    fields = _fields(cluster, usage, aggregates.memberships(tx).get(node.id, ()))
    return NodeShown(
        **fields, shared_disk=node.shared_disk, dedicated_cpus=node.dedicated_cpus, failed_builds=node.failed_builds,
        inventories=tuple(_inventory(one, usage.allocated.get(name, 0)) for name, one in sorted(usage.inventories.items(), key=_order)),
        traits=tuple(sorted(nodes.facts_of(tx, node.id).traits)))


def _order(item: tuple[str, Inventory]) -> tuple[int, str]:
    """Standard classes first, in their order."""
    name = item[0]
    return (STANDARD_CLASSES.index(name) if name in STANDARD_CLASSES else len(STANDARD_CLASSES)), name


def _inventory(one: Inventory, used: int) -> InventoryRow:
    return InventoryRow(
        one.resource_class, one.total, one.reserved, ratio_text(one.ratio_milli), one.capacity, used, one.capacity - used, one.cached,
        one.min_unit, one.max_unit, one.step_size)


def _fields(cluster: Cluster, usage: NodeUsage, member_of: Sequence[Aggregate]) -> dict[str, Any]:
    """What a NodeView has."""
    node, report = usage.node, usage.node.report or {}
    age_s = None if node.reported_at is None else max(0.0, cluster.clock.now() - node.reported_at)
    capacity = {name: inventory.capacity for name, inventory in usage.inventories.items()}
    load, standing = report.get("load_1m"), _standing(cluster, node, usage.servers)
    return {
        "id": node.id, "name": node.name, "status": standing.status, "status_since": standing.since, "state": node.state.value,
        "state_by": node.state_by, "reason": standing.reason, "silent_since": node.silent_since,
        "zone": Belonging(node, tuple(member_of)).zone, "labels": node.labels, "architecture": node.architecture,
        "virt_type": report.get("virt_type", ""), "agent_version": node.agent_version, "address": node.address, "ssh": node.ssh,
        "servers": usage.servers, "vcpu_used": None if load is None else round(load, 2),
        "vcpu_allocated": usage.allocated.get(VCPU, 0), "vcpu_capacity": capacity.get(VCPU),
        "memory_used_mb": report.get("memory_used_mb"), "memory_allocated_mb": usage.allocated.get(MEMORY_MB, 0),
        "memory_capacity_mb": capacity.get(MEMORY_MB), "disk_used_gb": report.get("disk_used_gb"),
        "disk_allocated_gb": usage.allocated.get(DISK_GB, 0), "disk_capacity_gb": capacity.get(DISK_GB), "report_age_s": age_s,
        "cpu_model": report.get("cpu_model", ""), "versions": report.get("versions", {}), "created_at": node.created_at,
        "foreign_domains": report.get("foreign_domains", 0), "aggregates": tuple(aggregate.name for aggregate in member_of)}


class _Standing(NamedTuple):
    status: str
    since: float | None
    reason: str


def _standing(cluster: Cluster, node: Node, servers: int) -> _Standing:
    """How a node is at this moment: its state as it was set, or, where it is to work, what is heard of it."""
    now, fresh_s, down_s = cluster.clock.now(), cluster.config["placement.fresh_s"], cluster.config["node.down_s"]
    if node.state is not NodeState.ENABLED:
        drained = node.state is NodeState.DISABLED and not servers
        return _Standing("drained" if drained else node.state.value, node.state_since, node.reason)
    if node.silent_since is not None:
        silent_s, told = max(0.0, now - node.silent_since), cluster.unheard.get(node.id)
        denied = told is not None and isinstance(told[1], Denied)
        return _Standing(
            "down" if silent_s >= down_s else "stale", node.silent_since,
            DENIED if denied else f"its agent has not answered for {human_seconds(silent_s)}")
    if node.reported_at is None:
        return _Standing("stale", node.created_at, "it has never sent a report")
    age_s = now - node.reported_at
    if age_s > fresh_s:
        return _Standing("stale", node.reported_at, f"its last report is {human_seconds(age_s)} old")
    if node.lacks_lease(now):
        return _Standing("stale", node.lease_until, "it fences itself and has no lease: novactl conductor run")
    return _Standing("up", node.state_since or node.created_at, "")
