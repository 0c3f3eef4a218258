"""Keeping hold of the operations this process drives, however long a step takes."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from novactl.cluster import Cluster
from novactl.conductor import owner
from novactl.db import operations
from novactl.errors import NovaError


def keeping(cluster: Cluster, operation_ids: Sequence[str]) -> contextlib.AbstractContextManager[None]:
    """Renew the operations' leases three times in their length while the block runs, also of those that wait their turn."""
    lease_s, me = cluster.config["operation.lease_s"], owner.this_process()

    def renew() -> bool:
        try:
            with cluster.db.write() as tx:
                found = [operations.by_id(tx, id_) for id_ in operation_ids]
                mine = [op for op in found if op is not None and op.ended_at is None and op.owner == me]
                for operation in mine:
                    operations.renew(tx, operation, cluster.clock.now() + lease_s)
            return bool(mine)
        except NovaError:
            return True                                       # the next round, or the lease runs out and another takes over
        finally:
            cluster.db.close()

    return cluster.clock.every(lease_s / 3, renew)
