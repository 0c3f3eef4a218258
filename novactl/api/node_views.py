"""A node as it is shown: its row, its ledger, its last report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from novactl.api.zones import Belonging
from novactl.cluster import Cluster
from novactl.db import aggregates, nodes, placement
from novactl.db.statements import Tx
from novactl.model.aggregate import Aggregate
from novactl.model.amounts import ratio_text
from novactl.model.node import Node, NodeState, NodeUsage
from novactl.model.resources import DISK_GB, MEMORY_MB, STANDARD_CLASSES, VCPU, Inventory, amount_text


@dataclass(frozen=True, kw_only=True)
class NodeView:
    """A node with its ledger and its last report. `…_used` is what the host really uses, `…_allocated` what is claimed,
    `…_capacity` what may be claimed; None before the first report. `status`: up, stale, down, disabled, enrolling, removing, removed."""

    id: str
    name: str
    status: str
    state: str
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
    load = report.get("load_1m")
    return {
        "id": node.id, "name": node.name, "status": _status(node, age_s, cluster.config["placement.fresh_s"]), "state": node.state.value,
        "reason": node.reason, "zone": Belonging(node, tuple(member_of)).zone, "labels": node.labels, "architecture": node.architecture,
        "virt_type": report.get("virt_type", ""), "agent_version": node.agent_version, "address": node.address, "ssh": node.ssh,
        "servers": usage.servers, "vcpu_used": None if load is None else round(load, 2),
        "vcpu_allocated": usage.allocated.get(VCPU, 0), "vcpu_capacity": capacity.get(VCPU),
        "memory_used_mb": report.get("memory_used_mb"), "memory_allocated_mb": usage.allocated.get(MEMORY_MB, 0),
        "memory_capacity_mb": capacity.get(MEMORY_MB), "disk_used_gb": report.get("disk_used_gb"),
        "disk_allocated_gb": usage.allocated.get(DISK_GB, 0), "disk_capacity_gb": capacity.get(DISK_GB), "report_age_s": age_s,
        "cpu_model": report.get("cpu_model", ""), "versions": report.get("versions", {}), "created_at": node.created_at,
        "foreign_domains": report.get("foreign_domains", 0), "aggregates": tuple(aggregate.name for aggregate in member_of)}


def _status(node: Node, age_s: float | None, fresh_s: float) -> str:
    if node.state is not NodeState.ENABLED:
        return node.state.value
    if node.silent_since is not None:
        return "down"
    return "stale" if age_s is None or age_s > fresh_s else "up"
