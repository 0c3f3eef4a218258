"""Whether a node takes servers now, and whether the request will have it."""

from __future__ import annotations

from typing import Any

from novactl.model.node import NodeState
from novactl.model.units import human_seconds
from novactl.scheduler.fleet import Fleet
from novactl.scheduler.request import NodeView, Reject, Request


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
            return Reject(self.name, request.exclude[node.id])
        return None

    def applies(self, request: Request) -> bool:
        return bool(request.node or request.exclude)

    def columns(self, request: Request, fleet: Fleet) -> Any:
        mask = fleet.only(request.exclude, inside=False)
        return mask & fleet.only([request.node]) if request.node else mask


class Enabled:
    """Its admin lets it take servers, and it would not stop them at once (with Alive and Fresh: Nova's ComputeFilter)."""

    name = "enabled"

    def __call__(self, request: Request, node: NodeView) -> Reject | None:
        if node.state is NodeState.ENABLED:
            if node.lease_until is None or node.lease_until > request.now:
                return None
            return Reject(self.name, "lease: fences itself and has no lease, novactl conductor run")
        since = "" if node.state_since is None else f" for {human_seconds(max(0.0, request.now - node.state_since))}"
        by = f" by {node.state_by}" if node.state_by else ""
        why = f' ("{node.reason}")' if node.reason else ""
        return Reject(self.name, f"state: {node.state.value}{since}{by}{why}")

    def columns(self, request: Request, fleet: Fleet) -> Any:
        if fleet.lease_until is None:
            return fleet.enabled
        leased = fleet.lease_until > request.now
        return leased if fleet.enabled is None else fleet.enabled & leased


class Alive:
    """The last call to its agent was answered."""

    name = "alive"

    def __call__(self, request: Request, node: NodeView) -> Reject | None:
        if node.silent_since is None:
            return None
        return Reject(self.name, f"agent: has not answered for {human_seconds(max(0.0, request.now - node.silent_since))}")

    def columns(self, request: Request, fleet: Fleet) -> Any:
        return fleet.alive


class Fresh:
    """Its last report is at most `placement.fresh_s` old, so that what it says of itself is believed."""

    name = "fresh"

    def __call__(self, request: Request, node: NodeView) -> Reject | None:
        if node.reported_at is None:
            return Reject(self.name, "report: has never sent one")
        age_s = request.now - node.reported_at
        if age_s <= request.fresh_s:
            return None
        return Reject(self.name, f"report: {human_seconds(age_s)} old, at most {human_seconds(request.fresh_s)}")

    def columns(self, request: Request, fleet: Fleet) -> Any:
        if request.now - fleet.oldest <= request.fresh_s:
            return None
        return request.now - fleet.reported_at <= request.fresh_s


requested, enabled, alive, fresh = Requested(), Enabled(), Alive(), Fresh()
