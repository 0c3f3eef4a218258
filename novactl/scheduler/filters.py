"""Filters: does this node do, and if not, why. One class each; all of them look at every node.

Adding one is a class here, a row in FILTERS and its entry point in pyproject.toml; a plug-in's come by the entry
point alone (`novactl.filters`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from novactl.model.node import NodeState
from novactl.model.resources import shortage
from novactl.model.units import human_seconds
from novactl.scheduler.request import NodeView, Reject, Request


class Filter(Protocol):
    """None: the node will do, as far as this filter can tell. Looks at nothing but its arguments."""

    name: str

    def __call__(self, request: Request, node: NodeView) -> Reject | None: ...


class Requested:
    """The request's own word: only `request.node` where it names one, and none of `request.exclude`.

    Not part of a profile: it always applies. (Nova's force_hosts skips every filter; ours are asked all the same,
    because a forced node that is full is still full.)
    """

    name = "requested"

    def __call__(self, request: Request, node: NodeView) -> Reject | None:
        if request.node and node.id != request.node:
            return Reject(self.name, "another node was asked for")
        if node.id in request.exclude:
            return Reject(self.name, f"was tried and failed: {request.exclude[node.id]}")
        return None


class Enabled:
    name = "enabled"

    def __call__(self, request: Request, node: NodeView) -> Reject | None:
        if node.state is NodeState.ENABLED:
            return None
        why = f' ("{node.reason}")' if node.reason else ""
        return Reject(self.name, f"state: {node.state.value}{why}")


class Alive:
    """The last call to its agent was answered."""

    name = "alive"

    def __call__(self, request: Request, node: NodeView) -> Reject | None:
        if node.silent_since is None:
            return None
        return Reject(self.name, f"agent: has not answered for {human_seconds(max(0.0, request.now - node.silent_since))}")


class Fresh:
    """Its report is at most `request.fresh_s` old, so that what it says of itself is believed."""

    name = "fresh"

    def __call__(self, request: Request, node: NodeView) -> Reject | None:
        if node.reported_at is None:
            return Reject(self.name, "report: has never sent one")
        age_s = request.now - node.reported_at
        if age_s <= request.fresh_s:
            return None
        return Reject(self.name, f"report: {human_seconds(age_s)} old, at most {human_seconds(request.fresh_s)}")


class Resources:
    """Every amount fits by the capacity rule of model.resources; all that do not are named."""

    name = "resources"

    def __call__(self, request: Request, node: NodeView) -> Reject | None:
        inventories, used = node.inventories, node.used
        short = [
            found for name, amount in request.amounts.items()
            if (found := shortage(inventories.get(name), name, used.get(name, 0), amount))
        ]
        if not short:
            return None
        return Reject(
            self.name, "; ".join(s.text for s in short),
            needs={s.resource_class: s.needs for s in short}, has={s.resource_class: s.free for s in short},
        )


class Architecture:
    name = "architecture"

    def __call__(self, request: Request, node: NodeView) -> Reject | None:
        if request.architecture == node.architecture:
            return None
        return Reject(self.name, f"architecture: needs {request.architecture}, is {node.architecture or 'unknown'}")


class Zone:
    name = "zone"

    def __call__(self, request: Request, node: NodeView) -> Reject | None:
        if not request.zone or request.zone == node.zone:
            return None
        return Reject(self.name, f"zone: needs {request.zone}, is in {node.zone or 'none'}")


requested = Requested()
enabled, alive, fresh, resources, architecture, zone = Enabled(), Alive(), Fresh(), Resources(), Architecture(), Zone()

FILTERS: Mapping[str, Filter] = {f.name: f for f in (enabled, alive, fresh, resources, architecture, zone)}
