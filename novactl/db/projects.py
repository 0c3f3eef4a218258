"""Projects, and what they use."""

from __future__ import annotations

from typing import Any

from novactl.db.derived import limit
from novactl.db.named import Named
from novactl.db.statements import Row, Tx, statement, updates
from novactl.model.project import QUOTAS, UNLIMITED, Project

COUNTED = ("servers", "cores", "ram_mb", "disk_gb")
"""The resources whose usage is counted in the project's row, with the claims."""
_COLUMNS = ("id", "name", "description", "created_at")


def _record(row: Row) -> Project:
    return Project(**row)


def _row(project: Project) -> dict[str, Any]:
    return {name: getattr(project, name) for name in _COLUMNS} | {
        f"{name}_{what}": value for name in COUNTED for what, value in (("used", 0), ("max", UNLIMITED))}


def _select(sa: Any, t: Any) -> Any:
    return sa.select(*(t.project.c[name] for name in _COLUMNS))


projects: Named[Project] = Named("project", _record, _row, select=_select)
all_, by_name, by_id, by_id_prefix, names = projects.all_, projects.by_name, projects.by_id, projects.by_id_prefix, projects.names


@statement
def q_update(sa: Any, t: Any) -> Any:
    return updates(sa, t.project, "name", "description").where(t.project.c.id == sa.bindparam("by_id"))


@statement
def q_lock(sa: Any, t: Any) -> Any:
    return sa.select(t.project.c.id).where(t.project.c.id == sa.bindparam("by_id")).with_for_update(key_share=True)


@statement
def q_usage(sa: Any, t: Any) -> Any:
    p = t.project.c

    def count(table: Any) -> Any:
        return sa.select(sa.func.count()).select_from(table).where(table.c.project_id == p.id).scalar_subquery()

    counted = {name: p[f"{name}_used"] for name in COUNTED} | {"keypairs": count(t.keypair), "groups": count(t.server_group)}
    return sa.select(*(counted.get(name, sa.literal_column("0")).label(name) for name in QUOTAS)).where(p.id == sa.bindparam("by_id"))


@statement
def q_in_use(sa: Any, t: Any) -> Any:
    s = t.server.c
    return sa.select(sa.func.count()).where(s.project_id == sa.bindparam("by_id"), s.live_name.is_not(None))


@statement
def q_quotas_delete(sa: Any, t: Any) -> Any:
    return sa.delete(t.quota).where(t.quota.c.project_id == sa.bindparam("by_id"))


def insert(tx: Tx, project: Project) -> None:
    projects.insert(tx, project)
    limit(tx, project.id)


def update(tx: Tx, project: Project) -> None:
    """Write its name and description."""
    tx.run(q_update, by_id=project.id, new_name=project.name, new_description=project.description)


def delete(tx: Tx, project_id: str) -> bool:
    """True when there was one. Its own limits go with it; whether it is in use is the caller's to ask, after `lock`."""
    tx.run(q_quotas_delete, by_id=project_id)
    return projects.delete(tx, project_id)


def lock(tx: Tx, project_id: str) -> bool:
    """Nobody claims for it until the transaction ends. False when it is gone."""
    return tx.one(q_lock, by_id=project_id) is not None


def usage(tx: Tx, project_id: str) -> dict[str, int]:
    """What it uses of everything that has a limit; 0 throughout for a project that is not there."""
    row = tx.one(q_usage, by_id=project_id)
    return dict.fromkeys(QUOTAS, 0) if row is None else dict(row)


def in_use(tx: Tx, project_id: str) -> int:
    """How many living servers are its."""
    ((count,),) = tx.stream(q_in_use, by_id=project_id)
    return count
