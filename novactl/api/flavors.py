"""Flavors: create, list, show, delete."""

from __future__ import annotations

from novactl.api.resolve import resolve
from novactl.cluster import Cluster
from novactl.db import flavors
from novactl.errors import AlreadyExists, UsageError
from novactl.model.flavor import Flavor
from novactl.model.ids import check_name

MAX_VCPUS, MAX_MEMORY_MB, MAX_DISK_GB = 4096, 64 << 20, 1 << 30
"""Beyond any host there is: larger numbers are typing errors."""


def create(cluster: Cluster, *, name: str, vcpus: int, memory_mb: int, disk_gb: int, dry_run: bool = False) -> Flavor:
    """Raises UsageError for a bad name or size, AlreadyExists. `disk_gb` 0: as large as the image."""
    check_name("flavor", name)
    for what, value, low, high in (
        ("vcpus", vcpus, 1, MAX_VCPUS), ("memory (MiB)", memory_mb, 1, MAX_MEMORY_MB), ("disk (GiB)", disk_gb, 0, MAX_DISK_GB),
    ):
        if not low <= value <= high:
            raise UsageError(f"flavor {name}: {what} must be {low} to {high}, not {value}")
    flavor = Flavor(
        id=cluster.ids.uuid(), name=name, vcpus=vcpus, memory_mb=memory_mb, disk_gb=disk_gb, created_at=cluster.clock.now())
    with cluster.db.write() as tx:
        if flavors.by_name(tx, name) is not None:
            raise AlreadyExists("flavor", name)
        if not dry_run:
            flavors.insert(tx, flavor)
    return flavor


def list_flavors(cluster: Cluster) -> tuple[Flavor, ...]:
    with cluster.db.read() as tx:
        return flavors.all_(tx)


def show(cluster: Cluster, ref: str) -> Flavor:
    with cluster.db.read() as tx:
        return resolve(tx, "flavor", flavors, ref)


def delete(cluster: Cluster, ref: str, *, dry_run: bool = False) -> Flavor:
    """Servers made from it keep their copy."""
    with cluster.db.write() as tx:
        flavor: Flavor = resolve(tx, "flavor", flavors, ref)
        if not dry_run:
            flavors.delete(tx, flavor.id)
    return flavor
