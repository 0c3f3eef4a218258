"""Where servers can go and why, and what is claimed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from novactl.api.explanation import Explanation, explained
from novactl.api.resolve import resolve
from novactl.api.servers import CreateServer
from novactl.cluster import Cluster
from novactl.db import nodes, placement, servers
from novactl.model.resources import DISK_GB, MEMORY_MB, PCPU, STANDARD_CLASSES, VCPU
from novactl.scheduler.telling import ExplainRow


class ClaimRow(NamedTuple):
    """What one consumer holds on one node. `consumer` is a server's name, or the id of what has no name. `vcpus` are VCPU and
    PCPU together; `others` are the amounts of other classes than the usual ones."""

    consumer_kind: str
    consumer: str
    node: str
    vcpus: int
    memory_mb: int
    disk_gb: int
    others: Mapping[str, int] = {}


def explain(cluster: Cluster, wanted: CreateServer) -> Explanation:
    """Every node's verdict on such a server. Changes nothing."""
    from novactl.api.creation import explain as decide

    return explained(decide(cluster, wanted))


def why_not(cluster: Cluster, wanted: CreateServer, node: str) -> Explanation:
    """The verdict on one node: alone where it is the chosen one or is rejected, else below the one that is better. Raises NotFound."""
    from novactl.api.creation import explain as decide

    with cluster.db.read() as tx:
        name = resolve(tx, "node", nodes, node).name
    whole = explained(decide(cluster, wanted))
    rows = [row for row in whole.rows if row.node == name]
    if rows[0].score is not None and rows[0].verdict != "chosen":
        rows = [whole.rows[0], *rows]
    return dataclasses.replace(whole, rows=tuple(rows), summary=_compared(rows, whole.summary))


def _compared(rows: Sequence[ExplainRow], summary: str) -> str:
    """'n4 could take it; n1 is better: balance 0.71 beside 0.53.', or why it could not, or that it is the one."""
    row = rows[-1]
    if row.verdict == "rejected":
        return f"{row.node} cannot take it. {summary}"
    if row.verdict == "chosen":
        return f"{row.node} is the one that would take it. {summary}"
    best = rows[0]
    differs = [
        f"{name} {best.weights[name]:.4g} beside {weight:.4g}" for name, weight in row.weights.items() if best.weights.get(name) != weight]
    why = f"better: {', '.join(differs)}" if differs else "as good, and its id comes first"
    return f"{row.node} could take it ({row.verdict}); {best.node} is {why}. {summary}"


def list_claims(cluster: Cluster) -> tuple[ClaimRow, ...]:
    """By node, then consumer."""
    with cluster.db.read() as tx:
        names = {server.id: server.name for server in servers.all_(tx)}
        node_names = {node.id: node.name for node in nodes.all_(tx)}
        held: dict[tuple[str, str, str], dict[str, int]] = {}
        for row in placement.all_(tx):
            held.setdefault((row.consumer_kind, row.consumer_id, row.node_id), {})[row.resource_class] = row.amount
    rows = [
        ClaimRow(kind, names.get(consumer, consumer), node_names.get(node, node), amounts.get(VCPU, 0) + amounts.get(PCPU, 0),
                 amounts.get(MEMORY_MB, 0), amounts.get(DISK_GB, 0),
                 {name: amount for name, amount in amounts.items() if name not in STANDARD_CLASSES})
        for (kind, consumer, node), amounts in held.items()
    ]
    return tuple(sorted(rows, key=lambda row: (row.node, row.consumer)))
