"""Nodes: enroll, list, show, check, enable, disable, remove."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from novactl.api.resolve import resolve
from novactl.cluster import Cluster
from novactl.conductor.history import note_on
from novactl.db import nodes
from novactl.db.statements import Tx
from novactl.enroll.request import EnrollNode, EnrolPlan, HostKey, SudoPassword
from novactl.errors import Conflict
from novactl.model.finding import Finding
from novactl.model.node import Node, NodeState, NodeUsage
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU

if TYPE_CHECKING:
    from novactl.conductor.progress import Watch

__all__ = [
    "EnrolPlan", "EnrollNode", "HostKey", "NodeView", "check", "disable", "enable", "enroll", "list_nodes", "remove", "show",
]


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


def enroll(cluster: Cluster, wanted: EnrollNode, *, watch: Watch | None = None, dry_run: bool = False) -> NodeView | EnrolPlan:
    """Make a machine a node. Raises HostKeyUnknown, HostKeyChanged, SshDenied, Unreachable, EnrolFailed, Conflict.

    Safe to repeat: an enrolled machine is brought to what was asked, or left alone.
    """
    from novactl.conductor.enroll_node import enroll as act

    made = act(cluster, wanted, watch=watch, dry_run=dry_run)
    return made if isinstance(made, EnrolPlan) else show(cluster, made, refresh=False)


def remove(
    cluster: Cluster, ref: str, *, lost: bool = False, watch: Watch | None = None, dry_run: bool = False,
    sudo_password: SudoPassword | None = None,
) -> NodeView:
    """Undo an enrolment; `lost`: forget a machine that is gone. Raises InUse while servers are on it."""
    from novactl.conductor.remove_node import remove as act

    view = show(cluster, ref, refresh=False)
    act(cluster, view.id, lost=lost, watch=watch, dry_run=dry_run, sudo_password=sudo_password)
    return view if dry_run else dataclasses.replace(view, status="removed", state="removed")


def check(cluster: Cluster, ref: str, *, sudo_password: SudoPassword | None = None) -> tuple[Finding, ...]:
    """What is right and wrong with a node, end to end."""
    from novactl.conductor.check_node import check as act

    return act(cluster, _find(cluster, ref), sudo_password=sudo_password)


def list_nodes(cluster: Cluster, *, refresh: bool = True) -> tuple[NodeView, ...]:
    """By name. With `refresh`, reports older than `placement.refresh_s` are asked for anew first."""
    if refresh:
        _refresh(cluster)
    with cluster.db.read() as tx:
        return tuple(_view(cluster, usage) for usage in _usages(tx))


def show(cluster: Cluster, ref: str, *, refresh: bool = True) -> NodeView:
    if refresh:
        _refresh(cluster, _find(cluster, ref))
    with cluster.db.read() as tx:
        node: Node = resolve(tx, "node", nodes, ref)
        return next(_view(cluster, usage) for usage in _usages(tx) if usage.node.id == node.id)


def enable(cluster: Cluster, ref: str, *, dry_run: bool = False) -> NodeView:
    """It takes servers again. Enabling an enabled node changes nothing."""
    return _switch(cluster, ref, NodeState.ENABLED, "", dry_run)


def disable(cluster: Cluster, ref: str, *, reason: str = "", dry_run: bool = False) -> NodeView:
    """It takes no new servers; those it has go on running."""
    return _switch(cluster, ref, NodeState.DISABLED, reason, dry_run)


def _switch(cluster: Cluster, ref: str, state: NodeState, reason: str, dry_run: bool) -> NodeView:
    with cluster.db.write() as tx:
        node: Node = resolve(tx, "node", nodes, ref)
        if node.state not in (NodeState.ENABLED, NodeState.DISABLED):
            raise Conflict(f"node {node.name} is {node.state}", command="novactl operation list")
        changed = dataclasses.replace(node, state=state, reason=reason)
        if changed != node and not dry_run:
            nodes.update(tx, changed)
            note_on(cluster, tx, node, state.value, reason)
    return show(cluster, node.id, refresh=False)


def _find(cluster: Cluster, ref: str) -> Node:
    with cluster.db.read() as tx:
        return resolve(tx, "node", nodes, ref)


def _refresh(cluster: Cluster, *only: Node) -> None:
    from novactl.conductor.fleet import refresh

    refresh(cluster, max_age_s=cluster.config["placement.refresh_s"], only=only or None)


def _usages(tx: Tx) -> tuple[NodeUsage, ...]:
    from novactl.conductor.fleet import usages

    return usages(tx)


def _view(cluster: Cluster, usage: NodeUsage) -> NodeView:
    node, report = usage.node, usage.node.report or {}
    age_s = None if node.reported_at is None else max(0.0, cluster.clock.now() - node.reported_at)
    capacity = {name: inventory.capacity for name, inventory in usage.inventories.items()}
    load = report.get("load_1m")
    return NodeView(
        id=node.id, name=node.name, status=_status(node, age_s, cluster.config["placement.fresh_s"]), state=node.state.value,
        reason=node.reason, zone=node.zone, labels=node.labels, architecture=node.architecture,
        virt_type=report.get("virt_type", ""), agent_version=node.agent_version, address=node.address, ssh=node.ssh,
        servers=usage.servers, vcpu_used=None if load is None else round(load, 2),
        vcpu_allocated=usage.allocated.get(VCPU, 0), vcpu_capacity=capacity.get(VCPU),
        memory_used_mb=report.get("memory_used_mb"), memory_allocated_mb=usage.allocated.get(MEMORY_MB, 0),
        memory_capacity_mb=capacity.get(MEMORY_MB), disk_used_gb=report.get("disk_used_gb"),
        disk_allocated_gb=usage.allocated.get(DISK_GB, 0), disk_capacity_gb=capacity.get(DISK_GB), report_age_s=age_s,
        cpu_model=report.get("cpu_model", ""), versions=report.get("versions", {}), created_at=node.created_at,
        foreign_domains=report.get("foreign_domains", 0))


def _status(node: Node, age_s: float | None, fresh_s: float) -> str:
    if node.state is not NodeState.ENABLED:
        return node.state.value
    if node.silent_since is not None:
        return "down"
    return "stale" if age_s is None or age_s > fresh_s else "up"
