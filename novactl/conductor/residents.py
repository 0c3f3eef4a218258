"""The servers that are on nodes, as the plans for the loss of a node see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from novactl.cluster import Cluster
from novactl.db import groups, meta, placement, servers
from novactl.db.statements import Tx, from_json
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU
from novactl.model.wants import NOTHING_SPECIAL, Wants
from novactl.plugins import configured, rules
from novactl.scheduler.request import GroupView, NodeView, Request

if TYPE_CHECKING:
    from novactl.scheduler.survival import Resident, Survival


def residents(cluster: Cluster, tx: Tx) -> list[Resident]:
    """Every server with a node, in two queries; those that ask for the same share one request."""
    from novactl.scheduler.survival import Resident

    held: dict[str, dict[str, int]] = {}
    for row in placement.all_(tx):
        held.setdefault(row.consumer_id, {})[row.resource_class] = row.amount
    config, now, its_rules = cluster.config, cluster.clock.now(), rules(cluster.config)
    grouped = {group.id: GroupView(
        name=group.name, policy=group.policy, scope=group.scope, max_per_domain=group.max_per_domain) for group in groups.all_(tx)}
    wants: dict[str, Wants] = {"{}": NOTHING_SPECIAL}
    kinds: dict[Any, Request] = {}
    found = []
    for row in servers.residents(tx):
        amounts = held.get(row.id) or {VCPU: row.vcpus, MEMORY_MB: row.memory_mb, DISK_GB: row.disk_gb}
        key = (tuple(amounts.items()), *row[6:])
        request = kinds.get(key)
        if request is None:
            if row.wants not in wants:
                wants[row.wants] = Wants.from_plain(from_json(row.wants))
            request = kinds[key] = Request(
                server=row.name, amounts=amounts, architecture=row.architecture, zone=row.zone, now=now,
                fresh_s=config["placement.fresh_s"], project=row.project_id, flavor=row.flavor_name,
                image=row.image_name, wants=wants[row.wants], group=grouped.get(row.group_id), rules=its_rules)
        found.append(Resident(row.id, row.name, row.node_id, request))
    return found


def is_guarded(tx: Tx) -> bool:
    """Whether this cluster is to bear the loss of any one node."""
    return meta.get(tx, meta.N_PLUS_1) == "1"


def survival(cluster: Cluster, tx: Tx, views: Sequence[NodeView]) -> Survival | None:
    """The plans for the loss of each node; None where the cluster is not to be kept N+1-safe (`novactl cluster set --n-plus-1`)."""
    if not is_guarded(tx):
        return None
    from novactl.scheduler.survival import Survival

    return Survival(views, residents(cluster, tx), configured(cluster.config))
