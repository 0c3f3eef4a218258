"""What an error means for the operation that met it, and what of it is kept in the journal."""

from __future__ import annotations

import enum
import traceback
from collections.abc import Iterator

from novactl.agents import wire
from novactl.cluster import Cluster
from novactl.db import operations
from novactl.db.statements import Tx
from novactl.errors import AgentRefused, NovaError
from novactl.model.operation import OperationState

TRACE_CHARS = 8000
LINE_CHARS = 300
OUTAGE_S = 30.0
LATER_S = 300.0
"""What failed by itself (a server not evacuated, or not started after a boot; a node not fenced) is tried again after so long."""
ABANDONED = NovaError("the process that ran it died")


class Verdict(enum.Enum):
    """HERE: the same may succeed in a moment, where it failed. ELSEWHERE: on another node. STOP: neither."""

    HERE = "here"
    ELSEWHERE = "elsewhere"
    STOP = "stop"


_NOT_SOON = frozenset({wire.Code.NO_SPACE})
"""Refusals that pass, but not by waiting for seconds."""


def verdict(error: BaseException) -> Verdict:
    """A silent node is not tried again: its call has waited and asked again for as long as its method allows."""
    if not isinstance(error, NovaError):
        return Verdict.STOP
    soon = not (isinstance(error, AgentRefused) and error.details.get("code") in _NOT_SOON)
    if error.retryable and soon:
        return Verdict.HERE
    return Verdict.ELSEWHERE if error.elsewhere else Verdict.STOP


def waits(cluster: Cluster, seed: str) -> Iterator[float]:
    """Seconds to wait before each further try: doubling, a quarter more or less by `seed`, so that many do not try at once."""
    import random

    chance, wait_s = random.Random(seed), cluster.config["operation.retry_s"]
    for _ in range(cluster.config["operation.retries"]):
        yield wait_s * chance.uniform(0.75, 1.25)
        wait_s *= 2


def failed_lately(tx: Tx, object_id: str, kind: str, now: float) -> bool:
    """Whether the last operation of that kind on an object failed a short while ago; one whose process died did not fail."""
    last = operations.last_of(tx, object_id, kind)
    return (last is not None and last.ended_at is not None and last.state is not OperationState.OK
            and (last.error or {}).get("message") != ABANDONED.message and now - last.ended_at < LATER_S)


def outage(cluster: Cluster) -> Iterator[float]:
    """Seconds to wait before each further try at a database that is gone: its server may be starting again. What an operation writes
    is fenced, and can be written again."""
    until, wait_s = cluster.clock.monotonic() + OUTAGE_S, 0.25
    while cluster.clock.monotonic() < until:
        yield wait_s
        wait_s = min(2.0, wait_s * 2)


def as_error(crash: Exception) -> NovaError:
    """An error of ours for whatever was raised."""
    return crash if isinstance(crash, NovaError) else NovaError(f"{type(crash).__name__}: {crash}")


def trace_of(error: BaseException) -> str:
    """Where it came from, causes first; "" for an error that was not raised here. At most TRACE_CHARS, the end of it.

    Neither variables nor what follows the first line of a message: there databases repeat the values they were given.
    """
    parts: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(parts) < 10:
        if cause.__traceback__ is not None:
            said = str(cause).partition("\n")[0][:LINE_CHARS]
            parts.append("".join(traceback.format_tb(cause.__traceback__)) + f"{type(cause).__name__}: {said}\n")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\n".join(reversed(parts))[-TRACE_CHARS:]
