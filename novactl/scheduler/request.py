"""What is asked of the scheduler, what it looks at, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from novactl.model.node import NodeState
from novactl.model.resources import Amounts, Inventory


@dataclass(frozen=True, kw_only=True)
class Request:
    """One server that needs a node.

    `server` is its name, for sentences. `zone` "" means any. `node` is the id of the only node that will do, ""
    means any; `exclude` maps ids of nodes that failed this operation before to how. `now` is seconds since the epoch; a
    report older than `fresh_s` is not believed. `seed` is all the chance there is.
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


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeView:
    """A node as the scheduler sees it. `used` are the claims; times are seconds since the epoch, None: never."""

    id: str
    name: str
    state: NodeState
    zone: str
    architecture: str
    inventories: Mapping[str, Inventory]
    used: Mapping[str, int]
    servers: int = 0
    reported_at: float | None = None
    silent_since: float | None = None
    reason: str = ""
    """Why it is disabled, in its admin's words."""
    labels: Mapping[str, str] = field(default_factory=dict)
    generation: int = 0
    agent_version: str = ""


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
    """The answer: the best node, the others in order, and for each rejected node every reason.

    Nodes are ids; `names` has the name of each. `chosen` is None when no node will do.
    """

    request: Request
    chosen: Candidate | None
    alternates: tuple[Candidate, ...]
    rejected: Mapping[str, tuple[Reject, ...]]
    names: Mapping[str, str]
    profile: str

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return (self.chosen, *self.alternates) if self.chosen else ()

    def to_plain(self) -> dict[str, Any]:
        """What JSON can hold, stored with the operation; back by `from_plain`."""
        request = self.request
        return {
            "request": {
                "server": request.server, "amounts": dict(request.amounts), "architecture": request.architecture,
                "zone": request.zone, "node": request.node, "exclude": dict(request.exclude), "now": request.now,
                "fresh_s": request.fresh_s, "seed": request.seed,
            },
            "candidates": [{"node": c.node, "score": c.score, "weights": dict(c.weights)} for c in self.candidates],
            "rejected": {
                node: [{"code": r.code, "text": r.text, "needs": dict(r.needs), "has": dict(r.has)} for r in rejects]
                for node, rejects in self.rejected.items()
            },
            "names": dict(self.names), "profile": self.profile,
        }

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> Decision:
        candidates = tuple(Candidate(**c) for c in plain["candidates"])
        return Decision(
            request=Request(**plain["request"]),
            chosen=candidates[0] if candidates else None,
            alternates=candidates[1:],
            rejected={node: tuple(Reject(**r) for r in rejects) for node, rejects in plain["rejected"].items()},
            names=dict(plain["names"]),
            profile=plain["profile"],
        )
