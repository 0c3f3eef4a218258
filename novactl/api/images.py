"""Images: create, list, show, set, unset, delete."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from novactl.api.authority import Role, needs
from novactl.api.resolve import locked, resolve
from novactl.api.trial import Change, changing
from novactl.cluster import Cluster
from novactl.conductor.progress import Watch, unwatched
from novactl.db import images as db_images
from novactl.errors import UsageError
from novactl.model.ids import check_name
from novactl.model.image import DISK_FORMATS, CreateImage, Image

__all__ = ["CreateImage", "create", "delete", "list_images", "set_", "show", "unset"]

ARCHITECTURES: Mapping[str, str] = {
    "x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64", "ppc64le": "ppc64le", "riscv64": "riscv64",
    "s390x": "s390x",
}
"""What an image may run on, in libvirt's words, and what else people call it."""


@needs(Role.OPERATOR)
def create(cluster: Cluster, wanted: CreateImage, *, watch: Watch = unwatched, dry_run: bool = False) -> Image:
    """Take in an image. Raises UsageError, BadImage, AlreadyExists, Unreachable (a URL) or NoSpace; then nothing stays."""
    from novactl.conductor.image_intake import take_in

    check_name("image", wanted.name)
    if wanted.architecture not in ARCHITECTURES:
        raise UsageError(f"architecture {wanted.architecture!r} is not known", hint=f"one of {', '.join(ARCHITECTURES)}")
    if wanted.disk_format is not None and wanted.disk_format not in DISK_FORMATS:
        raise UsageError(f"disk format {wanted.disk_format!r} is not supported", hint=f"one of {', '.join(DISK_FORMATS)}")
    known = replace(wanted, architecture=ARCHITECTURES[wanted.architecture])
    _check(wanted.name, known.architecture, wanted.properties)
    return take_in(cluster, known, watch=watch, dry_run=dry_run)


def list_images(cluster: Cluster) -> tuple[Image, ...]:
    with cluster.db.read() as tx:
        return db_images.all_(tx)


def show(cluster: Cluster, ref: str) -> Image:
    with cluster.db.read() as tx:
        return resolve(tx, "image", db_images, ref)


@needs(Role.OPERATOR)
def set_(cluster: Cluster, ref: str, *, properties: Mapping[str, str], dry_run: bool = False) -> Image:
    """Set properties; servers made from it keep their copy. Raises UsageError."""
    if not properties:
        raise UsageError("nothing to set", hint="--property KEY=VALUE")
    with changing(cluster, "image.set", {"properties": properties}, dry_run=dry_run) as tx:
        image: Image = locked(tx, "image", db_images, ref)
        return _write(tx, image, {**image.properties, **properties})


@needs(Role.OPERATOR)
def unset(cluster: Cluster, ref: str, *, keys: Iterable[str], dry_run: bool = False) -> Image:
    """Take properties away; what is not there is no error."""
    gone = set(keys)
    with changing(cluster, "image.unset", {"keys": sorted(gone)}, dry_run=dry_run) as tx:
        image: Image = locked(tx, "image", db_images, ref)
        return _write(tx, image, {key: value for key, value in image.properties.items() if key not in gone})


def _write(tx: Change, image: Image, properties: Mapping[str, str]) -> Image:
    _check(image.name, image.architecture, properties)
    changed = replace(image, properties=properties)
    if changed != image:
        db_images.update(tx, changed)
    tx.on(image)
    return changed


def _check(name: str, architecture: str, properties: Mapping[str, str]) -> None:
    """Raises UsageError."""
    if properties:
        from novactl.model.extra_specs import check_image_properties

        check_image_properties(properties)
    said = properties.get("hw_architecture", architecture)
    if ARCHITECTURES.get(said) != architecture:
        raise UsageError(f"image {name} is {architecture}; hw_architecture={said} contradicts it", hint="leave hw_architecture out")


@needs(Role.OPERATOR)
def delete(cluster: Cluster, ref: str, *, dry_run: bool = False) -> Image:
    """Delete an image. Raises InUse while a server is being built from it; servers that exist go on."""
    from novactl.conductor.image_intake import drop

    with cluster.db.read() as tx:
        image = resolve(tx, "image", db_images, ref)
    return drop(cluster, image.id, dry_run=dry_run)
