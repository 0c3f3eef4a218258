"""Placing: cold and warm, on SQLite and PostgreSQL; filter and weigh alone; a batch; N+1.

A fleet is rows in a real database, with its reports fresh; no agent is asked. A decision counts from the beginning of its
transaction to the end of its commit, all nodes looked at, the claim durable (SQLite with synchronous=FULL).
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from novactl.api import cluster as api_cluster
from novactl.api import creation
from novactl.api.servers import CreateServer
from novactl.cluster import Cluster
from novactl.conductor.placing import Asked, Placer, request_of
from novactl.config import load_config
from novactl.db import flavors, images, nodes, placement, servers
from novactl.model.flavor import Flavor
from novactl.model.image import Image
from novactl.model.node import Node, NodeState
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU, Inventory
from novactl.model.server import Server
from novactl.scheduler.lanes import arrays
from novactl.scheduler.pipeline import pick
from novactl.states import BUILDING
from tests import databases
from tests.bench.registry import Figure, at_least, at_most, bench

SIZE = {"vcpus": 2, "memory_mb": 4096, "disk_gb": 20}


@contextmanager
def fleet(count: int, *, url: str = "") -> Iterator[Cluster]:
    """A cluster of `count` nodes in three zones: 64 CPUs x 4, 256 GiB less 512 MiB, 4 TB."""
    with tempfile.TemporaryDirectory(prefix="novactl-bench-") as folder:
        cluster = opened(Path(folder), url)
        api_cluster.init(cluster)
        stock = {
            VCPU: Inventory(VCPU, 64, 0, 4000, max_unit=64), MEMORY_MB: Inventory(MEMORY_MB, 262_144, 512, max_unit=262_144),
            DISK_GB: Inventory(DISK_GB, 4000, max_unit=4000),
        }
        with cluster.db.write() as tx:
            for number in range(count):
                id_ = cluster.ids.uuid()
                nodes.insert(tx, Node(
                    id=id_, name=f"n{number:06}", state=NodeState.ENABLED, address="tcp://10.0.0.1:7766", public_key="k" * 40,
                    ssh="root@host:22", host_key="", zone=f"z{number % 3}", architecture="x86_64", agent_version="1", generation=0,
                    created_at=0.0, reported_at=cluster.clock.now()))
                nodes.ensure_inventory(tx, id_, stock)
        try:
            yield cluster
        finally:
            cluster.close()


def opened(folder: Path, url: str = "") -> Cluster:
    env = {"HOME": str(folder), "NOVACTL_DATA_DIR": str(folder / "data"), "NOVACTL_PLACEMENT_FRESH_S": "1000000"}
    return Cluster(load_config(env=env | ({"NOVACTL_DATABASE_URL": url} if url else {})), actor="bench@bench")


def a_server(cluster: Cluster) -> Server:
    now = cluster.clock.now()
    return Server(
        id=cluster.ids.uuid(), name="web1", vm_state=BUILDING.vm_state, task_state=BUILDING.task_state, power_state=BUILDING.power_state,
        node_id="", node_name="", epoch=0, operation_id="", flavor_name="m1.small", **SIZE, image_id="i", image_name="debian-12",
        image_sha256="0" * 64, architecture="x86_64", keypair_name="", public_key="", user_data="", zone="", mac=cluster.ids.mac(),
        addresses=(), fault="", created_at=now, updated_at=now, launched_at=None, deleted_at=None)


def decided(cluster: Cluster, placer: Placer, *, told: int) -> float:
    """Seconds of one durable decision."""
    asked = Asked(server=a_server(cluster))
    began = time.perf_counter()
    with cluster.db.write() as tx:
        decision = placer.decide(tx, request_of(cluster, tx, asked), told=told)
        placer.claim(tx, asked, decision)
    took = time.perf_counter() - began
    assert decision.chosen and decision.possible == decision.looked_at
    return took


def cold(folder: str) -> None:
    """What a one-shot process does: its first decision, told as `server why` tells it. Prints milliseconds."""
    cluster = opened(Path(folder))
    cluster.db                                                # noqa: B018 - opened, and its schema checked, as every command does first
    from novactl.scheduler.pipeline import TOLD

    print(decided(cluster, Placer(cluster), told=TOLD) * 1000)


def cold_ms(cluster: Cluster, runs: int) -> float:
    """The median of `runs` processes' first decisions."""
    folder = str(cluster.config.data_dir.parent)
    command = [sys.executable, "-c", f"import gc; gc.set_threshold(100_000)\nfrom tests.bench.placement import cold; cold({folder!r})"]
    found = [float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(runs + 1)]
    return statistics.median(found[1:])


def warm_s(cluster: Cluster, count: int) -> list[float]:
    """Seconds of each of `count` decisions in one process that sees its own claims."""
    placer = Placer(cluster, many=True)
    return [decided(cluster, placer, told=0) for _ in range(count + 5)][5:]


def per_second(times: Iterable[float]) -> float:
    """Decisions a second, by the median decision."""
    return 1 / statistics.median(times)


@bench("placement.sqlite")
def on_sqlite() -> Iterator[Figure]:
    medians = {}
    for count, limit_ms, limit_per_s in ((100, 5, 2000), (1000, 8, 2000), (10_000, 30, 1500), (100_000, None, 400)):
        with fleet(count) as cluster:
            if limit_ms:
                yield at_most(f"placement.cold.{count}", cold_ms(cluster, 7), "ms", limit=limit_ms)
            times = warm_s(cluster, 300 if count < 100_000 else 60)
            medians[count] = statistics.median(times)
            yield at_least(f"placement.warm.{count}", per_second(times), "/s", limit=limit_per_s)
    yield at_most("placement.warm.growth", medians[10_000] / medians[1000], "times the p50 at 1,000 nodes", limit=2)


@bench("placement.postgresql")
def on_postgresql() -> Iterator[Figure]:
    with databases.server("postgresql") as server, fleet(1000, url=server.create()) as cluster:
        yield at_least("placement.warm.postgresql.1000", per_second(warm_s(cluster, 300)), "/s", limit=700)


@bench("placement.judge")
def filter_and_weigh() -> Figure:
    """`pick` alone, with the default profile, on columns that change between decisions."""
    with fleet(1000) as cluster, cluster.db.read() as tx:
        placer = Placer(cluster, many=True)
        request = request_of(cluster, tx, Asked(server=a_server(cluster)))
        placer.decide(tx, request)
        columns, times = placer.columns(tx, request), []
        assert columns.xp is arrays()
        chance = random.Random(1)
        for _ in range(500):
            columns.take(chance.randrange(columns.size), request.amounts)
            began = time.perf_counter()
            assert pick(request, columns, placer.profile).possible
            times.append(time.perf_counter() - began)
    return at_most("placement.judge.1000", statistics.median(times) * 1000, "ms", limit=0.15)


@bench("placement.batch")
def batch() -> Iterator[Figure]:
    """500 servers on 1,000 nodes: rows, operations, decisions and claims in one transaction; and the nodes single decisions choose."""
    with fleet(1000) as cluster:
        now = cluster.clock.now()
        with cluster.db.write() as tx:
            flavors.insert(tx, Flavor(id=cluster.ids.uuid(), name="m1.small", **SIZE, created_at=now))
            images.insert(tx, Image(
                id=cluster.ids.uuid(), name="debian-12", sha256="0" * 64, disk_format="raw", size_bytes=1, virtual_size_bytes=1,
                architecture="x86_64", source="bench", created_at=now))
        wanted = CreateServer(name="web", flavor="m1.small", image="debian-12", count=500)
        began = time.perf_counter()
        operations = creation.begin_batch(cluster, wanted, creation.names_of(wanted), detached=True)
        took = time.perf_counter() - began
        with cluster.db.write() as tx:
            together = [found.node_id for operation in operations if (found := servers.by_id(tx, operation.object_id))]
            for operation, node in zip(operations, together, strict=True):
                placement.release(tx, operation.object_id, node)
        yield at_most("placement.batch.500", took, "s", limit=1)
        with cluster.db.read() as tx:
            rows = [found for operation in operations if (found := servers.by_id(tx, operation.object_id))]
        apart = []
        for row in rows:
            asked = Asked(server=replace(row, node_id="", node_name=""))
            with cluster.db.write() as tx:
                placer = Placer(cluster)
                decision = placer.decide(tx, request_of(cluster, tx, asked))
                placer.claim(tx, asked, decision)
            apart.append(decision.chosen.node if decision.chosen else "")
        yield at_least("placement.batch.as_singles", float(sum(map(str.__eq__, together, apart))), "of 500 on the same node", limit=500)


@bench("placement.n_plus_1")
def n_plus_1() -> Figure:
    """One decision that keeps N+1, by a placer that has read nothing yet: 300 nodes, 3,000 servers of four sizes."""
    with fleet(300) as cluster:
        chance, placer = random.Random(2), Placer(cluster, many=True)
        sizes = [(1, 2048, 20), (2, 4096, 40), (4, 8192, 80), (8, 16_384, 160)]
        with cluster.db.write() as tx:
            for number in range(3000):
                vcpus, memory_mb, disk_gb = chance.choice(sizes)
                server = replace(a_server(cluster), name=f"s{number}", vcpus=vcpus, memory_mb=memory_mb, disk_gb=disk_gb)
                decision = placer.decide(tx, request_of(cluster, tx, Asked(server=server)), told=0)
                placer.claim(tx, Asked(server=server), decision)
                servers.insert(tx, replace(server, node_id=decision.chosen.node if decision.chosen else ""))
        api_cluster.set_(cluster, n_plus_1=True)
        times = [decided(cluster, Placer(cluster), told=0) for _ in range(5)]
    return at_most("placement.n_plus_1.300", statistics.median(times) * 1000, "ms", limit=100)
