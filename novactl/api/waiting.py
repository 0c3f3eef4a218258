"""Running begun operations: here until they end, in the background, or here until a deadline or an interruption and then there."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from novactl.cluster import Cluster
from novactl.conductor.background import hand_over, let_go
from novactl.conductor.crew import in_threads, side_by_side
from novactl.conductor.driver import Driver
from novactl.conductor.lease import keeping
from novactl.conductor.progress import Watch, unwatched
from novactl.conductor.saga import Saga
from novactl.conductor.sagas import SAGAS
from novactl.db import operations
from novactl.errors import WaitTimeout
from novactl.model.operation import Operation, OperationState

__all__ = ["Begun", "Left", "detach", "in_threads", "run_all"]


class Begun(NamedTuple):
    saga: Saga[Any]
    operation: Operation


def run_all(cluster: Cluster, begun: Sequence[Begun], watch: Watch | None, *, wait: bool, timeout_s: float | None) -> None:
    """Drive them to their ends and raise what went wrong; `wait=False` hands them over and returns at once.

    Raises WaitTimeout after `timeout_s`, when they go on in a process of their own.
    """
    ids = [operation.id for _, operation in begun]
    if not wait:
        hand_over(cluster, ids)
        return

    def drive_one(one: Begun) -> None:
        Driver(cluster, one.saga, one.operation, watch or unwatched).drive()

    def drive() -> None:
        with keeping(cluster, ids):
            side_by_side(cluster, begun, drive_one, begun[0].operation.object_kind)

    if timeout_s is None:
        drive()
        return
    failed: list[BaseException] = []

    def in_thread() -> None:
        try:
            drive()
        except BaseException as error:  # noqa: BLE001 - handed to the waiting thread, which raises it
            failed.append(error)

    thread = threading.Thread(target=in_thread, name="operations", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        left = let_go(cluster, ids)
        raise _late(timeout_s, left or ids)
    if failed:
        raise failed[0]


def _late(timeout_s: float, ids: Sequence[str]) -> WaitTimeout:
    """`ids` go on in the background."""
    short, one = [id_[:8] for id_ in ids], len(ids) == 1
    return WaitTimeout(
        f"not done after {timeout_s:g} s; operation{'' if one else 's'} {', '.join(short)} {'goes' if one else 'go'} on in the background",
        command=f"novactl operation watch {' '.join(short)}", operation=ids[0] if one else "")


class Left(NamedTuple):
    """What an interrupted command leaves: operations that go on in the background, and those that wait to be resumed."""

    going_on: tuple[Operation, ...]
    waiting: tuple[Operation, ...]


def detach(cluster: Cluster) -> Left:
    """Hand what this process drives to one of its own, where that can be; this one changes nothing more of it."""
    with cluster.db.read() as tx:
        found = [operation for id_ in list(cluster.driving) if (operation := operations.by_id(tx, id_))]
    mine = [operation for operation in found if not operation.state.ended and operation.state is not OperationState.STUCK]
    movable = [operation.id for operation in mine if SAGAS[operation.kind].detaches]
    moved = set(let_go(cluster, movable)) if movable else set()
    with cluster.db.read() as tx:
        fresh = [operation for one in mine if (operation := operations.by_id(tx, one.id)) and not operation.state.ended]
    return Left(
        tuple(operation for operation in fresh if operation.id in moved),
        tuple(operation for operation in fresh if operation.id not in moved))
