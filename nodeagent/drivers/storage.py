"""The storage pool through libvirt: images become volumes, disks are overlays on them. `link` is drivers/link.py's."""

import os
import threading
from typing import Dict, List, Mapping, MutableMapping, Optional, Set

from nodeagent import domainxml
from nodeagent.drivers.base import disk_bytes
from nodeagent.images import base_name
from nodeagent.refusal import Refused
from nodeagent.wire import DISK_FORMATS, Code, DiskSpec, ImageOffer

_SEEN_AS = {"qcow2": ("qcow2",), "raw": ("raw", "iso")}
"""What libvirt may see in the file of an image of that format: it tells an ISO 9660 image from other raw ones."""
_REFRESH_TRIES, _REFRESH_WAIT_S = 40, 0.25


class Storage:
    """The pool `name` over `directory`."""

    def __init__(self, link, name: str, directory: str) -> None:
        self._link, self._name, self._directory = link, name, directory
        self._wait = threading.Event().wait
        self._seen: Set[ImageOffer] = set()

    def forget(self) -> None:
        """Another daemon, or the same anew: what it was seen to have is looked for again."""
        self._seen.clear()

    # ------------------------------------------------------------ the pool

    def prepare(self, made: MutableMapping[str, str]) -> None:
        """Defined over our directory, active, autostarted; `made['pool']` where it was not there."""
        with self._link.acting(f"prepare storage pool {self._name}") as conn:
            pool = self._pool(conn)
            if pool is None:
                pool = conn.storagePoolDefineXML(domainxml.pool(self._name, self._directory), 0)
                made["pool"] = self._name
            else:
                kind, path = domainxml.parse_pool(pool.XMLDesc(0))
                if kind != "dir" or os.path.realpath(path) != os.path.realpath(self._directory):
                    raise Refused(Code.CONFLICT, f"storage pool {self._name} is a {kind} at {path}, not at {self._directory}")
            if not pool.isActive():
                pool.create(0)
            if not pool.autostart():
                pool.setAutostart(1)

    def activate(self) -> None:
        with self._link.acting(f"activate storage pool {self._name}") as conn:
            pool = self._pool(conn)
            if pool is not None and not pool.isActive():
                pool.create(0)

    def unprepare(self, made: Mapping[str, str]) -> None:
        with self._link.acting(f"remove storage pool {self._name}") as conn:
            pool = self._pool(conn) if made.get("pool") == self._name else None
            if pool is not None:
                if pool.isActive():
                    pool.destroy()
                pool.undefine()

    # ------------------------------------------------------------ images

    def add_image(self, offer: ImageOffer) -> None:
        """libvirt sees the file, and sees in it what was offered: the format, no file behind it, the size."""
        name = base_name(offer.sha256, offer.disk_format)
        if offer in self._seen and os.path.exists(os.path.join(self._directory, name)):
            return
        with self._link.acting(f"add image {offer.sha256[:12]}") as conn:
            pool = self._needed(conn)
            volume = self._volume(pool, name)
            if volume is None:
                self._refresh(pool)
                volume = self._volume(pool, name)
            if volume is None:
                raise Refused(Code.DRIVER, f"libvirt does not see {name} in pool {self._name}", retryable=True)
            found, backing = domainxml.parse_volume(volume.XMLDesc(0))
            size = volume.info()[1]
        if found not in _SEEN_AS[offer.disk_format]:
            raise Refused(Code.BAD_IMAGE, f"the image is of format {found}, not {offer.disk_format}")
        if backing:
            raise Refused(Code.BAD_IMAGE, "the image wants another file behind it")
        if offer.disk_format == "qcow2" and size != offer.virtual_size_bytes:
            raise Refused(Code.BAD_IMAGE, f"the image's disk has {size} bytes, not {offer.virtual_size_bytes}")
        self._seen.add(offer)

    def remove_image(self, sha256: str, disk_format: str) -> None:
        self._seen = {offer for offer in self._seen if offer.sha256 != sha256}
        with self._link.acting(f"delete image {sha256[:12]}") as conn:
            self._delete(conn, base_name(sha256, disk_format))

    def image_users(self, sha256: str) -> List[str]:
        """Servers of the disks whose backing file is the image, or may be: another node's agent makes disks in the same directory
        where the pool is shared, and what libvirt cannot look into is not known to be none."""
        bases = {base_name(sha256, disk_format) for disk_format in DISK_FORMATS}
        with self._link.acting(f"look for disks on image {sha256[:12]}") as conn:
            pool = self._pool(conn)
            if pool is not None and not pool.isActive():
                pool = None
            disks = self._disks(pool)
            if pool is not None and self._lying_there() - disks.keys():
                self._refresh(pool)
                disks = self._disks(pool)
            users = {server for server, xml in disks.items() if os.path.basename(domainxml.parse_volume(xml)[1]) in bases}
            return sorted(users | (self._lying_there() - disks.keys()))

    def _disks(self, pool) -> Dict[str, str]:
        """The volumes that are servers' disks, by server; one whose file another node has deleted is none."""
        found = {}
        for volume in pool.listAllVolumes(0) if pool is not None else ():
            server = domainxml.server_of_disk(volume.name())
            xml = self._link.found(volume.XMLDesc, 0) if server else None
            if xml is not None:
                found[server] = xml
        return found

    def _lying_there(self) -> Set[str]:
        """Servers whose disks are files of the directory."""
        try:
            return set(filter(None, map(domainxml.server_of_disk, os.listdir(self._directory))))
        except FileNotFoundError:
            return set()

    # ------------------------------------------------------------ disks

    def create_disk(self, spec: DiskSpec, disk_format: str) -> None:
        """A fresh overlay; one that is there already is replaced."""
        name, base = domainxml.disk_name(spec.server), base_name(spec.image_sha256, disk_format)
        with self._link.acting(f"create the disk of server {spec.server}") as conn:
            pool = self._needed(conn)
            image = self._volume(pool, base)
            if image is None:
                self._refresh(pool)
                image = pool.storageVolLookupByName(base)
            capacity = disk_bytes(spec.disk_gb, image.info()[1])
            xml = domainxml.volume(name, capacity, os.path.join(self._directory, base), disk_format)
            try:
                pool.createXML(xml, 0)
            except self._link.lib.libvirtError:
                self._delete(conn, name)
                pool.createXML(xml, 0)

    def delete_disk(self, server: str) -> None:
        with self._link.acting(f"delete the disk of server {server}") as conn:
            self._delete(conn, domainxml.disk_name(server))

    # ------------------------------------------------------------ parts

    def _pool(self, conn):
        return self._link.found(conn.storagePoolLookupByName, self._name)

    def _needed(self, conn):
        pool = self._pool(conn)
        if pool is None:
            raise Refused(Code.CONFLICT, f"the node has no storage pool {self._name}", hint="node.prepare first", retryable=True)
        if not pool.isActive():
            pool.create(0)
        return pool

    def _volume(self, pool, name: str):
        return self._link.found(pool.storageVolLookupByName, name)

    def _refresh(self, pool) -> None:
        """Refused while a volume is being made: then again a little later."""
        for left in reversed(range(_REFRESH_TRIES)):
            try:
                pool.refresh(0)
                return
            except self._link.lib.libvirtError:
                if not left:
                    raise
            self._wait(_REFRESH_WAIT_S)

    def _delete(self, conn, name: str) -> None:
        """The volume and its file are gone, whichever of them was there."""
        pool: Optional[object] = self._pool(conn)
        volume = self._volume(pool, name) if pool is not None and pool.isActive() else None
        if volume is not None:
            try:
                volume.delete(0)
            except self._link.lib.libvirtError:
                if os.path.exists(os.path.join(self._directory, name)):
                    raise
        path = os.path.join(self._directory, name)
        if os.path.lexists(path):
            os.unlink(path)
