"""The parts of domain XML that tie a guest to pieces of its host. Pure; ElementTree only.

Elements: https://libvirt.org/formatdomain.html (CPU Allocation, CPU Tuning, NUMA Node Tuning, Memory Backing, Guest NUMA
topology, USB / PCI / SCSI devices).
"""

import xml.etree.ElementTree as ET
from typing import Tuple

from nodeagent.pieces import NumaCell, cpuset_text, parse_cpuset, vcpus_of_cells
from nodeagent.wire import DomainSpec


def processors(domain: ET.Element, spec: DomainSpec, host: Tuple[NumaCell, ...]) -> None:
    """<vcpu> and <cputune>: a pinned vcpu has its CPU, one of a NUMA cell floats over its host cell's, any other over the cpuset.

    QEMU's own threads share the CPUs of the vcpus that are tied to some (Nova's default).
    """
    vcpu = ET.SubElement(domain, "vcpu", {"placement": "static", "cpuset": spec.cpuset} if spec.cpuset and not spec.pins else {})
    vcpu.text = str(spec.vcpus)
    allowed = _allowed(spec, host)
    if not allowed:
        return
    tune = ET.SubElement(domain, "cputune")
    for number, cpus in enumerate(allowed):
        ET.SubElement(tune, "vcpupin", {"vcpu": str(number), "cpuset": cpuset_text(cpus)})
    ET.SubElement(tune, "emulatorpin", {"cpuset": cpuset_text(cpu for cpus in allowed for cpu in cpus)})


def _allowed(spec: DomainSpec, host: Tuple[NumaCell, ...]) -> Tuple[Tuple[int, ...], ...]:
    """The host CPUs of each vcpu, () where none is tied to any."""
    if spec.pins:
        return tuple((cpu,) for cpu in spec.pins)
    cpus = {cell.id: cell.cpus for cell in host}
    shared = set(parse_cpuset(spec.cpuset))
    found = []
    for cell in spec.cells:
        own = cpus.get(cell.host_cell, ())
        found += [tuple(cpu for cpu in own if not shared or cpu in shared)] * cell.vcpus
    return tuple(found) if all(found) else ()


def memory(domain: ET.Element, spec: DomainSpec) -> None:
    """<numatune> and <memoryBacking>: each guest cell's memory on its host cell, in pages of its size.

    Huge pages come from a memfd: hugetlbfs need not be mounted, and any size the kernel has set aside will do.
    """
    if not spec.cells:
        return
    tune = ET.SubElement(domain, "numatune")
    ET.SubElement(tune, "memory", {"mode": "strict", "nodeset": cpuset_text(cell.host_cell for cell in spec.cells)})
    for number, cell in enumerate(spec.cells):
        ET.SubElement(tune, "memnode", {"cellid": str(number), "mode": "strict", "nodeset": str(cell.host_cell)})
    sizes = sorted({cell.page_kib for cell in spec.cells if cell.page_kib})
    if not sizes:
        return
    backing = ET.SubElement(domain, "memoryBacking")
    pages = ET.SubElement(backing, "hugepages")
    for size in sizes:
        nodeset = cpuset_text(number for number, cell in enumerate(spec.cells) if cell.page_kib == size)
        ET.SubElement(pages, "page", {"size": str(size), "unit": "KiB", "nodeset": nodeset})
    ET.SubElement(backing, "source", {"type": "memfd"})


def guest_cells(cpu: ET.Element, spec: DomainSpec) -> None:
    """<cpu><numa>: the cells the guest sees."""
    if not spec.cells:
        return
    numa = ET.SubElement(cpu, "numa")
    for number, (cell, vcpus) in enumerate(zip(spec.cells, vcpus_of_cells(spec))):
        ET.SubElement(
            numa, "cell", {"id": str(number), "cpus": cpuset_text(vcpus), "memory": str(cell.memory_mb), "unit": "MiB"})


def passthrough(devices: ET.Element, spec: DomainSpec) -> None:
    """<hostdev>: libvirt takes each device from its host driver when the guest starts, and gives it back."""
    for address in spec.pci:
        domain, bus, rest = address.split(":")
        slot, function = rest.split(".")
        hostdev = ET.SubElement(devices, "hostdev", {"mode": "subsystem", "type": "pci", "managed": "yes"})
        ET.SubElement(ET.SubElement(hostdev, "source"), "address", {
            "domain": f"0x{domain}", "bus": f"0x{bus}", "slot": f"0x{slot}", "function": f"0x{function}"})
