"""Whether the pieces chosen for a server are still to be had: CPUs of its own, huge pages, PCI devices. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from novactl.model.topology import Fitting, Hardware


def taken(wanted: Fitting, others: Sequence[Fitting], hardware: Hardware) -> list[str]:
    """What of `wanted` the servers with the fittings `others` hold by now, one entry a piece."""
    cells = {cell.id: cell for cell in hardware.cells}
    siblings = {cpu: group for cell in hardware.cells for group in cell.siblings for cpu in group}

    def kept_free(fitting: Fitting) -> set[int]:
        """Its CPUs, with the threads beside them where they are to stay free."""
        return {
            other for cell in fitting.cells for cpu in cell.cpus for other in ((cpu, *siblings.get(cpu, ())) if cell.isolated else (cpu,))}

    mine = _cpus([wanted])
    cpus = {cpu for other in others for cpu in kept_free(other)} & mine | _cpus(others) & kept_free(wanted)
    devices = {address for other in others for address in other.pci}.intersection(wanted.pci)
    found = [f"CPU {cpu}" for cpu in sorted(cpus)] + [f"PCI device {address}" for address in sorted(devices)]
    held = _pages(others)
    for (cell, size), count in _pages([wanted]).items():
        there = cells[cell].pages.get(size, 0) if cell in cells else 0
        if count + held.get((cell, size), 0) > there:
            found.append(f"{size} KiB pages of cell {cell}")
    return found


def _cpus(fittings: Iterable[Fitting]) -> set[int]:
    return {cpu for one in fittings for cell in one.cells for cpu in cell.cpus}


def _pages(fittings: Iterable[Fitting]) -> dict[tuple[int, int], int]:
    """(host cell, page size in KiB) -> how many huge pages."""
    found: dict[tuple[int, int], int] = {}
    for cell in (cell for one in fittings for cell in one.cells if cell.page_kib):
        key = cell.host_cell, cell.page_kib
        found[key] = found.get(key, 0) + -(-cell.memory_mb * 1024 // cell.page_kib)
    return found
