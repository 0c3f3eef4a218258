"""A server's specification -> libvirt domain XML, and back from the metadata it carries. Pure; ElementTree only."""

import dataclasses
import json
import os
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import List, Optional, Tuple

from nodeagent import topologyxml, wire
from nodeagent.domains import printable, server_name
from nodeagent.drivers.base import Mark
from nodeagent.images import base_name
from nodeagent.wire import DomainSpec, NumaCell

NAMESPACE = "https://novactl.dev/xmlns/server/1"
PREFIX = "novactl-"
_NOBODY = "00000000-0000-4000-8000-000000000000"
ET.register_namespace("novactl", NAMESPACE)


@dataclass(frozen=True)
class Platform:
    """The node's best for its virt type: what an empty `machine` and `cpu_model` mean; and the host's NUMA cells."""

    virt_type: str
    machine: str
    cpu_mode: str
    pool_dir: str
    log_dir: str
    cells: Tuple[NumaCell, ...] = ()


def domain_name(server: str) -> str:
    return PREFIX + server


def disk_name(server: str) -> str:
    return f"disk-{server}.qcow2"


def seed_name(server: str) -> str:
    return f"seed-{server}.iso"


def log_name(server: str) -> str:
    return f"{PREFIX}{server}-console.log"


def log_names(server: str) -> Tuple[str, str]:
    """The console's log, and the one libvirt keeps of QEMU's own words, in one directory."""
    return log_name(server), f"{PREFIX}{server}.log"


def shape_of(spec: DomainSpec) -> Optional[DomainSpec]:
    """The spec with all that only fills in text or a number made the same: two specs of one shape give one structure of XML.
    None: it is tied to pieces of the host, and one of a kind."""
    if spec.pins or spec.cells or spec.pci:
        return None
    return dataclasses.replace(
        spec, server=_NOBODY, epoch=0, name="x", vcpus=1, memory_mb=1, disk_gb=0, image_sha256="0" * 64,
        mac="52:54:00:00:00:00", flavor="", image="")


def build(spec: DomainSpec, disk_format: str, mark: Mark, platform: Platform) -> str:
    """The domain of `spec`, its disk an overlay on the base image of `disk_format`.

    Every disk's format is said, the base image's too: libvirt and QEMU probe nothing that a guest can write.
    """
    domain = ET.Element("domain", {"type": platform.virt_type})
    _text(domain, "name", domain_name(spec.server))
    _text(domain, "uuid", spec.server)
    _text(domain, "title", spec.name)
    domain.append(_metadata(spec, mark))
    _text(domain, "memory", str(spec.memory_mb), unit="MiB")
    topologyxml.processors(domain, spec, platform.cells)
    topologyxml.memory(domain, spec)
    system = ET.SubElement(domain, "os")
    machine = spec.machine or platform.machine
    _text(system, "type", "hvm", arch=spec.architecture, **({"machine": machine} if machine else {}))
    ET.SubElement(system, "boot", {"dev": "hd"})
    features = ET.SubElement(domain, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(features, "apic")
    _cpu(domain, spec, platform)
    ET.SubElement(domain, "clock", {"offset": "utc"})
    _text(domain, "on_poweroff", "destroy")
    _text(domain, "on_reboot", "restart")
    _text(domain, "on_crash", "destroy")
    _devices(domain, spec, disk_format, platform)
    return ET.tostring(domain, encoding="unicode")


def _metadata(spec: DomainSpec, mark: Mark) -> ET.Element:
    metadata = ET.Element("metadata")
    server = ET.SubElement(
        metadata,
        f"{{{NAMESPACE}}}server",
        {"epoch": str(spec.epoch), "operation": mark.operation, "request": mark.request},
    )
    server.text = json.dumps(wire.to_plain(spec), sort_keys=True)
    return metadata


def metadata_text(spec: DomainSpec, mark: Mark) -> str:
    """Our element alone, as virDomainSetMetadata takes it: the namespace is libvirt's to add."""
    element = _metadata(spec, mark)[0]
    element.tag = "server"
    return ET.tostring(element, encoding="unicode")


def parse_wild(xml: str) -> Optional[DomainSpec]:
    """A domain that is not ours -> what it would be as a server, its disk not looked at; None where it cannot be one."""
    root = ET.fromstring(xml)
    uuid, name = root.findtext("uuid") or "", root.findtext("name") or ""
    interface = root.find("devices/interface")
    mac = interface.find("mac").get("address", "") if interface is not None and interface.find("mac") is not None else ""
    source = interface.find("source").get("network", "") if interface is not None and interface.find("source") is not None else ""
    kind = root.find("os/type")
    try:
        return DomainSpec(
            server=uuid, epoch=0, name=server_name(name, uuid), vcpus=int(root.findtext("vcpu") or 1),
            memory_mb=max(1, _mib(root.find("memory"))), disk_gb=0, image_sha256=wire.NO_IMAGE,
            mac=mac.lower() or f"52:54:00:{uuid[:2]}:{uuid[2:4]}:{uuid[4:6]}", network=_name_or(source, "default"),
            architecture=(kind.get("arch") if kind is not None else None) or "x86_64", has_seed=False, adopted=printable(name))
    except (wire.BadMessage, ValueError):
        return None


def _name_or(text: str, other: str) -> str:
    try:
        return wire.check_name(text)
    except wire.BadMessage:
        return other


def disks_of(xml: str) -> List[str]:
    """The targets ('vda') of a domain's disks that are disks, not CD-ROMs."""
    found = []
    for disk in ET.fromstring(xml).iterfind("devices/disk"):
        target = disk.find("target")
        if disk.get("device", "disk") == "disk" and target is not None:
            found.append(target.get("dev", ""))
    return found


_KIB = {"b": 1 / 1024, "bytes": 1 / 1024, "KB": 1000 / 1024, "k": 1, "KiB": 1, "MB": 1e6 / 1024, "M": 1024, "MiB": 1024, "GB": 1e9 / 1024,
        "G": 1 << 20, "GiB": 1 << 20, "TB": 1e12 / 1024, "T": 1 << 30, "TiB": 1 << 30}
"""libvirt's units of memory (formatdomain.html)."""


def _mib(memory) -> int:
    return int(int(memory.text) * _KIB[memory.get("unit", "KiB")]) >> 10 if memory is not None else 0


def _cpu(domain: ET.Element, spec: DomainSpec, platform: Platform) -> None:
    if spec.cpu_model:
        cpu = ET.SubElement(domain, "cpu", {"mode": "custom", "match": "exact"})
        _text(cpu, "model", spec.cpu_model)
    elif platform.cpu_mode or spec.cells:
        cpu = ET.SubElement(domain, "cpu", {"mode": platform.cpu_mode} if platform.cpu_mode else {})
    else:
        return
    topologyxml.guest_cells(cpu, spec)


def _devices(domain: ET.Element, spec: DomainSpec, disk_format: str, platform: Platform) -> None:
    devices = ET.SubElement(domain, "devices")
    disk = _disk(devices, "vda", "qcow2", os.path.join(platform.pool_dir, disk_name(spec.server)))
    backing = ET.SubElement(disk, "backingStore", {"type": "file"})
    ET.SubElement(backing, "format", {"type": disk_format})
    ET.SubElement(backing, "source", {"file": os.path.join(platform.pool_dir, base_name(spec.image_sha256, disk_format))})
    ET.SubElement(backing, "backingStore")
    if spec.has_seed:
        seed = _disk(devices, "vdb", "raw", os.path.join(platform.pool_dir, seed_name(spec.server)))
        ET.SubElement(seed, "readonly")
    ET.SubElement(devices, "controller", {"type": "usb", "model": "none"})
    topologyxml.passthrough(devices, spec)
    interface = ET.SubElement(devices, "interface", {"type": "network"})
    ET.SubElement(interface, "mac", {"address": spec.mac})
    ET.SubElement(interface, "source", {"network": spec.network})
    ET.SubElement(interface, "model", {"type": "virtio"})
    serial = ET.SubElement(devices, "serial", {"type": "pty"})
    ET.SubElement(serial, "log", {"file": os.path.join(platform.log_dir, log_name(spec.server)), "append": "off"})
    ET.SubElement(serial, "target", {"port": "0"})
    console = ET.SubElement(devices, "console", {"type": "pty"})
    ET.SubElement(console, "target", {"type": "serial", "port": "0"})
    ET.SubElement(devices, "memballoon", {"model": "virtio"})
    rng = ET.SubElement(devices, "rng", {"model": "virtio"})
    _text(rng, "backend", "/dev/urandom", model="random")


def _disk(devices: ET.Element, target: str, disk_format: str, path: str) -> ET.Element:
    disk = ET.SubElement(devices, "disk", {"type": "file", "device": "disk"})
    driver = {"name": "qemu", "type": disk_format, "error_policy": "stop", "rerror_policy": "stop"}
    if disk_format == "qcow2":
        driver["discard"] = "unmap"
    ET.SubElement(disk, "driver", driver)
    ET.SubElement(disk, "source", {"file": path})
    ET.SubElement(disk, "target", {"dev": target, "bus": "virtio"})
    return disk


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> ET.Element:
    child = ET.SubElement(parent, tag, attributes)
    child.text = text
    return child


def parse_metadata(xml: str) -> Optional[Tuple[DomainSpec, Mark]]:
    """A domain's XML, or its <novactl:server> alone -> what it was defined from; None where it is not ours."""
    try:
        root = ET.fromstring(xml)
        tag = f"{{{NAMESPACE}}}server"
        server = root if root.tag in (tag, "server") else root.find(f"metadata/{tag}")
        if server is None:
            return None
        spec = wire.from_plain(DomainSpec, json.loads(server.text or ""))
        return spec, Mark(server.get("operation", ""), server.get("request", ""))
    except (ET.ParseError, ValueError):
        return None


def volume(name: str, capacity_bytes: int, backing_path: str, backing_format: str) -> str:
    """A qcow2 volume over a base image."""
    root = ET.Element("volume")
    _text(root, "name", name)
    _text(root, "capacity", str(capacity_bytes), unit="bytes")
    target = ET.SubElement(root, "target")
    ET.SubElement(target, "format", {"type": "qcow2"})
    permissions = ET.SubElement(target, "permissions")
    _text(permissions, "mode", "0600")
    backing = ET.SubElement(root, "backingStore")
    _text(backing, "path", backing_path)
    ET.SubElement(backing, "format", {"type": backing_format})
    return ET.tostring(root, encoding="unicode")


def parse_volume(xml: str) -> Tuple[str, str]:
    """Volume XML -> (format, path of its backing file, '' for none)."""
    root = ET.fromstring(xml)
    kind = root.find("target/format")
    return (kind.get("type", "") if kind is not None else ""), root.findtext("backingStore/path") or ""


def pool(name: str, directory: str) -> str:
    """A storage pool over an existing directory."""
    root = ET.Element("pool", {"type": "dir"})
    _text(root, "name", name)
    _text(ET.SubElement(root, "target"), "path", directory)
    return ET.tostring(root, encoding="unicode")


def parse_pool(xml: str) -> Tuple[str, str]:
    """Pool XML -> (type, target path)."""
    root = ET.fromstring(xml)
    return root.get("type", ""), root.findtext("target/path") or ""


def server_of_disk(name: str) -> str:
    """A volume's name -> the server whose disk it is; '' for any other volume."""
    if name.startswith("disk-") and name.endswith(".qcow2"):
        return name[len("disk-") : -len(".qcow2")]
    return ""
