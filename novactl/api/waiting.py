"""Running begun operations: here until they end, in the background, or here until a deadline and then in the background."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from novactl.cluster import Cluster
from novactl.conductor.crew import side_by_side
from novactl.conductor.progress import Watch, unwatched
from novactl.conductor.saga import Driver, Saga
from novactl.db import operations
from novactl.errors import Superseded, WaitTimeout
from novactl.model.operation import Operation


class Begun(NamedTuple):
    saga: Saga[Any]
    operation: Operation


def run_all(cluster: Cluster, begun: Sequence[Begun], watch: Watch | None, *, wait: bool, timeout_s: float | None) -> None:
    """Drive them to their ends and raise what went wrong; `wait=False` hands them over and returns at once.

    Raises WaitTimeout after `timeout_s`, when they go on in a process of their own.
    """
    ids = [operation.id for _, operation in begun]
    if not wait:
        _hand_over(cluster, ids)
        return

    def drive_one(one: Begun) -> None:
        Driver(cluster, one.saga, one.operation, watch or unwatched).drive()

    def drive() -> None:
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
        _let_go(cluster, ids)
        short = ids[0][:8]
        raise WaitTimeout(
            f"not done after {timeout_s:g} s; operation {short} goes on in the background", command=f"novactl operation show {short}",
            operation=ids[0])
    if failed:
        raise failed[0]


def _let_go(cluster: Cluster, ids: Sequence[str]) -> None:
    """Give the operations up with a new epoch, so that this process changes nothing more, and hand them over."""
    left = []
    with cluster.db.write() as tx:
        for id_ in ids:
            operation = operations.by_id(tx, id_)
            if operation is None or operation.state.ended:
                continue
            until = cluster.clock.now() + cluster.config["operation.lease_s"]
            if not operations.take(tx, operation, state=operation.state, owner="", lease_until=until):
                raise Superseded(f"operation {id_[:8]} was taken over")
            left.append(id_)
    if left:
        _hand_over(cluster, left)


def _hand_over(cluster: Cluster, ids: Sequence[str]) -> None:
    from novactl.conductor.background import hand_over

    hand_over(cluster, ids)
