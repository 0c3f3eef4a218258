"""NUMA cells, pinned CPUs, huge pages and PCI devices: what a host has, what a guest asks, what it was given."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from novactl.errors import UsageError

MAX_CPU = 8191
_RANGE = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?\Z", re.ASCII)

ANY_PAGE, LARGE_PAGE = -1, -2
"""`GuestTopology.page_kib`: any size the host has, any but the small one (Nova's hw:mem_page_size any, large)."""


def cpu_list(text: str) -> tuple[int, ...]:
    """'0-3,8' -> (0, 1, 2, 3, 8), sorted; '^2' takes one away again; '' is none. Raises UsageError naming the form."""
    found: set[int] = set()
    without: set[int] = set()
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _RANGE.match(part.removeprefix("^"))
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last <= MAX_CPU:
            raise UsageError(f"{part!r} is not a CPU number or a range of them", hint=f"write '0-3,8' (0 to {MAX_CPU})")
        (without if part.startswith("^") else found).update(range(first, last + 1))
    return tuple(sorted(found - without))


def cpu_text(cpus: Iterable[int]) -> str:
    """(0, 1, 2, 3, 8) -> '0-3,8'; back by `cpu_list`."""
    ranges: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


@dataclass(frozen=True)
class HostCell:
    """A NUMA cell. `cpus` are host CPU numbers, `siblings` the groups of them that share a core; `pages` maps a page size
    in KiB to how many the host has set aside (huge pages only)."""

    id: int
    cpus: tuple[int, ...]
    memory_mb: int
    siblings: tuple[tuple[int, ...], ...] = ()
    pages: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class PciDevice:
    """`address` is domain:bus:slot.function; ids are four hexadecimal digits; `cell` -1: of no NUMA cell."""

    address: str
    vendor_id: str
    product_id: str
    cell: int = -1


@dataclass(frozen=True)
class Hardware:
    """What of a host can be given away piece by piece. `dedicated` are the CPUs kept for pinned servers (PCPU)."""

    cells: tuple[HostCell, ...] = ()
    pci: tuple[PciDevice, ...] = ()
    dedicated: tuple[int, ...] = ()

    @property
    def shared(self) -> tuple[int, ...]:
        """The CPUs that floating servers use: all but the dedicated ones."""
        return tuple(sorted({cpu for cell in self.cells for cpu in cell.cpus} - set(self.dedicated)))

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> Hardware:
        """From `to_plain`, or from an agent's report, which uses the same words (`dedicated` is not the agent's to say)."""
        return Hardware(
            cells=tuple(
                HostCell(cell["id"], tuple(cell["cpus"]), cell["memory_mb"], tuple(tuple(s) for s in cell.get("siblings", ())),
                         {int(size): count for size, count in cell.get("pages", {}).items()})
                for cell in plain.get("cells", ())),
            pci=tuple(PciDevice(d["address"], d["vendor_id"], d["product_id"], d.get("cell", -1)) for d in plain.get("pci", ())),
            dedicated=tuple(plain.get("dedicated", ())))


@dataclass(frozen=True)
class GuestCell:
    vcpus: int
    memory_mb: int


@dataclass(frozen=True)
class GuestTopology:
    """What a guest asks: cells (one unless hw:numa_nodes says more), `pinned` for hw:cpu_policy=dedicated,
    `threads` "prefer", "isolate" or "require", `page_kib` 0 for the host's small pages, a size, ANY_PAGE or LARGE_PAGE."""

    cells: tuple[GuestCell, ...]
    pinned: bool = False
    threads: str = "prefer"
    page_kib: int = 0

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> GuestTopology:
        return GuestTopology(
            tuple(GuestCell(**cell) for cell in plain["cells"]), plain.get("pinned", False), plain.get("threads", "prefer"),
            plain.get("page_kib", 0))


@dataclass(frozen=True)
class FittedCell:
    """A guest cell on a host cell. `cpus` has one host CPU a vcpu where it is pinned, and is empty where it floats over the cell.
    `page_kib` 0: small pages. `isolated`: the threads beside its CPUs stay free."""

    host_cell: int
    vcpus: int
    memory_mb: int
    cpus: tuple[int, ...] = ()
    page_kib: int = 0
    isolated: bool = False


@dataclass(frozen=True)
class Fitting:
    """What one server holds of a host's pieces: stored with its claim."""

    cells: tuple[FittedCell, ...] = ()
    pci: tuple[str, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> Fitting:
        return Fitting(
            tuple(FittedCell(c["host_cell"], c["vcpus"], c["memory_mb"], tuple(c.get("cpus", ())), c.get("page_kib", 0),
                             c.get("isolated", False))
                  for c in plain.get("cells", ())),
            tuple(plain.get("pci", ())))
