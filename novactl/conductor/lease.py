"""Keeping hold of the operations this process drives, however long a step takes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from novactl.cluster import Cluster
from novactl.conductor import owner
from novactl.db import operations
from novactl.errors import DatabaseFailed


@contextlib.contextmanager
def keeping(cluster: Cluster, operation_id: str) -> Iterator[None]:
    """Renew the operation's lease three times in its length while the block runs. A short block costs one idle thread."""
    stop = threading.Event()
    every_s = cluster.config["operation.lease_s"] / 3
    thread = threading.Thread(target=_renew, args=(cluster, operation_id, every_s, stop), name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()


def _renew(cluster: Cluster, operation_id: str, every_s: float, stop: threading.Event) -> None:
    me = owner.this_process()
    while not stop.wait(every_s):
        try:
            with cluster.db.write() as tx:
                found = operations.by_id(tx, operation_id)
                if found is None or found.ended_at is not None or found.owner != me:
                    break
                operations.renew(tx, found, cluster.clock.now() + every_s * 3)
        except DatabaseFailed:
            continue                                          # the next round, or the lease runs out and another takes over
    cluster.db.close()
