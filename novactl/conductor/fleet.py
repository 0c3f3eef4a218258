"""The fleet as the scheduler sees it, and keeping that view fresh."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from novactl.agents import wire
from novactl.cluster import Cluster
from novactl.db import nodes, placement, servers
from novactl.db.statements import Tx
from novactl.errors import NovaError, Unreachable
from novactl.model.facts import Facts
from novactl.model.node import Node, NodeUsage
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU, Inventory
from novactl.scheduler.request import NodeView

SILENT_DEADLINE_S = 0.5
"""What a node that was silent the last time gets to answer a refresh."""
REFRESH_DEADLINE_S = 2.0


def usages(tx: Tx) -> tuple[NodeUsage, ...]:
    """Every node with its ledger, by four queries however many nodes there are."""
    inventories, used, servers = nodes.inventories(tx), placement.used(tx), placement.consumers(tx)
    return tuple(
        NodeUsage(node=node, inventories=inventories.get(node.id, {}), allocated=used.get(node.id, {}), servers=servers.get(node.id, 0))
        for node in nodes.all_(tx)
    )


def views(tx: Tx) -> list[NodeView]:
    return [
        NodeView(
            id=usage.node.id, name=usage.node.name, state=usage.node.state,
            facts=Facts(architecture=usage.node.architecture, zone=usage.node.zone, labels=usage.node.labels),
            inventories=usage.inventories, used=usage.allocated, servers=usage.servers,
            reported_at=usage.node.reported_at, silent_since=usage.node.silent_since, reason=usage.node.reason,
            generation=usage.node.generation, agent_version=usage.node.agent_version,
        )
        for usage in usages(tx)
    ]


def refresh(cluster: Cluster, *, max_age_s: float, only: Sequence[Node] | None = None) -> dict[str, NovaError]:
    """Ask every node (or `only` these) whose report is older than `max_age_s` for a new one, all at once, and store the answers.

    Returns the errors by node id; a node that gives none is marked silent. Takes at most REFRESH_DEADLINE_S, and only
    SILENT_DEADLINE_S for those that were silent already.
    """
    with _ASKING:                                             # of several threads one asks; the others find fresh reports
        return _refresh(cluster, max_age_s, only)


_ASKING = threading.Lock()


def _refresh(cluster: Cluster, max_age_s: float, only: Sequence[Node] | None) -> dict[str, NovaError]:
    now = cluster.clock.now()
    if only is None:
        with cluster.db.read() as tx:
            only = nodes.all_(tx)
    stale = [node for node in only if node.address and (
        node.silent_since is not None or node.reported_at is None or now - node.reported_at > max_age_s)]
    if not stale:
        return {}
    hurry = {node.id: SILENT_DEADLINE_S for node in stale if node.silent_since is not None}
    deadline_s = min(cluster.config["agent.connect_s"], REFRESH_DEADLINE_S)
    answers = cluster.agents.fan_out(stale, "inventory.read", wire.InventoryRead(max_age_s), timeout_s=deadline_s, hurry=hurry)
    now = cluster.clock.now()
    errors: dict[str, NovaError] = {}
    with cluster.db.write() as tx:
        for node in stale:
            answer = answers[node.id]
            if isinstance(answer, NovaError):
                errors[node.id] = answer
                if isinstance(answer, Unreachable):
                    nodes.silent(tx, node.id, now)
            else:
                take_report(tx, node.id, answer.body, now)
    return errors


def take_report(tx: Tx, node_id: str, report: wire.Report, now: float) -> None:
    """Store what an agent said: of the node, the totals that follow from it, and its guests' addresses."""
    nodes.take_report(tx, node_id, wire.to_plain(report), now - report.age_s)
    for name, total in totals(report).items():
        nodes.set_total(tx, node_id, name, total)
    for domain in report.domains:
        if domain.addresses:
            servers.seen(tx, domain.server, domain.addresses)


def totals(report: wire.Report) -> dict[str, int]:
    return {VCPU: report.vcpus, MEMORY_MB: report.memory_mb, DISK_GB: report.disk_gb}


def first_inventories(settings: Mapping[str, Any], report: wire.Report) -> dict[str, Inventory]:
    """What a newly enrolled node offers: Nova's defaults, from the settings. `settings` is a Config."""
    ratios = {VCPU: "placement.cpu_ratio", MEMORY_MB: "placement.ram_ratio", DISK_GB: "placement.disk_ratio"}
    found = {}
    for name, total in totals(report).items():
        reserved = min(total, settings["placement.reserved_ram_mb"]) if name == MEMORY_MB else 0
        found[name] = Inventory(
            resource_class=name, total=total, reserved=reserved, ratio_milli=round(settings[ratios[name]] * 1000), max_unit=max(1, total))
    return found
