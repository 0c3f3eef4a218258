"""Operations: list, show, watch, wait, resume, undo, cancel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from novactl.api.asked import check_kind, id_of
from novactl.api.authority import Role, needs
from novactl.api.patience import Patience
from novactl.api.resolve import resolve
from novactl.cluster import Cluster
from novactl.conductor.progress import Progress, Watch, unwatched
from novactl.db import operations
from novactl.db.statements import Tx, from_json
from novactl.errors import Cancelled, Denied, NovaError, Stuck, UsageError, WaitTimeout
from novactl.model.operation import Operation, OperationState, OperationStep, StepState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from novactl.conductor.driver import Driver

LOOK_S = 0.2
"""So often the journal is read for who watches."""


@dataclass(frozen=True, kw_only=True)
class OperationView:
    """An operation as people and programs are told of it. `owner` is "pid N on HOST", "" once it has ended; `owner_lives` None where
    only the lease can tell. `arguments` is the record of its saga, after the last finished step."""

    id: str
    kind: str
    object_kind: str
    object_name: str
    object_id: str
    state: OperationState
    created_at: float
    ended_at: float | None
    duration_s: float
    actor: str
    actor_key: str
    reason: str
    owner: str
    owner_lives: bool | None
    lease_until: float
    deadline_at: float | None
    attempt: int
    epoch: int
    seq: int
    progress: Mapping[str, Any] | None
    arguments: Mapping[str, Any]
    error: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class OperationShown(OperationView):
    """With its steps, and where its error came from (`trace`)."""

    trace: str
    steps: tuple[StepShown, ...]


@dataclass(frozen=True, kw_only=True)
class StepShown:
    attempt: int
    position: int
    name: str
    state: StepState
    started_at: float
    ended_at: float | None
    duration_s: float

    @property
    def line(self) -> str:
        again = f" (attempt {self.attempt + 1})" if self.attempt else ""
        return f"{self.name}{again}: {self.state.value}, {self.duration_s:.3f} s"


def list_operations(
    cluster: Cluster, *, all: bool = False, kind: str = "", server: str = "", node: str = "", state: str = "", limit: int = 1000,
) -> tuple[Operation, ...]:
    """Newest first: those under way or stuck, or with `all` (or a `state` that is an end) the ended too. `server` and `node` are names
    or ids, also of what is gone. Raises UsageError for a state or a kind that there is not, NotFound for what there never was."""
    if state and state not in set(OperationState):
        raise UsageError(f"there is no state {state!r}", hint=f"one of {', '.join(OperationState)}")
    if server and node:
        raise UsageError("an operation is of a server or of a node", hint="--server or --node")
    if kind:
        check_kind(kind)
    ended = all or bool(state and OperationState(state).ended)
    object_kind, named = "server" if server else "node" if node else "", server or node

    def found(named: str) -> tuple[Operation, ...]:
        return operations.recent(tx, ended=ended, limit=limit, kind=kind, state=state, named=named, object_kind=object_kind)

    with cluster.db.read() as tx:
        return found(named) or (found(id_of(tx, object_kind, named)) if named else ())


def show(cluster: Cluster, ref: str) -> tuple[Operation, tuple[OperationStep, ...]]:
    with cluster.db.read() as tx:
        found: Operation = resolve(tx, "operation", operations, ref)
        return found, operations.steps(tx, found.id)


def shown(cluster: Cluster, ref: str) -> OperationShown:
    """All that is known of one operation."""
    found, steps = show(cluster, ref)
    now = cluster.clock.now()
    return OperationShown(
        **vars(view(found, now)), trace=(found.error or {}).get("trace", ""), steps=tuple(StepShown(
            attempt=step.attempt, position=step.position, name=step.name, state=step.state, started_at=step.started_at,
            ended_at=step.ended_at, duration_s=_took(step.started_at, step.ended_at, found.ended_at or now)) for step in steps))


def views(cluster: Cluster, found: Sequence[Operation]) -> tuple[OperationView, ...]:
    now = cluster.clock.now()
    return tuple(view(operation, now) for operation in found)


def view(found: Operation, now: float) -> OperationView:
    """`now` is for how long one takes that is under way."""
    from novactl.conductor import owner

    error = {name: value for name, value in found.error.items() if name != "trace"} if found.error else None
    open_ = not found.state.ended
    return OperationView(
        id=found.id, kind=found.kind, object_kind=found.object_kind, object_name=found.object_name, object_id=found.object_id,
        state=found.state, created_at=found.created_at, ended_at=found.ended_at,
        duration_s=_took(found.created_at, found.ended_at, now), actor=found.actor, actor_key=found.actor_key, reason=found.reason,
        owner=owner.shown(found.owner) if open_ else "", owner_lives=owner.is_alive(found.owner) if open_ else None,
        lease_until=found.lease_until, deadline_at=found.deadline, attempt=found.attempt, epoch=found.epoch, seq=found.seq,
        progress=from_json(found.progress) if found.progress and open_ else None, arguments=found.record, error=error)


def _took(began: float, ended: float | None, now: float) -> float:
    return round(max(0.0, (now if ended is None else ended) - began), 3)


# ---------------------------------------------------------------- waiting for others


def watch(cluster: Cluster, refs: Sequence[str], *, watch: Watch | None = None, timeout_s: float | None = None) -> tuple[Operation, ...]:
    """Follow operations until each has ended, and raise what they ended with: the error of one alone, Partial for some of many.

    One whose owner died meanwhile is ended here. Raises Stuck for one that waits for somebody, WaitTimeout, DatabaseLost.
    """
    from novactl.conductor.crew import all_of

    with cluster.db.read() as tx:
        found = _named(tx, refs)
    return tuple(all_of([one.result() for one in _follow(cluster, found, watch or unwatched, timeout_s)], "operation"))


def _named(tx: Tx, refs: Sequence[str]) -> list[Operation]:
    """Each once, in the order in which they are named first."""
    found: list[Operation] = [resolve(tx, "operation", operations, ref) for ref in refs]
    return list({operation.id: operation for operation in found}.values())


def _follow(cluster: Cluster, found: Sequence[Operation], watch: Watch, timeout_s: float | None) -> list[_Followed]:
    """Until each has ended, or is stuck. Raises WaitTimeout, DatabaseLost."""
    until = None if timeout_s is None else cluster.clock.monotonic() + timeout_s
    followed = [_Followed(cluster, operation, watch) for operation in found]
    patience = Patience(cluster)
    while under_way := [one for one in followed if not patience.look(one.look, False)]:
        if until is not None and cluster.clock.monotonic() >= until:
            ids = [one.operation.id for one in under_way]
            short = [id_[:8] for id_ in ids]
            raise WaitTimeout(
                f"not ended after {timeout_s:g} s: {', '.join(short)}", command=f"novactl operation watch {' '.join(short)}",
                operation=ids[0] if len(ids) == 1 else "")
        cluster.clock.sleep(LOOK_S)
    return followed


class _Followed:
    """One operation, and what has been told of it."""

    def __init__(self, cluster: Cluster, operation: Operation, watch: Watch) -> None:
        self.cluster, self.operation, self.watch = cluster, operation, watch
        self._told: dict[tuple[int, int], StepState] = {}
        self._progress = ""
        self._denied: Denied | None = None

    def look(self) -> bool:
        """Tell what is new. Whether it has ended, or is stuck."""
        from novactl.conductor import holding, recover

        with self.cluster.db.read() as tx:
            self.operation = operations.by_id(tx, self.operation.id) or self.operation
            steps = operations.steps(tx, self.operation.id)
        op = self.operation
        for step in steps:
            if self._told.get((step.attempt, step.position)) is not step.state:
                self._told[step.attempt, step.position] = step.state
                self.watch(Progress(op.id, op.object_name, step.name, step.state.value))
        if op.state.ended or op.state is OperationState.STUCK:
            return True
        if op.progress != self._progress:
            self._progress = op.progress
            told = Progress.from_text(op.id, op.object_name, op.progress)
            if told and told.state == "running":
                self.watch(told)
        if not holding.owned_by_the_living(op, self.cluster.clock.now()):
            try:
                recover.end(self.cluster, op, self.watch)
            except Denied as error:                           # it waits for somebody who may
                self._denied = error
                return True
            except NovaError:
                pass                                          # somebody was faster, or it is stuck: the next look tells
        return False

    def result(self, *, undone_is_well: bool = False) -> Operation | NovaError:
        op, short = self.operation, self.operation.id[:8]
        if op.state is OperationState.OK or (undone_is_well and op.state is OperationState.FAILED):
            return op
        if self._denied is not None:
            return self._denied
        error = NovaError.from_dict(op.error or {})
        error.operation = op.id
        if op.state is OperationState.STUCK:
            stuck = Stuck(
                f"operation {short} ({op.kind} {op.object_name}) is stuck: {error.message}", hint=error.hint, reasons=error.reasons,
                command=f"novactl operation resume {short}", operation=op.id)
            stuck.exit_status = error.exit_status
            return stuck
        return error


# ---------------------------------------------------------------- taking over


@needs(Role.OPERATOR)
def resume(
    cluster: Cluster, refs: Sequence[str], *, watch: Watch | None = None, wait: bool = True, timeout_s: float | None = None,
    dry_run: bool = False,
) -> tuple[Operation, ...]:
    """Take operations over and drive them to their ends, side by side; `wait=False` in a process of their own. With `timeout_s`
    likewise, and that process is followed for so long.

    Raises Busy for one whose owner lives, WaitTimeout, and what the operations themselves raise: the error of one alone, Partial
    for some of many.
    """
    return _end(cluster, refs, forward=True, watch=watch, wait=wait, timeout_s=timeout_s, dry_run=dry_run)


@needs(Role.OPERATOR)
def undo(
    cluster: Cluster, refs: Sequence[str], *, watch: Watch | None = None, wait: bool = True, timeout_s: float | None = None,
    dry_run: bool = False,
) -> tuple[Operation, ...]:
    """As `resume`, but undo them: being undone is success. Raises Conflict where there is only forward."""
    return _end(cluster, refs, forward=False, watch=watch, wait=wait, timeout_s=timeout_s, dry_run=dry_run)


@needs(Role.OPERATOR)
def cancel(
    cluster: Cluster, refs: Sequence[str], *, watch: Watch | None = None, wait: bool = True, timeout_s: float | None = None,
    dry_run: bool = False,
) -> tuple[Operation, ...]:
    """As `undo`, but take it from an owner that lives, too: whose command ends with Superseded, saying who cancelled it."""
    def because(operation: Operation) -> NovaError:
        why = f": {cluster.reason}" if cluster.reason else ""
        return Cancelled(
            f"operation {operation.id[:8]} ({operation.kind} {operation.object_name}) was cancelled by {cluster.actor}{why}",
            operation=operation.id)

    return _end(cluster, refs, forward=False, watch=watch, wait=wait, timeout_s=timeout_s, dry_run=dry_run, because=because)


def _end(
    cluster: Cluster, refs: Sequence[str], *, forward: bool, watch: Watch | None, wait: bool, timeout_s: float | None, dry_run: bool,
    because: Callable[[Operation], NovaError] | None = None,
) -> tuple[Operation, ...]:
    """All are taken over before the first is driven, so that those that wait their turn are held, too."""
    from novactl.conductor import background, recover
    from novactl.conductor.crew import all_of, side_by_side
    from novactl.conductor.lease import keeping

    with cluster.db.read() as tx:
        found = _named(tx, refs)

    def why(operation: Operation) -> NovaError | None:
        return because(operation) if because else None

    if dry_run:
        return tuple(_would_be(cluster, operation, forward, why(operation)) for operation in found)

    def take(operation: Operation) -> Driver[Any] | NovaError:
        try:
            return recover.take_over(cluster, operation, forward=forward, watch=watch or unwatched, because=why(operation))
        except NovaError as refused:
            return refused

    def end(taken: Driver[Any] | NovaError) -> Operation:
        if isinstance(taken, NovaError):
            raise taken
        return recover.resume(cluster, taken, forward=forward)

    taken = [take(operation) for operation in found]
    if not wait or timeout_s is not None:
        mine = [one.run.operation for one in taken if not isinstance(one, NovaError)]
        background.let_go(cluster, [operation.id for operation in mine])
        followed = _follow(cluster, mine, watch or unwatched, timeout_s) if wait else None
        ends = iter(mine if followed is None else [one.result(undone_is_well=not forward) for one in followed])
        return tuple(all_of([one if isinstance(one, NovaError) else next(ends) for one in taken], "operation"))
    with keeping(cluster, [operation.id for operation in found]):
        return tuple(side_by_side(cluster, taken, end, "operation"))


def _would_be(cluster: Cluster, operation: Operation, forward: bool, because: NovaError | None) -> Operation:
    """As it would be taken over. Raises what taking it over raises."""
    from novactl.api.trial import tried
    from novactl.conductor import recover

    with tried(cluster) as tx:
        return recover.take(cluster, tx, operation, forward=forward, because=because)
