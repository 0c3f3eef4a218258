"""The log that virtlogd keeps of a guest's console. `link` is drivers/link.py's.

virtlogd writes as root, files of mode 0600. What the agent may not open or delete (EACCES, or EROFS in its sandbox)
it takes as a volume of a transient storage pool over the log directory: then libvirtd does it, and the agent needs
no more rights.
"""

import itertools
import os
from typing import Tuple

from nodeagent import domainxml
from nodeagent.drivers.base import window


class ConsoleLogs:
    DIRECTORY = "/var/log/libvirt/qemu"

    def __init__(self, link, pool_name: str) -> None:
        self._link, self._pool_name = link, pool_name

    def read(self, server: str, offset: int, max_bytes: int) -> Tuple[int, int, bytes]:
        """(offset, size, bytes); (0, 0, b'') while there is no log. A log shorter than before was begun anew."""
        try:
            with open(self._path(server), "rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                start, count = window(size, offset, max_bytes)
                return start, size, os.pread(file.fileno(), count, start)
        except FileNotFoundError:
            return 0, 0, b""
        except OSError:
            return self._read_volume(server, offset, max_bytes)

    def delete(self, server: str) -> None:
        """The log, libvirt's own of this domain, and those they were rotated to are gone; absent is success."""
        for name, suffix in itertools.product(domainxml.log_names(server), ("", ".0", ".1", ".2")):
            path = os.path.join(self.DIRECTORY, name + suffix)
            try:
                os.unlink(path)
            except FileNotFoundError:
                continue
            except OSError:
                self._delete_volume(os.path.basename(path))

    def forget(self) -> None:
        """The transient pool is gone, if it was ours."""
        with self._link.acting("close the console logs") as conn:
            pool = self._link.found(conn.storagePoolLookupByName, self._pool_name)
            if pool is not None and not pool.isPersistent():
                pool.destroy()

    def _path(self, server: str) -> str:
        return os.path.join(self.DIRECTORY, domainxml.log_name(server))

    def _read_volume(self, server: str, offset: int, max_bytes: int) -> Tuple[int, int, bytes]:
        with self._link.acting(f"read the console log of server {server}") as conn:
            volume = self._volume(conn, domainxml.log_name(server))
            if volume is None:
                return 0, 0, b""
            size = volume.info()[1]
            start, count = window(size, offset, max_bytes)
            if not count:
                return start, size, b""
            stream = conn.newStream(0)
            volume.download(stream, start, count, 0)
            parts = []
            while True:
                part = stream.recv(64 << 10)
                if not part:
                    break
                parts.append(part)
            stream.finish()
            return start, size, b"".join(parts)

    def _delete_volume(self, name: str) -> None:
        with self._link.acting(f"delete console log {name}") as conn:
            volume = self._volume(conn, name)
            if volume is not None:
                volume.delete(0)

    def _volume(self, conn, name: str):
        pool = self._link.found(conn.storagePoolLookupByTargetPath, self.DIRECTORY)
        if pool is None:
            pool = conn.storagePoolCreateXML(domainxml.pool(self._pool_name, self.DIRECTORY), 0)
        volume = self._link.found(pool.storageVolLookupByName, name)
        if volume is None:
            pool.refresh(0)
            volume = self._link.found(pool.storageVolLookupByName, name)
        return volume
