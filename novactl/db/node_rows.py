"""What placing, and calling agents, reads of nodes: narrow rows, nothing parsed."""

from __future__ import annotations

from typing import Any, NamedTuple

from novactl.db.derived import COLUMN_OF, SUMS
from novactl.db.statements import Tx, statement
from novactl.model.node import METRICS


class NodeRow(NamedTuple):
    """A node without its files. The sums are by resource class; `odd`: other classes or limits than they tell matter too."""

    id: str
    name: str
    state: str
    reason: str
    address: str
    agent_version: str
    shape: str
    generation: int
    reported_at: float | None
    silent_since: float | None
    servers: int
    failed_builds: int
    shared_disk: str
    odd: int
    load_1m: float | None
    memory_used_mb: int | None
    disk_used_gb: int | None
    vcpu_used: int
    memory_mb_used: int
    disk_gb_used: int
    state_since: float | None
    state_by: str
    lease_until: float | None

    @property
    def metrics(self) -> dict[str, float]:
        return {name: value for name in METRICS if (value := getattr(self, name)) is not None}

    @property
    def used(self) -> dict[str, int]:
        return {name: value for name, column in COLUMN_OF.items() if (value := getattr(self, f"{column}_used"))}


class AgentRow(NamedTuple):
    """What calling an agent, and knowing whether it needs to be called, takes."""

    id: str
    name: str
    address: str
    public_key: str
    reported_at: float | None
    silent_since: float | None
    next_public_key: str
    state: str


@statement
def q_lean(sa: Any, t: Any) -> Any:
    n = t.node.c
    leased = sa.or_(n.lease_until.is_(None), n.lease_until > sa.bindparam("now", type_=sa.Double))
    enabled, alive = sa.case((sa.and_(n.state == "enabled", leased), 2), else_=0), sa.case((n.silent_since.is_(None), 1), else_=0)
    flags = enabled + alive + 4 * n.odd + 8 * n.failed_builds
    return sa.select(n.id, n.shape, n.generation, flags, n.reported_at, n.servers, *(n[name] for name in SUMS))


@statement
def q_rows(sa: Any, t: Any) -> Any:
    return sa.select(*(t.node.c[name] for name in NodeRow._fields)).order_by(t.node.c.name)


@statement
def q_row_of(sa: Any, t: Any) -> Any:
    return sa.select(*(t.node.c[name] for name in NodeRow._fields)).where(t.node.c.id == sa.bindparam("by_id"))


@statement
def q_name_of(sa: Any, t: Any) -> Any:
    return sa.select(t.node.c.name).where(t.node.c.id == sa.bindparam("by_id"))


@statement
def q_agent_rows(sa: Any, t: Any) -> Any:
    return sa.select(*(t.node.c[name] for name in AgentRow._fields)).order_by(t.node.c.name)


def lean_rows(tx: Tx, now: float = 0.0) -> list[tuple]:
    """Every node in one narrow read, in no order: (id, shape, generation, flags, reported_at, servers, capacity, used and max_unit
    of VCPU, of MEMORY_MB and of DISK_GB).

    The flags add up: 2 where it is enabled and, if it fences itself, has a lease at `now`, 1 where it is not silent, 4 where the sums
    do not tell all (other classes, a min_unit or step_size, a shared disk: read its whole view), 8 for each creation that failed
    there. One number is read faster than four.
    """
    return list(tx.stream(q_lean, now=now))


def rows(tx: Tx) -> list[NodeRow]:
    """Every node by name, nothing parsed."""
    return [NodeRow(*row) for row in tx.stream(q_rows)]


def row_of(tx: Tx, node_id: str) -> NodeRow | None:
    """None when it is gone."""
    found = next(iter(tx.stream(q_row_of, by_id=node_id)), None)
    return None if found is None else NodeRow(*found)


def name_of(tx: Tx, node_id: str) -> str:
    """"" when it is not there."""
    row = tx.one(q_name_of, by_id=node_id)
    return "" if row is None else row["name"]


def agent_rows(tx: Tx) -> list[AgentRow]:
    """Every node by name."""
    return [AgentRow(*row) for row in tx.stream(q_agent_rows)]
