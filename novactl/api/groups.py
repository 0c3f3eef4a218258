"""Server groups: create, list, show, delete. A server joins one at its birth and stays in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from novactl.api.authority import Role, needs
from novactl.api.resolve import resolve
from novactl.api.trial import changing
from novactl.cluster import Cluster
from novactl.db import groups, nodes, projects, quotas
from novactl.db.statements import Tx
from novactl.errors import AlreadyExists, InUse, UsageError
from novactl.model.group import Policy, ServerGroup
from novactl.model.ids import NAME, check_name
from novactl.model.project import DEFAULT_PROJECT, Project

MAX_PER_HOST = 10_000
NOUN = "server-group"


@dataclass(frozen=True, kw_only=True)
class CreateGroup:
    """`policy` as typed. `max_per_host` None: 1 for anti-affinity, and nothing for the others. `scope` "": each node is a domain."""

    name: str
    policy: str
    max_per_host: int | None = None
    scope: str = ""
    project: str | None = None


class MemberRow(NamedTuple):
    """`node` is "" while it has none."""

    id: str
    name: str
    node: str

    @property
    def line(self) -> str:
        """For people."""
        return f"{self.name} on {self.node}" if self.node else f"{self.name} on no node"


@dataclass(frozen=True, kw_only=True)
class GroupShown:
    """`max_per_host` None: the policy has no such limit."""

    id: str
    name: str
    project: str
    policy: str
    max_per_host: int | None
    scope: str
    members: tuple[MemberRow, ...]
    created_at: float


@needs(Role.OPERATOR)
def create(cluster: Cluster, wanted: CreateGroup, *, dry_run: bool = False) -> GroupShown:
    """Raises UsageError for a bad name, policy, limit or scope, NotFound, AlreadyExists, QuotaExceeded."""
    check_name("server group", wanted.name)
    policy = _policy(wanted.policy)
    if wanted.max_per_host is not None and policy is not Policy.ANTI_AFFINITY:
        raise UsageError(
            f"--max-per-host belongs to anti-affinity; {policy.value} has no limit", hint="leave it out, or choose --policy anti-affinity")
    if wanted.max_per_host is not None and not 1 <= wanted.max_per_host <= MAX_PER_HOST:
        raise UsageError(f"--max-per-host must be 1 to {MAX_PER_HOST}, not {wanted.max_per_host}")
    if wanted.scope and not NAME.match(wanted.scope):
        raise UsageError(
            f"--scope {wanted.scope!r} is not the name of a node label", hint="such as rack, after novactl node set n1 --label rack=r1")
    with changing(cluster, "server-group.create", wanted, dry_run=dry_run) as tx:
        project: Project = resolve(tx, "project", projects, wanted.project or DEFAULT_PROJECT)
        if groups.by_name(tx, wanted.name) is not None:
            raise AlreadyExists(NOUN, wanted.name)
        quotas.check(tx, project.id, "groups", 1)
        made = ServerGroup(
            id=cluster.ids.uuid(), name=wanted.name, project_id=project.id, policy=policy, scope=wanted.scope,
            max_per_domain=wanted.max_per_host or 1, created_at=cluster.clock.now())
        groups.insert(tx, made)
        tx.on(made)
    return _shown(made, project.name, ())


def list_groups(cluster: Cluster, *, project: str | None = None) -> tuple[GroupShown, ...]:
    """By name; with `project` only that one's."""
    with cluster.db.read() as tx:
        only = resolve(tx, "project", projects, project).id if project else ""
        names = {one.id: one.name for one in projects.all_(tx)}
        where = _node_names(tx)
        return tuple(
            _shown(one, names.get(one.project_id, one.project_id), _members(tx, one, where))
            for one in groups.all_(tx) if not only or one.project_id == only)


def show(cluster: Cluster, ref: str) -> GroupShown:
    with cluster.db.read() as tx:
        return _show(tx, resolve(tx, NOUN, groups, ref))


@needs(Role.OPERATOR)
def delete(cluster: Cluster, ref: str, *, force: bool = False, dry_run: bool = False) -> GroupShown:
    """Raises InUse while it has members, unless `force`: then they go on without a group."""
    with changing(cluster, "server-group.delete", {"force": force}, dry_run=dry_run) as tx:
        group: ServerGroup = resolve(tx, NOUN, groups, ref)
        shown = _show(tx, group)
        if shown.members and not force:
            names = ", ".join(member.name for member in shown.members)
            raise InUse(
                f"server group {group.name} has {len(shown.members)} member{'s' if len(shown.members) > 1 else ''}: {names}",
                hint="delete them first, or --force: they go on, and nothing keeps them together or apart any more")
        groups.delete(tx, group.id)
        tx.on(group)
    return shown


def _policy(text: str) -> Policy:
    try:
        return Policy(text)
    except ValueError:
        raise UsageError(f"there is no policy {text!r}", hint=f"one of {', '.join(policy.value for policy in Policy)}") from None


def _show(tx: Tx, group: ServerGroup) -> GroupShown:
    project = projects.by_id(tx, group.project_id)
    return _shown(group, project.name if project else group.project_id, _members(tx, group, _node_names(tx)))


def _node_names(tx: Tx) -> dict[str, str]:
    return {node.id: node.name for node in nodes.all_(tx)}


def _members(tx: Tx, group: ServerGroup, node_names: dict[str, str]) -> tuple[MemberRow, ...]:
    rows = [MemberRow(one.id, one.name, node_names.get(one.node_id or "", "")) for one in groups.members(tx, group.id)]
    return tuple(sorted(rows, key=lambda row: row.name))


def _shown(group: ServerGroup, project: str, members: tuple[MemberRow, ...]) -> GroupShown:
    return GroupShown(
        id=group.id, name=group.name, project=project, policy=group.policy.value,
        max_per_host=group.max_per_domain if group.policy is Policy.ANTI_AFFINITY else None, scope=group.scope, members=members,
        created_at=group.created_at)
