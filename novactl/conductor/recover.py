"""Ending what a dead process began. Any command may do it; the epoch lets only one of them."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from novactl.agents import wire
from novactl.cluster import Cluster
from novactl.conductor.background import let_go
from novactl.conductor.history import note_taken
from novactl.conductor.progress import Watch, unwatched
from novactl.conductor.saga import Driver, Run, Saga, busy, deadline_of, late, overdue, owned_by_the_living, taken
from novactl.conductor.sagas import SAGAS
from novactl.db import nodes, operations
from novactl.errors import Conflict, NotFound, NovaError, Superseded, WaitTimeout
from novactl.model.operation import Operation, OperationState, OperationStep, StepState

ABANDONED = NovaError("the process that ran it died")
PROBE_S = 0.3
"""What the node of a stuck operation gets to show that trying again is worth it."""


def recover(cluster: Cluster, *, budget_s: float = 10.0) -> tuple[tuple[Operation, NovaError | None], ...]:
    """End every operation that nobody drives any more, oldest first: each with the error that keeps it from ending.

    What is not done after `budget_s` goes on in a process of its own. A stuck operation is tried when the node it waits
    for answers again, or, where it waits for something else, once a lease's length; otherwise its error stands.
    """
    now = cluster.clock.now()
    with cluster.db.read() as tx:
        left = [op for op in reversed(operations.recent(tx, ended=False)) if not owned_by_the_living(op, now)]
    hopeless = _hopeless(cluster, [op for op in left if op.state is OperationState.STUCK], now)
    found: list[tuple[Operation, NovaError | None]] = [
        (op, NovaError.from_dict(op.error or ABANDONED.as_dict())) for op in left if op.id in hopeless]
    todo, done = [op for op in left if op.id not in hopeless], list[tuple[Operation, NovaError | None]]()
    worker = threading.Thread(target=_end_all, args=(cluster, todo, done), name="recover", daemon=True)
    worker.start()
    worker.join(budget_s)
    done = list(done)
    if worker.is_alive():
        late = [op for op in todo if op.id not in {ended.id for ended, _ in done}]
        let_go(cluster, [op.id for op in late])
        done += [(op, WaitTimeout("it goes on in the background")) for op in late]
    return (*found, *done)


def _end_all(cluster: Cluster, todo: Sequence[Operation], done: list[tuple[Operation, NovaError | None]]) -> None:
    for operation in todo:
        try:
            done.append((_ended(cluster, operation), None))
        except Superseded:
            continue                                          # another command was faster, or this one let go
        except NovaError as error:
            done.append((operation, error))
    cluster.db.close()


def _hopeless(cluster: Cluster, stuck: list[Operation], now: float) -> set[str]:
    """Ids of the stuck operations that trying again would not end."""
    if not stuck:
        return set()
    with cluster.db.read() as tx:
        places = {op.id: nodes.by_id(tx, op.record.get("node") or "") for op in stuck}
    there = {node.id: node for node in places.values() if node is not None and node.address}
    answers = cluster.agents.fan_out(list(there.values()), "agent.ping", timeout_s=PROBE_S) if there else {}

    def in_vain(operation: Operation) -> bool:
        node = places[operation.id]
        if node is None or node.id not in answers:
            return operation.lease_until > now
        return isinstance(answers[node.id], NovaError)

    return {operation.id for operation in stuck if in_vain(operation)}


def _ended(cluster: Cluster, operation: Operation) -> Operation:
    """Drive an abandoned operation the way its saga says, or back when its time is over. Raises when it cannot be ended now;
    being undone is an end."""
    goes_on = SAGAS[operation.kind].resumes and not overdue(operation, cluster.clock.now())
    driver = take_over(cluster, operation, forward=goes_on or None)
    try:
        driver.drive()
    except NovaError:
        ended = find(cluster, operation.id)
        if not ended.state.ended:
            raise
        return ended
    return find(cluster, operation.id)


def resume(cluster: Cluster, driver: Driver[Any], *, forward: bool = True) -> Operation:
    """End an operation that was taken over. Raises what the saga raises; with `forward=False` being undone is success."""
    id_ = driver.run.operation.id
    try:
        driver.drive()
    except NovaError:
        if forward or find(cluster, id_).state is not OperationState.FAILED:
            raise
    return find(cluster, id_)


def find(cluster: Cluster, operation_id: str) -> Operation:
    with cluster.db.read() as tx:
        found = operations.by_id(tx, operation_id)
    if found is None:
        raise NotFound("operation", operation_id)
    return found


def take_over(
    cluster: Cluster, operation: Operation, *, forward: bool | None, watch: Watch = unwatched, extras: Mapping[str, Any] | None = None,
    because: NovaError | None = None,
) -> Driver[Any]:
    """Become the owner, to go on (`forward`), to undo (False), or (None) to undo where that is possible and else go on.

    With `because`, which it then ends with, it is taken from an owner that lives, too; else that raises Busy, until the
    operation's time is over. Raises Conflict when it has ended or can only go forward, Superseded in a lost race.
    """
    saga = SAGAS[operation.kind]
    with cluster.db.write() as tx:
        fresh = operations.by_id(tx, operation.id) or operation
        short = fresh.id[:8]
        if fresh.state.ended:
            raise Conflict(f"operation {short} has ended: {fresh.state.value}", command=f"novactl operation show {short}")
        now = cluster.clock.now()
        if because is None and fresh.owner and owned_by_the_living(fresh, now):
            raise busy(cluster, fresh)
        state, attempt = _direction(saga, fresh, operations.steps(tx, fresh.id), forward)
        deadline = deadline_of(cluster, saga, wire.from_plain(saga.record, dict(fresh.record)))
        took = dataclasses.replace(taken(cluster, tx, fresh, state), attempt=attempt, deadline=deadline)
        if state is OperationState.UNWINDING and (because or took.error is None):
            why = because or (late(cluster, saga, fresh) if overdue(fresh, now) else ABANDONED)
            took = dataclasses.replace(took, error=why.as_dict())
        operations.write(tx, took)
        if fresh.owner:
            note_taken(cluster, tx, took, "taken over: " + ("goes on" if state is OperationState.RUNNING else "is turned back"))
    return Driver(cluster, saga, took, watch, extras)


def _direction(
    saga: Saga[Any], operation: Operation, steps: tuple[OperationStep, ...], forward: bool | None,
) -> tuple[OperationState, int]:
    """Where it goes, and under which attempt.

    Past the point of no return there is only forward. What has turned back, or is stuck turning, goes on going back,
    unless its saga can simply be done again: then that is a new attempt, with request ids of its own.
    """
    here = [step for step in steps if step.attempt == operation.attempt]
    newest = max((step.position for step in here), default=-1)
    if saga.no_way_back(newest):
        if forward is False:
            raise Conflict(
                f"operation {operation.id[:8]} ({operation.kind}) is past the point where it can be undone",
                command=f"novactl operation resume {operation.id[:8]}")
        return OperationState.RUNNING, operation.attempt
    turned = operation.state is not OperationState.RUNNING or any(step.state is StepState.UNDONE for step in here)
    if not forward or (turned and not (saga.resumes and operation.state is OperationState.STUCK)):
        return OperationState.UNWINDING, operation.attempt
    return OperationState.RUNNING, operation.attempt + turned


def give_up(cluster: Cluster, operation: Operation, because: NovaError) -> None:
    """End a stuck operation as failed without undoing it, because what follows makes its effects not matter."""
    saga = SAGAS[operation.kind]
    with cluster.db.write() as tx:
        fresh = operations.by_id(tx, operation.id) or operation
        if fresh.state is not OperationState.STUCK:
            raise busy(cluster, fresh)
        took = taken(cluster, tx, fresh, OperationState.FAILED)
        saga.fail(Run(cluster, took), tx, wire.from_plain(saga.record, dict(took.record)), because)
        operations.write(tx, dataclasses.replace(took, error=because.as_dict(), ended_at=cluster.clock.now()))
