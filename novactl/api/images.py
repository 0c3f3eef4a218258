"""Images: what a caller may ask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from novactl.api.resolve import resolve
from novactl.cluster import Cluster
from novactl.conductor.progress import Watch, unwatched
from novactl.db import images as db_images
from novactl.errors import UsageError
from novactl.model.ids import check_name
from novactl.model.image import DISK_FORMATS, CreateImage, Image

__all__ = ["CreateImage", "create", "delete", "list_images", "show"]

ARCHITECTURES: Mapping[str, str] = {
    "x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64", "ppc64le": "ppc64le", "riscv64": "riscv64",
    "s390x": "s390x",
}
"""What an image may run on, in libvirt's words, and what else people call it."""


def create(cluster: Cluster, wanted: CreateImage, *, watch: Watch = unwatched, dry_run: bool = False) -> Image:
    """Take in an image. Raises UsageError, BadImage, AlreadyExists, Unreachable (a URL) or NoSpace; then nothing stays."""
    from novactl.conductor.image_intake import take_in

    check_name("image", wanted.name)
    if wanted.architecture not in ARCHITECTURES:
        raise UsageError(f"architecture {wanted.architecture!r} is not known", hint=f"one of {', '.join(ARCHITECTURES)}")
    if wanted.disk_format is not None and wanted.disk_format not in DISK_FORMATS:
        raise UsageError(f"disk format {wanted.disk_format!r} is not supported", hint=f"one of {', '.join(DISK_FORMATS)}")
    return take_in(cluster, replace(wanted, architecture=ARCHITECTURES[wanted.architecture]), watch=watch, dry_run=dry_run)


def list_images(cluster: Cluster) -> tuple[Image, ...]:
    with cluster.db.read() as tx:
        return db_images.all_(tx)


def show(cluster: Cluster, ref: str) -> Image:
    with cluster.db.read() as tx:
        return resolve(tx, "image", db_images, ref)


def delete(cluster: Cluster, ref: str, *, dry_run: bool = False) -> Image:
    """Delete an image. Raises InUse while a server is being built from it; servers that exist go on."""
    from novactl.conductor.image_intake import drop

    with cluster.db.read() as tx:
        image = resolve(tx, "image", db_images, ref)
    return drop(cluster, image.id, dry_run=dry_run)
