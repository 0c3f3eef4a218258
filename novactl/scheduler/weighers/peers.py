"""Where the other servers of a group are: what is better together, or better apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from novactl.model.group import Policy
from novactl.scheduler.fleet import Fleet
from novactl.scheduler.request import GroupView, NodeView, Request


class Soft:
    """Members in the node's domain (its label's value where the group has a scope, else the node), times `sign`."""

    name: str
    policy: Policy
    sign: float
    minval: float | None = None
    maxval: float | None = None

    def applies(self, request: Request) -> bool:
        return request.group is not None and request.group.policy is self.policy

    def __call__(self, request: Request, node: NodeView) -> float:
        group = request.group
        return self._weight(group, group.domain(node)) if group else 0.0

    def columns(self, request: Request, fleet: Fleet) -> Any:
        group = request.group
        if group is None:
            return fleet.xp.full(fleet.size, 0.0)
        if group.scope:
            return fleet.by_facts(lambda facts: self._weight(group, facts.labels.get(group.scope, "")))
        column = fleet.xp.full(fleet.size, 0.0)
        for node_id, count in group.counts.items():
            try:
                column[fleet.index(node_id)] = self.sign * count
            except KeyError:
                continue
        return column

    def _weight(self, group: GroupView, domain: str) -> float:
        if not domain:
            return 0.0 if self.sign > 0 else _beyond_all(group.counts)
        return self.sign * group.counts.get(domain, 0)


class SoftAffinity(Soft):
    """How many members of its soft-affinity group are there: on the node, or with a scope in its value of that label
    (ServerGroupSoftAffinityWeigher). A node without the label has nobody."""

    name, policy, sign = "soft_affinity", Policy.SOFT_AFFINITY, 1.0
    multiplier_key = "soft_affinity_weight_multiplier"


class SoftAntiAffinity(Soft):
    """How few members of its soft-anti-affinity group are there: on the node, or with a scope in its value of that label
    (ServerGroupSoftAntiAffinityWeigher). A node without the label comes last."""

    name, policy, sign = "soft_anti_affinity", Policy.SOFT_ANTI_AFFINITY, -1.0
    multiplier_key = "soft_anti_affinity_weight_multiplier"


class Spread:
    """How few of the servers it is spread among are in the node's value of the label --spread-by names; nodes without it come last."""

    name = "spread"
    minval: float | None = None
    maxval: float | None = None
    by_facts = True

    def applies(self, request: Request) -> bool:
        return bool(request.wants.spread_by)

    def __call__(self, request: Request, node: NodeView) -> float:
        counts = request.spread.counts if request.spread else {}
        domain = node.facts.labels.get(request.wants.spread_by, "")
        return -1.0 * counts.get(domain, 0) if domain else _beyond_all(counts)

    def columns(self, request: Request, fleet: Fleet) -> Any:
        label, counts = request.wants.spread_by, dict(request.spread.counts) if request.spread else {}
        counts[""] = -int(_beyond_all(counts))
        return fleet.by_facts(lambda facts: -1.0 * counts.get(facts.labels.get(label, ""), 0))


def _beyond_all(counts: Mapping[str, int]) -> float:
    return -1.0 - sum(counts.values())


soft_affinity, soft_anti_affinity, spread = SoftAffinity(), SoftAntiAffinity(), Spread()
