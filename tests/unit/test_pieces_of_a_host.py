"""From a flavor's extra specs to the domain on the node: CPUs, cells, pages and devices, claimed and given back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from novactl.agents import wire
from novactl.api import flavors, nodes, servers
from novactl.api.flavors import CreateFlavor
from novactl.api.node_changes import SetNode
from novactl.api.servers import CreateServer
from novactl.db import placement
from novactl.errors import NoValidHost
from tests.world import World

HOST = {
    "vcpus": 8, "memory_mb": 16384,
    "cells": [
        {"id": 0, "cpus": [0, 1, 4, 5], "memory_mb": 8192, "siblings": [[0, 4], [1, 5]], "pages": {"2048": 1024}},
        {"id": 1, "cpus": [2, 3, 6, 7], "memory_mb": 8192, "siblings": [[2, 6], [3, 7]]}],
    "pci": [{"address": "0000:3b:00.0", "vendor_id": "10de", "product_id": "1eb8", "cell": 1}],
}
FLAVORS = {
    "pinned": {"hw:cpu_policy": "dedicated"},
    "pages": {"hw:mem_page_size": "2MB"},
    "gpu": {"pci_passthrough:alias": "t4:1", "hw:numa_nodes": "1"},
    "plain": {},
}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """One node with two cells of two cores with two threads; one core of each is kept for pinned servers."""
    made = World(tmp_path)
    made.cluster.config = made.config.replace(placement__pci_aliases="t4=10de:1eb8")
    made.add_node("n1", fake=HOST)
    made.add_image()
    made.start()
    try:
        for name, specs in FLAVORS.items():
            flavors.create(made.cluster, CreateFlavor(name=name, vcpus=2, memory_mb=1024, disk_gb=1, specs=specs))
        nodes.set_(made.cluster, "n1", SetNode(dedicated_cpus=(1, 3, 5, 7)))
        yield made
    finally:
        made.stop()


def created(world: World, name: str, flavor: str) -> wire.DomainSpec:
    """What the node's agent was told of the new server."""
    servers.create(world.cluster, CreateServer(name=name, flavor=flavor, image="guest"))
    return next(spec for spec in world.agents["n1"].driver.specs() if spec.name == name)


def test_pinned_servers_have_cpus_of_their_own(world: World) -> None:
    """Each gets the two threads of a dedicated core; the third finds none and is told why; what one gives back the next one gets."""
    first, second = created(world, "a", "pinned"), created(world, "b", "pinned")
    assert (first.pins, first.cells, first.cpuset) == ((1, 5), (wire.DomainCell(2, 1024, 0),), "")
    assert (second.pins, second.cells) == ((3, 7), (wire.DomainCell(2, 1024, 1),))
    with pytest.raises(NoValidHost) as refused:
        created(world, "c", "pinned")
    assert "numa: cell 0: needs 2 dedicated CPUs, free 0 of 2; cell 1: needs 2 dedicated CPUs, free 0 of 2" in str(refused.value.reasons)
    servers.delete(world.cluster, "b")
    assert created(world, "c", "pinned").pins == (3, 7)


def test_others_keep_off_the_cpus_of_pinned_ones(world: World) -> None:
    """A floating server floats over the shared CPUs; the universal repair, a hard reboot, leaves pins and cpuset as they are."""
    plain, pinned = created(world, "a", "plain"), created(world, "b", "pinned")
    assert (plain.cpuset, plain.pins, plain.cells) == ("0,2,4,6", (), ())
    for name in ("a", "b"):
        servers.reboot(world.cluster, name, hard=True)
    assert set(world.agents["n1"].driver.specs()) == {plain, pinned}


def test_huge_pages_are_counted(world: World) -> None:
    """1024 pages of 2 MiB are two servers of 1 GiB; the third is told so, and a server in small pages still comes."""
    for name in ("a", "b"):
        assert created(world, name, "pages").cells == (wire.DomainCell(2, 1024, 0, 2048),)
    with pytest.raises(NoValidHost) as refused:
        created(world, "c", "pages")
    assert "numa: cell 0: needs 512 pages of 2 MiB, free 0 of 1024; cell 1: has no pages of 2 MiB" in str(refused.value.reasons)
    assert created(world, "d", "plain").cells == ()


def test_a_device_comes_with_the_cell_it_is_on(world: World) -> None:
    """The only device is on cell 1, and so is the server that gets it; its claim holds both until it is deleted."""
    spec = created(world, "a", "gpu")
    assert (spec.pci, spec.cells, spec.pins) == (("0000:3b:00.0",), (wire.DomainCell(2, 1024, 1),), ())
    with world.cluster.db.read() as tx:
        held = placement.fitting_of(tx, spec.server)
    assert held is not None and held.pci == spec.pci and held.cells[0].host_cell == 1
    with pytest.raises(NoValidHost) as refused:
        created(world, "b", "gpu")
    assert "PCI t4 (10de:1eb8): needs 1, free 0 of 1" in str(refused.value.reasons)
    servers.delete(world.cluster, "a")
    with world.cluster.db.read() as tx:
        assert placement.fitting_of(tx, spec.server) is None
    assert world.leftovers() == []
