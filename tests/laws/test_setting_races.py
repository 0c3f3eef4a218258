"""Admins whose commands cross, on each kind of database: what each of them said holds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from novactl.api import nodes as api_nodes
from novactl.api.creation import begin_batch, names_of
from novactl.api.hints import Hints
from novactl.api.servers import CreateServer
from novactl.cluster import Cluster
from novactl.db import flavors, groups, images, nodes, placement, projects
from novactl.db.placement import Claim
from novactl.model.flavor import Flavor
from novactl.model.group import Policy
from novactl.model.image import Image
from novactl.model.resources import VCPU, Inventory
from tests import databases
from tests.laws.ledger import HOT, group, node, project, recomputed, sums

NODES = tuple(f"n{number}" for number in range(8))


@pytest.fixture(params=databases.EACH)
def cluster(request: pytest.FixtureRequest, clusters: Callable[[str], Cluster]) -> Cluster:
    found = clusters(request.param)
    with found.db.write() as tx:
        nodes.insert(tx, node("n0"))
    return found


def test_disabling_a_node_keeps_what_is_set_of_it_meanwhile(cluster: Cluster) -> None:
    """A label set while the other command waits for the node is there afterwards, and so is the reason."""
    def disable() -> None:
        api_nodes.disable(cluster, "n0", reason="new kernel")
        cluster.db.close()

    other = threading.Thread(target=disable)
    with cluster.db.write() as tx:
        nodes.lock(tx, "n0")
        other.start()
        other.join(0.3)                                       # it has read what it can read by now
        found = nodes.by_id(tx, "n0")
        assert found is not None
        nodes.update(tx, replace(found, labels={"rack": "r1"}))
    other.join(60)
    with cluster.db.read() as tx:
        after = nodes.by_id(tx, "n0")
    assert after is not None and (dict(after.labels), after.state.value, after.reason) == ({"rack": "r1"}, "disabled", "new kernel")


@pytest.fixture
def busy(cluster: Cluster) -> Cluster:
    """Eight nodes with a lot of room, two projects, a group, a flavor and an image."""
    now = cluster.clock.now()
    with cluster.db.write() as tx:
        nodes.delete(tx, "n0")
        for name in NODES:
            nodes.insert(tx, node(name, reported_at=now))
            nodes.ensure_inventory(tx, name, {kind: Inventory(kind, 400, max_unit=400) for kind in HOT})
        projects.insert(tx, project("p1"))
        groups.insert(tx, group("g", Policy.ANTI_AFFINITY, most=20))
        for table, old in ((flavors, "f"), (images, "i")):
            table.delete(tx, old)
        flavors.insert(tx, Flavor(id="f", name="f", vcpus=1, memory_mb=1, disk_gb=1, created_at=0.0))
        images.insert(tx, Image(
            id="i", name="i", sha256="0" * 64, disk_format="raw", size_bytes=1, virtual_size_bytes=1, architecture="x86_64", source="",
            created_at=0.0))
    return cluster


def together(cluster: Cluster, *acts: Callable[[], Any]) -> None:
    """All of them at once, each in a thread; returns when all have ended."""
    def run(act: Callable[[], Any]) -> None:
        act()
        cluster.db.close()

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with cluster.db.read() as tx:
        kept, counted = sums(tx), recomputed(tx)
    assert all(wanted.items() <= kept[name].items() for name, wanted in counted.items())


def test_batches_that_cross_are_all_placed(busy: Cluster) -> None:
    """Six admins place batches over the same nodes at the same moment, in two projects and a group: each is placed whole."""
    hints = [Hints(), Hints(project="p1"), Hints(group="g")] * 2
    begun: list[int] = []

    def batch(number: int) -> None:
        wanted = CreateServer(name=f"b{number}", flavor="f", image="i", count=20, hints=hints[number])
        begun.append(len(begin_batch(busy, wanted, names_of(wanted), detached=True)))

    together(busy, *(partial(batch, number) for number in range(len(hints))))
    assert begun == [20] * len(hints)


def test_a_batch_is_placed_while_others_claim_all_the_time(busy: Cluster) -> None:
    """Two admins claim and give back on every node without a pause: a batch is not overtaken until it gives up."""
    begun: list[int] = []
    ended = threading.Event()

    def batch() -> None:
        wanted = CreateServer(name="b", flavor="f", image="i", count=60)
        try:
            begun.append(len(begin_batch(busy, wanted, names_of(wanted), detached=True)))
        finally:
            ended.set()

    def hammer(who: str) -> None:
        while not ended.is_set():
            for name in NODES:
                with busy.db.write() as tx:
                    placement.claim(tx, Claim(who, name, {VCPU: 1}, project_id="p1"))
                with busy.db.write() as tx:
                    placement.release(tx, who, name)

    together(busy, batch, partial(hammer, "c1"), partial(hammer, "c2"))
    assert begun == [60]
