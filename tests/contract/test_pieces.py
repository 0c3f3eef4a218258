"""Servers tied to pieces of their host, whichever driver is behind it. libvirt's test driver has two cells of eight CPUs, and no PCI."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent import wire
from nodeagent.wire import Code, DomainCell, DomainRef, NumaCell, PciDevice
from tests.contract.conftest import DRIVERS
from tests.contract.kit import Node

GPU = {"address": "0000:3b:00.0", "vendor_id": "10de", "product_id": "1eb8", "cell": 1}
FAKE = {
    "cells": [{"id": 0, "cpus": list(range(8)), "memory_mb": 2048, "pages": {"2048": 64}},
              {"id": 1, "cpus": list(range(8, 16)), "memory_mb": 4096}],
    "pci": [GPU], "machines": ["q35"], "virt_types": ["kvm", "qemu"]}


@pytest.fixture(params=DRIVERS)
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path, driver=request.param, architecture=DRIVERS[request.param], fake=FAKE)
    made.prepare()
    yield made
    for spec in made.agent.driver.specs():
        made.agent.driver.destroy(spec.server)
        made.agent.driver.undefine(spec.server)
    made.ok("node.unprepare")
    made.down()


@pytest.fixture
def given(tmp_path: Path) -> Iterator[Node]:
    """A host whose devices the test says."""
    made = Node(tmp_path, fake=FAKE)
    made.prepare()
    yield made
    made.down()


def test_a_report_tells_the_cells(host: Node) -> None:
    """A report has the host's NUMA cells with their CPUs and memory."""
    cells = host.ok("inventory.read", wire.InventoryRead(0)).cells
    assert [(cell.id, cell.cpus, cell.memory_mb) for cell in cells] == [
        (0, tuple(range(8)), 2048), (1, tuple(range(8, 16)), 4096)]


def test_a_report_tells_devices_and_machines(given: Node) -> None:
    """A report has the devices that guests can be given, the pools of huge pages, and the machine types."""
    report = given.ok("inventory.read", wire.InventoryRead(0))
    assert report.pci == (PciDevice(**GPU),)
    assert report.cells[0] == NumaCell(0, tuple(range(8)), 2048, (), {"2048": 64})
    assert (report.machines, report.virt_types) == (("q35",), ("kvm", "qemu"))


def test_a_server_on_pieces_lives(host: Node) -> None:
    """A server with CPUs and cells of its own is defined, starts, and is found again as it was asked for."""
    cells = (DomainCell(1, 32, 1), DomainCell(2, 64, 0))
    spec = host.define(host.put_image(), vcpus=3, memory_mb=96, pins=(9, 2, 3), cells=cells)
    assert host.ok("domain.start", DomainRef(spec.server, 1)).power_state == "RUNNING"
    assert host.agent.driver.spec(spec.server) == spec
    host.ok("domain.define", spec)


def test_a_floating_server_keeps_to_its_cpuset(host: Node) -> None:
    """A cpuset alone, and one with cells, are defined; another server of the same cpuset is, too."""
    sha256 = host.put_image()
    for number in range(2):
        host.define(sha256, name=f"web{number}", cpuset="0-3,8")
    spec = host.define(sha256, name="db", cpuset="0-3,8", cells=(DomainCell(1, 64, 1),))
    assert host.agent.driver.spec(spec.server) == spec


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"pins": (16,)}, "pinned CPU 16 is not one of this host's: 0-15"),
        ({"pins": (2,)}, "CPU 2 is pinned by server db already"),
        ({"cpuset": "9-20"}, "CPU of the cpuset 16 is not one of this host's: 0-15"),
        ({"cells": (DomainCell(1, 64, 5),)}, "guest cell 0 is to be on host cell 5, the host has 0-1"),
        ({"cells": (DomainCell(1, 64, 1, 2048),)}, "pages of 2048 KiB in host cell 1: needs 32, has 0 of 0 (0 used)"),
        ({"pci": ("0000:06:00.0",)},
         "PCI device 0000:06:00.0 is not there, or cannot be given to a guest (no IOMMU group, or the host uses it)"),
    ],
)
def test_what_the_host_has_not_is_refused(host: Node, changes: dict, why: str) -> None:
    """Before libvirt is asked: NO_FIT, another node may do, nothing is defined."""
    sha256 = host.put_image()
    host.define(sha256, name="db", pins=(2,))
    failure = host.refusal("domain.define", host.spec(sha256, **changes))
    assert (failure.code, failure.message, failure.elsewhere, failure.retryable) == (Code.NO_FIT, why, True, False)
    assert len(host.ok("domain.list").domains) == 1


def test_a_device_is_given_once(given: Node) -> None:
    """The second server that asks for a device is refused with the name of the first; once that is gone it may have it."""
    sha256 = given.put_image()
    first = given.define(sha256, name="gpu1", pci=("0000:3b:00.0",))
    second = given.spec(sha256, name="gpu2", pci=("0000:3b:00.0",))
    assert given.refusal("domain.define", second).message == "PCI device 0000:3b:00.0 is given to server gpu1 already"
    given.ok("domain.undefine", DomainRef(first.server, 1))
    given.ok("domain.define", second)


def test_a_host_that_cannot_pin_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where QEMU runs all vcpus in one thread, libvirt's refusal (in the words of 9.0) comes with what it means; another node may do."""
    libvirt = pytest.importorskip("libvirt")

    def refuse(domain: object) -> None:
        raise libvirt.libvirtError("Requested operation is not valid: cpu affinity is not supported")

    node = Node(tmp_path, driver="libvirt", architecture=DRIVERS["libvirt"])
    node.prepare()
    spec = node.define(node.put_image(), pins=(3,))
    with monkeypatch.context() as patched:
        patched.setattr(libvirt.virDomain, "create", refuse)
        failure = node.refusal("domain.start", DomainRef(spec.server, 1))
    assert "runs them all in one thread here: Requested operation is not valid: cpu affinity is not supported" in failure.message
    assert (failure.code, failure.retryable, failure.elsewhere) == (Code.DRIVER, False, True)
    node.ok("domain.undefine", DomainRef(spec.server, 1))
    node.ok("node.unprepare")
    node.down()
