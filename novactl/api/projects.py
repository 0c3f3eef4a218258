"""Projects: create, list, show, set, delete."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from novactl.api.authority import Role, needs
from novactl.api.resolve import locked, resolve
from novactl.api.trial import changing
from novactl.cluster import Cluster
from novactl.db import projects
from novactl.errors import AlreadyExists, Conflict, InUse
from novactl.model.ids import check_description, check_name
from novactl.model.project import DEFAULT_PROJECT, QUOTAS, Project


@dataclass(frozen=True, kw_only=True)
class ProjectView:
    """A project with what its servers hold."""

    id: str
    name: str
    description: str
    servers: int
    cores: int
    ram_mb: int
    disk_gb: int
    created_at: float


@needs(Role.ADMIN)
def create(cluster: Cluster, *, name: str, description: str = "", dry_run: bool = False) -> ProjectView:
    """Raises UsageError, AlreadyExists."""
    check_name("project", name)
    check_description(description)
    made = Project(id=cluster.ids.uuid(), name=name, description=description, created_at=cluster.clock.now())
    with changing(cluster, "project.create", {"name": name, "description": description}, dry_run=dry_run) as tx:
        if projects.by_name(tx, name) is not None:
            raise AlreadyExists("project", name)
        projects.insert(tx, made)
        tx.on(made)
    return _view(made, {})


def list_projects(cluster: Cluster) -> tuple[ProjectView, ...]:
    with cluster.db.read() as tx:
        return tuple(_view(one, projects.usage(tx, one.id)) for one in projects.all_(tx))


def show(cluster: Cluster, ref: str) -> ProjectView:
    with cluster.db.read() as tx:
        found: Project = resolve(tx, "project", projects, ref)
        return _view(found, projects.usage(tx, found.id))


@needs(Role.ADMIN)
def set_(cluster: Cluster, ref: str, *, description: str, dry_run: bool = False) -> ProjectView:
    """Raises UsageError, NotFound."""
    check_description(description)
    with changing(cluster, "project.set", {"description": description}, dry_run=dry_run) as tx:
        found: Project = locked(tx, "project", projects, ref)
        changed = dataclasses.replace(found, description=description)
        if changed != found:
            projects.update(tx, changed)
        tx.on(found)
        return _view(changed, projects.usage(tx, found.id))


@needs(Role.ADMIN)
def delete(cluster: Cluster, ref: str, *, dry_run: bool = False) -> ProjectView:
    """With its quotas. Raises Conflict for the default one, InUse naming what it still has."""
    with changing(cluster, "project.delete", dry_run=dry_run) as tx:
        found: Project = resolve(tx, "project", projects, ref)
        if found.id == DEFAULT_PROJECT:
            raise Conflict("the default project cannot be deleted: what names no project belongs to it")
        projects.lock(tx, found.id)
        usage = projects.usage(tx, found.id)
        left = [
            f"{resource} ({amount})" for resource, amount in usage.items()
            if amount and (resource == "servers" or not QUOTAS[resource].claimed)]
        building = projects.in_use(tx, found.id)
        if building and not usage.get("servers"):
            left.insert(0, f"servers ({building})")
        if left:
            raise InUse(f"project {found.name} still has {', '.join(left)}", hint="delete these first",
                        command=f"novactl quota show {found.name}")
        projects.delete(tx, found.id)
        tx.on(found)
    return _view(found, usage)


def _view(project: Project, usage: dict[str, int]) -> ProjectView:
    return ProjectView(
        id=project.id, name=project.name, description=project.description, servers=usage.get("servers", 0),
        cores=usage.get("cores", 0), ram_mb=usage.get("ram_mb", 0), disk_gb=usage.get("disk_gb", 0), created_at=project.created_at)
