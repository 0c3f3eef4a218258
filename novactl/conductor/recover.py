"""Ending what a dead process began. Any command may do it; the epoch lets only one of them."""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from novactl.agents import wire
from novactl.cluster import Cluster
from novactl.conductor import background, faults, owner
from novactl.conductor.create_server import CREATE
from novactl.conductor.delete_server import DELETE
from novactl.conductor.driver import Driver
from novactl.conductor.faults import ABANDONED
from novactl.conductor.history import note_taken
from novactl.conductor.holding import busy, deadline_of, late, overdue, owned_by_the_living, refuse_restored, restored, taken
from novactl.conductor.node_file import remember
from novactl.conductor.progress import Watch, unwatched
from novactl.conductor.saga import Run, Saga
from novactl.conductor.sagas import SAGAS
from novactl.db import admission, nodes, operations
from novactl.db.statements import Tx
from novactl.errors import AgentRefused, Conflict, Denied, ExitStatus, NotFound, NovaError, Superseded, WaitTimeout
from novactl.model.operation import Operation, OperationState, OperationStep, StepState

ENDED_FIRST = (CREATE.kind, DELETE.kind)
"""What has to be undone, or gone on with, before anything else is begun on the server: it is never given up for that."""
PROBE_S = 0.3
"""What the node of a stuck operation gets to show that trying again is worth it."""
THREADS, PIECE = 8, 32
"""Operations are ended by so many threads at least, each taking up to so many of one node: it connects there once."""

Ended = tuple[Operation, NovaError | None]


def recover(cluster: Cluster, *, budget_s: float = 10.0) -> tuple[Ended, ...]:
    """End every operation that nobody drives any more, or whose time is over: each with the error that keeps it from ending.

    What is not done after `budget_s` goes on in a process of its own. A stuck operation is tried when the node it waits
    for answers again, or, where that refused it or it waits for something else, once a lease's length; otherwise its error
    stands. What this admin's role is too weak for is left as it is, for somebody else's.
    """
    now = cluster.clock.now()
    with cluster.db.read() as tx:
        if restored(tx):
            return ()
        left = [op for op in reversed(operations.under_way(tx)) if not owned_by_the_living(op, now)]
        denied = _denied(tx, cluster.key, left)
    left = [op for op in left if op.id not in denied]
    hopeless = _hopeless(cluster, [op for op in left if op.state is OperationState.STUCK], now)
    stay: list[Ended] = [(op, NovaError.from_dict(op.error or ABANDONED.as_dict())) for op in left if op.id in hopeless]
    return (*denied.values(), *stay, *_Crew(cluster, [op for op in left if op.id not in hopeless]).work(budget_s))


def _denied(tx: Tx, public_key: str, left: Sequence[Operation]) -> dict[str, Ended]:
    """By id, those that this key may not drive, and why."""
    roles = {operation.kind: SAGAS[operation.kind].role for operation in left}
    lacking = {role for role in roles.values() if not admission.may(tx, public_key, role)}
    found: dict[str, Ended] = {}
    for operation in left:
        if roles[operation.kind] in lacking:
            try:
                _allow(tx, public_key, operation)
            except Denied as error:
                found[operation.id] = operation, error
    return found


def _allow(tx: Tx, public_key: str, operation: Operation) -> None:
    """Raises Denied where agents would refuse what is still to be sent of it to this key: trying would only leave it stuck."""
    admission.check(
        tx, public_key, SAGAS[operation.kind].role, f"ending operation {operation.id[:8]} ({operation.kind} {operation.object_name})")


class _Crew:
    """Threads that end operations, node by node. Of a node that falls silent only the first operation waits for it."""

    def __init__(self, cluster: Cluster, todo: Sequence[Operation]) -> None:
        self.cluster, self.todo = cluster, todo
        self._done: list[Ended] = []
        self._passed: set[str] = set()
        self._silent: dict[str, NovaError] = {}
        self._lock = threading.Lock()
        self._threads = max(THREADS, cluster.config["operation.parallel"])
        self._pieces = deque(self._cut())

    def _cut(self) -> Iterator[list[Operation]]:
        """Oldest first, as far as nodes allow."""
        of: dict[str, list[Operation]] = {}
        for operation in self.todo:
            of.setdefault(operation.record.get("node") or "", []).append(operation)
        size = min(PIECE, -(-len(self.todo) // self._threads) or 1)
        for some in of.values():
            for first in range(0, len(some), size):
                yield some[first:first + size]

    def work(self, budget_s: float) -> list[Ended]:
        deadline = self.cluster.clock.monotonic() + budget_s
        crew = [threading.Thread(target=self._work, name=f"recover-{number}", daemon=True)
                for number in range(min(self._threads, len(self._pieces)))]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join(max(0.0, deadline - self.cluster.clock.monotonic()))
        if not any(thread.is_alive() for thread in crew):
            return self._done
        with self._lock:
            self._pieces.clear()
            done, passed = list(self._done), set(self._passed)
        late = [op for op in self.todo if op.id not in passed]
        self.cluster.late.update(op.id for op in late)
        _hand_over(self.cluster, late)
        return done + [(op, WaitTimeout("it goes on in the background")) for op in late]

    def _work(self) -> None:
        try:
            while True:
                with self._lock:
                    if not self._pieces:
                        return
                    piece = self._pieces.popleft()
                for operation in piece:
                    self._end(operation)
        finally:
            self.cluster.db.close()

    def _end(self, operation: Operation) -> None:
        node, error = operation.record.get("node") or "", None
        try:
            if node and node in self._silent:
                operation, error = _park(self.cluster, operation, self._silent[node]), self._silent[node]
            else:
                operation = end(self.cluster, operation)
        except Superseded:                                    # another command was faster, or this one let go
            with self._lock:
                self._passed.add(operation.id)
            return
        except Exception as failed:  # noqa: BLE001 - what one operation meets must not keep the others of its piece from ending
            error = faults.as_error(failed)
            if node and error.exit_status is ExitStatus.UNREACHABLE:
                self._silent[node] = error
        with self._lock:
            self._passed.add(operation.id)
            self._done.append((operation, error))


def _park(cluster: Cluster, operation: Operation, because: NovaError) -> Operation:
    """Stuck, without asking a node that has just been found silent. Raises Superseded."""
    with cluster.db.write() as tx:
        fresh = operations.locked(tx, operation.id) or operation
        if fresh.state.ended or owned_by_the_living(fresh, cluster.clock.now()):
            raise operations.superseded(fresh)
        took = dataclasses.replace(taken(cluster, tx, fresh, OperationState.STUCK), error=because.as_dict())
        operations.write(tx, took)
        note_taken(cluster, tx, took, f"stuck: {because.message}")
    return took


def _hand_over(cluster: Cluster, late: Sequence[Operation]) -> None:
    """Give operations, which go the way their sagas say, to a process of their own; this one changes nothing more of them."""
    left, now, me = [], cluster.clock.now(), owner.this_process()
    with cluster.db.write() as tx:
        for operation in late:
            fresh = operations.locked(tx, operation.id)
            if fresh is None or fresh.state.ended or fresh.state is OperationState.STUCK:
                continue
            if fresh.owner != me and fresh.epoch != operation.epoch:
                continue                                      # another has taken it meanwhile
            state, attempt = _direction(SAGAS[fresh.kind], fresh, operations.steps(tx, fresh.id), _goes_on(fresh, now) or None)
            until = now + cluster.config["operation.lease_s"]
            if operations.take(tx, fresh, state=state, owner="", lease_until=until):
                error = fresh.error or (ABANDONED.as_dict() if state is OperationState.UNWINDING else None)
                operations.write(tx, dataclasses.replace(
                    fresh, state=state, attempt=attempt, owner="", lease_until=until, epoch=fresh.epoch + 1, error=error))
                left.append(fresh.id)
    if left:
        background.hand_over(cluster, left)


def free(cluster: Cluster, object_id: str) -> None:
    """End what nobody drives any more on one object, however long that takes; what this process has just given to the
    background is taken back from there. Raises what keeps it from ending."""
    now = cluster.clock.now()
    with cluster.db.read() as tx:
        left = [op for op in operations.open_of(tx, object_id) if op.state is not OperationState.STUCK]
    for operation in left:
        if operation.id in cluster.late or not owned_by_the_living(operation, now):
            try:
                end(cluster, operation, because=ABANDONED if operation.id in cluster.late else None)
            except (Superseded, Conflict):
                continue                                      # it has ended, or somebody else does it: who asks is told


def _hopeless(cluster: Cluster, stuck: list[Operation], now: float) -> set[str]:
    """Ids of the stuck operations that trying again would not end."""
    if not stuck:
        return set()
    with cluster.db.read() as tx:
        known = {id_: nodes.by_id(tx, id_) for id_ in {op.record.get("node") or "" for op in stuck}}
        places = {op.id: known[op.record.get("node") or ""] for op in stuck}
    there = {node.id: node for node in places.values() if node is not None and node.address}
    answers = cluster.agents.fan_out(list(there.values()), "agent.ping", timeout_s=PROBE_S) if there else {}

    def in_vain(operation: Operation) -> bool:
        node = places[operation.id]
        if node is None or node.id not in answers:
            return operation.lease_until > now
        refused = isinstance(NovaError.from_dict(operation.error or {}), AgentRefused)
        return isinstance(answers[node.id], NovaError) or (refused and operation.lease_until > now)

    return {operation.id for operation in stuck if in_vain(operation)}


def _goes_on(operation: Operation, now: float) -> bool:
    return SAGAS[operation.kind].resumes and not overdue(operation, now)


def end(cluster: Cluster, operation: Operation, watch: Watch = unwatched, *, because: NovaError | None = None) -> Operation:
    """Drive an abandoned operation the way its saga says, or back when its time is over. Raises when it cannot be ended now;
    being undone is an end."""
    driver = take_over(cluster, operation, forward=_goes_on(operation, cluster.clock.now()) or None, watch=watch, because=because)
    try:
        driver.drive()
    except NovaError:
        ended = _after(cluster, operation.id)
        if not ended.state.ended:
            raise
        return ended
    return _after(cluster, operation.id)


def resume(cluster: Cluster, driver: Driver[Any], *, forward: bool = True) -> Operation:
    """End an operation that was taken over. Raises what the saga raises; with `forward=False` being undone is success."""
    id_ = driver.run.operation.id
    try:
        driver.drive()
    except NovaError:
        if forward or _after(cluster, id_).state is not OperationState.FAILED:
            raise
    return _after(cluster, id_)


def _after(cluster: Cluster, operation_id: str) -> Operation:
    """What became of it. Who began it and has not waited did not see where a node is now: who ended it remembers that."""
    found = find(cluster, operation_id)
    if found.object_kind == "node" and found.state is OperationState.OK:
        remember(cluster)
    return found


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
    operation's time is over. Raises Conflict when it has ended or can only go forward, Denied where its saga
    needs a stronger role, Superseded in a lost race.
    """
    with cluster.db.write() as tx:
        took = take(cluster, tx, operation, forward=forward, because=because)
    cluster.driving[took.id] = None
    return Driver(cluster, SAGAS[took.kind], took, watch, extras)


def take(cluster: Cluster, tx: Tx, operation: Operation, *, forward: bool | None, because: NovaError | None = None) -> Operation:
    """The part of `take_over` that is written."""
    refuse_restored(tx)
    now = cluster.clock.now()
    fresh = operations.locked(tx, operation.id) or operation
    short = fresh.id[:8]
    if fresh.state.ended:
        raise Conflict(f"operation {short} has ended: {fresh.state.value}", command=f"novactl operation show {short}")
    _allow(tx, cluster.key, fresh)
    if because is None and fresh.owner and owned_by_the_living(fresh, now):
        raise busy(cluster, fresh)
    saga = SAGAS[fresh.kind]
    state, attempt = _direction(saga, fresh, operations.steps(tx, fresh.id), forward)
    deadline = deadline_of(cluster, saga, wire.from_plain(saga.record, dict(fresh.record)))
    took = dataclasses.replace(taken(cluster, tx, fresh, state), attempt=attempt, deadline=deadline)
    if state is OperationState.UNWINDING and (took.error is None or because not in (None, ABANDONED)):
        why = because or (late(cluster, saga, fresh) if overdue(fresh, now) else ABANDONED)
        took = dataclasses.replace(took, error=why.as_dict())
    operations.write(tx, took)
    if fresh.owner:
        note_taken(cluster, tx, took, "taken over: " + ("goes on" if state is OperationState.RUNNING else "is turned back"))
    return took


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
                command=f"novactl operation {'wait' if operation.state is OperationState.RUNNING else 'resume'} {operation.id[:8]}")
        return OperationState.RUNNING, operation.attempt
    turned = operation.state is not OperationState.RUNNING or any(step.state is StepState.UNDONE for step in here)
    if not forward or (turned and not (saga.resumes and operation.state is OperationState.STUCK)):
        return OperationState.UNWINDING, operation.attempt
    return OperationState.RUNNING, operation.attempt + turned


def give_up(cluster: Cluster, tx: Tx, operation: Operation, because: NovaError) -> None:
    """End a stuck operation as failed without undoing it, because what begins in the same transaction makes its effects not
    matter, and has the node refuse what it may still send. Raises Busy where it is not stuck."""
    saga = SAGAS[operation.kind]
    fresh = operations.locked(tx, operation.id) or operation
    if fresh.state is not OperationState.STUCK:
        raise busy(cluster, fresh)
    took = taken(cluster, tx, fresh, OperationState.FAILED)
    saga.fail(Run(cluster, took), tx, wire.from_plain(saga.record, dict(took.record)), because)
    operations.write(tx, dataclasses.replace(took, error=because.as_dict(), ended_at=cluster.clock.now()))


def give_up_stuck(cluster: Cluster, tx: Tx, object_id: str, because: NovaError, *, but: Sequence[str] = ()) -> None:
    """`give_up` each stuck operation on the object, `but` for those kinds; others keep it busy."""
    for other in operations.open_of(tx, object_id):
        if other.state is OperationState.STUCK and other.kind not in but:
            give_up(cluster, tx, other, because)
