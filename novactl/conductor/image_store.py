"""The controller's image files: `images/<sha256>`, written aside and renamed, whole or not there.

One lock file orders the short moments in which files and database rows change together. A file that is still being
written is `<id>.part`, locked by its writer as long as it lives: what nobody holds, a killed process left.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from novactl.cluster import Cluster
from novactl.errors import BadImage, NovaError
from novactl.model.units import human_bytes

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
SPARE_BYTES = 64 << 20
"""Free space a download must leave."""


class NoSpace(NovaError):
    code = "no_space"


def store_of(cluster: Cluster) -> ImageStore:
    return ImageStore(cluster.config.data_dir / "images")


class ImageStore:
    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, sha256: str) -> Path:
        """Where the image of this content is, or would be."""
        if not _SHA256.match(sha256):
            raise ValueError(f"{sha256!r} is not a SHA-256")
        return self.directory / sha256

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Only one process on this machine is inside. For moments: never while bytes are on their way."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(self.directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)

    def sweep(self, known: Collection[str]) -> None:
        """Remove what killed processes left: parts nobody writes, files no image knows. Call it inside `lock`."""
        for path in self.directory.iterdir():
            if path.suffix == ".part" and _abandoned(path) or _SHA256.match(path.name) and path.name not in known:
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[Part]:
        """A new file to write an image into; gone at the end unless it was kept."""
        with self.lock():
            path = self.directory / f"{name}.part"
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield Part(path, file)
        finally:
            path.unlink(missing_ok=True)
            os.close(file)

    def keep(self, part: Part, sha256: str) -> None:
        """Give the finished part its name, durably. An older file of the same content is replaced by its equal."""
        os.fsync(part.file)
        os.replace(part.path, self.path(sha256))
        _sync_directory(self.directory)

    def remove(self, sha256: str) -> None:
        self.path(sha256).unlink(missing_ok=True)
        _sync_directory(self.directory)

    def check_space(self, wanted_bytes: int) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        stat = os.statvfs(self.directory)
        free = stat.f_bavail * stat.f_frsize
        if wanted_bytes + SPARE_BYTES > free:
            raise NoSpace(f"{self.directory} has {human_bytes(free)} free; the image needs {human_bytes(wanted_bytes)}")


class Part:
    """A file on its way in."""

    def __init__(self, path: Path, file: int) -> None:
        self.path, self.file = path, file

    def fill(self, chunks: Iterable[bytes], *, max_bytes: int, tell: Callable[[int], None]) -> tuple[str, int]:
        """Write all chunks, zeros as holes; (SHA-256, size in bytes). `tell` hears the bytes so far.

        Raises BadImage beyond `max_bytes`, NoSpace when the disk is full.
        """
        digest, done = hashlib.sha256(), 0
        try:
            for chunk in chunks:
                done += len(chunk)
                if done > max_bytes:
                    raise BadImage(f"the image file is larger than {human_bytes(max_bytes)}", hint="setting image.max_file_gb")
                digest.update(chunk)
                if chunk.count(0) == len(chunk):
                    os.lseek(self.file, len(chunk), os.SEEK_CUR)
                else:
                    _write(self.file, chunk)
                tell(done)
            os.ftruncate(self.file, done)
        except OSError as failed:
            if failed.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise NoSpace(f"no space left in {self.path.parent} after {human_bytes(done)}") from None
        return digest.hexdigest(), done


def _write(file: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(file, rest):]


def _abandoned(path: Path) -> bool:
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
