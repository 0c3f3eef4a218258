"""Pieces of a host: what a report says of its NUMA cells and PCI devices, and what a domain may ask of them.

Standard library only. Bounds hold a report to a size that can be sent, and keep what goes into XML well-formed.
"""

import re
from dataclasses import dataclass, field
from typing import Iterable, Mapping, Tuple

from nodeagent.codec import MAX_INT, BadMessage, shown

MAX_CPU, MAX_HOST_CELL = 8191, 1023
MAX_CELLS_REPORTED, MAX_CPUS_REPORTED, MAX_PCI_REPORTED, MAX_MACHINES_REPORTED = 64, 2048, 256, 128
MAX_GUEST_CELLS, MAX_GUEST_PCI = 8, 32
_CPUSET_CHARS = 2000

_CPUSET = re.compile(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*\Z", re.ASCII)
_PCI = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]\Z")


@dataclass(frozen=True)
class NumaCell:
    """A NUMA cell of the host: its CPUs' numbers and all its memory. `siblings` are the groups of CPUs that share a core, where
    more than one does; `pages` maps a huge page's size in KiB to how many are set aside."""

    id: int
    cpus: Tuple[int, ...]
    memory_mb: int
    siblings: Tuple[Tuple[int, ...], ...] = ()
    pages: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class PciDevice:
    """A device that a guest can be given: domain:bus:slot.function, ids of four hexadecimal digits, `cell` -1 for none."""

    address: str
    vendor_id: str
    product_id: str
    cell: int = -1


@dataclass(frozen=True)
class DomainCell:
    """A NUMA cell of the guest, with its memory on `host_cell` in pages of `page_kib` (0: small ones).

    The guest's vcpus are dealt to its cells in order.
    """

    vcpus: int
    memory_mb: int
    host_cell: int
    page_kib: int = 0

    def __post_init__(self) -> None:
        for what in ("vcpus", "memory_mb"):
            if not 0 < getattr(self, what) <= MAX_INT:
                raise BadMessage(f"a cell's {what} must be a positive integer, not {getattr(self, what)}")
        if not 0 <= self.host_cell <= MAX_HOST_CELL:
            raise BadMessage(f"host_cell must be 0 to {MAX_HOST_CELL}, not {self.host_cell}")
        if self.page_kib and (not 4 <= self.page_kib <= 16 << 20 or self.page_kib & (self.page_kib - 1)):
            raise BadMessage(f"page_kib must be 0 or a power of two from 4 to {16 << 20}, not {self.page_kib}")
        if self.page_kib and self.memory_mb * 1024 % self.page_kib:
            raise BadMessage(f"a cell's memory of {self.memory_mb} MiB is not a multiple of its pages of {self.page_kib} KiB")


def parse_cpuset(text: str) -> Tuple[int, ...]:
    """'0-3,8' -> (0, 1, 2, 3, 8), sorted; '' -> (). Raises BadMessage."""
    if not text:
        return ()
    found = set()
    for part in text.split(",") if len(text) <= _CPUSET_CHARS and _CPUSET.match(text) else ():
        first, _, last = part.partition("-")
        if not int(first) <= int(last or first) <= MAX_CPU:
            raise BadMessage(f"{shown(part)} is not a range of CPUs from 0 to {MAX_CPU}")
        found.update(range(int(first), int(last or first) + 1))
    if not found:
        raise BadMessage(f"cpuset {shown(text)} is not CPU numbers and ranges, such as '0-3,8'")
    return tuple(sorted(found))


def cpuset_text(cpus: Iterable[int]) -> str:
    """(0, 1, 2, 3, 8) -> '0-3,8'."""
    ranges = []
    for cpu in sorted(set(cpus)):
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def check_pieces(spec) -> None:
    """`spec` (wire.DomainSpec) asks for pieces in a form that can be defined. Raises BadMessage."""
    parse_cpuset(spec.cpuset)
    if spec.pins:
        if len(spec.pins) != spec.vcpus:
            raise BadMessage(f"pins must be one CPU for each of {spec.vcpus} vcpus, not {len(spec.pins)}")
        if len(set(spec.pins)) != len(spec.pins) or not all(0 <= cpu <= MAX_CPU for cpu in spec.pins):
            raise BadMessage(f"pins must be different CPUs from 0 to {MAX_CPU}")
    if spec.cells:
        if len(spec.cells) > MAX_GUEST_CELLS:
            raise BadMessage(f"{len(spec.cells)} NUMA cells, at most {MAX_GUEST_CELLS}")
        for what in ("vcpus", "memory_mb"):
            total = sum(getattr(cell, what) for cell in spec.cells)
            if total != getattr(spec, what):
                raise BadMessage(f"the {what} of all cells are {total}, the server's {getattr(spec, what)}")
    if len(spec.pci) > MAX_GUEST_PCI or len(set(spec.pci)) != len(spec.pci):
        raise BadMessage(f"pci must be different addresses, at most {MAX_GUEST_PCI}")
    for address in spec.pci:
        if not _PCI.match(address):
            raise BadMessage(f"PCI address {shown(address)} is not of the form 0000:3b:00.0")


def lacking(spec, cells: Tuple[NumaCell, ...], devices: Tuple[PciDevice, ...], others) -> str:
    """Why the host cannot give `spec` the pieces it asks for, '' if it can. `others` are the specs of its other servers.

    The second guard behind the scheduler: it sees only this host, and only what is defined on it.
    """
    host = {cell.id: cell for cell in cells}
    cpus = {cpu for cell in cells for cpu in cell.cpus}
    for what, asked in (("pinned CPU", spec.pins), ("CPU of the cpuset", parse_cpuset(spec.cpuset))):
        odd = sorted(set(asked) - cpus)
        if odd:
            return f"{what} {odd[0]} is not one of this host's: {cpuset_text(cpus) or 'it reports none'}"
    pinned = {cpu: other.name for other in others for cpu in other.pins}
    for cpu in spec.pins:
        if cpu in pinned:
            return f"CPU {cpu} is pinned by server {pinned[cpu]} already"
    return _cells_lacking(spec, host, others) or _devices_lacking(spec, devices, others)


def vcpus_of_cells(spec) -> Tuple[range, ...]:
    """Which vcpus each of the guest's cells has."""
    starts = [sum(cell.vcpus for cell in spec.cells[:number]) for number in range(len(spec.cells))]
    return tuple(range(start, start + cell.vcpus) for start, cell in zip(starts, spec.cells))


def _cells_lacking(spec, host: Mapping[int, NumaCell], others) -> str:
    shared = set(parse_cpuset(spec.cpuset))
    pages = {}
    for number, (cell, vcpus) in enumerate(zip(spec.cells, vcpus_of_cells(spec))):
        there = host.get(cell.host_cell)
        if there is None:
            return f"guest cell {number} is to be on host cell {cell.host_cell}, the host has {cpuset_text(host) or 'none'}"
        for vcpu in vcpus if spec.pins else ():
            if spec.pins[vcpu] not in there.cpus:
                return f"vcpu {vcpu} is pinned to CPU {spec.pins[vcpu]}, which is not in host cell {there.id} as its memory is"
        if not spec.pins and shared and not shared.intersection(there.cpus):
            return f"no CPU of host cell {there.id} is in the cpuset {spec.cpuset}"
        if cell.page_kib:
            key = (there.id, cell.page_kib)
            pages[key] = pages.get(key, 0) + cell.memory_mb * 1024 // cell.page_kib
    for (cell_id, page_kib), needs in pages.items():
        total = host[cell_id].pages.get(str(page_kib), 0)
        used = sum(
            cell.memory_mb * 1024 // page_kib for other in others for cell in other.cells
            if (cell.host_cell, cell.page_kib) == (cell_id, page_kib))
        if used + needs > total:
            return f"pages of {page_kib} KiB in host cell {cell_id}: needs {needs}, has {max(0, total - used)} of {total} ({used} used)"
    return ""


def _devices_lacking(spec, devices: Tuple[PciDevice, ...], others) -> str:
    there = {device.address for device in devices}
    held = {address: other.name for other in others for address in other.pci}
    for address in spec.pci:
        if address in held:
            return f"PCI device {address} is given to server {held[address]} already"
        if address not in there:
            return f"PCI device {address} is not there, or cannot be given to a guest (no IOMMU group, or the host uses it)"
    return ""
