"""What a saga is made of: a change is a list of steps, each with its undo, journalled so that any process can end it.

Three laws hold for every saga in `novactl.conductor.sagas.SAGAS` and are tested by its being listed there: each step may
run twice; a failure at any step unwinds to a clean slate, in the database and on the agents; unwinding may be interrupted
and repeated. `driver.py` drives them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from novactl.agents import wire
from novactl.cluster import Cluster
from novactl.conductor import owner
from novactl.conductor.history import note_of
from novactl.conductor.holding import deadline_of, refuse_busy, refuse_restored
from novactl.conductor.progress import Progress, Watch, unwatched
from novactl.db import operations
from novactl.db.statements import Tx
from novactl.errors import DatabaseFailed, NovaError
from novactl.model.key import Role
from novactl.model.operation import Operation, OperationState

R = TypeVar("R")
KEEP_EVERY_S = 1.0
"""So often at most the journal is told what a step tells."""


@dataclass(frozen=True)
class Step(Generic[R]):
    """`do` returns the new record; both are safe to repeat, and `undo` succeeds where there is nothing to undo."""

    name: str
    do: Callable[[Run, R], R]
    undo: Callable[[Run, R], None]


def nothing(_because: str) -> Callable[[Run, Any], None]:
    """An undo that leaves things as they are, and says in the code why that is right."""
    return lambda run, record: None


def _no_effect(run: Run, tx: Tx, record: Any) -> None:
    """A saga without database changes of its own at this point."""


def _give_up(run: Run, record: Any, error: NovaError) -> None:
    """A saga that tries once."""


@dataclass(frozen=True, kw_only=True)
class Saga(Generic[R]):
    """`finish` and `fail` run in the transaction that ends the operation. `next_attempt` gives the record of another try
    after unwinding, or None. From `point_of_no_return` on there is only forward. `resumes`: what a takeover does with
    an operation whose owner died (True: goes on; False: turns back). `timeout` is the setting that says how long one may take.
    `detaches`: it can go on in another process at any moment; where it cannot, an interruption turns it back. `role` is what a key
    needs to drive it, also back: agents refuse its messages to a lesser one."""

    kind: str
    record: type[R]
    steps: tuple[Step[R], ...]
    finish: Callable[[Run, Tx, R], None] = _no_effect
    fail: Callable[[Run, Tx, R, NovaError], None] = lambda run, tx, record, error: None
    next_attempt: Callable[[Run, R, NovaError], R | None] = _give_up
    point_of_no_return: str = ""
    resumes: bool = False
    detaches: bool = True
    role: Role = Role.OPERATOR
    timeout: str = "timeout.default_s"

    def no_way_back(self, position: int) -> bool:
        names = [step.name for step in self.steps]
        return bool(self.point_of_no_return) and position >= names.index(self.point_of_no_return)


class Run:
    """One process driving one operation: what a step may use.

    `extras` is for what lives in this process only (an SSH session, a prompt) and is never stored.
    """

    def __init__(self, cluster: Cluster, operation: Operation, watch: Watch = unwatched, extras: Mapping[str, Any] | None = None) -> None:
        self.cluster, self.operation, self.watch = cluster, operation, watch
        self.extras = dict(extras or {})
        self.step, self.direction = "", "do"
        self._writing, self._kept_at = False, cluster.clock.monotonic()

    @contextlib.contextmanager
    def tx(self) -> Iterator[Tx]:
        """A write transaction on the operation's behalf. Raises Superseded when it was taken over."""
        with self.cluster.db.write() as tx:
            operations.fence(tx, self.operation)
            self._writing = True
            try:
                yield tx
            finally:
                self._writing = False

    def fence(self, method: str) -> Any:
        from novactl.agents.link import Fence

        op = self.operation
        return Fence(f"{op.id}:{self.step}:{op.attempt}:{self.direction}:{method}", op.id, op.epoch, op.seq)

    def call(self, peer: Any, method: str, args: Any = None, payload: bytes | None = None, *, timeout_s: float | None = None) -> Any:
        """A call that carries this operation's fence when it changes something. Returns the result's record."""
        fence = self.fence(method) if wire.METHODS[method].mutates else None
        return self.cluster.agents.call(peer, method, args, payload, fence=fence, timeout_s=timeout_s).body

    def progress(self, done: int = 0, total: int = 0, detail: str = "", *, state: str = "running") -> None:
        """Tell whoever watches. Raises Superseded when the operation was taken over."""
        told = Progress(self.operation.id, self.operation.object_name, self.step, state, done, total, detail)
        self._keep(told)
        try:
            self.watch(told)
        except Exception:  # noqa: BLE001 - whoever watches, and breaks, must not break what is watched
            self.watch = unwatched

    def _keep(self, told: Progress) -> None:
        """For other processes, beside what they read of the steps themselves."""
        now = self.cluster.clock.monotonic()
        if self._writing or told.state != "running" or now - self._kept_at < KEEP_EVERY_S:
            return
        self._kept_at = now
        with contextlib.suppress(DatabaseFailed), self.cluster.db.write() as tx:
            operations.tell(tx, self.operation, told.to_text())


def begin(
    cluster: Cluster, tx: Tx, saga: Saga[R], record: R, subject: tuple[str, str, str], *, detached: bool = False, detail: str = "",
) -> Operation:
    """Write a new operation on `subject` (kind, id, name), held by this process, or by nobody yet when `detached`.

    `detail` is what its first event says. Raises Busy when another operation on the object has not ended, and Conflict in a
    database that was restored and not adopted yet.
    """
    kind, id_, name = subject
    refuse_restored(tx)
    refuse_busy(cluster, tx, id_)
    now, operation_id = cluster.clock.now(), cluster.ids.uuid()
    operation = Operation(
        id=operation_id, kind=saga.kind, object_kind=kind, object_id=id_, object_name=name,
        state=OperationState.RUNNING, epoch=1, attempt=0, owner="" if detached else owner.this_process(),
        lease_until=now + cluster.config["operation.lease_s"], actor=cluster.actor, record=wire.to_plain(record), error=None,
        created_at=now, ended_at=None, reason=cluster.reason, actor_key=cluster.key, seq=operations.number(tx, operation_id),
        deadline=deadline_of(cluster, saga, record),
    )
    operations.insert(tx, operation)
    if not detached:
        cluster.driving[operation_id] = None
    note_of(cluster, tx, operation, saga.kind, f"begun: {detail}" if detail else "begun")
    return operation
