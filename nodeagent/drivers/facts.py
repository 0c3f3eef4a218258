"""What a host is: asked of libvirt (once a connection, its hardware now and then) and of /proc. The libvirt module is an argument."""

import dataclasses
import os
import socket
import time
from typing import Any, Iterable, Iterator, Tuple

from nodeagent import domainxml, inventory
from nodeagent.config import Config
from nodeagent.drivers.base import Host
from nodeagent.drivers.consolelog import ConsoleLogs
from nodeagent.journal import log
from nodeagent.patience import Patience
from nodeagent.pieces import MAX_MACHINES_REPORTED, PciDevice

HARDWARE_S = 60.0
"""So often are cells, huge pages and PCI devices looked at again: an administrator may set more aside at any time."""


class Facts:
    """What does not change while a connection lasts; and `cells` and `pci`, which seldom do."""

    def __init__(self, caps: inventory.Capabilities, cpu: inventory.CpuInfo, platform: domainxml.Platform, versions) -> None:
        self.caps, self.cpu, self.platform, self.versions = caps, cpu, platform, versions
        self.pci: Tuple[PciDevice, ...] = ()
        self._looked_s = -HARDWARE_S
        self._pool = Patience(f"the pool {platform.pool_dir}")

    @classmethod
    def read(cls, lib: Any, conn: Any, config: Config) -> "Facts":
        caps = inventory.parse_capabilities(conn.getCapabilities())
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            cpu = inventory.parse_cpuinfo(file.read())
        virt_type = inventory.choose_virt_type(config.virt_type, cpu.flags, _kvm_opens(), tuple(caps.guests))
        if virt_type not in caps.guests and caps.guests:
            virt_type = virt_type if config.virt_type != "auto" else next(iter(caps.guests))
        machine = inventory.choose_machine(caps.guests.get(virt_type, ()))
        try:
            cpu_mode = inventory.choose_cpu_mode(
                virt_type, conn.getDomainCapabilities(None, caps.architecture, machine or None, virt_type, 0)
            )
        except lib.libvirtError as error:
            log(f"domain capabilities of {virt_type}: {error}")
            cpu_mode = ""
        versions = {
            "libvirt": inventory.version_text(conn.getLibVersion()),
            "hypervisor": inventory.version_text(conn.getVersion()),
            "kernel": os.uname().release,
        }
        platform = domainxml.Platform(virt_type, machine, cpu_mode, config.pool_dir, ConsoleLogs.DIRECTORY, caps.cells)
        return cls(caps, cpu, platform, versions)

    def refresh(self, lib: Any, conn: Any) -> None:
        """Look at cells and devices again if that was more than HARDWARE_S ago. A libvirt that lists no devices has none to give."""
        now_s = time.monotonic()
        if now_s - self._looked_s < HARDWARE_S:
            return
        self._looked_s = now_s
        self.platform = dataclasses.replace(self.platform, cells=inventory.parse_cells(conn.getCapabilities()))
        try:
            devices = conn.listAllDevices(lib.VIR_CONNECT_LIST_NODE_DEVICES_CAP_PCI_DEV)
            self.pci = inventory.parse_pci_devices(_descriptions(lib, devices))
        except lib.libvirtError as error:
            self.pci = ()
            log(f"PCI devices: {error}")

    def host(self, pool_dir: str) -> Host:
        with open("/proc/meminfo", encoding="utf-8") as file:
            memory_mb, available_mb = inventory.parse_meminfo(file.read())
        disk_gb, disk_used_gb = self._pool.ask(lambda: _disk(pool_dir))
        return Host(
            hostname=socket.gethostname(),
            architecture=self.caps.architecture,
            cpu_model=self.caps.cpu_model or self.cpu.model,
            cpu_features=self.cpu.flags,
            virt_types=tuple(sorted(self.caps.guests)),
            virt_type=self.platform.virt_type,
            vcpus=self.cpu.count,
            memory_mb=memory_mb,
            memory_used_mb=memory_mb - available_mb,
            disk_gb=disk_gb,
            disk_used_gb=disk_used_gb,
            load_1m=os.getloadavg()[0],
            versions=self.versions,
            cells=self.platform.cells,
            pci=self.pci,
            machines=self.caps.guests.get(self.platform.virt_type, ())[:MAX_MACHINES_REPORTED],
        )


def _descriptions(lib: Any, devices: Iterable[Any]) -> Iterator[str]:
    for device in devices:
        try:
            yield device.XMLDesc()
        except lib.libvirtError:
            continue


def _disk(path: str) -> Tuple[int, int]:
    """(total, used) GiB of the file system `path` is or will be on."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    stat = os.statvfs(path)
    total, free = stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize
    return total >> 30, (total - free) >> 30


def _kvm_opens() -> bool:
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True
