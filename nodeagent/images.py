"""Base images as files of the pool directory: arriving in order, checked, then visible under their final name.

`base-<sha256>.<node id>.part` grows at its end only and its SHA-256 grows with it, so a transfer goes on after either side
was restarted. The final name appears after size and hash were found right and the bytes are on disk. The directory may be other
nodes', too: what they write is theirs, and what one has published no other replaces, for disks lie on it.
"""

import contextlib
import hashlib
import os
import re
import threading
import time
from typing import Any, Dict, List, Optional

from nodeagent.refusal import Refused, no_pool
from nodeagent.secretfile import sync_directory
from nodeagent.wire import DISK_FORMATS, MAX_INT, CachedImage, Code, ImageOffer, ImageProgress

ARRIVING_AT_ONCE = 4
PART_KEPT_S = 86400
IDLE_S = 60
"""A transfer that got nothing for so long makes place for another; its bytes stay, and it can go on later."""
SPARE_BYTES = 64 << 20
"""Space a transfer leaves free in the pool."""

_BASE = re.compile(r"base-([0-9a-f]{64})\.(%s)\Z" % "|".join(DISK_FORMATS))
_PART = re.compile(r"base-([0-9a-f]{64})(?:\.[0-9a-z-]+)?\.part\Z")


def base_name(sha256: str, disk_format: str) -> str:
    return f"base-{sha256}.{disk_format}"


class _Arrival:
    """One image on its way: the open file, and the hash of what it holds.

    It is closed by other images' threads, but not while it is written to: the descriptor's number is soon another file's.
    """

    def __init__(self, path: str, offer: ImageOffer) -> None:
        self._in_use = threading.Lock()
        self.offer, self.path, self.offset, self.touched_s = offer, path, 0, time.monotonic()
        self.hash: Any = hashlib.sha256()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        while True:
            held = os.read(self._fd, 1 << 20)
            if not held:
                break
            self.hash.update(held)
            self.offset += len(held)

    def append(self, data: bytes) -> None:
        rest = memoryview(data)
        with self._in_use:
            fd = self._open()
            try:
                while rest:
                    rest = rest[os.pwrite(fd, rest, self.offset + len(data) - len(rest)):]
            except OSError as full:
                os.ftruncate(fd, self.offset)
                raise Refused(Code.NO_SPACE, f"{self.path}: {full.strerror}", elsewhere=True) from None
            self.hash.update(data)
            self.offset += len(data)
            self.touched_s = time.monotonic()

    def sync(self) -> None:
        with self._in_use:
            os.fsync(self._open())
            self.touched_s = time.monotonic()

    def close(self) -> None:
        """Waits for what is being written."""
        with self._in_use:
            self._close()

    def close_if_idle(self) -> bool:
        if not self._in_use.acquire(blocking=False):
            return False
        try:
            self._close()
            return True
        finally:
            self._in_use.release()

    def _open(self) -> int:
        if self._fd < 0:
            raise not_arriving(self.offer.sha256)
        return self._fd

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def not_arriving(sha256: str) -> Refused:
    return Refused(Code.NOT_FOUND, f"image {sha256[:12]} is not arriving", hint="image.begin first", retryable=True)


class ImageStore:
    """The images in `directory`. Calls for one image must come one at a time; other images do not wait for it."""

    def __init__(self, directory: str, node_id: str) -> None:
        self._directory, self._node_id = directory, node_id
        self._arriving: Dict[str, _Arrival] = {}
        self._lock = threading.Lock()

    def format_of(self, sha256: str) -> Optional[str]:
        """The disk format of a whole image, or None where it is not here."""
        for disk_format in DISK_FORMATS:
            if os.path.exists(os.path.join(self._directory, base_name(sha256, disk_format))):
                return disk_format
        return None

    def list(self) -> List[CachedImage]:
        found = []
        for name in _names(self._directory):
            base = _BASE.match(name)
            if base:
                with contextlib.suppress(FileNotFoundError):  # another thread deleted it
                    found.append(_cached(os.path.join(self._directory, name), base.group(1), base.group(2)))
        return sorted(found, key=lambda image: image.sha256)

    def begin(self, offer: ImageOffer) -> ImageProgress:
        """Where to send from. Raises Refused: NO_SPACE, BUSY (too many at once), CONFLICT (another offer)."""
        if self.format_of(offer.sha256):
            self._needless(offer.sha256)
            return ImageProgress(True, offer.size_bytes)
        if not os.path.isdir(self._directory):
            raise no_pool(self._directory)
        with self._lock:
            arrival = self._arriving.get(offer.sha256)
            if arrival is None:
                self._make_place()
        if arrival is None:
            arrival = _Arrival(self._part(offer.sha256), offer)
            with self._lock:
                self._arriving[offer.sha256] = arrival
        if arrival.offer != offer:
            raise Refused(Code.CONFLICT, f"image {offer.sha256[:12]} is arriving with another size or format")
        if arrival.offset > offer.size_bytes:
            self.abandon(offer.sha256)
            return self.begin(offer)
        try:
            self._check_space(offer.size_bytes - arrival.offset)
        except Refused:
            if not arrival.offset:
                self.abandon(offer.sha256)
            raise
        return ImageProgress(False, arrival.offset)

    def append(self, sha256: str, offset: int, data: bytes) -> ImageProgress:
        """Take `data` if it is what comes next; say in any case what is wanted next."""
        if sha256 not in self._arriving and self.format_of(sha256):
            return ImageProgress(True, 0)
        arrival = self._arrival(sha256)
        if offset == arrival.offset:
            if arrival.offset + len(data) > arrival.offer.size_bytes:
                size = arrival.offer.size_bytes
                self.abandon(sha256)
                raise Refused(Code.BAD_IMAGE, f"image {sha256[:12]} is longer than the {size} bytes it was said to have")
            arrival.append(data)
        return ImageProgress(False, arrival.offset)

    def check(self, sha256: str) -> Optional[ImageOffer]:
        """All is here, right and on disk: -> the offer, for `publish`. None: it was published before.

        Raises Refused(BAD_IMAGE), the bytes thrown away, where the hash is not the promised one.
        """
        if self.format_of(sha256):
            self._needless(sha256)
            return None
        arrival = self._arrival(sha256)
        if arrival.offset < arrival.offer.size_bytes:
            raise Refused(
                Code.CONFLICT, f"image {sha256[:12]} has {arrival.offset} of {arrival.offer.size_bytes} bytes", retryable=True
            )
        if arrival.hash.hexdigest() != sha256:
            got = arrival.hash.hexdigest()
            self.abandon(sha256)
            raise Refused(Code.BAD_IMAGE, f"what arrived has SHA-256 {got}, not {sha256}")
        arrival.sync()
        return arrival.offer

    def publish(self, offer: ImageOffer) -> None:
        """Give the checked image its final name. Raises Refused(NOT_FOUND) where all images have been cleared meanwhile."""
        with self._lock:
            arrival = self._arriving.pop(offer.sha256, None)
        if arrival is None:
            raise not_arriving(offer.sha256)
        arrival.close()
        try:
            _name(arrival.path, os.path.join(self._directory, base_name(offer.sha256, offer.disk_format)))
        except FileNotFoundError:
            raise not_arriving(offer.sha256) from None
        sync_directory(self._directory)

    def abandon(self, sha256: str) -> None:
        """Drop what has arrived of an image. Nothing there is success."""
        with self._lock:
            arrival = self._arriving.pop(sha256, None)
        if arrival:
            arrival.close()
        _unlink(self._part(sha256))

    def _needless(self, sha256: str) -> None:
        """Another node of this directory was faster."""
        if sha256 in self._arriving:
            self.abandon(sha256)

    def under_disks(self) -> bool:
        """Whether the directory holds a server's disk, whole or half."""
        return any(name.startswith("disk-") for name in _names(self._directory))

    def clear(self) -> None:
        """Drop all images, whole and half. Where a disk is, of no server of this node, the directory is other nodes', too: what lies
        there, under their disks perhaps, or is arriving for them, stays; only what arrives here is given up."""
        for sha256 in list(self._arriving):
            self.abandon(sha256)
        for name in _names(self._directory):
            if self.under_disks():
                return
            if _PART.match(name) or _BASE.match(name):
                _unlink(os.path.join(self._directory, name))

    def _part(self, sha256: str) -> str:
        return os.path.join(self._directory, f"base-{sha256}.{self._node_id}.part")

    def _arrival(self, sha256: str) -> _Arrival:
        with self._lock:
            arrival = self._arriving.get(sha256)
        if arrival is None:
            raise not_arriving(sha256)
        return arrival

    def _make_place(self) -> None:
        """Drop transfers nobody goes on with, then refuse where too many are under way."""
        now = time.monotonic()
        kept_s = IDLE_S if len(self._arriving) >= ARRIVING_AT_ONCE else PART_KEPT_S
        for sha256, arrival in list(self._arriving.items()):
            if now - arrival.touched_s > kept_s and arrival.close_if_idle():
                del self._arriving[sha256]
        for name in _names(self._directory):
            part = _PART.match(name)
            path = os.path.join(self._directory, name)
            if part and not (part.group(1) in self._arriving and path == self._part(part.group(1))):
                with contextlib.suppress(FileNotFoundError):  # it was dropped, or has its final name by now
                    if time.time() - os.path.getmtime(path) > PART_KEPT_S:
                        os.unlink(path)
        if len(self._arriving) >= ARRIVING_AT_ONCE:
            raise Refused(Code.BUSY, f"{len(self._arriving)} images are arriving already")

    def _check_space(self, needs: int) -> None:
        stat = os.statvfs(self._directory)
        has = stat.f_bavail * stat.f_frsize
        if has < needs + SPARE_BYTES:
            raise Refused(
                Code.NO_SPACE,
                f"the pool needs {(needs + SPARE_BYTES) >> 20} MiB for the image and has {has >> 20} MiB free",
                elsewhere=True,
            )


def _cached(path: str, sha256: str, disk_format: str) -> CachedImage:
    """A qcow2 file says its disk's size in bytes 24 to 31 (QEMU's docs/interop/qcow2.txt); a raw one is its disk."""
    size = virtual = os.path.getsize(path)
    if disk_format == "qcow2":
        with open(path, "rb") as file:
            virtual = min(int.from_bytes(file.read(32)[24:32], "big"), MAX_INT)
    return CachedImage(sha256, size, disk_format, virtual)


def _names(directory: str) -> List[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _name(part: str, final: str) -> None:
    """One that is there already stays. Raises FileNotFoundError where the part is gone."""
    try:
        os.link(part, final)
    except FileExistsError:
        pass
    except FileNotFoundError:
        raise
    except OSError:                                           # a file system without links
        os.rename(part, final)
        return
    _unlink(part)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
