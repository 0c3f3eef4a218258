"""The saga engine: drives one operation to an end, forward or back.

A step's `STARTED` is durable before its effect, so `STARTED` without `DONE` means "may have happened" and is undone
too. Taking over, turning back and trying the next node each raise the operation's epoch; every later write and message
carries it, and stale ones change nothing (`Superseded`).

An error is tried again here, on another node, or ends the operation (`faults.verdict`). An operation whose time is over
is turned back: by its driver before the next step, or, where that hangs, by whoever finds it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Generic, NoReturn

from novactl.agents import wire
from novactl.cluster import Cluster
from novactl.conductor import faults, owner
from novactl.conductor.faults import Verdict
from novactl.conductor.history import note_of
from novactl.conductor.holding import deadline_of, late, overdue, taken
from novactl.conductor.lease import keeping
from novactl.conductor.progress import Progress, Watch, unwatched
from novactl.conductor.saga import KEEP_EVERY_S, R, Run, Saga
from novactl.db import operations
from novactl.db.crossing import uncrossed
from novactl.db.statements import Tx
from novactl.errors import Cancelled, DatabaseFailed, DatabaseLost, NovaError, Stuck, Superseded
from novactl.model.operation import Operation, OperationState, OperationStep, StepState


class Driver(Generic[R]):
    """Drives one operation to an end. The operation must be this process's own (`begin`, or `take_over`)."""

    def __init__(self, cluster: Cluster, saga: Saga[R], operation: Operation, watch: Watch = unwatched,
                 extras: Mapping[str, Any] | None = None) -> None:
        self.saga = saga
        self.run = Run(cluster, operation, watch, extras)
        self.record: R = wire.from_plain(saga.record, dict(operation.record))
        self.cluster = cluster
        self._unwritten: list[int] = []
        self._written_at = cluster.clock.monotonic()
        with cluster.db.read() as tx:
            self._steps = {(s.attempt, s.position): s for s in operations.steps(tx, operation.id)}

    def drive(self) -> R:
        """Forward to the end and return the record; or back, and raise what went wrong. Raises Stuck, Superseded."""
        try:
            with keeping(self.cluster, [self.run.operation.id]):
                record = self._drive()
        except Exception as error:
            self.cluster.driving.pop(self.run.operation.id, None)
            if isinstance(error, Superseded):
                raise self._overtaken(error) from error
            raise
        self.cluster.driving.pop(self.run.operation.id, None)
        return record

    def _drive(self) -> R:
        while True:
            if self.run.operation.state is OperationState.UNWINDING:
                self._unwind()
                self._ended_by(NovaError.from_dict(self.run.operation.error or {}))
            try:
                self._forward()
                return self.record
            except (Superseded, Stuck):
                raise
            except NovaError as error:
                if not self._turn(error):
                    raise
            except KeyboardInterrupt:
                if self.saga.detaches or self.saga.no_way_back(self._newest()):
                    raise
                short = self.run.operation.id[:8]
                self.run.progress(
                    state="failed", detail=f"interrupted, being undone; Ctrl-C again leaves that to novactl operation resume {short}")
                if not self._turn(Cancelled(f"operation {short} was interrupted by {self.cluster.actor}")):
                    self.cluster.driving.pop(self.run.operation.id, None)
                    raise
            except Exception as crash:
                if not self._turn(faults.as_error(crash)):
                    raise

    # ---- forward

    def _forward(self) -> None:
        finished: int | None = None
        for position, step in enumerate(self.saga.steps):
            if self._state(position) is StepState.DONE:
                continue
            if overdue(self.run.operation, self.cluster.clock.now()):
                raise late(self.cluster, self.saga, self.run.operation)
            self._again("journal", lambda done=finished, next_=position: self._begin_step(done, next_))
            self._enter(step.name, "do", "started")
            try:
                self.record = self._again(step.name, lambda step=step: step.do(self.run, self.record))
            except NovaError as error:
                self.run.progress(state="failed", detail=error.message)
                raise
            self.run.progress(state="done")
            finished = position
        self._end(lambda: self._finish(finished))

    def _begin_step(self, finished: int | None, position: int) -> None:
        """One transaction: the step before is done, and this one is started."""
        step = self.saga.steps[position].name
        with self.run.tx() as tx:
            if finished is not None:
                self._mark(tx, finished, StepState.DONE)
                self._write(tx)
            self._mark(tx, position, StepState.STARTED)
            operations.tell(tx, self.run.operation, Progress("", "", step, "started").to_text())

    def _finish(self, last: int | None) -> None:
        with self.run.tx() as tx:
            if last is not None:
                self._mark(tx, last, StepState.DONE)
            self.saga.finish(self.run, tx, self.record)
            self._write(tx, state=OperationState.OK, ended_at=self.cluster.clock.now(), error=None)
            note_of(self.cluster, tx, self.run.operation, self.saga.kind, "ok")

    def _turn(self, error: NovaError) -> bool:
        """After `error`: unwind, and go on with the next attempt (True), or end (False). Raises Stuck."""
        if self.saga.no_way_back(self._newest()):
            raise self._stuck(error, "can only go forward from here")
        until = self.run.operation.deadline
        self._raise_epoch(OperationState.UNWINDING, error, deadline=deadline_of(self.cluster, self.saga, self.record))
        self._unwind()
        following = None if faults.verdict(error) is Verdict.STOP else self.saga.next_attempt(self.run, self.record, error)
        if following is None:
            self._fail(error)
            error.operation = self.run.operation.id
            return False
        self.record = following
        self._raise_epoch(OperationState.RUNNING, None, attempt=self.run.operation.attempt + 1, deadline=until)
        return True

    # ---- again

    def _again(self, what: str, act: Callable[[], R]) -> R:
        """What `act` returns, which may be done twice: tried again after a wait where the same may succeed in a moment."""
        op = self.run.operation
        waits, outage = faults.waits(self.cluster, f"{op.id}:{op.attempt}:{what}:{self.run.direction}"), faults.outage(self.cluster)
        while True:
            try:
                return uncrossed(act, anyway=True)
            except NovaError as error:
                wait_s = next(outage if isinstance(error, DatabaseLost) else waits, None) if faults.verdict(error) is Verdict.HERE else None
                if wait_s is None or overdue(op, self.cluster.clock.now() + wait_s):
                    raise
                self.run.progress(detail=f"waiting {wait_s:.1f} s to try again: {error.message}")
                self.cluster.clock.sleep(wait_s)

    def _end(self, write: Callable[[], None]) -> None:
        """`write` ends the operation. Where its transaction failed on the way, the journal is asked whether it is written."""
        tried = False

        def once() -> None:
            nonlocal tried
            if tried:
                with self.cluster.db.read() as tx:
                    found = operations.by_id(tx, self.run.operation.id)
                if found is not None and found.state.ended and found.epoch == self.run.operation.epoch:
                    self.run.operation = found
                    return
            tried = True
            write()

        self._again("end", once)

    # ---- back

    def _unwind(self) -> None:
        for position in range(self._newest(), -1, -1):
            if self._state(position) in (None, StepState.UNDONE):
                continue
            step = self.saga.steps[position]
            self._enter(step.name, "undo", "running")
            if overdue(self.run.operation, self.cluster.clock.now()):
                raise self._stuck(late(self.cluster, self.saga, self.run.operation), "was not undone in time")
            try:
                self._again(step.name, lambda step=step: step.undo(self.run, self.record))
            except (Superseded, Stuck):
                raise
            except Exception as failed:
                raise self._stuck(faults.as_error(failed), "could not be undone") from failed
            self._undone(position)
            self.run.progress(state="undone")

    def _undone(self, position: int) -> None:
        """Undoing can be repeated: that it is done is written within a second, or with what else is written."""
        attempt = self.run.operation.attempt
        self._steps[attempt, position] = dataclasses.replace(self._steps[attempt, position], state=StepState.UNDONE)
        self._unwritten.append(position)
        if position == 1 or self.cluster.clock.monotonic() - self._written_at >= KEEP_EVERY_S:
            self._again("journal", self._write_undone)        # before what was claimed first is released, in any case
            self._unwritten.clear()
            self._written_at = self.cluster.clock.monotonic()

    def _write_undone(self) -> None:
        with self.run.tx() as tx:
            for position in self._unwritten:
                self._mark(tx, position, StepState.UNDONE)

    def _ended_by(self, error: NovaError) -> NoReturn:
        self._fail(error)
        error.operation = self.run.operation.id
        raise error

    def _fail(self, error: NovaError) -> None:
        self._end(lambda: self._failed(error))

    def _failed(self, error: NovaError) -> None:
        with self.run.tx() as tx:
            self.saga.fail(self.run, tx, self.record, error)
            self._write(tx, state=OperationState.FAILED, ended_at=self.cluster.clock.now(), error=self._kept(error))
            note_of(self.cluster, tx, self.run.operation, self.saga.kind, f"failed: {error.message}")

    # ---- the journal

    def _enter(self, step: str, direction: str, state: str) -> None:
        self.run.step, self.run.direction = step, direction
        self.run.progress(state=state)

    def _state(self, position: int) -> StepState | None:
        found = self._steps.get((self.run.operation.attempt, position))
        return None if found is None else found.state

    def _newest(self) -> int:
        return max((position for attempt, position in self._steps if attempt == self.run.operation.attempt), default=-1)

    def _mark(self, tx: Tx, position: int, state: StepState) -> None:
        now, attempt = self.cluster.clock.now(), self.run.operation.attempt
        old = self._steps.get((attempt, position))
        step = OperationStep(
            operation_id=self.run.operation.id, attempt=attempt, position=position, name=self.saga.steps[position].name,
            state=state, started_at=old.started_at if old else now, ended_at=None if state is StepState.STARTED else now)
        operations.step(tx, step)
        self._steps[attempt, position] = step

    def _write(self, tx: Tx, **changes: Any) -> None:
        for position in self._unwritten:
            self._mark(tx, position, StepState.UNDONE)
        lease_until = self.cluster.clock.now() + self.cluster.config["operation.lease_s"]
        changed = dataclasses.replace(
            self.run.operation, record=wire.to_plain(self.record), lease_until=lease_until, **changes)
        operations.write(tx, changed)
        self.run.operation = changed

    def _raise_epoch(
        self, state: OperationState, error: NovaError | None, *, attempt: int | None = None, deadline: float | None = None,
    ) -> None:
        before, tried = self.run.operation, False

        def once() -> None:
            nonlocal tried
            with self.cluster.db.write() as tx:
                fresh = operations.by_id(tx, before.id) if tried else None
                if fresh is not None and (fresh.epoch, fresh.owner, fresh.state) == (before.epoch + 1, owner.this_process(), state):
                    self.run.operation = fresh                # the transaction that failed on the way was written all the same
                    return
                tried = True
                self.run.operation = taken(self.cluster, tx, before, state)
                self._write(tx, error=self._kept(error) if error else None, deadline=deadline,
                            attempt=before.attempt if attempt is None else attempt)

        self._again("journal", once)
        self._unwritten.clear()

    def _kept(self, error: NovaError) -> dict[str, Any]:
        """The error with its trace: its own, or, of one that was read from the journal, the one that stands there."""
        return {**error.as_dict(), "trace": faults.trace_of(error) or (self.run.operation.error or {}).get("trace", "")}

    def _stuck(self, error: NovaError, why: str) -> Stuck:
        op = self.run.operation
        with self.run.tx() as tx:
            self._write(tx, state=OperationState.STUCK, error=self._kept(error))
            note_of(self.cluster, tx, self.run.operation, self.saga.kind, f"stuck in {self.run.step}: {error.message}")
        short = op.id[:8]
        stuck = Stuck(
            f"operation {short} ({op.kind} {op.object_name}), step {self.run.step}, {why}: {error.message}",
            hint=error.hint, reasons=error.reasons, command=f"novactl operation resume {short}", operation=op.id)
        stuck.exit_status = error.exit_status
        return stuck

    def _overtaken(self, lost: Superseded) -> Superseded:
        """Who has the operation now, where that can be read."""
        op = self.run.operation
        try:
            with self.cluster.db.read() as tx:
                found = operations.by_id(tx, op.id)
        except DatabaseFailed:
            return lost
        if found is None:
            return lost
        why = found.error or {}
        command = f"novactl operation {'show' if found.state.ended else 'watch'} {op.id[:8]}"
        if why.get("code") == Cancelled.code:
            return Superseded(why["message"], command=command, operation=op.id)
        return Superseded(
            f"operation {op.id[:8]} ({op.kind} {op.object_name}) was taken over from this process by {owner.shown(found.owner)}"
            + (f": {why['message']}" if why.get("message") else ""), command=command, operation=op.id)
