"""Pieces of a host: what extra specs ask, and what is fitted to it. The arithmetic is in the comments."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novactl.errors import UsageError
from novactl.model.facts import Facts
from novactl.model.node import NodeState
from novactl.model.resources import MEMORY_MB, VCPU, Inventory
from novactl.model.topology import (
    ANY_PAGE,
    LARGE_PAGE,
    FittedCell,
    Fitting,
    GuestCell,
    GuestTopology,
    Hardware,
    HostCell,
    PciDevice,
    cpu_list,
    cpu_text,
)
from novactl.model.topology_specs import guest_topology, is_topology_spec, pci_request
from novactl.model.wants import Wants
from novactl.scheduler.filters import FILTERS
from novactl.scheduler.request import NodeView, Request, Rules
from novactl.scheduler.topology import Limits, fit, fitting_on

GIB_KIB = 1 << 20

# ---------------------------------------------------------------- extra specs


@pytest.mark.parametrize(
    ("specs", "wanted"),
    [
        ({}, None),
        ({"hw:cpu_policy": "shared", "trait:X": "required"}, None),
        ({"hw:cpu_policy": "dedicated"}, GuestTopology((GuestCell(4, 4096),), True)),
        ({"hw:cpu_policy": "dedicated", "hw:cpu_thread_policy": "isolate"}, GuestTopology((GuestCell(4, 4096),), True, "isolate")),
        ({"hw:numa_nodes": "1"}, GuestTopology((GuestCell(4, 4096),))),
        ({"hw:numa_nodes": "2"}, GuestTopology((GuestCell(2, 2048),) * 2)),
        ({"hw:numa_nodes": "2", "hw:numa_cpus.0": "0", "hw:numa_cpus.1": "1-3", "hw:numa_mem.0": "1024", "hw:numa_mem.1": "3072"},
         GuestTopology((GuestCell(1, 1024), GuestCell(3, 3072)))),
        ({"hw:mem_page_size": "small"}, GuestTopology((GuestCell(4, 4096),))),
        ({"hw:mem_page_size": "4"}, GuestTopology((GuestCell(4, 4096),))),
        ({"hw:mem_page_size": "large"}, GuestTopology((GuestCell(4, 4096),), page_kib=LARGE_PAGE)),
        ({"hw:mem_page_size": "any"}, GuestTopology((GuestCell(4, 4096),), page_kib=ANY_PAGE)),
        ({"hw:mem_page_size": "2048"}, GuestTopology((GuestCell(4, 4096),), page_kib=2048)),
        ({"hw:mem_page_size": "2MB"}, GuestTopology((GuestCell(4, 4096),), page_kib=2048)),
        ({"hw:mem_page_size": "1GB"}, GuestTopology((GuestCell(4, 4096),), page_kib=GIB_KIB)),
    ],
)
def test_what_a_flavor_asks(specs: Mapping[str, str], wanted: GuestTopology | None) -> None:
    """Of a flavor with 4 vcpus and 4096 MiB: cells are equal parts unless given; pinning or a page size alone is one cell."""
    assert guest_topology(specs, 4, 4096) == wanted


@pytest.mark.parametrize(
    ("specs", "why"),
    [
        ({"hw:cpu_policy": "mixed"}, "mixed is not supported: all vcpus of a server are pinned, or none"),
        ({"hw:cpu_policy": "pinned"}, "hw:cpu_policy=pinned is not one of shared, dedicated"),
        ({"hw:cpu_policy": "dedicated", "hw:cpu_thread_policy": "avoid"}, "is not one of prefer, isolate, require"),
        ({"hw:cpu_thread_policy": "isolate"}, "needs hw:cpu_policy=dedicated"),
        ({"hw:numa_nodes": "0"}, "is not a number of 1 to 8"),
        ({"hw:numa_nodes": "9"}, "is not a number of 1 to 8"),
        ({"hw:numa_nodes": "two"}, "is not a number of 1 to 8"),
        ({"hw:numa_nodes": "3"}, "4 vcpus cannot be shared out equally"),
        ({"hw:numa_cpus.0": "0-3"}, "hw:numa_cpus.0 needs hw:numa_nodes"),
        ({"hw:numa_nodes": "2", "hw:numa_cpus.0": "0", "hw:numa_cpus.1": "1-3"}, "hw:numa_mem.0 is missing"),
        ({"hw:numa_nodes": "1", "hw:numa_cpus.0": "0-3", "hw:numa_mem.0": "4096", "hw:numa_mem.1": "1"},
         "hw:numa_mem.1 names a cell that hw:numa_nodes=1 has not"),
        ({"hw:numa_nodes": "2", "hw:numa_cpus.0": "0,2", "hw:numa_cpus.1": "1,3", "hw:numa_mem.0": "1", "hw:numa_mem.1": "1"},
         "dealt to the cells in order"),
        ({"hw:numa_nodes": "2", "hw:numa_cpus.0": "0-1", "hw:numa_cpus.1": "2", "hw:numa_mem.0": "1", "hw:numa_mem.1": "4095"},
         "vcpus of all cells are 3, the flavor has 4"),
        ({"hw:numa_nodes": "1", "hw:numa_cpus.0": "0-3", "hw:numa_mem.0": "1024"}, "MiB of all cells are 1024, the flavor has 4096"),
        ({"hw:numa_nodes": "1", "hw:numa_cpus.0": "0-3", "hw:numa_mem.0": "4G"}, "is not a number of MiB"),
        ({"hw:numa_nodes": "1", "hw:numa_cpus.0": "0-x", "hw:numa_mem.0": "4096"}, "is not a CPU number"),
        ({"hw:mem_page_size": "huge"}, "is not a page size"),
        ({"hw:mem_page_size": "3MB"}, "is not a page size"),
        ({"hw:mem_page_size": "8GB"}, "has 4096 MiB, not a multiple of 8388608 KiB"),
    ],
)
def test_what_no_flavor_can_ask(specs: Mapping[str, str], why: str) -> None:
    """What is not understood or does not add up is refused by name, with what is accepted."""
    with pytest.raises(UsageError, match=why) as refused:
        guest_topology(specs, 4, 4096)
    assert refused.value.hint


def test_pci_aliases() -> None:
    """Aliases with counts; a bare one is one device; one named twice is added up."""
    assert pci_request({"pci_passthrough:alias": "gpu:1, nic:2,gpu"}) == (("gpu", 2), ("nic", 2))
    assert pci_request({}) == ()
    for bad in ("gpu:0", "gpu:x", ":1", "gpu:33", "gpu:20,nic:20", "gpu 1"):
        with pytest.raises(UsageError, match="pci_passthrough:alias="):
            pci_request({"pci_passthrough:alias": bad})


def test_which_specs_are_read_here() -> None:
    """The keys of this kind, and no others that look like them."""
    assert all(map(is_topology_spec, ("hw:cpu_policy", "hw:numa_cpus.0", "hw:numa_mem.12", "pci_passthrough:alias")))
    assert not any(map(is_topology_spec, ("hw:cpu_polic", "hw:numa_cpus.", "hw:numa_mem.x", "pci_passthrough:aliases")))


@given(st.sets(st.integers(0, 200)))
def test_cpu_sets_are_text_and_back(cpus: set[int]) -> None:
    """Any set of CPUs survives as text."""
    assert cpu_list(cpu_text(cpus)) == tuple(sorted(cpus))


def test_cpu_sets_from_people() -> None:
    """Blanks and exclusions are understood; anything else is refused."""
    assert cpu_list("0-7, ^3,^4 , 10") == (0, 1, 2, 5, 6, 7, 10)
    for bad in ("a", "3-1", "1-9999", "1-", "-1"):
        with pytest.raises(UsageError, match="is not a CPU number"):
            cpu_list(bad)


# ---------------------------------------------------------------- fitting

# Two cells of four cores with two threads; CPUs 0 and 4, 8 and 12 (core 0 of each cell) are shared, the others dedicated.
HOST = Hardware(
    (HostCell(0, tuple(range(8)), 8192, ((0, 4), (1, 5), (2, 6), (3, 7)), {2048: 1024, GIB_KIB: 2}),
     HostCell(1, tuple(range(8, 16)), 8192, ((8, 12), (9, 13), (10, 14), (11, 15)))),
    (PciDevice("0000:3b:00.0", "10de", "1eb8", 1), PciDevice("0000:3c:00.0", "10de", "1eb8", 0),
     PciDevice("0000:5e:00.0", "8086", "10ca")),
    (1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15))
NO_SMT = Hardware((HostCell(0, (0, 1, 2, 3), 8192),), (), (1, 2, 3))
ALIASES = {"gpu": ("10de", "1eb8"), "t4": ("10de", "1eb8"), "nic": ("8086", "10ca")}


def pinned(*vcpus: int, threads: str = "prefer", memory_mb: int = 512, page_kib: int = 0) -> GuestTopology:
    return GuestTopology(tuple(GuestCell(count, memory_mb) for count in vcpus), True, threads, page_kib)


def floating(*vcpus: int, memory_mb: int = 512, page_kib: int = 0) -> GuestTopology:
    return GuestTopology(tuple(GuestCell(count, memory_mb) for count in vcpus), page_kib=page_kib)


def held(cell: int, *cpus: int, isolated: bool = False) -> Fitting:
    return Fitting((FittedCell(cell, len(cpus), 512, cpus, 0, isolated),))


def fitted(guest: GuestTopology, *used: Fitting, hardware: Hardware = HOST) -> list[tuple[int, tuple[int, ...]]] | str:
    """(host cell, CPUs) of each guest cell, or why not."""
    found = fit(guest, (), {}, hardware, used)
    return found if isinstance(found, str) else [(cell.host_cell, cell.cpus) for cell in found.cells]


@pytest.mark.parametrize(
    ("guest", "used", "found"),
    [
        # Whole cores first: 2 of core {1,5}.
        (pinned(2), (), [(0, (1, 5))]),
        # Two whole cores and a thread of the third, where no odd thread is left over.
        (pinned(5), (), [(0, (1, 5, 2, 6, 3))]),
        # Thread 7 is left over by the guest on 3: it is taken before a whole core is broken.
        (pinned(1), (held(0, 3),), [(0, (7,))]),
        (pinned(3), (held(0, 3),), [(0, (1, 5, 7))]),
        # 6 dedicated CPUs a cell, 4 of cell 0 are held: 3 do not fit there.
        (pinned(3), (held(0, 1, 5, 2, 6),), [(1, (9, 13, 10))]),
        (pinned(7), (), "cell 0: needs 7 dedicated CPUs, free 6 of 6; cell 1: needs 7 dedicated CPUs, free 6 of 6"),
        # Guest cells go to different host cells, in order; the larger second one only fits on cell 0: the first gives way.
        (pinned(2, 2), (), [(0, (1, 5)), (1, (9, 13))]),
        (pinned(2, 5), (held(1, 9, 13),), [(1, (10, 14)), (0, (1, 5, 2, 6, 3))]),
        (pinned(1, 1, 1), (), "needs 3 NUMA cells, the host has 2"),
        (pinned(5, 5), (held(1, 9, 13),), "needs 2 NUMA cells side by side; those with room for one of them: cell 0"),
        (pinned(1, 7), (),
         "guest cell 1: cell 0: needs 7 dedicated CPUs, free 6 of 6; cell 1: needs 7 dedicated CPUs, free 6 of 6"),
        (pinned(*[1] * 9), (), "asks for 9 NUMA cells, at most 8 are possible"),
        # isolate: one thread a core, and only cores of which both threads are dedicated and free.
        (pinned(3, threads="isolate"), (), [(0, (1, 2, 3))]),
        (pinned(3, threads="isolate"), (held(0, 7),), [(1, (9, 10, 11))]),
        (pinned(4, threads="isolate"), (),
         "cell 0: needs 4 cores to itself, has 3 with all threads dedicated and free (dedicated CPUs free 6 of 6);"
         " cell 1: needs 4 cores to itself, has 3 with all threads dedicated and free (dedicated CPUs free 6 of 6)"),
        # The threads beside an isolated guest's stay free: of cell 0 only core {3,7} is left.
        (pinned(2), (held(0, 1, 2, isolated=True),), [(0, (3, 7))]),
        (pinned(3), (held(0, 1, 2, isolated=True),), [(1, (9, 13, 10))]),
        # require: threads beside each other; 3, 2 and 1 are each the only one left of its core.
        (pinned(4, threads="require"), (), [(0, (1, 5, 2, 6))]),
        (pinned(2, threads="require"), (held(0, 5, 6, 7),), [(1, (9, 13))]),
    ],
)
def test_pinning(guest: GuestTopology, used: tuple[Fitting, ...], found: object) -> None:
    """A dedicated CPU for each vcpu, by thread policy."""
    assert fitted(guest, *used) == found


def test_pinning_without_what_it_needs() -> None:
    """No dedicated CPUs, no thread siblings, no cells, no report: each is said."""
    bare = Hardware((HostCell(0, (0, 1), 8192),))
    assert fitted(pinned(1), hardware=bare) == "cell 0: has no dedicated CPUs"
    assert fitted(pinned(1, threads="require"), hardware=NO_SMT) == (
        "cell 0: its CPUs share no cores, as hw:cpu_thread_policy=require needs")
    assert fitted(pinned(3, threads="isolate"), hardware=NO_SMT) == [(0, (1, 2, 3))]
    assert fitted(pinned(1), hardware=Hardware()) == "its agent reports no NUMA cells"
    assert fit(pinned(1), (), {}, None, ()) == "its agent has not reported what pieces the host has"


@pytest.mark.parametrize(
    ("vcpus", "used", "limits", "found"),
    [
        # 2 shared CPUs a cell. No server shares with itself, whatever the ratio.
        (2, 0, Limits(), 0),
        (3, 0, Limits(4000), "cell 0: needs 3 CPUs, has 2 shared ones; cell 1: needs 3 CPUs, has 2 shared ones"),
        # 1.5 x 2 = 3 vcpus: with 2 held there is room for 1.
        (2, 2, Limits(1500), 1),
        (1, 2, Limits(1500), 0),
    ],
)
def test_floating_cells(vcpus: int, used: int, limits: Limits, found: object) -> None:
    """Floating guests share the CPUs of their cell that are not dedicated, as far as the node's ratio goes."""
    on_cell_0 = Fitting((FittedCell(0, used, 512),)) if used else Fitting()
    answer = fit(floating(vcpus), (), {}, HOST, (on_cell_0,), limits)
    assert (answer if isinstance(answer, str) else answer.cells[0].host_cell) == found


def test_limits_are_the_nodes_ratios() -> None:
    """From VCPU and MEMORY_MB; 1 where there is no such inventory."""
    inventories = {VCPU: Inventory(VCPU, 8, ratio_milli=4000), MEMORY_MB: Inventory(MEMORY_MB, 8, ratio_milli=1500)}
    assert Limits.of(inventories) == Limits(4000, 1500)
    assert Limits.of({}) == Limits(1000, 1000)


@pytest.mark.parametrize(
    ("memory_mb", "page_kib", "used", "found"),
    [
        # Cell 0 has 8192 - 1024 x 2 - 2 x 1024 = 4096 MiB in small pages, cell 1: 8192.
        (4096, 0, (), (0, 0)),
        (4097, 0, (), (1, 0)),
        (8193, 0, (),
         "cell 0: needs memory 8193 MiB, has 4096 MiB in small pages; cell 1: needs memory 8193 MiB, has 8192 MiB in small pages"),
        (1024, 0, (FittedCell(0, 1, 3584),), (1, 0)),
        # Huge pages of other servers do not weigh on the small ones.
        (1024, 0, (FittedCell(0, 1, 2048, (), 2048),), (0, 0)),
        # 1024 pages of 2 MiB: 2048 MiB.
        (2048, 2048, (), (0, 2048)),
        (2048, 2048, (FittedCell(0, 1, 2, (), 2048),),
         "cell 0: needs 1024 pages of 2 MiB, free 1023 of 1024; cell 1: has no pages of 2 MiB"),
        (1025, 2048, (), "cell 0: 1025 MiB is not a multiple of 2 MiB; cell 1: has no pages of 2 MiB"),
        # large: the largest that divides the memory and has room; any: small pages if need be.
        (2048, LARGE_PAGE, (), (0, GIB_KIB)),
        (2048, LARGE_PAGE, (FittedCell(0, 1, 1024, (), GIB_KIB),), (0, 2048)),
        (1536, LARGE_PAGE, (), (0, 2048)),
        (1025, LARGE_PAGE, (),
         "cell 0: 1025 MiB is not a multiple of 1 GiB, 1025 MiB is not a multiple of 2 MiB; cell 1: has no huge pages set aside"),
        (1024, ANY_PAGE, (), (0, GIB_KIB)),
        (1025, ANY_PAGE, (), (0, 0)),
        (64, 64, (), "cell 0: has no pages of 64 KiB; cell 1: has no pages of 64 KiB"),
    ],
)
def test_memory(memory_mb: int, page_kib: int, used: tuple[FittedCell, ...], found: object) -> None:
    """A cell's memory is in small pages, which no other server shares, or in pages of one size from the cell's own pool."""
    answer = fit(floating(1, memory_mb=memory_mb, page_kib=page_kib), (), {}, HOST, (Fitting(used),), Limits(4000))
    assert (answer if isinstance(answer, str) else (answer.cells[0].host_cell, answer.cells[0].page_kib)) == found


@pytest.mark.parametrize(
    ("guest", "pci", "used", "found"),
    [
        (None, (("gpu", 1),), (), (None, ("0000:3b:00.0",))),
        (None, (("gpu", 1), ("nic", 1)), (), (None, ("0000:3b:00.0", "0000:5e:00.0"))),
        (None, (("gpu", 3),), (), "PCI gpu (10de:1eb8): needs 3, free 2 of 2"),
        (None, (("gpu", 2),), (Fitting((), ("0000:3b:00.0",)),), "PCI gpu (10de:1eb8): needs 2, free 1 of 2"),
        # Two aliases of one kind share its devices.
        (None, (("gpu", 1), ("t4", 1)), (), (None, ("0000:3b:00.0", "0000:3c:00.0"))),
        (None, (("gpu", 1), ("t4", 2)), (), "PCI t4 (10de:1eb8): needs 3, free 2 of 2"),
        (None, (("fpga", 1),), (), "PCI alias fpga is not known"),
        # The guest goes where a free device is: cell 0 and 1 have one each; with that of cell 0 held, to cell 1.
        (floating(1), (("gpu", 1),), (), (0, ("0000:3c:00.0",))),
        (floating(1), (("gpu", 1),), (Fitting((), ("0000:3c:00.0",)),), (1, ("0000:3b:00.0",))),
        # Preferred, not required: cell 0: has no room, so the guest is on cell 1, and the device is that of cell 1.
        (floating(1), (("gpu", 1),), (Fitting((FittedCell(0, 2, 512),)),), (1, ("0000:3b:00.0",))),
        (floating(1), (("gpu", 1),), (Fitting((FittedCell(0, 2, 512),)), Fitting((), ("0000:3b:00.0",))), (1, ("0000:3c:00.0",))),
    ],
)
def test_pci(guest: GuestTopology | None, pci: tuple[tuple[str, int], ...], used: tuple[Fitting, ...], found: object) -> None:
    """Free devices of the alias's vendor and product, of the guest's own cells if there are any."""
    answer = fit(guest, pci, ALIASES, HOST, used)
    assert (answer if isinstance(answer, str) else (answer.cells[0].host_cell if answer.cells else None, answer.pci)) == found


def test_guests_without_devices_leave_their_cells_to_others() -> None:
    """A guest that asks for no device goes to a cell that has none, if there is one."""
    host = Hardware(HOST.cells, (PciDevice("0000:3c:00.0", "10de", "1eb8", 0),), HOST.dedicated)
    assert fitted(pinned(1), hardware=host) == [(1, (9,))]


def test_nothing_asked_is_nothing_held() -> None:
    """Without topology and devices the fitting is empty, even of a host that reports nothing."""
    assert fit(None, (), {}, None, ()) == Fitting()


# ---------------------------------------------------------------- the filters

NODE = NodeView(
    id="a", name="n1", state=NodeState.ENABLED, facts=Facts(architecture="x86_64"), used={}, hardware=HOST, fittings=(held(0, 1, 5),),
    inventories={VCPU: Inventory(VCPU, 16, ratio_milli=4000)})


def request(topology: GuestTopology | None = None, pci: tuple[tuple[str, int], ...] = ()) -> Request:
    return Request(
        server="web1", amounts={}, architecture="x86_64", wants=Wants(topology=topology, pci=pci), rules=Rules(pci_aliases=ALIASES))


@pytest.mark.parametrize(
    ("name", "asked", "node", "why"),
    [
        ("numa", request(pinned(6)), NODE, None),
        ("numa", request(pinned(7)), NODE,
         "numa: cell 0: needs 7 dedicated CPUs, free 4 of 6; cell 1: needs 7 dedicated CPUs, free 6 of 6"),
        ("numa", request(pinned(1)), replace(NODE, hardware=None), "numa: its agent has not reported what pieces the host has"),
        ("numa", request(pinned(1)), replace(NODE, fittings=None), None),
        # The node's ratio of 4 holds for floating guests: 4 x 2 shared CPUs, 7 of them held.
        ("numa", request(floating(2)), replace(NODE, fittings=(Fitting((FittedCell(0, 6, 512), FittedCell(1, 7, 512))),)), None),
        ("numa", request(floating(2)), replace(NODE, fittings=(Fitting((FittedCell(0, 7, 512), FittedCell(1, 7, 512))),)),
         "numa: cell 0: needs 2 vcpus, free 1 of 8; cell 1: needs 2 vcpus, free 1 of 8"),
        ("pci", request(pci=(("gpu", 2),)), NODE, None),
        ("pci", request(pci=(("gpu", 3),)), NODE, "PCI gpu (10de:1eb8): needs 3, free 2 of 2"),
        ("pci", request(pci=(("gpu", 1),)), replace(NODE, hardware=None), "its agent has not reported what pieces the host has"),
    ],
)
def test_filters(name: str, asked: Request, node: NodeView, why: str | None) -> None:
    """numa judges the topology, pci the devices; each says what fit says, and both pass what fitting_on would then fit."""
    found = FILTERS[name](asked, node)
    assert (found and (found.code, found.text)) == (why and (name, why))
    assert isinstance(fitting_on(asked, node), Fitting) is (why is None)


def test_filters_speak_of_such_requests_only() -> None:
    """A request without topology or devices is not asked about them."""
    assert [name for name in ("numa", "pci") if FILTERS[name].applies(request())] == []
    assert [name for name in ("numa", "pci") if FILTERS[name].applies(request(pinned(1)))] == ["numa"]
    assert [name for name in ("numa", "pci") if FILTERS[name].applies(request(pci=(("gpu", 1),)))] == ["pci"]


# ---------------------------------------------------------------- laws

def hosts() -> st.SearchStrategy[Hardware]:
    """Up to three cells of up to four cores with one or two threads, some CPUs dedicated, pools of two sizes, some devices."""
    def make(shape: list[tuple[int, int, int, int]], dedicated: set[int], devices: list[tuple[int, str]]) -> Hardware:
        cells, first = [], 0
        for number, (cores, threads, small, huge) in enumerate(shape):
            groups = tuple(tuple(first + core + thread * cores for thread in range(threads)) for core in range(cores))
            cpus = tuple(range(first, first + cores * threads))
            first += cores * threads
            memory_mb = small * 512 + huge * 512
            cells.append(HostCell(number, cpus, memory_mb, groups if threads > 1 else (), {2048: huge * 256} if huge else {}))
        pci = tuple(PciDevice(f"0000:{n:02x}:00.0", "10de", kind, cell) for n, (cell, kind) in enumerate(devices))
        return Hardware(tuple(cells), pci, tuple(sorted(cpu for cpu in dedicated if cpu < first)))

    return st.builds(
        make, st.lists(st.tuples(st.integers(1, 4), st.integers(1, 2), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=3),
        st.sets(st.integers(0, 23)), st.lists(st.tuples(st.integers(-1, 2), st.sampled_from(("1eb8", "20b0"))), max_size=5))


def guests() -> st.SearchStrategy[tuple[GuestTopology | None, tuple[tuple[str, int], ...]]]:
    cells = st.lists(st.builds(GuestCell, st.integers(1, 3), st.integers(1, 4).map(lambda n: n * 256)), min_size=1, max_size=3).map(tuple)
    threads = st.sampled_from(("prefer", "isolate", "require"))
    topology = st.none() | st.builds(GuestTopology, cells, st.booleans(), threads, st.sampled_from((0, 2048, LARGE_PAGE, ANY_PAGE)))
    pci = st.lists(st.tuples(st.sampled_from(("t4", "a100")), st.integers(1, 2)), max_size=2).map(tuple)
    return st.tuples(topology, pci)


KINDS = {"t4": ("10de", "1eb8"), "a100": ("10de", "20b0")}


def held_rightly(host: Hardware, held_now: list[Fitting]) -> None:
    """Nothing is held twice, nothing that is not there, and what is held adds up."""
    cells = {cell.id: cell for cell in host.cells}
    core = {cpu: set(group) for cell in host.cells for group in cell.siblings for cpu in group}
    cpus = [cpu for fitting in held_now for cell in fitting.cells for cpu in cell.cpus]
    assert len(cpus) == len(set(cpus)) and set(cpus) <= set(host.dedicated)
    isolated = [cpu for fitting in held_now for cell in fitting.cells if cell.isolated for cpu in cell.cpus]
    beside = [other for cpu in isolated for other in core.get(cpu, {cpu}) - {cpu}]
    assert not set(beside) & set(cpus) and set(beside) <= set(host.dedicated)
    devices = [address for fitting in held_now for address in fitting.pci]
    assert len(devices) == len(set(devices)) and set(devices) <= {device.address for device in host.pci}
    for cell in host.cells:
        here = [one for fitting in held_now for one in fitting.cells if one.host_cell == cell.id]
        assert all(set(one.cpus) <= set(cell.cpus) and len(one.cpus) in (0, one.vcpus) for one in here)
        assert sum(one.vcpus for one in here if not one.cpus) <= len(set(cell.cpus) - set(host.dedicated))
        huge_mb = sum(size * count for size, count in cell.pages.items()) // 1024
        assert sum(one.memory_mb for one in here if not one.page_kib) <= cell.memory_mb - huge_mb
        for size in {one.page_kib for one in here if one.page_kib}:
            assert sum(one.memory_mb * 1024 // size for one in here if one.page_kib == size) <= cell.pages[size]
    assert all(len({cell.host_cell for cell in fitting.cells}) == len(fitting.cells) for fitting in held_now)
    assert all(cell.host_cell in cells for fitting in held_now for cell in fitting.cells)


@settings(max_examples=300, deadline=None)
@given(hosts(), st.lists(st.tuples(guests(), st.integers(0, 9)), max_size=12))
def test_no_piece_is_given_twice(host: Hardware, moves: list) -> None:
    """Over any sequence of fits and releases, what servers hold at a time is there, each piece once, and is what they asked for."""
    held_now: list[Fitting] = []
    for (topology, pci), leaver in moves:
        found = fit(topology, pci, KINDS, host, held_now)
        if isinstance(found, str):
            assert found
            if leaver < len(held_now):
                held_now.pop(leaver)
            continue
        asked = [(cell.vcpus, cell.memory_mb) for cell in topology.cells] if topology else []
        assert [(cell.vcpus, cell.memory_mb) for cell in found.cells] == asked
        assert all(bool(cell.cpus) == bool(topology and topology.pinned) for cell in found.cells)
        kinds = {device.address: device.product_id for device in host.pci}
        assert sorted(kinds[address] for address in found.pci) == sorted(KINDS[alias][1] for alias, count in pci for _ in range(count))
        held_now.append(found)
        held_rightly(host, held_now)


@settings(max_examples=100, deadline=None)
@given(hosts(), st.lists(guests(), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_a_fit_is_the_same_however_the_host_is_listed(host: Hardware, asked: list, chance) -> None:
    """The order in which cells, CPUs, devices and fittings are listed changes nothing; and a fitting survives as JSON."""
    held_now: list[Fitting] = []
    for topology, pci in asked:
        found = fit(topology, pci, KINDS, host, held_now)
        shuffled = Hardware(
            tuple(chance.sample(host.cells, len(host.cells))), tuple(chance.sample(host.pci, len(host.pci))), host.dedicated[::-1])
        assert fit(topology, pci, KINDS, shuffled, chance.sample(held_now, len(held_now))) == found
        if isinstance(found, Fitting):
            held_now.append(found)
            assert Fitting.from_plain(found.to_plain()) == found


@settings(max_examples=100, deadline=None)
@given(hosts(), st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_cells_fit_if_any_arrangement_does(host: Hardware, vcpus: list[int]) -> None:
    """On an empty host the matching finds an arrangement of cells exactly where trying all permutations does."""
    from itertools import permutations

    topology = pinned(*vcpus)
    single = [[not isinstance(fit(pinned(count), (), {}, Hardware((cell,), (), host.dedicated), ()), str) for cell in host.cells]
              for count in vcpus]
    possible = any(all(single[g][h] for g, h in enumerate(order)) for order in permutations(range(len(host.cells)), len(vcpus)))
    assert (not isinstance(fit(topology, (), {}, host, ()), str)) is possible
