"""What every command does first: end what a dead process left behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from novactl.cluster import Cluster
from novactl.db import admission, meta
from novactl.model.key import Role

if TYPE_CHECKING:
    from novactl.model.operation import Operation

EACH = 10
"""So many have a sentence of their own; more are counted."""


def settle(cluster: Cluster, *, budget_s: float = 10.0) -> tuple[str, ...]:
    """Take over and end abandoned operations; a sentence for each. Where there are none it costs one small query. A reader's
    commands leave them as they are.

    Never raises for an operation that cannot be ended now: its sentence says so, and the next command tries again.
    """
    with cluster.db.read() as tx:
        if not meta.anything_under_way(tx) or not admission.may(tx, cluster.key, Role.OPERATOR):
            return ()
    from novactl.conductor.recover import recover

    found = recover(cluster, budget_s=budget_s)
    ended, left = [op for op, error in found if error is None], [(op, error) for op, error in found if error is not None]
    told = [f"{_named(op)} has been ended: {op.state.value}" for op in ended] if len(ended) <= EACH else [_count(ended)]
    told += [f"{_named(op)} cannot be ended yet: {error.message}" for op, error in left[:EACH]]
    if len(left) > EACH:
        told.append(f"{len(left) - EACH} more cannot be ended yet: novactl operation list")
    return tuple(told)


def _named(op: Operation) -> str:
    return f"operation {op.id[:8]} ({op.kind} {op.object_name}), {'stuck' if op.state.value == 'stuck' else 'left by a process that died'},"


def _count(ended: Sequence[Operation]) -> str:
    of = Counter(op.state.value for op in ended)
    return f"{len(ended)} operations, left by processes that died, have been ended: " + ", ".join(f"{n} {state}" for state, n in of.items())
