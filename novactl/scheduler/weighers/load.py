"""What a node has to do, how that went, and what chance says."""

from __future__ import annotations

from typing import Any
from zlib import crc32

from novactl.model.resources import VCPU
from novactl.scheduler import physical
from novactl.scheduler.fleet import Fleet
from novactl.scheduler.request import NodeView, Request


class Servers:
    """How many servers it has (Nova's NumInstancesWeigher)."""

    name = "servers"
    minval: float | None = None
    maxval: float | None = None
    multiplier_key = "num_instances_weight_multiplier"

    def __call__(self, request: Request, node: NodeView) -> float:
        return float(node.servers)

    def columns(self, request: Request, fleet: Fleet) -> Any:
        return fleet.servers


class IoOps:
    """How many operations are under way on it (Nova's IoOpsWeigher)."""

    name = "io_ops"
    minval: float | None = 0.0
    maxval: float | None = None
    multiplier_key = "io_ops_weight_multiplier"

    def __call__(self, request: Request, node: NodeView) -> float:
        return float(node.building)

    def columns(self, request: Request, fleet: Fleet) -> Any:
        return fleet.building


class Failures:
    """How many creations failed on it since the last that did not, ten at most.

    The scale is fixed: each failure weighs a tenth of the multiplier. Nova's BuildFailureWeigher brings the worst node to 1 and
    weighs it 1000000, so that one failure anywhere puts that host behind all others.
    """

    name = "failures"
    multiplier_key, negated = "build_failure_weight_multiplier", True
    minval: float | None = 0.0
    maxval: float | None = 10.0

    def __call__(self, request: Request, node: NodeView) -> float:
        return float(node.failed_builds)

    def columns(self, request: Request, fleet: Fleet) -> Any:
        return fleet.failed_builds if fleet.any_failed else 0.0


class Load:
    """The idle share of its CPUs by the last report: 1 - load of one minute per CPU. Not known counts as none idle."""

    name = "load"
    minval: float | None = 0.0
    maxval: float | None = 1.0
    multiplier_key = "load_weight_multiplier"

    def __call__(self, request: Request, node: NodeView) -> float:
        load, cpus = node.metrics.get("load_1m"), physical.total(node, VCPU)
        return 0.0 if load is None or cpus <= 0 else 1.0 - load / cpus


NO_METRIC = -10_000.0
"""What a node weighs that does not report every metric (Nova's weight_of_unavailable)."""


class Metrics:
    """The sum of the metrics in the settings, each times what a unit of it weighs (Nova's MetricsWeigher)."""

    name = "metrics"
    minval: float | None = None
    maxval: float | None = None
    multiplier_key = "metrics_weight_multiplier"

    def applies(self, request: Request) -> bool:
        return bool(request.rules.metrics)

    def __call__(self, request: Request, node: NodeView) -> float:
        total = 0.0
        for name, unit_weight in request.rules.metrics.items():
            value = node.metrics.get(name)
            if value is None:
                return NO_METRIC
            total += value * unit_weight
        return total


class Chance:
    """A number of [0, 1) that depends on `request.seed`, the server and the node alone."""

    name = "chance"
    minval: float | None = 0.0
    maxval: float | None = 1.0

    def __call__(self, request: Request, node: NodeView) -> float:
        return _chance(request, node.id)

    def columns(self, request: Request, fleet: Fleet) -> Any:
        return fleet.xp.asarray([_chance(request, node_id) for node_id in fleet.ids])


def _chance(request: Request, node_id: str) -> float:
    return crc32(f"{request.seed}/{request.server}/{node_id}".encode()) / 2**32


servers, io_ops, failures, load, metrics, chance = Servers(), IoOps(), Failures(), Load(), Metrics(), Chance()
