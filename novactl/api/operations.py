"""Operations: list, show, resume, undo."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from novactl.api.resolve import resolve
from novactl.cluster import Cluster
from novactl.conductor.progress import Watch, unwatched
from novactl.db import operations
from novactl.errors import NovaError
from novactl.model.operation import Operation, OperationStep

if TYPE_CHECKING:
    from novactl.conductor.saga import Driver


def list_operations(cluster: Cluster, *, all: bool = False) -> tuple[Operation, ...]:
    """Newest first: those under way or stuck, or with `all` the ended too."""
    with cluster.db.read() as tx:
        return operations.recent(tx, ended=all)


def show(cluster: Cluster, ref: str) -> tuple[Operation, tuple[OperationStep, ...]]:
    with cluster.db.read() as tx:
        found: Operation = resolve(tx, "operation", operations, ref)
        return found, operations.steps(tx, found.id)


def resume(cluster: Cluster, refs: Sequence[str], *, watch: Watch | None = None) -> tuple[Operation, ...]:
    """Take operations over and drive them to their ends, side by side.

    Raises Busy for one whose owner lives, and what the operations themselves raise: the error of one alone, Partial for
    some of many.
    """
    return _end(cluster, refs, forward=True, watch=watch)


def undo(cluster: Cluster, ref: str, *, watch: Watch | None = None) -> Operation:
    """Take it over and undo it. Raises Conflict where there is only forward."""
    return _end(cluster, [ref], forward=False, watch=watch)[0]


def _end(cluster: Cluster, refs: Sequence[str], *, forward: bool, watch: Watch | None) -> tuple[Operation, ...]:
    """All are taken over before the first is driven, so that those that wait their turn are held, too."""
    from novactl.conductor import recover
    from novactl.conductor.crew import side_by_side
    from novactl.conductor.lease import keeping

    with cluster.db.read() as tx:
        found: list[Operation] = [resolve(tx, "operation", operations, ref) for ref in refs]

    def take(operation: Operation) -> Driver[Any] | NovaError:
        try:
            return recover.take_over(cluster, operation, forward=forward, watch=watch or unwatched)
        except NovaError as refused:
            return refused

    def end(taken: Driver[Any] | NovaError) -> Operation:
        if isinstance(taken, NovaError):
            raise taken
        return recover.resume(cluster, taken, forward=forward)

    taken = [take(operation) for operation in found]
    with keeping(cluster, [operation.id for operation in found]):
        return tuple(side_by_side(cluster, taken, end, "operation"))
