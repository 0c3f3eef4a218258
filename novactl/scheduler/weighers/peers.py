"""Where the other servers of a group are: what is better together, or better apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from novactl.model.group import Policy
from novactl.scheduler.fleet import Fleet
from novactl.scheduler.request import GroupView, NodeView, Request


class Soft:
    """Members in the node's domain (its label's value where the group has a scope, else the node), times `sign`.

    Nova's ServerGroupSoftAffinityWeigher and ServerGroupSoftAntiAffinityWeigher. A node without the label is in no domain: to be
    together it has nobody, and to be apart it is worse than one that has everybody.
    """

    minval: float | None = None
    maxval: float | None = None

    def __init__(self, name: str, policy: Policy, sign: float, multiplier_key: str) -> None:
        self.name, self.policy, self.sign, self.multiplier_key = name, policy, sign, multiplier_key

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


class Spread:
    """As few as can be of the servers it is spread among in one value of the label `wants.spread_by`; nodes without it come last.

    Those servers are the members of `request.group`, where that has this label as its scope.
    """

    name = "spread"
    minval: float | None = None
    maxval: float | None = None
    by_facts = True

    def applies(self, request: Request) -> bool:
        return bool(request.wants.spread_by)

    def __call__(self, request: Request, node: NodeView) -> float:
        label, group = request.wants.spread_by, request.group
        counts = group.counts if group and group.scope == label else {}
        domain = node.facts.labels.get(label, "")
        return -1.0 * counts.get(domain, 0) if domain else _beyond_all(counts)


def _beyond_all(counts: Mapping[str, int]) -> float:
    return -1.0 - sum(counts.values())


soft_affinity = Soft("soft_affinity", Policy.SOFT_AFFINITY, 1.0, "soft_affinity_weight_multiplier")
soft_anti_affinity = Soft("soft_anti_affinity", Policy.SOFT_ANTI_AFFINITY, -1.0, "soft_anti_affinity_weight_multiplier")
spread = Spread()
