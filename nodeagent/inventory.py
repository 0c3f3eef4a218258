"""What a host says of itself, read from texts. Pure."""

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Iterable, Mapping, Optional, Sequence, Tuple

from nodeagent.codec import BadMessage
from nodeagent.pieces import (
    MAX_CELLS_REPORTED,
    MAX_CPU,
    MAX_CPUS_REPORTED,
    MAX_HOST_CELL,
    MAX_PCI_REPORTED,
    NumaCell,
    PciDevice,
    parse_cpuset,
)


def parse_meminfo(text: str) -> Tuple[int, int]:
    """/proc/meminfo -> (MemTotal, MemAvailable) in MiB. Raises ValueError where they are missing."""
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if name in ("MemTotal", "MemAvailable", "MemFree"):
            found[name] = int(rest.split()[0]) >> 10
    if "MemTotal" not in found:
        raise ValueError("no MemTotal in meminfo")
    return found["MemTotal"], found.get("MemAvailable", found.get("MemFree", 0))


@dataclass(frozen=True)
class CpuInfo:
    count: int
    model: str
    flags: Tuple[str, ...]


def parse_cpuinfo(text: str) -> CpuInfo:
    """/proc/cpuinfo -> CPUs that are online, the model's name, the flags of the first (x86 'flags', ARM 'Features')."""
    count, model, flags = 0, "", ()
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        name, rest = name.strip(), rest.strip()
        if name == "processor":
            count += 1
        elif name == "model name" and not model:
            model = rest
        elif name in ("flags", "Features") and not flags:
            flags = tuple(sorted(rest.split()))
    return CpuInfo(max(1, count), model, flags)


@dataclass(frozen=True)
class Capabilities:
    """`guests`: for each domain type of the host's own architecture, its machine types. `cells`: see parse_cells."""

    architecture: str
    cpu_model: str
    guests: Mapping[str, Tuple[str, ...]]
    cells: Tuple[NumaCell, ...] = ()


def parse_capabilities(xml: str) -> Capabilities:
    """libvirt's capabilities XML."""
    root = ET.fromstring(xml)
    architecture = root.findtext("host/cpu/arch") or ""
    guests = {}
    for guest in root.findall("guest"):
        arch = guest.find("arch")
        if arch is None or guest.findtext("os_type") != "hvm" or arch.get("name") != architecture:
            continue
        common = [machine.text or "" for machine in arch.findall("machine")]
        for domain in arch.findall("domain"):
            own = [machine.text or "" for machine in domain.findall("machine")]
            guests[domain.get("type", "")] = tuple(own or common)
    return Capabilities(architecture, root.findtext("host/cpu/model") or "", guests, _cells(root))


def parse_cells(xml: str) -> Tuple[NumaCell, ...]:
    """The NUMA cells in libvirt's capabilities XML (host/topology), by id; cells without CPUs or memory are left out.

    Of the page sizes the smallest is the ordinary one; the others count where some are set aside. At most
    MAX_CELLS_REPORTED cells with MAX_CPUS_REPORTED CPUs in all: what is beyond is not offered.
    """
    return _cells(ET.fromstring(xml))


def _cells(root: ET.Element) -> Tuple[NumaCell, ...]:
    found, left = [], MAX_CPUS_REPORTED
    for element in sorted(root.findall("host/topology/cells/cell"), key=lambda cell: _int(cell.get("id"))):
        cell = _cell(element)
        if not 0 <= cell.id <= MAX_HOST_CELL or not cell.cpus or not cell.memory_mb:
            continue
        if len(found) == MAX_CELLS_REPORTED or len(cell.cpus) > left:
            break
        left -= len(cell.cpus)
        found.append(cell)
    return tuple(found)


def _cell(element: ET.Element) -> NumaCell:
    cpus, groups = set(), set()
    for cpu in element.findall("cpus/cpu"):
        number = _int(cpu.get("id"))
        if 0 <= number <= MAX_CPU:
            cpus.add(number)
            groups.add(_siblings(cpu.get("siblings", "")))
    pools = sorted((_int(pages.get("size")), _int(pages.text)) for pages in element.findall("pages") if pages.get("unit") == "KiB")
    return NumaCell(
        id=_int(element.get("id")),
        cpus=tuple(sorted(cpus)),
        memory_mb=_kib(element.find("memory")) >> 10,
        siblings=tuple(sorted(group for group in groups if len(group) > 1)),
        pages={str(size): count for size, count in pools[1:] if count > 0},
    )


def _siblings(text: str) -> Tuple[int, ...]:
    try:
        return parse_cpuset(text)
    except BadMessage:
        return ()


def _int(text: Optional[str]) -> int:
    """-1 for what is no number: libvirt leaves out what it does not know."""
    text = (text or "").strip()
    return int(text) if text.isdecimal() else -1


def _kib(memory: Optional[ET.Element]) -> int:
    return max(0, _int(memory.text)) if memory is not None and memory.get("unit", "KiB") == "KiB" else 0


_INFRASTRUCTURE = ("05", "06", "08", "11")
"""PCI classes that are the machine itself: memory controllers, bridges, system peripherals, performance counters."""
_THE_HOSTS_OWN = ("01", "02")
"""Storage and network: while a driver of the host holds such a device, the host may live on it."""
_GIVEN_FREE = ("", "vfio-pci", "pci-stub")


def parse_pci_device(xml: str) -> Optional[PciDevice]:
    """A node device's XML -> the device, where a guest can be given it; else None.

    It needs an IOMMU group. A storage controller or network card that a driver of the host holds stays the host's, unless it
    is a virtual function: bind it to vfio-pci to give it away. So does a card that has virtual functions.
    """
    root = ET.fromstring(xml)
    pci = root.find("capability[@type='pci']")
    vendor, product = (pci.find(name) if pci is not None else None for name in ("vendor", "product"))
    if pci is None or vendor is None or product is None or pci.find("iommuGroup") is None:
        return None
    if any(pci.find(sign) is not None for sign in ("capability[@type='pci-bridge']", "capability[@type='virt_functions']/address")):
        return None
    kind = (pci.findtext("class") or "0x").strip()[2:4]
    is_virtual = pci.find("capability[@type='phys_function']") is not None
    is_held = (root.findtext("driver/name") or "") not in _GIVEN_FREE
    if kind in _INFRASTRUCTURE or (kind in _THE_HOSTS_OWN and is_held and not is_virtual):
        return None
    domain, bus, slot, function = (_int(pci.findtext(part)) for part in ("domain", "bus", "slot", "function"))
    if not (0 <= domain <= 0xFFFF and 0 <= bus <= 0xFF and 0 <= slot <= 0x1F and 0 <= function <= 7):
        return None
    numa = pci.find("numa")
    cell = _int(numa.get("node")) if numa is not None else -1
    return PciDevice(f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}", _hex_id(vendor), _hex_id(product), cell)


def parse_pci_devices(xmls: Iterable[str]) -> Tuple[PciDevice, ...]:
    """Those of the node devices that a guest can be given, by address; at most MAX_PCI_REPORTED."""
    found = sorted((device for device in map(parse_pci_device, xmls) if device), key=lambda device: device.address)
    return tuple(found[:MAX_PCI_REPORTED])


def _hex_id(element: ET.Element) -> str:
    """'0x10de' -> '10de'."""
    return element.get("id", "").lower().replace("0x", "", 1).rjust(4, "0")


def choose_virt_type(wanted: str, flags: Sequence[str], kvm_opens: bool, offered: Sequence[str]) -> str:
    """'kvm' or 'qemu'. `wanted` 'auto': KVM when the processor shows vmx or svm, /dev/kvm opens for this user (the
    service is in group kvm) and libvirt offers it; a device without the flags runs paravirtual guests at best."""
    if wanted != "auto":
        return wanted
    by_flags = "vmx" in flags or "svm" in flags
    return "kvm" if by_flags and kvm_opens and "kvm" in offered else "qemu"


def choose_machine(machines: Sequence[str]) -> str:
    """The chipset: q35 where it is offered, else pc, virt (ARM), else whatever comes first."""
    for wanted in ("q35", "pc", "virt"):
        if wanted in machines:
            return wanted
    return machines[0] if machines else ""


def choose_cpu_mode(virt_type: str, domain_capabilities: str) -> str:
    """A CPU mode that libvirt's domain capabilities call supported, the best first; '' where it names none."""
    root = ET.fromstring(domain_capabilities)
    offered = {mode.get("name") for mode in root.findall("cpu/mode") if mode.get("supported") == "yes"}
    order = ("host-model", "host-passthrough", "maximum") if virt_type == "kvm" else ("maximum",)
    return next((mode for mode in order if mode in offered), "")


def version_text(number: int) -> str:
    """libvirt's 9000000 -> '9.0.0'."""
    return f"{number // 1000000}.{number // 1000 % 1000}.{number % 1000}"
