"""Ending what a dead process began. Any command may do it; the epoch lets only one of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from novactl.cluster import Cluster
from novactl.conductor.progress import Watch, unwatched
from novactl.conductor.saga import Driver, Saga, busy, owned_by_the_living, taken
from novactl.conductor.sagas import SAGAS
from novactl.db import nodes, operations
from novactl.errors import Conflict, NotFound, NovaError, Superseded
from novactl.model.operation import Operation, OperationState, OperationStep, StepState

ABANDONED = NovaError("the process that ran it died")


PROBE_S = 0.3
"""What the node of a stuck operation gets to show that trying again is worth it."""


def recover(cluster: Cluster, *, budget_s: float = 10.0, watch: Watch = unwatched) -> tuple[tuple[Operation, NovaError | None], ...]:
    """End every operation that nobody drives any more, oldest first, while `budget_s` lasts: each with the error that
    keeps it from ending.

    A stuck one is tried when the node it waits for answers again, or, where it waits for something else, once a lease's
    length; otherwise the error it is stuck with stands.
    """
    now = cluster.clock.now()
    with cluster.db.read() as tx:
        left = [op for op in operations.recent(tx, ended=False) if not owned_by_the_living(op, now)]
    hopeless = _hopeless(cluster, [op for op in left if op.state is OperationState.STUCK], now)
    found: list[tuple[Operation, NovaError | None]] = [
        (op, NovaError.from_dict(op.error or ABANDONED.as_dict())) for op in left if op.id in hopeless]
    deadline = cluster.clock.monotonic() + budget_s
    for operation in reversed([op for op in left if op.id not in hopeless]):
        if cluster.clock.monotonic() > deadline:
            break
        try:
            found.append((_ended(cluster, operation, watch), None))
        except Superseded:
            continue                                          # another command was faster
        except NovaError as error:
            found.append((operation, error))
    return tuple(found)


def _hopeless(cluster: Cluster, stuck: list[Operation], now: float) -> set[str]:
    """Ids of the stuck operations that trying again would not end."""
    if not stuck:
        return set()
    with cluster.db.read() as tx:
        places = {op.id: nodes.by_id(tx, op.record.get("node") or "") for op in stuck}
    there = {node.id: node for node in places.values() if node is not None and node.address}
    answers = cluster.agents.fan_out(list(there.values()), "agent.ping", timeout_s=PROBE_S) if there else {}
    return {
        op.id for op in stuck
        if (isinstance(answers[place.id], NovaError) if (place := places[op.id]) and place.id in answers else op.lease_until > now)
    }


def _ended(cluster: Cluster, operation: Operation, watch: Watch) -> Operation:
    """Drive an abandoned operation the way its saga says. Raises when it cannot be ended now; being undone is an end."""
    saga = SAGAS[operation.kind]
    driver = _take(cluster, saga, operation, forward=saga.resumes or None, watch=watch)
    try:
        driver.drive()
    except NovaError:
        ended = find(cluster, operation.id)
        if not ended.state.ended:
            raise
        return ended
    return find(cluster, operation.id)


def resume(
    cluster: Cluster, operation_id: str, *, forward: bool = True, watch: Watch = unwatched, extras: Mapping[str, Any] | None = None,
) -> Operation:
    """Take the operation over and end it: forward, or back with `forward=False`.

    Raises Busy while its owner lives, Conflict when it has ended or can only go forward, and what the saga raises.
    """
    operation = find(cluster, operation_id)
    if operation.state.ended:
        raise Conflict(
            f"operation {operation.id[:8]} has ended: {operation.state.value}", command=f"novactl operation show {operation.id[:8]}")
    driver = _take(cluster, SAGAS[operation.kind], operation, forward=forward, watch=watch, extras=extras)
    try:
        driver.drive()
    except NovaError:
        if forward or find(cluster, operation.id).state is not OperationState.FAILED:
            raise
    return find(cluster, operation.id)


def find(cluster: Cluster, operation_id: str) -> Operation:
    with cluster.db.read() as tx:
        found = operations.by_id(tx, operation_id)
    if found is None:
        raise NotFound("operation", operation_id)
    return found


def _take(
    cluster: Cluster, saga: Saga[Any], operation: Operation, *, forward: bool | None, watch: Watch, extras: Mapping[str, Any] | None = None,
) -> Driver[Any]:
    """`forward` None: back where that is possible, else forward."""
    now = cluster.clock.now()
    with cluster.db.write() as tx:
        fresh = operations.by_id(tx, operation.id)
        if fresh is None or fresh.state.ended:
            raise operations.superseded(operation)
        if owned_by_the_living(fresh, now) and fresh.owner:
            raise busy(cluster, fresh)
        steps = operations.steps(tx, fresh.id)
        state = _direction(saga, fresh, steps, forward)
        took = taken(cluster, tx, fresh, state)
        if state is OperationState.UNWINDING and took.error is None:
            operations.write(tx, took := dataclasses.replace(took, error=ABANDONED.as_dict()))
    return Driver(cluster, saga, took, watch, extras)


def _direction(saga: Saga[Any], operation: Operation, steps: tuple[OperationStep, ...], forward: bool | None) -> OperationState:
    """Past the point of no return there is only forward; once turned back (or stuck turning) only back."""
    here = [step for step in steps if step.attempt == operation.attempt]
    newest = max((step.position for step in here), default=-1)
    if saga.no_way_back(newest):
        if forward is False:
            raise Conflict(
                f"operation {operation.id[:8]} ({operation.kind}) is past the point where it can be undone",
                command=f"novactl operation resume {operation.id[:8]}")
        return OperationState.RUNNING
    turned = operation.state is OperationState.UNWINDING or any(step.state is StepState.UNDONE for step in here)
    if turned or operation.state is OperationState.STUCK or not forward:
        return OperationState.UNWINDING
    return OperationState.RUNNING
