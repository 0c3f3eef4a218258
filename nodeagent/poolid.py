"""Which pool this is: an id in a file of its directory, so that two nodes can be told to have one and the same."""

import contextlib
import os
import re
import threading
import uuid
from typing import Optional

NAME = ".novactl-pool"
_ID = re.compile(r"[0-9a-f]{32}\Z")


class PoolId:
    """Of the pool in `directory`. It is read each time: what is mounted there may be another one by now."""

    def __init__(self, directory: str) -> None:
        self._directory, self._path = directory, os.path.join(directory, NAME)
        self._lock = threading.Lock()
        self._is_given_up = False

    def read(self) -> str:
        """The id, made where there is none yet; '' where there can be none, which is not known to be another pool than any."""
        with self._lock:
            return self._read_or_make()

    def keep(self) -> None:
        """`drop` is taken back: it is there again."""
        with self._lock:
            if self._is_given_up:
                self._is_given_up = False
                self._read_or_make()

    def drop(self) -> None:
        """Where nothing else is in the pool, its id goes too, and is not made again."""
        with self._lock, contextlib.suppress(OSError):
            self._is_given_up = True
            if os.listdir(self._directory) == [NAME]:
                os.unlink(self._path)

    def _read_or_make(self) -> str:
        found = self._read()
        if found is None and not self._is_given_up:
            with contextlib.suppress(OSError):
                self._make()
            found = self._read()
        return found or ""

    def _read(self) -> Optional[str]:
        """None where there is no such file; '' for one that holds no id."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError:
            return ""
        try:
            text = os.read(fd, 64).decode("ascii", "replace").strip()
        except OSError:
            return ""
        finally:
            os.close(fd)
        return text if _ID.match(text) else ""

    def _make(self) -> None:
        """Whole under its name, or not there: two nodes make it at the same time, and one of them is right. All may read it, as
        libvirt must where it lists the pool of another host's agent over NFS; it is no secret."""
        part = f"{self._path}.{uuid.uuid4().hex}"
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            with os.fdopen(fd, "w", encoding="ascii") as file:
                os.fchmod(fd, 0o644)
                file.write(uuid.uuid4().hex + "\n")
                file.flush()
                os.fsync(fd)
            with contextlib.suppress(FileExistsError):
                os.link(part, self._path)
        finally:
            os.unlink(part)
