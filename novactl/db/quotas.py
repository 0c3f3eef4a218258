"""Limits: of a project, and the defaults (project '') for those that have none of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from novactl.db import projects
from novactl.db.derived import limit as write_limits
from novactl.db.statements import Tx, statement, updates
from novactl.errors import Conflict, NotFound, QuotaExceeded
from novactl.model.project import QUOTAS, UNLIMITED
from novactl.model.resources import DISK_GB, MEMORY_MB, PCPU, VCPU, Amounts


@statement
def q_rows(sa: Any, t: Any) -> Any:
    return sa.select(t.quota.c.resource, t.quota.c.max_amount).where(t.quota.c.project_id == sa.bindparam("by_project_id"))


@statement
def q_insert(sa: Any, t: Any) -> Any:
    return sa.insert(t.quota)


@statement
def q_update(sa: Any, t: Any) -> Any:
    return updates(sa, t.quota, "max_amount").where(
        t.quota.c.project_id == sa.bindparam("by_project_id"), t.quota.c.resource == sa.bindparam("by_resource"))


@statement
def q_delete(sa: Any, t: Any) -> Any:
    return sa.delete(t.quota).where(
        t.quota.c.project_id == sa.bindparam("by_project_id"), t.quota.c.resource == sa.bindparam("by_resource"))


def own(tx: Tx, project_id: str) -> dict[str, int]:
    """The limits set for exactly this project; '' for the defaults."""
    return dict(tx.stream(q_rows, by_project_id=project_id))


def limits(tx: Tx, project_id: str) -> dict[str, int]:
    """The limits in force for a project, of everything that can have one; UNLIMITED where there is none."""
    return {**dict.fromkeys(QUOTAS, UNLIMITED), **own(tx, ""), **own(tx, project_id)}


def set_(tx: Tx, project_id: str, resource: str, limit: int | None, *, force: bool = False) -> None:
    """Set a project's limit, or with '' the default; None takes it away again.

    Raises Conflict, naming the projects, when somebody it holds for uses more than that already, unless `force`: what is held
    stays, and nothing more is given.
    """
    _lock(tx, project_id)
    key = {"by_project_id": project_id, "by_resource": resource}
    if limit is None:
        tx.run(q_delete, **key)
    elif not tx.run(q_update, **key, new_max_amount=limit):
        tx.run(q_insert, project_id=project_id, resource=resource, max_amount=limit)
    write_limits(tx, project_id)
    found = () if force else over(tx, project_id, resource)
    if found:
        told = [f"project {one.project} uses {one.used} of {one.limit}" for one in found]
        raise Conflict(f"quota {resource}: {told[0]} already", reasons=told[1:], hint="a limit is at least what is in use")


def _lock(tx: Tx, project_id: str) -> None:
    """No claim comes between, and of two who set limits at once the second sees what the first has written: a statement that
    waits for the row would go on with the limits as they were before it waited."""
    for id_ in [project_id] if project_id else sorted(project.id for project in projects.all_(tx)):
        projects.lock(tx, id_)


class Over(NamedTuple):
    """A project (its name) that uses more of a resource than its limit."""

    project: str
    resource: str
    used: int
    limit: int


def over(tx: Tx, project_id: str, resource: str) -> list[Over]:
    """Whether a project uses more than its limit; with '' which of those do that have the default limit."""
    found = []
    for project in projects.all_(tx):
        if project_id == project.id or (not project_id and resource not in own(tx, project.id)):
            used, limit = projects.usage(tx, project.id)[resource], limits(tx, project.id)[resource]
            if used > limit >= 0:
                found.append(Over(project.name, resource, used, limit))
    return found


def check(tx: Tx, project_id: str, resource: str, more: int) -> None:
    """Raises QuotaExceeded when `more` of a resource would pass the project's limit; the project stays locked until the end.

    For what is not counted with the claims (key pairs, groups …).
    """
    projects.lock(tx, project_id)
    used, allowed = projects.usage(tx, project_id)[resource], limits(tx, project_id)[resource]
    if allowed >= 0 and used + more > allowed:
        project = projects.by_id(tx, project_id)
        raise exceeded(project.name if project else project_id, resource, used=used, asked=more, allowed=allowed)


def exceeded(project: str, resource: str, *, used: int, asked: int, allowed: int) -> QuotaExceeded:
    """The error that says so, with all the numbers. `project` is its name."""
    unit = QUOTAS[resource].unit
    of = f"{allowed} {unit}".rstrip()
    return QuotaExceeded(
        f"quota {resource} of project {project}: {used} of {of} used, {asked} more asked: over by {used + asked - allowed}",
        hint="delete servers, ask for less, or have the limit raised", command=f"novactl quota show {project}",
        details={"project": project, "resource": resource, "used": used, "asked": asked, "limit": allowed})


# ---------------------------------------------------------------- with the claims

@statement
def q_charge(sa: Any, t: Any) -> Any:
    """Raise the project's usage if every limit allows it and the consumer does not hold its claim already."""
    p, c = t.project.c, t.claim.c
    held = sa.select(c.consumer_id).where(
        c.consumer_id == sa.bindparam("by_consumer_id"), c.node_id == sa.bindparam("by_node_id")).exists()
    more = {name: sa.bindparam(f"new_{name}", type_=sa.BigInteger) for name in projects.COUNTED}
    allowed = [
        sa.or_(p[f"{name}_max"] < 0, p[f"{name}_used"] + more[name] <= p[f"{name}_max"], more[name] == 0) for name in projects.COUNTED]
    return sa.update(t.project).values({f"{name}_used": p[f"{name}_used"] + more[name] for name in projects.COUNTED}).where(
        p.id == sa.bindparam("by_id"), *allowed, sa.not_(held))


@statement
def q_refund(sa: Any, t: Any) -> Any:
    p = t.project.c
    return sa.update(t.project).values({
        f"{name}_used": p[f"{name}_used"] - sa.bindparam(f"new_{name}", type_=sa.BigInteger) for name in projects.COUNTED
    }).where(p.id == sa.bindparam("by_id"))


def counted(amounts: Amounts) -> Mapping[str, int]:
    """What one server with these claims is to its project."""
    return {
        "new_servers": 1, "new_cores": amounts.get(VCPU, 0) + amounts.get(PCPU, 0), "new_ram_mb": amounts.get(MEMORY_MB, 0),
        "new_disk_gb": amounts.get(DISK_GB, 0),
    }


def charge(tx: Tx, project_id: str, amounts: Amounts, consumer_id: str, node_id: str) -> bool:
    """Count one server more. False, and nothing is changed, where a limit does not allow it or it holds that claim already."""
    return tx.run(q_charge, by_id=project_id, by_consumer_id=consumer_id, by_node_id=node_id, **counted(amounts)) == 1


def refund(tx: Tx, project_id: str, amounts: Amounts) -> None:
    """Count one server less."""
    tx.run(q_refund, by_id=project_id, **counted(amounts))


def recharge(tx: Tx, project_id: str, amounts: Amounts) -> None:
    """Count one server again that was refunded, whatever the limits are by now."""
    tx.run(q_refund, by_id=project_id, **{name: -amount for name, amount in counted(amounts).items()})


def refuse(tx: Tx, project_id: str, amounts: Amounts) -> None:
    """Raises QuotaExceeded naming what keeps the project from having so much more; returns where by now nothing does."""
    project = projects.by_id(tx, project_id)
    if project is None:
        raise NotFound("project", project_id)
    used, allowed, asked = projects.usage(tx, project_id), limits(tx, project_id), counted(amounts)
    over = [
        exceeded(project.name, name, used=used[name], asked=more, allowed=allowed[name]) for name in projects.COUNTED
        if (more := asked[f"new_{name}"]) and 0 <= allowed[name] < used[name] + more
    ]
    if over:
        over[0].reasons = tuple(other.message for other in over[1:])
        raise over[0]
