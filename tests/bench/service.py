"""What the conductor costs: a thousand agents' reports."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.agent import Peer, _cpu_s, fleet
from tests.bench.fleet import server_of
from tests.bench.registry import Figure, at_most, bench

FLEET, GUESTS, INTERVAL_S, ROUNDS, WARM_S = 1000, 10, 10.0, 4, 30.0
CORES, LATE = 0.5, 2.0
"""A row grows as old as the interval, and as the next report then takes to be in it: within another one if none is to be missed."""


@bench("service.reports")
def reports() -> Iterator[Figure]:
    """Cores that one conductor takes for the reports of a thousand agents with ten running guests each, and how old the oldest report of
    any node ever gets."""
    for _ in range(3):                                        # the machine may stand still, and all agents with it
        cores, oldest_s, silent = _measured()
        if not silent:
            break
        print(f"bench: {silent} of {FLEET} nodes were taken for silent", file=sys.stderr)
    else:
        raise RuntimeError(f"{silent} of {FLEET} nodes were taken for silent")
    yield at_most("service.reports.cpu", cores, "cores", limit=CORES)
    yield at_most("service.reports.oldest", oldest_s / INTERVAL_S, "intervals", limit=LATE)


def _measured() -> tuple[float, float, int]:
    """Cores, the age of the oldest report in seconds, and how many nodes at once were ever taken for silent."""
    with tempfile.TemporaryDirectory() as directory:
        env = {"HOME": directory, "NOVACTL_DATA_DIR": f"{directory}/data", "PATH": os.environ["PATH"]}
        cluster, admin_key = _cluster(env)
        with fleet(FLEET, admin_key, GUESTS) as peers:
            _enrol(cluster, peers)
            with _conductor(env) as pid:
                _pause(WARM_S)
                began_s, before_s, oldest_s, silent = time.monotonic(), _cpu_s(pid), 0.0, 0
                for _ in range(round(ROUNDS * INTERVAL_S)):
                    _pause(1.0)
                    age_s, quiet = _state(cluster)
                    oldest_s, silent = max(oldest_s, age_s), max(silent, quiet)
                cores = (_cpu_s(pid) - before_s) / (time.monotonic() - began_s)
        cluster.close()
    return cores, oldest_s, silent


def _cluster(env: dict[str, str]):  # noqa: ANN202 - its type is novactl.cluster.Cluster, imported late
    from novactl.agents import keys
    from novactl.api import cluster as api
    from novactl.cluster import Cluster
    from novactl.config import load_config

    config = load_config(env=env)
    made = Cluster(config, actor="bench")
    api.init(made)
    return made, keys.load(config.data_dir / "keys").public


def _enrol(cluster, peers: list[Peer]) -> None:  # noqa: ANN001
    from novactl.db import nodes, servers
    from novactl.model.node import Node, NodeState
    from novactl.model.server import Server
    from novactl.states import PowerState, TaskState, VmState

    now = cluster.clock.now()
    with cluster.db.write() as tx:
        for peer in peers:
            nodes.insert(tx, Node(
                id=peer.id, name=peer.name, state=NodeState.ENABLED, address=peer.address, public_key=peer.public_key, ssh="", host_key="",
                zone="", architecture="x86_64", agent_version="", generation=0, created_at=now))
            for number in range(GUESTS):
                id_ = server_of(peer.id, number)
                servers.insert(tx, Server(
                    id=id_, name=f"vm-{id_[:8]}-{peer.name}", vm_state=VmState.ACTIVE, task_state=TaskState.NONE,
                    power_state=PowerState.RUNNING, node_id=peer.id, node_name=peer.name, epoch=1, operation_id="", flavor_name="f",
                    vcpus=1, memory_mb=512, disk_gb=1, image_id="", image_name="i", image_sha256="0" * 64, architecture="x86_64",
                    keypair_name="", public_key="", user_data="", zone="", mac="52:54:00:00:00:01", addresses=(), fault="",
                    created_at=now, updated_at=now, launched_at=now, deleted_at=None))


@contextmanager
def _conductor(env: dict[str, str]) -> Iterator[int]:
    """`novactl conductor run` as a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-m", "novactl", "conductor", "run", "--json-logs"], env=env, cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE, text=True,
    ) as process:
        assert process.stderr
        while json.loads(process.stderr.readline())["act"] != "leads":
            pass
        threading.Thread(target=process.stderr.read, daemon=True).start()
        try:
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)


def _state(cluster) -> tuple[float, int]:  # noqa: ANN001
    """The age of the oldest report, and how many nodes are silent."""
    from novactl.db import nodes

    with cluster.db.read() as tx:
        rows = nodes.agent_rows(tx)
    now = cluster.clock.now()
    return max(now - (row.reported_at or 0.0) for row in rows), sum(row.silent_since is not None for row in rows)


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)
