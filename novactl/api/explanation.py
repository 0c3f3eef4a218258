"""A decision, told to people."""

from __future__ import annotations

from dataclasses import dataclass

from novactl.scheduler.request import Decision
from novactl.scheduler.telling import ExplainRow, explain_rows, request_line, summary_line


@dataclass(frozen=True)
class Explanation:
    """Every node with its verdict. `operation` is "" for a question that changed nothing."""

    request: str
    rows: tuple[ExplainRow, ...]
    summary: str
    decided_at: float
    operation: str


def explained(decision: Decision, *, operation: str = "") -> Explanation:
    request = decision.request
    return Explanation(request_line(request), explain_rows(decision), summary_line(decision), request.now, operation)
