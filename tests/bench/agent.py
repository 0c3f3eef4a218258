"""What the agent costs: a call, a fan-out to a thousand, and standing by with ten domains."""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from nodeagent import wire
from tests.bench.registry import Figure, at_least, at_most, bench

FLEET, ROUNDS, CALLS = 1000, 15, 2000
DOMAINS, IDLE_S = 10, 15.0
PORT, POOL = 7799, "/var/lib/libvirt/images/novactl"
RSS_MB, IDLE_PERCENT, CALL_MS, CALLS_PER_S = 45.0, 0.5, 0.5, 12_000.0


class Peer(NamedTuple):
    id: str
    name: str
    address: str
    public_key: str


@contextmanager
def agents():  # noqa: ANN201 - its type is novactl.agents.client.Agents, imported late like zmq itself
    """The client as novactl has it, and the admin's public key."""
    import zmq

    from novactl.agents.client import Agents
    from novactl.agents.keys import KeyPair

    public, secret = (key.decode() for key in zmq.curve_keypair())
    client = Agents(lambda: KeyPair(public, secret), actor="bench", connect_s=10)
    try:
        yield client, public
    finally:
        client.close()


@contextmanager
def fleet(count: int, admin_key: str, guests: int = 0) -> Iterator[list[Peer]]:
    """`count` fake agents in one other process, each with so many guests."""
    with tempfile.TemporaryDirectory() as directory, subprocess.Popen(
        [sys.executable, "-m", "tests.bench.fleet", str(count), admin_key, directory, str(guests)],
        cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin and process.stdout
        found = json.loads(process.stdout.readline())
        yield [Peer(node_id, f"h{n}", address, key) for n, (address, key, node_id) in enumerate(found)]
        process.stdin.close()


@bench("agent.call")
def call() -> Figure:
    """The median of one call after another, CURVE on loopback, client and agent in two processes."""
    with agents() as (client, key), fleet(1, key) as (peer,):
        times = []
        for _ in range(CALLS):
            began = time.perf_counter()
            client.call(peer, "agent.hello")
            times.append(time.perf_counter() - began)
    return at_most("agent.call", statistics.median(times) * 1000, "ms", limit=CALL_MS)


@bench("agent.fan_out")
def fan_out() -> Figure:
    """The median of questions to a thousand connected agents at once."""
    with agents() as (client, key), fleet(FLEET, key) as peers:
        rates = []
        for turn in range(ROUNDS + 1):
            began = time.perf_counter()
            answers = client.fan_out(peers, "agent.ping", timeout_s=30)
            if turn:
                rates.append(len(peers) / (time.perf_counter() - began))
            wrong = [answer for answer in answers.values() if isinstance(answer, Exception)]
            if wrong:
                raise RuntimeError(f"{len(wrong)} of {len(peers)} did not answer: {wrong[0]}")
    return at_least("agent.fan_out", statistics.median(rates), "calls/s", limit=CALLS_PER_S)


@bench("agent.idle")
def idle() -> Iterator[Figure]:
    """A real agent on a lab host's libvirt with ten running domains and nobody asking. Needs root."""
    with agents() as (client, key), real_agent(key) as (pid, peer):
        node = _Node(client, peer)
        node.change("node.prepare", wire.Prepare())
        servers: list[str] = []
        try:
            sha256 = node.image()
            for number in range(DOMAINS):
                servers.append(str(uuid.uuid4()))
                node.server(servers[-1], sha256, number)
            client.call(peer, "inventory.read", wire.InventoryRead(0))
            threading.Event().wait(3)
            began, before = time.monotonic(), _cpu_s(pid)
            threading.Event().wait(IDLE_S)
            percent = 100 * (_cpu_s(pid) - before) / (time.monotonic() - began)
            rss_mb = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
        finally:
            for server in servers:
                for method in ("domain.destroy", "domain.undefine", "disk.delete"):
                    node.change(method, wire.DomainRef(server, 1))
            node.change("node.unprepare", wire.Nothing())
    yield at_most("agent.idle.rss", rss_mb, "MB", limit=RSS_MB)
    yield at_most("agent.idle.cpu", percent, "% of a core", limit=IDLE_PERCENT)


class _Node:
    """Mutations on one node, as one operation."""

    def __init__(self, client, peer: Peer) -> None:  # noqa: ANN001
        self._client, self._peer, self._operation, self._count = client, peer, str(uuid.uuid4()), 0

    def change(self, method: str, args: object, payload: bytes | None = None) -> None:
        from novactl.agents.link import Fence

        self._count += 1
        fence = Fence(f"{self._operation}:{self._count}:1:do", self._operation, 1)
        self._client.call(self._peer, method, args, payload, fence=fence)

    def image(self) -> str:
        """An empty disk: the BIOS finds nothing to boot and waits."""
        import hashlib

        content = os.urandom(512) + bytes((1 << 20) - 512)
        sha256 = hashlib.sha256(content).hexdigest()
        self.change("image.begin", wire.ImageOffer(sha256, len(content), len(content), "raw"))
        self.change("image.chunk", wire.ImageChunk(sha256, 0), content)
        self.change("image.finish", wire.ImageRef(sha256))
        return sha256

    def server(self, server: str, sha256: str, number: int) -> None:
        self.change("disk.create", wire.DiskSpec(server, 1, sha256, 0))
        self.change("domain.define", wire.DomainSpec(
            server=server, epoch=1, name=f"bench{number}", vcpus=1, memory_mb=32, disk_gb=0, image_sha256=sha256,
            mac=f"52:54:00:be:9c:{number:02x}", has_seed=False))
        self.change("domain.start", wire.DomainRef(server, 1))


@contextmanager
def real_agent(admin_key: str) -> Iterator[tuple[int, Peer]]:
    """`python3 -m nodeagent` on a lab host of its own, by the system's Python, libvirt and zmq: its pid, and how to reach it."""
    from nodeagent.__main__ import ensure_keys
    from tests.lab import Lab

    with Lab(count=1) as lab:
        host = lab.hosts[0]
        state = host.dir / "var/lib/nodeagent"
        public = ensure_keys(str(state / "keys"))
        (state / "admins.json").write_text(json.dumps({"keys": {admin_key: {"name": "bench", "role": wire.ADMIN}}}))
        (state / "config.json").write_text(json.dumps({
            "node_id": str(uuid.uuid4()), "cluster_id": str(uuid.uuid4()), "name": "bench", "listen": f"tcp://0.0.0.0:{PORT}",
            "keys_dir": "/var/lib/nodeagent/keys", "admins_file": "/var/lib/nodeagent/admins.json",
            "state_dir": "/var/lib/nodeagent/state", "pool_dir": POOL}))
        shutil.copytree(Path(__file__).parents[2] / "nodeagent", host.dir / "opt/nodeagent")
        host.run("install", "-d", "-m", "0711", POOL)
        inside = ["nsenter", "-t", str(host._inner_pid()), "-m", "-u", "-i", "-n", "-p"]
        command = [*inside, "/usr/bin/python3", "-m", "nodeagent", "--config", "/var/lib/nodeagent/config.json"]
        environment = {"PYTHONPATH": "/opt", "PATH": os.environ["PATH"]}
        with subprocess.Popen(command, cwd="/", env=environment, stderr=(state / "log").open("w")) as process:
            pid = _child(process.pid)
            try:
                yield pid, Peer("bench", "bench", f"tcp://{host.address}:{PORT}", public)
            finally:
                os.kill(pid, signal.SIGTERM)


def _child(pid: int) -> int:
    """The one process that nsenter started in the other namespace."""
    for _ in range(500):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            return int(children[0])
        threading.Event().wait(0.01)
    raise RuntimeError("nsenter started nothing")


def _cpu_s(pid: int) -> float:
    """CPU time of all its threads, to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
