"""Operations: list, show, resume, undo."""

from __future__ import annotations

from collections.abc import Sequence

from novactl.api.resolve import resolve
from novactl.cluster import Cluster
from novactl.conductor.progress import Watch, unwatched
from novactl.db import operations
from novactl.model.operation import Operation, OperationStep


def list_operations(cluster: Cluster, *, all: bool = False) -> tuple[Operation, ...]:
    """Newest first: those under way or stuck, or with `all` the ended too."""
    with cluster.db.read() as tx:
        return operations.recent(tx, ended=all)


def show(cluster: Cluster, ref: str) -> tuple[Operation, tuple[OperationStep, ...]]:
    with cluster.db.read() as tx:
        found: Operation = resolve(tx, "operation", operations, ref)
        return found, operations.steps(tx, found.id)


def resume(cluster: Cluster, ref: str, *, watch: Watch | None = None) -> Operation:
    """Take it over and drive it to its end. Raises Busy while its owner lives, and what the operation itself raises."""
    return _end(cluster, ref, forward=True, watch=watch)


def undo(cluster: Cluster, ref: str, *, watch: Watch | None = None) -> Operation:
    """Take it over and undo it. Raises Conflict where there is only forward."""
    return _end(cluster, ref, forward=False, watch=watch)


def resume_all(cluster: Cluster, refs: Sequence[str], *, watch: Watch | None = None) -> tuple[Operation, ...]:
    """`resume` several side by side. Raises the error of one alone, Partial for some of many."""
    from novactl.conductor.crew import side_by_side

    return tuple(side_by_side(cluster, refs, lambda ref: resume(cluster, ref, watch=watch), "operation"))


def _end(cluster: Cluster, ref: str, *, forward: bool, watch: Watch | None) -> Operation:
    from novactl.conductor.recover import resume as take_over

    with cluster.db.read() as tx:
        found: Operation = resolve(tx, "operation", operations, ref)
    return take_over(cluster, found.id, forward=forward, watch=watch or unwatched)
