"""A flavor's extra specs about NUMA cells, CPU pinning, huge pages and PCI devices, read. Names and rules are Nova's.

Source: nova/virt/hardware.py, numa_get_constraints, get_cpu_policy_constraint and _get_numa_pagesize_constraint;
nova/pci/request.py, get_pci_requests_from_flavor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from novactl.errors import UsageError
from novactl.model.topology import ANY_PAGE, LARGE_PAGE, GuestCell, GuestTopology, cpu_list
from novactl.model.units import whole

MAX_GUEST_CELLS = 8
MAX_PCI_DEVICES = 32
POLICIES, THREADS = ("shared", "dedicated"), ("prefer", "isolate", "require")
CPU_POLICY, THREAD_POLICY, NODES, PAGE_SIZE = "hw:cpu_policy", "hw:cpu_thread_policy", "hw:numa_nodes", "hw:mem_page_size"
CELL_CPUS, CELL_MEMORY, PCI_ALIAS = "hw:numa_cpus.", "hw:numa_mem.", "pci_passthrough:alias"

_PAGE_WORDS = {"small": 0, "large": LARGE_PAGE, "any": ANY_PAGE}
_PAGE = re.compile(r"(\d{1,9})\s*(?:([kmg])(?:i?b)?)?\Z", re.IGNORECASE | re.ASCII)
_SMALLEST_KIB, _LARGEST_KIB = 4, 16 << 20
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")


def is_topology_spec(key: str) -> bool:
    """True for an extra spec that this file reads."""
    if key in (CPU_POLICY, THREAD_POLICY, NODES, PAGE_SIZE, PCI_ALIAS):
        return True
    return any(key.startswith(prefix) and key.removeprefix(prefix).isdecimal() for prefix in (CELL_CPUS, CELL_MEMORY))


def guest_topology(specs: Mapping[str, str], vcpus: int, memory_mb: int) -> GuestTopology | None:
    """What the extra specs ask of the host's topology; None where they ask for nothing.

    Pinning or a page size without cells means one cell. Raises UsageError naming the spec and what it accepts.
    """
    pinned = _one_of(specs, CPU_POLICY, POLICIES, "shared") == "dedicated"
    threads = _one_of(specs, THREAD_POLICY, THREADS, "prefer")
    if THREAD_POLICY in specs and not pinned:
        raise UsageError(f"{THREAD_POLICY}={threads} needs {CPU_POLICY}=dedicated", hint=f"set {CPU_POLICY}=dedicated, or leave it out")
    size_kib = page_kib(specs[PAGE_SIZE]) if PAGE_SIZE in specs else 0
    cells = _cells(specs, vcpus, memory_mb)
    if not (pinned or cells or PAGE_SIZE in specs):
        return None
    cells = cells or (GuestCell(vcpus, memory_mb),)
    for number, cell in enumerate(cells):
        if size_kib > 0 and cell.memory_mb * 1024 % size_kib:
            raise UsageError(
                f"{PAGE_SIZE}={specs[PAGE_SIZE]}: NUMA cell {number} has {cell.memory_mb} MiB, not a multiple of {size_kib} KiB",
                hint="choose memory that is a multiple of the page size, or a smaller page")
    return GuestTopology(cells, pinned, threads, size_kib)


def pci_request(specs: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    """pci_passthrough:alias 'gpu:1,nic:2' -> (("gpu", 1), ("nic", 2)). Raises UsageError naming the form."""
    found: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in specs.get(PCI_ALIAS, "").split(","))):
        name, colon, count = (text.strip() for text in part.partition(":"))
        if not _ALIAS.match(name) or (colon and not whole(count, MAX_PCI_DEVICES)):
            raise UsageError(
                f"{PCI_ALIAS}={specs[PCI_ALIAS]}: {part!r} is not an alias and a count",
                hint=f"write 'name:count[,name:count]' with counts of 1 to {MAX_PCI_DEVICES}, e.g. 'gpu:1'")
        found[name] = found.get(name, 0) + int(count or 1)
    if sum(found.values()) > MAX_PCI_DEVICES:
        raise UsageError(f"{PCI_ALIAS}={specs[PCI_ALIAS]}: {sum(found.values())} devices are too many",
                         hint=f"at most {MAX_PCI_DEVICES} in all")
    return tuple(found.items())


def _one_of(specs: Mapping[str, str], key: str, words: tuple[str, ...], default: str) -> str:
    value = specs.get(key, default)
    if value in words:
        return value
    if key == CPU_POLICY and value == "mixed":
        raise UsageError(
            f"{CPU_POLICY}=mixed is not supported: all vcpus of a server are pinned, or none",
            hint=f"set {CPU_POLICY} to one of {', '.join(words)}")
    raise UsageError(f"{key}={value} is not one of {', '.join(words)}", hint=f"set {key} to one of {', '.join(words)}")


def page_kib(text: str) -> int:
    """'2MB' -> 2048, in KiB; 'small', and the small page's size, 0; LARGE_PAGE, ANY_PAGE. Raises UsageError naming the form."""
    if text in _PAGE_WORDS:
        return _PAGE_WORDS[text]
    match = _PAGE.match(text.strip())
    kib = int(match[1]) << {"k": 0, "m": 10, "g": 20}[(match[2] or "k").lower()] if match else 0
    if not _SMALLEST_KIB <= kib <= _LARGEST_KIB or kib & (kib - 1):
        raise UsageError(
            f"{PAGE_SIZE}={text} is not a page size",
            hint="write small, large, any, a power of two in KiB ('2048'), or '2MB', '1GB'")
    return 0 if kib == _SMALLEST_KIB else kib


def _cells(specs: Mapping[str, str], vcpus: int, memory_mb: int) -> tuple[GuestCell, ...]:
    """() where no cells are asked for. Equal parts, unless every cell is given its own."""
    named = sorted(key for key in specs if key.startswith((CELL_CPUS, CELL_MEMORY)))
    if NODES not in specs:
        if named:
            raise UsageError(f"{named[0]} needs {NODES}", hint=f"set {NODES} to the number of cells")
        return ()
    count = specs[NODES]
    cells = whole(count, MAX_GUEST_CELLS)
    if not cells:
        raise UsageError(f"{NODES}={count} is not a number of 1 to {MAX_GUEST_CELLS}", hint=f"set {NODES} to 1 to {MAX_GUEST_CELLS}")
    if not named:
        return _equal(cells, vcpus, memory_mb)
    wanted = sorted(f"{prefix}{number}" for prefix in (CELL_CPUS, CELL_MEMORY) for number in range(cells))
    odd = sorted(set(wanted) ^ set(named))
    if odd:
        verb = "is missing" if odd[0] in wanted else f"names a cell that {NODES}={count} has not"
        raise UsageError(f"{odd[0]} {verb}", hint=f"give each cell both, or none for equal cells: {', '.join(wanted)}")
    return _given(specs, cells, vcpus, memory_mb)


def _equal(cells: int, vcpus: int, memory_mb: int) -> tuple[GuestCell, ...]:
    for what, amount in (("vcpus", vcpus), ("MiB of memory", memory_mb)):
        if amount % cells:
            raise UsageError(
                f"{NODES}={cells}: {amount} {what} cannot be shared out equally",
                hint=f"give each cell its own with {CELL_CPUS}N and {CELL_MEMORY}N, or choose a multiple of {cells}")
    return (GuestCell(vcpus // cells, memory_mb // cells),) * cells


def _given(specs: Mapping[str, str], count: int, vcpus: int, memory_mb: int) -> tuple[GuestCell, ...]:
    cells, following = [], 0
    for number in range(count):
        cpus = cpu_list(specs[f"{CELL_CPUS}{number}"])
        if not cpus or cpus != tuple(range(following, following + len(cpus))):
            raise UsageError(
                f"{CELL_CPUS}{number}={specs[f'{CELL_CPUS}{number}']}: vcpus are dealt to the cells in order, each once;"
                f" this cell's begin with {following}",
                hint=f"e.g. {CELL_CPUS}0=0-1 {CELL_CPUS}1=2-5")
        memory = specs[f"{CELL_MEMORY}{number}"]
        own_mb = whole(memory, memory_mb)
        if not own_mb:
            raise UsageError(
                f"{CELL_MEMORY}{number}={memory} is not a number of MiB from 1 to the flavor's {memory_mb}", hint="e.g. '1024'")
        cells.append(GuestCell(len(cpus), own_mb))
        following += len(cpus)
    for what, total, wanted in (
        (f"{CELL_CPUS}N: vcpus", following, vcpus), (f"{CELL_MEMORY}N: MiB", sum(cell.memory_mb for cell in cells), memory_mb),
    ):
        if total != wanted:
            raise UsageError(f"{what} of all cells are {total}, the flavor has {wanted}", hint="the sums must be equal")
    return tuple(cells)
