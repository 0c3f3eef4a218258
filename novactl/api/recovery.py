"""What every command does first: end what a dead process left behind."""

from __future__ import annotations

from novactl.cluster import Cluster
from novactl.db import meta


def settle(cluster: Cluster, *, budget_s: float = 10.0) -> tuple[str, ...]:
    """Take over and end abandoned operations; a sentence for each. Where there are none it costs one small query.

    Never raises for an operation that cannot be ended now: its sentence says so, and the next command tries again.
    """
    with cluster.db.read() as tx:
        if not meta.anything_under_way(tx):
            return ()
    from novactl.conductor.recover import recover

    return tuple(
        f"operation {op.id[:8]} ({op.kind} {op.object_name}), left by a process that died, "
        + (f"has been ended: {op.state.value}" if error is None else f"cannot be ended yet: {error.message}")
        for op, error in recover(cluster, budget_s=budget_s)
    )
