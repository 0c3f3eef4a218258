"""Which pieces of a host a guest gets: NUMA cells, CPUs of its own, huge pages, PCI devices. Pure; equal questions, equal answers.

Rules: Nova's numa_fit_instance_to_host (nova/virt/hardware.py) and PciDeviceStats.support_requests. Ours differ where a guest cell's
fit does not depend on the others': the first fitting arrangement is found by matching instead of by trying permutations, and floating
servers' small pages come from what the huge pages leave of a cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from novactl.model.resources import MEMORY_MB, VCPU, Inventory
from novactl.model.topology import ANY_PAGE, LARGE_PAGE, FittedCell, Fitting, GuestCell, GuestTopology, Hardware, HostCell, PciDevice
from novactl.model.topology_specs import MAX_GUEST_CELLS
from novactl.scheduler.request import NodeView, Request

Aliases = Mapping[str, tuple[str, str]]
_CELLS_TOLD = 4
"""So many host cells a sentence speaks of."""


@dataclass(frozen=True)
class Limits:
    """How far floating servers may share a cell: its CPUs and its small pages, in thousandths. No server shares with itself."""

    cpu_milli: int = 1000
    memory_milli: int = 1000

    @staticmethod
    def of(inventories: Mapping[str, Inventory]) -> Limits:
        """The node's own allocation ratios."""
        return Limits(*(inventories[name].ratio_milli if name in inventories else 1000 for name in (VCPU, MEMORY_MB)))


def fitting_on(request: Request, node: NodeView) -> Fitting | str:
    """What the request's server would hold of the node's pieces, or why it cannot. Nothing asked: an empty fitting."""
    return fit(
        request.wants.topology, request.wants.pci, request.rules.pci_aliases, node.hardware, node.fittings or (),
        Limits.of(node.inventories))


def given(request: Request, node: NodeView) -> Fitting:
    """As `fitting_on`; nothing where it cannot: for who puts a server there whatever it lacks."""
    found = fitting_on(request, node)
    return found if isinstance(found, Fitting) else Fitting()


def fit(
    guest: GuestTopology | None, pci: Sequence[tuple[str, int]], aliases: Aliases, hardware: Hardware | None,
    used: Sequence[Fitting], limits: Limits = Limits(),
) -> Fitting | str:
    """The pieces for `guest` and `pci` (alias, count) that no fitting in `used` holds, or the sentence that says why there are none.

    Guest cells go to different host cells: those that have the devices first, then by id. Devices of the same cells come first.
    """
    if not guest and not pci:
        return Fitting()
    if hardware is None:
        return "its agent has not reported what pieces the host has"
    devices = _free_devices(pci, aliases, hardware, used)
    if isinstance(devices, str):
        return devices
    cells: tuple[FittedCell, ...] = ()
    if guest:
        found = _cells(guest, hardware, used, limits, _order(hardware, devices, pci))
        if isinstance(found, str):
            return found
        cells = found
    return Fitting(cells, tuple(_chosen(pci, devices, {cell.host_cell for cell in cells})))


# ---------------------------------------------------------------- PCI devices

def _free_devices(
    pci: Sequence[tuple[str, int]], aliases: Aliases, hardware: Hardware, used: Sequence[Fitting]
) -> dict[str, list[PciDevice]] | str:
    """Alias -> its free devices by address. Two aliases of one vendor and product draw on the same devices."""
    taken = {address for fitting in used for address in fitting.pci}
    found: dict[str, list[PciDevice]] = {}
    needs: dict[tuple[str, str], int] = {}
    for alias, count in pci:
        if alias not in aliases:
            return f"PCI alias {alias} is not known"
        kind = aliases[alias]
        all_ = [device for device in hardware.pci if (device.vendor_id, device.product_id) == kind]
        found[alias] = sorted((device for device in all_ if device.address not in taken), key=lambda device: device.address)
        needs[kind] = needs.get(kind, 0) + count
        if len(found[alias]) < needs[kind]:
            return f"PCI {alias} ({':'.join(kind)}): needs {needs[kind]}, free {len(found[alias])} of {len(all_)}"
    return found


def _order(hardware: Hardware, devices: Mapping[str, Sequence[PciDevice]], pci: Sequence[tuple[str, int]]) -> list[HostCell]:
    """Host cells in the order they are tried: most of the wanted devices first; none wanted, those without devices first."""
    def rank(cell: HostCell) -> tuple[int, int]:
        if pci:
            there = sum(min(count, sum(device.cell == cell.id for device in devices[alias])) for alias, count in pci)
            return -there, cell.id
        return int(any(device.cell == cell.id for device in hardware.pci)), cell.id

    return sorted(hardware.cells, key=rank)


def _chosen(pci: Sequence[tuple[str, int]], devices: Mapping[str, Sequence[PciDevice]], cells: set[int]) -> Iterator[str]:
    taken: set[str] = set()
    for alias, count in pci:
        free = sorted((d for d in devices[alias] if d.address not in taken), key=lambda d: (d.cell not in cells, d.address))
        addresses = [device.address for device in free[:count]]
        taken.update(addresses)
        yield from addresses


# ---------------------------------------------------------------- cells

def _cells(
    guest: GuestTopology, hardware: Hardware, used: Sequence[Fitting], limits: Limits, order: Sequence[HostCell]
) -> tuple[FittedCell, ...] | str:
    if not order:
        return "its agent reports no NUMA cells"
    if len(guest.cells) > MAX_GUEST_CELLS:
        return f"asks for {len(guest.cells)} NUMA cells, at most {MAX_GUEST_CELLS} are possible"
    if len(guest.cells) > len(order):
        return f"needs {len(guest.cells)} NUMA cells, the host has {len(order)}"
    dedicated = frozenset(hardware.dedicated)
    hosts = [_Cell(cell, dedicated, [c for fitting in used for c in fitting.cells if c.host_cell == cell.id]) for cell in order]
    verdicts = [[_fit_cell(guest, cell, host, limits) for host in hosts] for cell in guest.cells]
    matched = _first_matching([[isinstance(verdict, FittedCell) for verdict in row] for row in verdicts])
    if matched is None:
        return _why(guest, hosts, verdicts)
    return tuple(cell for row, host in zip(verdicts, matched, strict=True) if isinstance(cell := row[host], FittedCell))


def _first_matching(fits: Sequence[Sequence[bool]]) -> list[int] | None:
    """A column for each row, all different: for each row in order the first that leaves the later ones theirs. None: impossible."""
    chosen: list[int] = []
    for row, does in enumerate(fits):
        first = next((
            column for column, fit_ in enumerate(does)
            if fit_ and column not in chosen and _can_match(fits[row + 1 :], {*chosen, column})), None)
        if first is None:
            return None
        chosen.append(first)
    return chosen


def _can_match(fits: Sequence[Sequence[bool]], taken: set[int]) -> bool:
    """Every row can have a column of its own that is not taken (Kuhn's augmenting paths)."""
    owner: dict[int, int] = {}

    def place(row: int, seen: set[int]) -> bool:
        for column, does in enumerate(fits[row]):
            if does and column not in seen:
                seen.add(column)
                if column not in owner or place(owner[column], seen):
                    owner[column] = row
                    return True
        return False

    return all(place(row, set(taken)) for row in range(len(fits)))


class _Cell:
    """A host cell and what is left of it. `held` are the fitted cells on it."""

    def __init__(self, cell: HostCell, dedicated: frozenset[int], held: Sequence[FittedCell]) -> None:
        self.cell, self.held = cell, held
        self.dedicated = [cpu for cpu in sorted(cell.cpus) if cpu in dedicated]
        self.shared = len(cell.cpus) - len(self.dedicated)
        grouped = {cpu: tuple(sorted(set(group).intersection(cell.cpus))) for group in cell.siblings for cpu in group}
        self.core = {cpu: grouped.get(cpu, (cpu,)) for cpu in cell.cpus}
        taken = {cpu for one in held for cpu in one.cpus}
        taken |= {beside for one in held if one.isolated for cpu in one.cpus for beside in self.core.get(cpu, ())}
        self.free = [cpu for cpu in self.dedicated if cpu not in taken]

    @property
    def small_mb(self) -> int:
        """Memory in small pages: what is not set aside for huge ones."""
        return max(0, self.cell.memory_mb - sum(size * count for size, count in self.cell.pages.items()) // 1024)

    def free_pages(self, page_kib: int) -> int:
        held_kib = sum(one.memory_mb * 1024 for one in self.held if one.page_kib == page_kib)
        return self.cell.pages.get(page_kib, 0) - held_kib // page_kib


def _fit_cell(guest: GuestTopology, cell: GuestCell, host: _Cell, limits: Limits) -> FittedCell | str:
    """One guest cell on one host cell, whatever the others do; or why not."""
    page_kib = _page(guest.page_kib, cell.memory_mb, host, limits)
    if isinstance(page_kib, str):
        return page_kib
    if guest.pinned:
        cpus = _pinned(cell.vcpus, guest.threads, host)
        if isinstance(cpus, str):
            return cpus
        return FittedCell(host.cell.id, cell.vcpus, cell.memory_mb, cpus, page_kib, guest.threads == "isolate")
    floating = sum(one.vcpus for one in host.held if not one.cpus)
    room = host.shared * limits.cpu_milli // 1000
    if cell.vcpus > host.shared:
        return f"needs {cell.vcpus} CPUs, has {host.shared} shared ones"
    if floating + cell.vcpus > room:
        return f"needs {cell.vcpus} vcpus, free {room - floating} of {room}"
    return FittedCell(host.cell.id, cell.vcpus, cell.memory_mb, (), page_kib)


# ---------------------------------------------------------------- memory

def _page(wanted: int, memory_mb: int, host: _Cell, limits: Limits) -> int | str:
    """The page size in KiB that the memory gets there, 0 for small pages: of several the largest that divides it and is free."""
    huge = sorted(host.cell.pages, reverse=True)
    sizes = huge if wanted == LARGE_PAGE else [*huge, 0] if wanted == ANY_PAGE else [wanted]
    lacks = []
    for size in sizes:
        lack = _lacks_pages(size, memory_mb, host) if size else _lacks_memory(memory_mb, host, limits)
        if not lack:
            return size
        lacks.append(lack)
    return ", ".join(lacks) or "has no huge pages set aside"


def _lacks_pages(page_kib: int, memory_mb: int, host: _Cell) -> str:
    free, total = host.free_pages(page_kib), host.cell.pages.get(page_kib, 0)
    if not total:
        return f"has no pages of {_page_text(page_kib)}"
    needs, rest = divmod(memory_mb * 1024, page_kib)
    if rest:
        return f"{memory_mb} MiB is not a multiple of {_page_text(page_kib)}"
    return f"needs {needs} pages of {_page_text(page_kib)}, free {free} of {total}" if needs > free else ""


def _lacks_memory(memory_mb: int, host: _Cell, limits: Limits) -> str:
    own = host.small_mb
    room = own * limits.memory_milli // 1000
    held = sum(one.memory_mb for one in host.held if not one.page_kib)
    if memory_mb > own:
        return f"needs memory {memory_mb} MiB, has {own} MiB in small pages"
    return f"needs memory {memory_mb} MiB, free {room - held} of {room} MiB" if held + memory_mb > room else ""


def _page_text(page_kib: int) -> str:
    size, unit = next((page_kib >> bits, unit) for bits, unit in ((20, "GiB"), (10, "MiB"), (0, "KiB")) if page_kib >> bits)
    return f"{size} {unit}"


# ---------------------------------------------------------------- CPUs of one's own

def _pinned(vcpus: int, threads: str, host: _Cell) -> tuple[int, ...] | str:
    """A dedicated CPU a vcpu, core after core; or why not."""
    numbers = f"dedicated CPUs free {len(host.free)} of {len(host.dedicated)}"
    if not host.dedicated:
        return "has no dedicated CPUs"
    free = set(host.free)
    cores = sorted({host.core[cpu] for cpu in host.free})
    if threads == "isolate":
        whole = [core[0] for core in cores if free.issuperset(core)]
        if len(whole) < vcpus:
            return f"needs {vcpus} cores to itself, has {len(whole)} with all threads dedicated and free ({numbers})"
        return tuple(whole[:vcpus])
    if threads == "require":
        if all(len(core) == 1 for core in host.core.values()):
            return "its CPUs share no cores, as hw:cpu_thread_policy=require needs"
        cores = [core for core in cores if len(free.intersection(core)) > 1]
    pieces = [tuple(cpu for cpu in core if cpu in free) for core in cores]
    have = sum(map(len, pieces))
    if have < vcpus:
        return f"needs {vcpus} dedicated CPUs{' beside each other' if threads == 'require' else ''}, free {have} of {len(host.dedicated)}"
    return _packed(pieces, vcpus)


def _packed(pieces: Sequence[tuple[int, ...]], count: int) -> tuple[int, ...]:
    """`count` of the free threads of cores: whole pieces while they fit, the largest first; the rest from the smallest that has it."""
    chosen: list[int] = []
    left = []
    for piece in sorted(pieces, key=lambda piece: (-len(piece), piece)):
        if len(piece) <= count - len(chosen):
            chosen += piece
        else:
            left.append(piece)
    if len(chosen) < count:
        chosen += min(left, key=lambda piece: (len(piece), piece))[: count - len(chosen)]
    return tuple(chosen)


# ---------------------------------------------------------------- the sentence

def _why(guest: GuestTopology, hosts: Sequence[_Cell], verdicts: Sequence[Sequence[FittedCell | str]]) -> str:
    """For the first guest cell that fits nowhere, what each host cell lacks; or that too many need the same host cells."""
    for number, row in enumerate(verdicts):
        if all(isinstance(verdict, str) for verdict in row):
            told = sorted((host.cell.id, verdict) for host, verdict in zip(hosts, row, strict=True))
            which = f"guest cell {number}: " if len(guest.cells) > 1 else ""
            more = f"; and {len(told) - _CELLS_TOLD} more cells" if len(told) > _CELLS_TOLD else ""
            return which + "; ".join(f"cell {cell}: {lack}" for cell, lack in told[:_CELLS_TOLD]) + more
    roomy = sorted({host.cell.id for row in verdicts for host, verdict in zip(hosts, row, strict=True) if not isinstance(verdict, str)})
    return f"needs {len(guest.cells)} NUMA cells side by side; those with room for one of them: {', '.join(f'cell {id}' for id in roomy)}"
