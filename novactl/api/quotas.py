"""Quotas: what a project uses and may have, and setting it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from novactl.api.authority import Role, needs
from novactl.api.resolve import resolve
from novactl.api.trial import changing
from novactl.cluster import Cluster
from novactl.db import projects, quotas
from novactl.db.statements import Tx
from novactl.errors import Conflict, UsageError
from novactl.model.project import DEFAULT_PROJECT, QUOTAS, UNLIMITED, Project
from novactl.model.resources import MAX_INT
from novactl.model.units import gib, human_gib, human_mib, mib

DEFAULTS = ""
"""The project whose rows are the defaults of all."""
_SHORT = {"ram": "ram_mb", "disk": "disk_gb"}
_SIZED = {"ram_mb": mib, "disk_gb": gib}
_SPOKEN = {"ram_mb": human_mib, "disk_gb": human_gib}
MAX_LIMIT = 2**53
"""Beyond any fleet, and exact in JSON."""


class BelowUsage(Conflict):
    """A limit below what is used already."""

    code = "quota.below_usage"


class QuotaRow(NamedTuple):
    """`limit` is UNLIMITED (-1) where there is none. `source`: project, default, or none."""

    project: str
    resource: str
    used: int
    limit: int
    source: str

    @property
    def used_text(self) -> str:
        """For people."""
        return told(self.resource, self.used)

    @property
    def limit_text(self) -> str:
        """For people."""
        return told(self.resource, self.limit)


def show(cluster: Cluster, ref: str = DEFAULT_PROJECT) -> tuple[QuotaRow, ...]:
    with cluster.db.read() as tx:
        return _rows(tx, resolve(tx, "project", projects, ref))


def list_quotas(cluster: Cluster) -> tuple[QuotaRow, ...]:
    """Every project, every resource."""
    with cluster.db.read() as tx:
        return tuple(row for project in projects.all_(tx) for row in _rows(tx, project))


def defaults(tx: Tx) -> dict[str, int]:
    """What holds for a project that has no limits of its own."""
    own = quotas.own(tx, DEFAULTS)
    return {resource: own.get(resource, UNLIMITED) for resource in QUOTAS}


@needs(Role.ADMIN)
def set_(
    cluster: Cluster, ref: str | None, texts: Mapping[str, str], *, force: bool = False, dry_run: bool = False,
) -> tuple[QuotaRow, ...]:
    """Set limits of a project (None: the defaults). Texts: a number, a size, unlimited (-1), or default: no longer its own.

    Returns what holds then. Raises UsageError for an unknown resource or a bad limit, NotFound, and BelowUsage naming the
    usage unless `force`: then what is there stays, and nothing more is given.
    """
    limits = {}
    for name, text in texts.items():
        resource = _resource(name)
        if resource in limits:
            raise UsageError(f"{resource} is given twice", hint="name each resource once; ram is ram_mb, disk is disk_gb")
        limits[resource] = _limit(resource, text, of_all=ref is None)
    with changing(cluster, "quota.set", {"limits": texts, "force": force}, dry_run=dry_run) as tx:
        project: Project | None = resolve(tx, "project", projects, ref) if ref is not None else None
        project_id = project.id if project else DEFAULTS
        for resource, limit in limits.items():
            quotas.set_(tx, project_id, resource, limit, force=True)
        if not force:
            _check_usage([one for resource in limits for one in quotas.over(tx, project_id, resource)])
        tx.on(project or Project(id=DEFAULTS, name="defaults", description="", created_at=0.0), noun="project",
              detail=", ".join(f"{name}={text}" for name, text in texts.items()))
        return _rows(tx, project) if project else _default_rows(tx)


def _resource(name: str) -> str:
    resource = _SHORT.get(name, name)
    if resource not in QUOTAS:
        raise UsageError(f"there is no quota of {name!r}", hint=f"one of {', '.join(spoken_names())}")
    return resource


def spoken_names() -> list[str]:
    """The resources as `quota set` takes them."""
    short = {resource: name for name, resource in _SHORT.items()}
    return [short.get(resource, resource) for resource in QUOTAS]


def _limit(resource: str, text: str, *, of_all: bool) -> int | None:
    """None: no longer set."""
    word = text.strip().lower()
    if word == "default" and not of_all:
        return None
    if word in ("unlimited", str(UNLIMITED)):
        return UNLIMITED
    if resource in _SIZED:
        limit = _SIZED[resource](text)
    elif word.isascii() and word.isdigit() and len(word) <= len(str(MAX_LIMIT)):
        limit = int(word)
    else:
        raise UsageError(f"{resource}={text}: this is no limit", hint=f"a whole number, unlimited{'' if of_all else ', or default'}")
    if limit > (MAX_LIMIT if resource in _SIZED else MAX_INT):
        raise UsageError(f"{resource}={text} is too large a limit", hint="unlimited says that there is none")
    return limit


def _check_usage(over: Sequence[quotas.Over]) -> None:
    """Raises BelowUsage, with every limit that is."""
    below = [
        f"project {one.project} uses {told(one.resource, one.used)} of {one.resource}, the limit would be {told(one.resource, one.limit)}"
        for one in over]
    if below:
        raise BelowUsage(
            below[0] if len(below) == 1 else "limits would be below what is used", reasons=below if len(below) > 1 else (),
            hint="--force sets them all the same: what is there stays, and nothing more is given")


def told(resource: str, amount: int) -> str:
    """'64.0 GiB', '10', 'unlimited'."""
    return "unlimited" if amount == UNLIMITED else _SPOKEN.get(resource, str)(amount)


def _rows(tx: Tx, project: Project) -> tuple[QuotaRow, ...]:
    own, limits, usage = quotas.own(tx, project.id), quotas.limits(tx, project.id), projects.usage(tx, project.id)
    return tuple(
        QuotaRow(project.name, resource, usage[resource], limits[resource], _source(resource in own, limits[resource]))
        for resource in QUOTAS)


def _default_rows(tx: Tx) -> tuple[QuotaRow, ...]:
    return tuple(QuotaRow("", resource, 0, limit, _source(False, limit)) for resource, limit in defaults(tx).items())


def _source(own: bool, limit: int) -> str:
    if own:
        return "project"
    return "none" if limit == UNLIMITED else "default"
