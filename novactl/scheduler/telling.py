"""A decision, in sentences and rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from novactl.model.resources import spoken
from novactl.scheduler.request import Decision, Request


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
