"""Images come in and go: fetched, checked, stored under their SHA-256, recorded; and all of it undone on failure."""

from __future__ import annotations

import re
from dataclasses import replace

from novactl.cluster import Cluster
from novactl.conductor.change import changing
from novactl.conductor.image_inspection import inspect
from novactl.conductor.image_source import Source, open_source
from novactl.conductor.image_store import ImageStore, Part, store_of
from novactl.conductor.progress import Progress, Watch
from novactl.db import images as db_images
from novactl.db import servers as db_servers
from novactl.db.statements import Tx
from novactl.errors import AlreadyExists, BadImage, InUse, NotFound
from novactl.model.image import GIB, CreateImage, Image
from novactl.model.units import human_bytes

TELL_EVERY_BYTES = 4 << 20
_CHECKSUM = re.compile(r"sha256:([0-9a-fA-F]{64})\Z")


def take_in(cluster: Cluster, wanted: CreateImage, *, watch: Watch, dry_run: bool = False) -> Image:
    """Fetch, check, store and record an image; with `dry_run` all but the last two.

    Whatever fails, and whenever this process is killed, no image is recorded, and no file stays beyond the next call.
    Raises BadImage for a file that is not what it should be, AlreadyExists, Unreachable for a URL, NoSpace.
    """
    expected = _checksum(wanted.checksum)
    store = store_of(cluster)
    with cluster.db.read() as tx:
        _check_free(tx, wanted.name)
    with store.lock(), cluster.db.read() as tx:
        store.sweep({image.sha256 for image in db_images.all_(tx)})
    with store.part(cluster.ids.uuid()) as part:
        with open_source(wanted.source) as source:
            sha256, size_bytes = _fetch(cluster, store, part, source, _Teller(watch, wanted.name, source.total_bytes))
        if expected and sha256 != expected:
            raise BadImage(
                f"{wanted.source} has SHA-256 {sha256}, not {expected} as given with --checksum",
                hint="the file is truncated, damaged or another one; do not use it")
        watch(Progress("", wanted.name, "check", "started"))
        found = inspect(part.path, wanted.disk_format, shown=wanted.source, vouched=expected is not None)
        _check_virtual_size(cluster, wanted.source, found.virtual_size_bytes)
        watch(Progress("", wanted.name, "check", "done", detail=f"{found.disk_format}, {human_bytes(found.virtual_size_bytes)}"))
        image = Image(
            id=cluster.ids.uuid(), name=wanted.name, sha256=sha256, disk_format=found.disk_format, size_bytes=size_bytes,
            virtual_size_bytes=found.virtual_size_bytes, architecture=wanted.architecture, source=source.name,
            created_at=cluster.clock.now(), properties=wanted.properties,
        )
        if not dry_run:
            _record(cluster, store, part, image, wanted)
    return image


def drop(cluster: Cluster, image_id: str, *, dry_run: bool = False) -> Image:
    """Delete an image, and its file with the last image of that content.

    Raises InUse while a server is being built from it. Servers that exist go on: nodes keep what they run on.
    """
    store = store_of(cluster)
    with store.lock():
        with changing(cluster, "image.delete", dry_run=dry_run) as tx:
            image = db_images.by_id(tx, image_id)
            if image is None:
                raise NotFound("image", image_id)
            building = db_servers.building_from(tx, image_id)
            if building:
                raise InUse(
                    f"image {image.name} is needed: {len(building)} server(s) are being built from it", reasons=building[:20],
                    hint="wait until they are built, or delete them", command="novactl operation list")
            db_images.delete(tx, image_id)
            last = not dry_run and db_images.with_sha256(tx, image.sha256) == 0
            tx.on(image)
        if last:
            store.remove(image.sha256)
    return image


def _fetch(cluster: Cluster, store: ImageStore, part: Part, source: Source, teller: _Teller) -> tuple[str, int]:
    max_bytes = cluster.config["image.max_file_gb"] * GIB
    if source.total_bytes > max_bytes:
        raise BadImage(
            f"{source.name} has {human_bytes(source.total_bytes)}; at most {human_bytes(max_bytes)} are taken",
            hint="setting image.max_file_gb")
    store.check_space(source.total_bytes)
    teller.begin()
    found = part.fill(source.chunks, max_bytes=max_bytes, tell=teller)
    teller.end(found[1])
    return found


def _record(cluster: Cluster, store: ImageStore, part: Part, image: Image, wanted: CreateImage) -> None:
    """File and row together: a row without its file never is, a file without its row is swept."""
    with store.lock():
        try:
            with changing(cluster, "image.create", replace(wanted, source=image.source), dry_run=False) as tx:
                _check_free(tx, image.name)
                store.keep(part, image.sha256)
                db_images.insert(tx, image)
                tx.on(image, detail=f"sha256 {image.sha256[:12]}")
        except BaseException:
            with cluster.db.read() as tx:
                if db_images.with_sha256(tx, image.sha256) == 0:
                    store.remove(image.sha256)
            raise


def _check_free(tx: Tx, name: str) -> None:
    if db_images.by_name(tx, name):
        raise AlreadyExists("image", name)


def _check_virtual_size(cluster: Cluster, shown: str, virtual_size_bytes: int) -> None:
    limit = cluster.config["image.max_virtual_gb"] * GIB
    if virtual_size_bytes > limit:
        raise BadImage(
            f"{shown} is a disk of {human_bytes(virtual_size_bytes)}; at most {human_bytes(limit)} are taken",
            hint="setting image.max_virtual_gb")


def _checksum(text: str | None) -> str | None:
    if text is None:
        return None
    found = _CHECKSUM.match(text)
    if not found:
        raise BadImage(f"checksum {text!r} is not valid", hint="write sha256: and 64 hexadecimal digits")
    return found[1].lower()


class _Teller:
    """Tells `watch` of the bytes, not too often."""

    def __init__(self, watch: Watch, subject: str, total: int) -> None:
        self._watch, self._subject, self._total = watch, subject, total
        self._told = 0

    def begin(self) -> None:
        self._watch(Progress("", self._subject, "image", "started", 0, self._total))

    def __call__(self, done: int) -> None:
        if done - self._told >= TELL_EVERY_BYTES:
            self._told = done
            self._watch(Progress("", self._subject, "image", "running", done, self._total))

    def end(self, done: int) -> None:
        self._watch(Progress("", self._subject, "image", "done", done, done))
