"""Keeping hold of the operations this process drives, however long a step takes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence

from novactl.cluster import Cluster
from novactl.conductor import owner
from novactl.db import operations
from novactl.errors import DatabaseFailed


@contextlib.contextmanager
def keeping(cluster: Cluster, operation_ids: Sequence[str]) -> Iterator[None]:
    """Renew the operations' leases three times in their length while the block runs, also of those that wait their turn.

    A short block costs one idle thread.
    """
    stop = threading.Event()
    every_s = cluster.config["operation.lease_s"] / 3
    thread = threading.Thread(target=_renew, args=(cluster, tuple(operation_ids), every_s, stop), name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()


def _renew(cluster: Cluster, operation_ids: Sequence[str], every_s: float, stop: threading.Event) -> None:
    me = owner.this_process()
    while not stop.wait(every_s):
        try:
            with cluster.db.write() as tx:
                found = [operations.by_id(tx, id_) for id_ in operation_ids]
                mine = [op for op in found if op is not None and op.ended_at is None and op.owner == me]
                for operation in mine:
                    operations.renew(tx, operation, cluster.clock.now() + every_s * 3)
            if not mine:
                break
        except DatabaseFailed:
            continue                                          # the next round, or the lease runs out and another takes over
    cluster.db.close()
