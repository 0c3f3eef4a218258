"""A decision, in sentences and rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from novactl.model.resources import spoken
from novactl.scheduler.request import Decision, Request

MAX_LINES = 40
"""Nodes that an error names one by one."""


@dataclass(frozen=True)
class ExplainRow:
    """One node of a decision, for people. `verdict` is chosen, 2nd, 3rd, … or rejected; `score` None when rejected."""

    node: str
    verdict: str
    reasons: tuple[str, ...]
    weights: Mapping[str, float]
    score: float | None


def explain_rows(decision: Decision) -> tuple[ExplainRow, ...]:
    """Every node: the candidates best first, then the rejected by name."""
    names = decision.names
    taken = [
        ExplainRow(names[c.node], "chosen" if rank == 1 else _ordinal(rank), (), c.weights, c.score)
        for rank, c in enumerate(decision.candidates, 1)
    ]
    refused = [
        ExplainRow(names[node], "rejected", tuple(r.text for r in rejects), {}, None)
        for node, rejects in decision.rejected.items()
    ]
    return (*taken, *sorted(refused, key=lambda row: row.node))


def rejection_lines(decision: Decision, limit: int = MAX_LINES) -> tuple[str, ...]:
    """One line a rejected node, by name: 'n5: memory: needs …; zone: …'. Of more than `limit` the nearest misses, and how many others."""
    told = decision.rejected
    rest = decision.looked_at - decision.possible - min(len(told), limit)
    if len(told) > limit:
        told = {node: told[node] for node in sorted(told, key=lambda node: _distance(decision, node))[:limit]}
    lines = sorted(f"{decision.names[node]}: {'; '.join(r.text for r in rejects)}" for node, rejects in told.items())
    if rest > 0:
        counted = ", ".join(f"{name} {count}" for name, count in sorted(decision.counts.items(), key=lambda pair: (-pair[1], pair[0])))
        lines.append(f"… and {rest} more. Nodes that each filter rejected: {counted}")
    return tuple(lines)


def nearest_miss(decision: Decision) -> str | None:
    """The id of the rejected node that lacked least: fewest reasons, then the smallest share of what was asked; None without any."""
    return min(decision.rejected, key=lambda node: _distance(decision, node), default=None)


def shortened(decision: Decision, limit: int) -> Decision:
    """The decision with at most `limit` candidates and the `limit` nearest misses, to be stored or sent; the totals stay."""
    if len(decision.candidates) <= limit and len(decision.rejected) <= limit:
        return decision
    near = sorted(decision.rejected, key=lambda node: _distance(decision, node))[:limit]
    rejected = {node: decision.rejected[node] for node in near}
    alternates = decision.alternates[:limit - 1]
    spoken_of = {*rejected, *(candidate.node for candidate in (*decision.candidates[:1], *alternates))}
    return dataclasses.replace(
        decision, alternates=alternates, rejected=rejected,
        names={node: name for node, name in decision.names.items() if node in spoken_of})


def _distance(decision: Decision, node: str) -> tuple[Any, ...]:
    rejects = decision.rejected[node]
    numbers = [(reject.needs, reject.has) for reject in rejects if reject.needs]
    worst = max(((needs[name] - has.get(name, 0)) / needs[name] for needs, has in numbers for name in needs if needs[name]), default=1.0)
    return len(rejects), worst, decision.names.get(node, ""), node


def request_line(request: Request) -> str:
    """'server web1 (vcpu 4, memory 8.0 GiB, disk 20 GiB, x86_64, zone z1, anti-affinity group web)'."""
    parts = [spoken(name, amount) for name, amount in request.amounts.items() if amount]
    parts += [request.architecture] if request.architecture else []
    parts += [f"zone {request.zone}"] if request.zone else []
    parts += [f"{request.group.policy.value} group {request.group.name}"] if request.group else []
    wants = request.wants
    parts += [*sorted(wants.required), *(f"not {trait}" for trait in sorted(wants.forbidden))]
    parts += [f"{key}={value}" for key, value in {**wants.specs, **wants.properties}.items()]
    parts += [f"{count} x {alias}" for alias, count in wants.pci]
    parts += [f"spread by {wants.spread_by}"] if wants.spread_by else []
    parts += [f"near {wants.near}"] if wants.near else []
    parts += [f"query {wants.query}"] if wants.query else []
    for hint, ids in (("with", wants.same_host), ("apart from", wants.different_host)):
        parts += [f"{hint} {', '.join(request.peers[id_].name if id_ in request.peers else id_ for id_ in ids)}"] if ids else []
    return f"server {request.server} ({', '.join(parts)})"


def summary_line(decision: Decision) -> str:
    """'6 nodes, 2 possible.', and where none is, the nearest miss."""
    count = decision.looked_at
    line = f"{count} node{'' if count == 1 else 's'}, {decision.possible} possible."
    missed = None if decision.possible or count < 2 else nearest_miss(decision)
    if missed is None:
        return line
    return f"{line} Nearest miss: {decision.names[missed]}, {'; '.join(reject.text for reject in decision.rejected[missed])}."


def _ordinal(number: int) -> str:
    suffix = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"
