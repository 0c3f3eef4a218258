"""What is asked of the scheduler, what it looks at, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from novactl.model.facts import Facts
from novactl.model.group import Policy
from novactl.model.node import NodeState
from novactl.model.project import DEFAULT_PROJECT
from novactl.model.resources import Amounts, Inventory
from novactl.model.topology import Fitting, Hardware
from novactl.model.wants import NOTHING_SPECIAL, Wants


@dataclass(frozen=True)
class Peer:
    """Another server, where a request speaks of one. `node` is "" while it has none."""

    id: str
    name: str
    node: str


@dataclass(frozen=True, kw_only=True)
class GroupView:
    """The request's server group with the members it has by now, this server not among them.

    A member's domain is its node, or with a `scope` the value of that label of its node ("" where the node has none).
    """

    name: str
    policy: Policy
    scope: str = ""
    max_per_domain: int = 1
    members: tuple[Peer, ...] = ()
    domains: Mapping[str, str] = field(default_factory=dict)
    """With a scope: node id -> domain, of the nodes that have members."""

    def domain(self, node: NodeView) -> str:
        return node.facts.labels.get(self.scope, "") if self.scope else node.id

    def domain_of(self, member: Peer) -> str:
        """"" for one without a node, too."""
        return self.domains.get(member.node, "") if self.scope else member.node

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """Domain -> members there."""
        found: dict[str, int] = {}
        for member in self.members:
            if member.node:
                domain = self.domain_of(member)
                found[domain] = found.get(domain, 0) + 1
        return found


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The settings that filters and weighers read: the same for every request of a cluster.

    `isolated_images` and `isolated_nodes` are names (`restrict_isolated`: isolated nodes take those images only).
    `metrics` maps a metric (one of novactl.model.node.METRICS) to what one unit of it weighs; `image_properties` likewise.
    `pci_aliases` maps an alias to (vendor id, product id).
    """

    max_servers: int = 50
    max_io_ops: int = 8
    isolated_images: frozenset[str] = frozenset()
    isolated_nodes: frozenset[str] = frozenset()
    restrict_isolated: bool = True
    metrics: Mapping[str, float] = field(default_factory=dict)
    metrics_required: bool = True
    image_properties: Mapping[str, float] = field(default_factory=dict)
    pci_aliases: Mapping[str, tuple[str, str]] = field(default_factory=dict)


STANDARD_RULES = Rules()


@dataclass(frozen=True, kw_only=True)
class Request:
    """One server that needs a node.

    `server` is its name, for sentences. `zone` "" means any. `node` is the id of the only node that will do, ""
    means any; `exclude` maps ids of nodes that are left out to why. `now` is seconds since the epoch; a
    report older than `fresh_s` is not believed. `seed` is all the chance there is. `flavor` and `image` are names.
    `peers` are the servers that `wants.same_host` and `wants.different_host` name.
    """

    server: str
    amounts: Amounts
    architecture: str
    zone: str = ""
    node: str = ""
    exclude: Mapping[str, str] = field(default_factory=dict)
    now: float = 0.0
    fresh_s: float = 60.0
    seed: int = 0
    project: str = DEFAULT_PROJECT
    flavor: str = ""
    image: str = ""
    wants: Wants = NOTHING_SPECIAL
    group: GroupView | None = None
    spread: GroupView | None = None
    """With `wants.spread_by`: the servers it is spread among (its group's, else its batch's), that label being their scope."""
    peers: Mapping[str, Peer] = field(default_factory=dict)
    rules: Rules = STANDARD_RULES


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeView:
    """A node as the scheduler sees it. `used` are the claims; times are seconds since the epoch, None: never.

    `building` counts the operations under way on it, `failed_builds` the creations that failed there since the last that
    did not. `metrics` has what its last report measured, by the names of METRICS. `address` is the agent's endpoint (tcp://host:port).
    `hardware` and `fittings` (one a server that was fitted) are there when the request asks for pieces of a host, `images`
    (server id -> its image's properties, of the servers it has) when image properties are weighed; else None.
    """

    id: str
    name: str
    state: NodeState
    facts: Facts
    inventories: Mapping[str, Inventory]
    used: Mapping[str, int]
    servers: int = 0
    reported_at: float | None = None
    silent_since: float | None = None
    reason: str = ""
    """Why it is disabled, in its admin's words."""
    state_since: float | None = None
    state_by: str = ""
    """When `state` was last changed, and by whom."""
    lease_until: float | None = None
    """Until then its agent, which fences itself, runs servers unless it hears of a longer lease; None: it does not fence itself."""
    generation: int = 0
    agent_version: str = ""
    building: int = 0
    failed_builds: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    address: str = ""
    shared_disk: str = ""
    """The pool that its DISK_GB belongs to together with other nodes; "" when the disk is its own."""
    hardware: Hardware | None = None
    fittings: Sequence[Fitting] | None = None
    images: Mapping[str, Mapping[str, str]] | None = None


@dataclass(frozen=True)
class Reject:
    """Why a node will not do: the filter's name, a sentence, and its numbers where it has any."""

    code: str
    text: str
    needs: Mapping[str, int] = field(default_factory=dict)
    has: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """A node that will do. `weights` are the weighers' parts (normalised, times multiplier); `score` is their sum."""

    node: str
    score: float
    weights: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The answer: the best node, the others in order, and for the rejected nodes every reason.

    Nodes are ids; `names` has the name of each that is spoken of. `chosen` is None when no node will do. `looked_at` nodes
    were looked at and `possible` of them will do: of a large fleet `alternates` and `rejected` may hold the nearest only.
    `counts` says how many nodes each filter rejected (a node may be in several counts).
    """

    request: Request
    chosen: Candidate | None
    alternates: tuple[Candidate, ...]
    rejected: Mapping[str, tuple[Reject, ...]]
    names: Mapping[str, str]
    profile: str
    looked_at: int
    possible: int
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return (self.chosen, *self.alternates) if self.chosen else ()

    def to_plain(self) -> dict[str, Any]:
        """What JSON can hold, stored with the operation; back by `from_plain`. Settings and the group's members are left out."""
        return {
            "request": _request_to_plain(self.request),
            "candidates": [{"node": c.node, "score": c.score, "weights": dict(c.weights)} for c in self.candidates],
            "rejected": {
                node: [{"code": r.code, "text": r.text, "needs": dict(r.needs), "has": dict(r.has)} for r in rejects]
                for node, rejects in self.rejected.items()
            },
            "names": dict(self.names), "profile": self.profile, "looked_at": self.looked_at, "possible": self.possible,
            "counts": dict(self.counts),
        }

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> Decision:
        candidates = tuple(Candidate(**c) for c in plain["candidates"])
        return Decision(
            request=_request_from_plain(plain["request"]),
            chosen=candidates[0] if candidates else None,
            alternates=candidates[1:],
            rejected={node: tuple(Reject(**r) for r in rejects) for node, rejects in plain["rejected"].items()},
            names=dict(plain["names"]),
            profile=plain["profile"],
            looked_at=plain.get("looked_at", len(plain["names"])),
            possible=plain.get("possible", len(candidates)),
            counts=plain.get("counts", {}),
        )


_KEPT = ("server", "architecture", "zone", "node", "now", "fresh_s", "seed", "project", "flavor", "image")


def _request_to_plain(request: Request) -> dict[str, Any]:
    plain: dict[str, Any] = {name: getattr(request, name) for name in _KEPT}
    plain |= {"amounts": dict(request.amounts), "exclude": dict(request.exclude), "wants": request.wants.to_plain()}
    if request.group:
        plain["group"] = {"name": request.group.name, "policy": request.group.policy.value, "scope": request.group.scope}
    return plain


def _request_from_plain(plain: Mapping[str, Any]) -> Request:
    given = dict(plain)
    given["wants"] = Wants.from_plain(given.get("wants", {}))
    group = given.get("group")
    given["group"] = GroupView(name=group["name"], policy=Policy(group["policy"]), scope=group["scope"]) if group else None
    return Request(**given)
