"""Filter, weigh, decide; and tell it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from novactl.model.resources import spoken
from novactl.scheduler.filters import requested
from novactl.scheduler.profiles import DEFAULT, Profile
from novactl.scheduler.request import Candidate, Decision, NodeView, Reject, Request
from novactl.scheduler.weighers import normalise


def place(request: Request, nodes: Iterable[NodeView], profile: Profile = DEFAULT) -> Decision:
    """Decide for `request` among `nodes` (each id once).

    Every filter looks at every node, so that a node's reasons are all known. The answer does not depend on the order
    of `nodes`: equal scores go by id. Nothing is claimed.
    """
    ordered = sorted(nodes, key=lambda node: node.id)
    filters = (requested, *profile.filters)
    rejected: dict[str, tuple[Reject, ...]] = {}
    passed: list[NodeView] = []
    for node in ordered:
        rejects = [reject for check in filters if (reject := check(request, node))]
        if rejects:
            rejected[node.id] = tuple(rejects)
        else:
            passed.append(node)
    ranked = _rank(request, passed, profile)
    return Decision(
        request=request, chosen=ranked[0] if ranked else None, alternates=tuple(ranked[1:]), rejected=rejected,
        names={node.id: node.name for node in ordered}, profile=profile.name, looked_at=len(ordered), possible=len(ranked),
        counts=dict(Counter(reject.code for rejects in rejected.values() for reject in rejects)),
    )


def _rank(request: Request, nodes: list[NodeView], profile: Profile) -> list[Candidate]:
    """Best first. `nodes` are in the order of their ids, which the stable sort keeps among equals."""
    columns = [
        (weigher.name, [multiplier * value for value in normalise(
            [weigher(request, node) for node in nodes], weigher.minval, weigher.maxval)])
        for weigher, multiplier in profile.weighers
    ]
    ranked = []
    for row, node in enumerate(nodes):
        weights = {name: column[row] for name, column in columns}
        score = 0.0
        for value in weights.values():                        # not sum(): from Python 3.12 on that rounds otherwise than columns do
            score += value
        ranked.append(Candidate(node.id, score, weights))
    ranked.sort(key=lambda candidate: -candidate.score)
    return ranked


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


def rejection_lines(decision: Decision) -> tuple[str, ...]:
    """One line a rejected node, by name: 'n5: memory: needs …; zone: …'."""
    return tuple(f"{row.node}: {'; '.join(row.reasons)}" for row in explain_rows(decision) if row.verdict == "rejected")


def request_line(request: Request) -> str:
    """'server web1 (vcpu 4, memory 8.0 GiB, disk 20 GiB, x86_64, zone z1)'."""
    parts = [spoken(name, amount) for name, amount in request.amounts.items() if amount]
    parts += [request.architecture] if request.architecture else []
    parts += [f"zone {request.zone}"] if request.zone else []
    return f"server {request.server} ({', '.join(parts)})"


def summary_line(decision: Decision) -> str:
    """'6 nodes, 2 possible.'"""
    count = decision.looked_at
    return f"{count} node{'' if count == 1 else 's'}, {decision.possible} possible."


def _ordinal(number: int) -> str:
    suffix = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"
