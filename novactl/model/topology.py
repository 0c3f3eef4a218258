"""NUMA cells, pinned CPUs, huge pages and PCI devices: what a host has, what a guest asks, what it was given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

ANY_PAGE, LARGE_PAGE = -1, -2
"""`GuestTopology.page_kib`: any size the host has, any but the small one (Nova's hw:mem_page_size any, large)."""


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

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> Hardware:
        return Hardware(
            cells=tuple(
                HostCell(cell["id"], tuple(cell["cpus"]), cell["memory_mb"], tuple(tuple(s) for s in cell.get("siblings", ())),
                         {int(size): count for size, count in cell.get("pages", {}).items()})
                for cell in plain.get("cells", ())),
            pci=tuple(PciDevice(**device) for device in plain.get("pci", ())),
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
    """A guest cell on a host cell. `cpus` has one host CPU a vcpu where it is pinned, and is empty where it floats over the cell."""

    host_cell: int
    vcpus: int
    memory_mb: int
    cpus: tuple[int, ...] = ()
    page_kib: int = 0


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
            tuple(FittedCell(c["host_cell"], c["vcpus"], c["memory_mb"], tuple(c.get("cpus", ())), c.get("page_kib", 0))
                  for c in plain.get("cells", ())),
            tuple(plain.get("pci", ())))
