"""How much may be on a node at once, and what the settings keep for whom.

Nova has each limit twice, and so do we. What an aggregate's metadata says holds in every profile, since somebody said it
(`aggregate_io_ops`, `aggregate_servers`). The settings' own limits (`placement.max_io_ops`, `placement.max_servers`) hold where
`io_ops` and `servers_limit` are switched on (`placement.filters` = '+io_ops'): their defaults are Nova's 8 and 50, and nobody who
did not ask for them should meet them. `isolated` and `metrics` are in every profile and apply once the settings name something.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from novactl.model.aggregate import MAX_IO_OPS, MAX_SERVERS
from novactl.model.facts import Facts
from novactl.scheduler.fleet import Fleet
from novactl.scheduler.request import NodeView, Reject, Request

NO_LIMIT = float("inf")


class Limit(ABC):
    """A count of the node is below the least number under `key` in its aggregates, else below what `rule` says."""

    name: str
    word: str
    key: str

    @abstractmethod
    def of(self, counted: Any) -> Any:
        """The count of a NodeView, or the counts of a Fleet."""

    def rule(self, request: Request) -> float:
        return NO_LIMIT

    def __call__(self, request: Request, node: NodeView) -> Reject | None:
        limit, count = self._limit(request, node.facts), self.of(node)
        if count < limit:
            return None
        whose = "its aggregates'" if node.facts.least(self.key) is not None else "the settings'"
        return Reject(self.name, f"{self.word}: has {count}, at most {limit:g} ({whose} limit)")

    def columns(self, request: Request, fleet: Fleet) -> Any:
        if self.key not in fleet.metadata_keys and self.rule(request) == NO_LIMIT:
            return None
        limits = [self._limit(request, facts) for facts in fleet.facts]
        return self.of(fleet) < fleet.xp.take(fleet.xp.asarray(limits), fleet.shape)

    def _limit(self, request: Request, facts: Facts) -> float:
        found = facts.least(self.key) if facts.aggregates else None
        return self.rule(request) if found is None else found


class AggregateIoOps(Limit):
    """Fewer operations under way than `max_io_ops_per_host` of its aggregates allows, the least of several (AggregateIoOpsFilter)."""

    name, word, key = "aggregate_io_ops", "operations under way", MAX_IO_OPS

    def of(self, counted: Any) -> Any:
        return counted.building


class IoOps(AggregateIoOps):
    """Fewer operations under way than `max_io_ops_per_host` of its aggregates allows, else placement.max_io_ops (IoOpsFilter)."""

    name = "io_ops"

    def rule(self, request: Request) -> float:
        return float(request.rules.max_io_ops)


class AggregateServers(Limit):
    """Fewer servers than `max_instances_per_host` of its aggregates allows, the least of several (AggregateNumInstancesFilter)."""

    name, word, key = "aggregate_servers", "servers", MAX_SERVERS

    def of(self, counted: Any) -> Any:
        return counted.servers


class ServersLimit(AggregateServers):
    """Fewer servers than `max_instances_per_host` of its aggregates allows, else placement.max_servers (NumInstancesFilter)."""

    name = "servers_limit"

    def rule(self, request: Request) -> float:
        return float(request.rules.max_servers)


class Isolated:
    """Some images and some nodes are kept for each other (Nova's IsolatedHostsFilter).

        restricted      image isolated   other image       not restricted  image isolated   other image
        node isolated   passes           rejected          node isolated   passes           passes
        other node      rejected         passes            other node      rejected         passes
    """

    name = "isolated"
    steady = True

    def applies(self, request: Request) -> bool:
        return bool(request.rules.isolated_images or request.rules.isolated_nodes)

    def __call__(self, request: Request, node: NodeView) -> Reject | None:
        rules = request.rules
        image_isolated, node_isolated = request.image in rules.isolated_images, node.name in rules.isolated_nodes
        if image_isolated and not node_isolated:
            return Reject(self.name, f"isolated: image {request.image} is kept for other nodes")
        if node_isolated and not image_isolated and rules.restrict_isolated:
            return Reject(self.name, f"isolated: kept for other images than {request.image or 'none'}")
        return None


class Metrics:
    """It reports every metric that the settings weigh, where they say that it must (MetricsFilter)."""

    name = "metrics"
    steady = True

    def applies(self, request: Request) -> bool:
        return bool(request.rules.metrics) and request.rules.metrics_required

    def __call__(self, request: Request, node: NodeView) -> Reject | None:
        if not self.applies(request):
            return None
        missing = sorted(request.rules.metrics.keys() - node.metrics.keys())
        return Reject(self.name, f"metrics: its reports lack {', '.join(missing)}") if missing else None


aggregate_io_ops, io_ops, aggregate_servers, servers_limit = AggregateIoOps(), IoOps(), AggregateServers(), ServersLimit()
isolated, metrics = Isolated(), Metrics()
