"""Flavors: create, list, show, set, unset, delete."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from novactl.api.authority import Role, needs
from novactl.api.resolve import locked, resolve
from novactl.api.trial import Change, changing
from novactl.cluster import Cluster
from novactl.db import flavors
from novactl.errors import AlreadyExists, UsageError
from novactl.model.flavor import Flavor
from novactl.model.ids import check_description, check_name
from novactl.model.wants import CAPABILITY_SCOPE

MAX_VCPUS, MAX_MEMORY_MB, MAX_DISK_GB = 4096, 64 << 20, 1 << 30
"""Beyond any host there is: larger numbers are typing errors."""


@dataclass(frozen=True, kw_only=True)
class CreateFlavor:
    """`disk_gb` 0: as large as the image. `specs` are extra specs (novactl.model.extra_specs)."""

    name: str
    vcpus: int
    memory_mb: int
    disk_gb: int
    specs: Mapping[str, str] = field(default_factory=dict)
    description: str = ""


@needs(Role.ADMIN)
def create(cluster: Cluster, wanted: CreateFlavor, *, dry_run: bool = False) -> Flavor:
    """Raises UsageError for a bad name, size or extra spec, AlreadyExists."""
    name = check_name("flavor", wanted.name)
    for what, value, low, high in (
        ("vcpus", wanted.vcpus, 1, MAX_VCPUS), ("memory (MiB)", wanted.memory_mb, 1, MAX_MEMORY_MB),
        ("disk (GiB)", wanted.disk_gb, 0, MAX_DISK_GB),
    ):
        if not low <= value <= high:
            raise UsageError(f"flavor {name}: {what} must be {low} to {high}, not {value}")
    flavor = _checked(Flavor(
        id=cluster.ids.uuid(), name=name, vcpus=wanted.vcpus, memory_mb=wanted.memory_mb, disk_gb=wanted.disk_gb,
        created_at=cluster.clock.now(), specs=wanted.specs, description=wanted.description))
    with changing(cluster, "flavor.create", wanted, dry_run=dry_run) as tx:
        if flavors.by_name(tx, name) is not None:
            raise AlreadyExists("flavor", name)
        flavors.insert(tx, flavor)
        tx.on(flavor)
    return flavor


@needs(Role.ADMIN)
def set_(
    cluster: Cluster, ref: str, *, specs: Mapping[str, str], description: str | None = None, dry_run: bool = False,
) -> Flavor:
    """Set extra specs, and the description unless None; sizes never change. Servers made from it keep their copy. Raises UsageError."""
    if not specs and description is None:
        raise UsageError("nothing to set", hint="--property KEY=VALUE or --description TEXT; a flavor's sizes never change")
    with changing(cluster, "flavor.set", {"specs": specs, "description": description}, dry_run=dry_run) as tx:
        flavor: Flavor = locked(tx, "flavor", flavors, ref)
        changed = dataclasses.replace(
            flavor, specs={**flavor.specs, **specs}, description=flavor.description if description is None else description)
        return _write(tx, flavor, changed)


@needs(Role.ADMIN)
def unset(cluster: Cluster, ref: str, *, keys: Iterable[str], dry_run: bool = False) -> Flavor:
    """Take extra specs away; what is not there is no error. Raises UsageError where what stays makes no sense."""
    gone = set(keys)
    with changing(cluster, "flavor.unset", {"keys": sorted(gone)}, dry_run=dry_run) as tx:
        flavor: Flavor = locked(tx, "flavor", flavors, ref)
        kept = {key: value for key, value in flavor.specs.items() if key not in gone}
        return _write(tx, flavor, dataclasses.replace(flavor, specs=kept))


def _write(tx: Change, flavor: Flavor, changed: Flavor) -> Flavor:
    _checked(changed)
    if changed != flavor:
        flavors.update(tx, changed)
    tx.on(flavor)
    return changed


def _checked(flavor: Flavor) -> Flavor:
    """Raises UsageError."""
    check_description(flavor.description)
    if flavor.specs:
        from novactl.model.extra_specs import check_flavor_specs

        check_flavor_specs(flavor.specs, flavor.vcpus, flavor.memory_mb, operators=_check_operators)
    return flavor


def _check_operators(key: str, text: str) -> None:
    """Raises UsageError."""
    from novactl.scheduler import specs
    from novactl.scheduler.filters import capabilities

    if key.startswith(CAPABILITY_SCOPE):
        capabilities.check(key, text)
    else:
        specs.check(text)


def list_flavors(cluster: Cluster) -> tuple[Flavor, ...]:
    with cluster.db.read() as tx:
        return flavors.all_(tx)


def show(cluster: Cluster, ref: str) -> Flavor:
    with cluster.db.read() as tx:
        return resolve(tx, "flavor", flavors, ref)


@needs(Role.ADMIN)
def delete(cluster: Cluster, ref: str, *, dry_run: bool = False) -> Flavor:
    """Servers made from it keep their copy."""
    with changing(cluster, "flavor.delete", dry_run=dry_run) as tx:
        flavor: Flavor = resolve(tx, "flavor", flavors, ref)
        flavors.delete(tx, flavor.id)
        tx.on(flavor)
    return flavor
