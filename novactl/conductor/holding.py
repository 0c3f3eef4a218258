"""Who holds an operation, for how long, and what others are told of it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from novactl.cluster import Cluster
from novactl.conductor import owner
from novactl.db import meta, operations
from novactl.db.statements import Tx
from novactl.errors import Busy, Conflict, Overdue
from novactl.model.operation import Operation, OperationState

if TYPE_CHECKING:
    from novactl.conductor.saga import Saga


def deadline_of(cluster: Cluster, saga: Saga[Any], record: Any) -> float | None:
    """When an operation that sets out now is turned back; None: never. What a guest is given to shut down comes on top."""
    limit_s = cluster.config[saga.timeout]
    return cluster.clock.now() + limit_s + getattr(record, "grace_s", 0.0) if limit_s else None


def overdue(operation: Operation, now: float) -> bool:
    """Whether it should have ended by now: then nobody waits for its owner any more, living or not."""
    return operation.deadline is not None and now >= operation.deadline and operation.state is not OperationState.STUCK


def refuse_busy(cluster: Cluster, tx: Tx, object_id: str) -> None:
    """Raises Busy when an operation on the object has not ended."""
    for other in operations.open_of(tx, object_id):
        raise busy(cluster, other)


def restored(tx: Tx) -> Conflict | None:
    """Why nothing is begun on nodes: this database is an old one, and servers may run elsewhere, under other epochs, by now."""
    text = meta.get(tx, meta.RESTORED)
    return Conflict(
        f"this database was restored from {text}: what its nodes have done since is not in it, and a server could be started twice",
        hint="let it hear from its nodes first", command="novactl cluster adopt") if text else None


def refuse_restored(tx: Tx) -> None:
    why = restored(tx)
    if why is not None:
        raise why


def busy(cluster: Cluster, operation: Operation) -> Busy:
    age_s = max(0.0, cluster.clock.now() - operation.created_at)
    short = operation.id[:8]
    stuck = operation.state is OperationState.STUCK
    return Busy(
        f"{operation.object_kind} {operation.object_name} is busy: operation {short} ({operation.kind},"
        f" {'stuck' if stuck else operation.state.value} for {age_s:.0f} s, {owner.shown(operation.owner)}, by {operation.actor}"
        + (f": {operation.reason})" if operation.reason else ")"),
        command=f"novactl operation {'resume' if stuck else 'watch'} {short}", operation=operation.id,
    )


def owned_by_the_living(operation: Operation, now: float) -> bool:
    """Whether some process may still be driving it, and in time: exact on this machine, by its lease elsewhere."""
    if operation.state is OperationState.STUCK or overdue(operation, now):
        return False
    alive = owner.is_alive(operation.owner)
    return operation.lease_until > now if alive is None else alive


def late(cluster: Cluster, saga: Saga[Any], operation: Operation) -> Overdue:
    """The error of an operation whose time is over."""
    return Overdue(
        f"operation {operation.id[:8]} ({operation.kind} {operation.object_name}) has taken longer than {saga.timeout} allows"
        f" ({cluster.config[saga.timeout]:g} s)", hint=f"{saga.timeout} in the configuration; 0: as long as it takes")


def taken(cluster: Cluster, tx: Tx, operation: Operation, state: OperationState) -> Operation:
    """The operation with its epoch raised and this process its owner. Raises Superseded when somebody was faster."""
    me, until = owner.this_process(), cluster.clock.now() + cluster.config["operation.lease_s"]
    if not operations.take(tx, operation, state=state, owner=me, lease_until=until):
        raise operations.superseded(operation)
    return dataclasses.replace(operation, state=state, owner=me, lease_until=until, epoch=operation.epoch + 1)
