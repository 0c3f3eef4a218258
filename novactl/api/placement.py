"""Where servers can go and why, and what is claimed."""

from __future__ import annotations

from typing import NamedTuple

from novactl.api.explanation import Explanation, explained
from novactl.api.servers import CreateServer
from novactl.cluster import Cluster
from novactl.db import nodes, placement, servers
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU


class ClaimRow(NamedTuple):
    """What one consumer holds on one node. `consumer` is a server's name, or the id of what has no name."""

    consumer_kind: str
    consumer: str
    node: str
    vcpus: int
    memory_mb: int
    disk_gb: int


def explain(cluster: Cluster, wanted: CreateServer) -> Explanation:
    """Every node's verdict on such a server. Changes nothing."""
    from novactl.api.creation import explain as decide

    return explained(decide(cluster, wanted))


def list_claims(cluster: Cluster) -> tuple[ClaimRow, ...]:
    """By node, then consumer."""
    with cluster.db.read() as tx:
        names = {server.id: server.name for server in servers.all_(tx)}
        node_names = {node.id: node.name for node in nodes.all_(tx)}
        held: dict[tuple[str, str, str], dict[str, int]] = {}
        for row in placement.all_(tx):
            held.setdefault((row.consumer_kind, row.consumer_id, row.node_id), {})[row.resource_class] = row.amount
    rows = [
        ClaimRow(kind, names.get(consumer, consumer), node_names.get(node, node), amounts.get(VCPU, 0),
                 amounts.get(MEMORY_MB, 0), amounts.get(DISK_GB, 0))
        for (kind, consumer, node), amounts in held.items()
    ]
    return tuple(sorted(rows, key=lambda row: (row.node, row.consumer)))
