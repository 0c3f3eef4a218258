"""Nodes and their last reports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from novactl.db.derived import SUMS, facts_of, lock, reshape, resum, shapes
from novactl.db.hardware import hardware, hardware_of, set_hardware
from novactl.db.inventories import ensure_inventory, inventories, inventories_of, set_inventory, set_totals
from novactl.db.named import Named
from novactl.db.node_rows import AgentRow, NodeRow, agent_rows, lean_rows, name_of, row_of, rows
from novactl.db.statements import Row, Tx, from_json, statement, to_json, updates
from novactl.model.node import METRICS, Node, NodeState

__all__ = [
    "AgentRow", "NodeRow", "agent_rows", "all_", "arm", "build_failed", "built", "by_id", "by_id_prefix", "by_name", "delete", "disarm",
    "end_lease", "ensure_inventory", "facts_of", "grant_lease", "hardware", "hardware_of", "insert", "inventories", "inventories_of",
    "lacks_lease", "lean_rows", "lock", "name_of", "names", "reshape", "resum", "row_of", "rows", "set_hardware", "set_inventory",
    "set_totals", "shapes", "silent", "booted", "look_again", "take_report", "update",
]

_FLEETING = frozenset({"taken_s", "age_s", "admins_version", "domains", "domains_left", "seq", "seq_operation"})
_OF_DOMAIN = ("server", "epoch", "power_state", "addresses")
"""Of what a report tells of a domain, that from which something follows."""
_PLAIN = (
    "id", "name", "reason", "address", "public_key", "ssh", "host_key", "zone", "architecture", "agent_version", "generation",
    "reported_at", "silent_since", "created_at", "dedicated_cpus", "shared_disk", "failed_builds", "state_since", "state_by", "boot_id",
    "admins_version", "next_public_key", "lease_until", "armed_s", "fenced_at")
_JSON = ("labels", "traits")


def _record(row: Row) -> Node:
    plain = {name: row[name] for name in _PLAIN}
    report, measured = from_json(row["report"]), {name: row[name] for name in METRICS if row[name] is not None}
    return Node(
        **plain, state=NodeState(row["state"]), labels=from_json(row["labels"]), traits=tuple(from_json(row["traits"])),
        report=None if report is None else {**report, **measured}, undo=from_json(row["undo"]) or {},
        fencing=from_json(row["fencing"]) or {})


def _row(node: Node) -> dict[str, Any]:
    given = {name: getattr(node, name) for name in _PLAIN}
    return given | {
        "state": node.state.value, "labels": to_json(dict(node.labels)), "traits": to_json(sorted(node.traits)),
        "shape": "", "servers": 0, "odd": int(bool(node.shared_disk)), "report_key": "", **dict.fromkeys(SUMS, 0),
        **dict.fromkeys(METRICS),
    }


def _select(sa: Any, t: Any) -> Any:
    columns = [t.node.c[name] for name in (*_PLAIN, *_JSON, "state", *METRICS)]
    return sa.select(*columns, t.node_file.c.report, t.node_file.c.undo, t.node_file.c.fencing).select_from(t.node.outerjoin(t.node_file))


nodes: Named[Node] = Named("node", _record, _row, select=_select)
all_, by_name, by_id, by_id_prefix, names = nodes.all_, nodes.by_name, nodes.by_id, nodes.by_id_prefix, nodes.names
delete = nodes.delete


@statement
def q_file_insert(sa: Any, t: Any) -> Any:
    return sa.insert(t.node_file)


@statement
def q_update(sa: Any, t: Any) -> Any:
    """A report key of '' lets the next report be taken in whole: what follows from it may be different now."""
    return updates(
        sa, t.node, "state", "reason", "address", "public_key", "ssh", "host_key", "zone", "architecture", "agent_version",
        "labels", "traits", "dedicated_cpus", "shared_disk", "state_since", "state_by", "next_public_key", "fenced_at",
    ).values(generation=t.node.c.generation + 1, report_key="").where(t.node.c.id == sa.bindparam("by_id"))


@statement
def q_undo(sa: Any, t: Any) -> Any:
    return updates(sa, t.node_file, "undo", "fencing").where(t.node_file.c.node_id == sa.bindparam("by_id"))


@statement
def q_in_pool(sa: Any, t: Any) -> Any:
    return sa.select(t.node.c.id).where(t.node.c.shared_disk == sa.bindparam("by_pool")).order_by(t.node.c.id)


def insert(tx: Tx, node: Node) -> None:
    nodes.insert(tx, node)
    tx.run(q_file_insert, node_id=node.id, report=None if node.report is None else to_json(node.report),
           undo=to_json(dict(node.undo)), hardware=None, fencing=to_json(dict(node.fencing)))
    reshape(tx, [node.id])
    _resum_pools(tx, node.shared_disk)


def update(tx: Tx, node: Node) -> None:
    """Write all of `node` but its name, its generation (which rises), its report, its lease, and its birth."""
    old = lock(tx, node.id)
    if old is None:
        return
    row = _row(node)
    kept = ("generation", "name", "reported_at", "silent_since", "created_at", "failed_builds", "shape", "servers", "odd", "report_key",
            "boot_id", "admins_version", "lease_until", "armed_s", *SUMS, *METRICS)
    tx.run(q_update, by_id=row.pop("id"), **{f"new_{name}": value for name, value in row.items() if name not in kept})
    tx.run(q_undo, by_id=node.id, new_undo=to_json(dict(node.undo)), new_fencing=to_json(dict(node.fencing)))
    reshape(tx, [node.id])
    if old["shared_disk"] != node.shared_disk:
        resum(tx, node.id)
        _resum_pools(tx, old["shared_disk"], node.shared_disk)


def _resum_pools(tx: Tx, *pools: str) -> None:
    for pool in sorted({pool for pool in pools if pool}):
        for (node_id,) in list(tx.stream(q_in_pool, by_pool=pool)):
            resum(tx, node_id)


# ---------------------------------------------------------------- reports

@statement
def q_measured(sa: Any, t: Any) -> Any:
    """Where the node says what it said the last time, and none of its servers was changed since."""
    n, s = t.node.c, t.server.c
    changed = sa.select(s.id).where(s.node_id == n.id, s.updated_at > n.reported_at).exists()
    return updates(sa, t.node, "reported_at", "silent_since", *METRICS, "admins_version").where(
        n.id == sa.bindparam("by_id"), n.report_key == sa.bindparam("by_report_key"), sa.not_(changed))


@statement
def q_report(sa: Any, t: Any) -> Any:
    return updates(sa, t.node, "reported_at", "silent_since", *METRICS, "admins_version", "agent_version", "report_key").where(
        t.node.c.id == sa.bindparam("by_id"))


@statement
def q_file_report(sa: Any, t: Any) -> Any:
    return updates(sa, t.node_file, "report").where(t.node_file.c.node_id == sa.bindparam("by_id"))


@statement
def q_look_again(sa: Any, t: Any) -> Any:
    return sa.update(t.node).values(report_key="").where(t.node.c.id == sa.bindparam("by_id"))


@statement
def q_booted(sa: Any, t: Any) -> Any:
    return updates(sa, t.node, "boot_id").where(t.node.c.id == sa.bindparam("by_id"), t.node.c.boot_id == sa.bindparam("by_boot_id"))


@statement
def q_silent(sa: Any, t: Any) -> Any:
    return updates(sa, t.node, "silent_since").where(t.node.c.id == sa.bindparam("by_id"), t.node.c.silent_since.is_(None))


def _may_run(sa: Any, t: Any) -> Any:
    return sa.and_(t.node.c.id == sa.bindparam("by_id"), t.node.c.state.in_(
        [sa.literal_column("'enabled'"), sa.literal_column("'disabled'")]))


@statement
def q_arm(sa: Any, t: Any) -> Any:
    n, told = t.node.c, sa.bindparam("new_armed_s", type_=sa.Double)
    longest = sa.case((sa.and_(n.armed_s.is_not(None), n.armed_s > told), n.armed_s), else_=told)
    return sa.update(t.node).values(armed_s=longest).where(_may_run(sa, t))


@statement
def q_grant(sa: Any, t: Any) -> Any:
    return updates(sa, t.node, "lease_until", "armed_s").where(_may_run(sa, t), t.node.c.armed_s.is_not(None))


@statement
def q_lacks_lease(sa: Any, t: Any) -> Any:
    n = t.node.c
    return updates(sa, t.node, "lease_until").where(_may_run(sa, t), n.armed_s.is_not(None), n.lease_until.is_(None))


@statement
def q_end_lease(sa: Any, t: Any) -> Any:
    return sa.update(t.node).values(lease_until=sa.null()).where(t.node.c.id == sa.bindparam("by_id"))


@statement
def q_disarm(sa: Any, t: Any) -> Any:
    return sa.update(t.node).values(lease_until=sa.null(), armed_s=sa.null()).where(t.node.c.id == sa.bindparam("by_id"))


@statement
def q_built(sa: Any, t: Any) -> Any:
    return sa.update(t.node).values(failed_builds=0).where(t.node.c.id == sa.bindparam("by_id"), t.node.c.failed_builds != 0)


@statement
def q_build_failed(sa: Any, t: Any) -> Any:
    return sa.update(t.node).values(failed_builds=t.node.c.failed_builds + 1).where(t.node.c.id == sa.bindparam("by_id"))


def take_report(tx: Tx, node_id: str, report: Mapping[str, Any], at: float) -> bool:
    """Store a report (nodeagent.wire.Report as JSON) taken at `at`; the node is no longer silent.

    False when it says what the last one said but for time and load, and no server of the node was changed since: then one
    statement has been all. True when what follows from it (totals, addresses, powers) is to be looked at; the node's facts
    have been.
    """
    import hashlib

    kept = {name: value for name, value in report.items() if name not in METRICS and name not in _FLEETING}
    heard = [kept, [[domain.get(name) for name in _OF_DOMAIN] for domain in report.get("domains", ())]]
    key = hashlib.sha1(to_json(heard).encode(), usedforsecurity=False).hexdigest()
    values = {"new_reported_at": at, "new_silent_since": None, "new_admins_version": report.get("admins_version", 0)}
    values |= {f"new_{name}": report.get(name) for name in METRICS}
    if tx.run(q_measured, by_id=node_id, by_report_key=key, **values):
        return False
    tx.run(q_report, by_id=node_id, **values, new_agent_version=report["agent_version"], new_report_key=key)
    tx.run(q_file_report, by_id=node_id, new_report=to_json(kept))
    reshape(tx, [node_id])
    return True


def look_again(tx: Tx, node_id: str) -> None:
    """Take the next report in whole, whatever it says: this one was not all acted upon."""
    tx.run(q_look_again, by_id=node_id)


def booted(tx: Tx, node_id: str, before: str, boot_id: str) -> bool:
    """Note the boot whose guests have been looked after. False: another process was faster."""
    return tx.run(q_booted, by_id=node_id, by_boot_id=before, new_boot_id=boot_id) == 1


def silent(tx: Tx, node_id: str, at: float) -> bool:
    """Note that a call got no answer. False where that is no news."""
    return tx.run(q_silent, by_id=node_id, new_silent_since=at) == 1


def arm(tx: Tx, node_id: str, self_fence_s: float) -> bool:
    """Before its agent is told to stop its guests `self_fence_s` after a lease: it may have heard of it, whatever it answers. False
    where it is to get no lease any more."""
    return tx.run(q_arm, by_id=node_id, new_armed_s=self_fence_s) == 1


def grant_lease(tx: Tx, node_id: str, until: float, self_fence_s: float) -> bool:
    """Its agent has answered that it has a lease, which ends at `until` at the latest, and fences itself `self_fence_s` after that. False
    where it is being fenced, or was told to do so no more, by now: then nothing is noted."""
    return tx.run(q_grant, by_id=node_id, new_lease_until=until, new_armed_s=self_fence_s) == 1


def lacks_lease(tx: Tx, node_id: str, at: float) -> None:
    """Its agent says that it fences itself and had no lease at `at`: an answer, where the one to the conductor was never written down."""
    tx.run(q_lacks_lease, by_id=node_id, new_lease_until=at)


def end_lease(tx: Tx, node_id: str) -> None:
    """That its agent fences itself has yet to be heard from it (again)."""
    tx.run(q_end_lease, by_id=node_id)


def disarm(tx: Tx, node_id: str) -> None:
    """Its agent has answered that it does not fence itself any more."""
    tx.run(q_disarm, by_id=node_id)


def built(tx: Tx, node_id: str) -> None:
    """A server was built on it: earlier failures are forgiven."""
    tx.run(q_built, by_id=node_id)


def build_failed(tx: Tx, node_id: str) -> None:
    tx.run(q_build_failed, by_id=node_id)
