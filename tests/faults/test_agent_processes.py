"""Agents as processes of their own: frozen (F4, F21), asleep when asked (F8), in another time (F13), on storage that hangs (F20), older
than their controller (F22)."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nodeagent import wire
from novactl.agents import keys
from novactl.agents.link import Fence
from novactl.api import nodes as api_nodes
from novactl.api import servers as api
from novactl.conductor import fleet
from novactl.config import load_config
from novactl.db import meta, nodes
from novactl.errors import AgentRefused, NovaError, NoValidHost, Unreachable
from novactl.model.node import Node, NodeState
from tests.contract.kit import Node as Bare
from tests.contract.kit import until
from tests.contract.process import AgentProcess
from tests.world import World, small_world

OLDER = Path(__file__).with_name("nodeagent-0.1.0-before-numbers.pyz")
"""The agent as it was before requests carried a number and a version of the keys: built by zipapp from the sources of then."""
AGENT = (sys.executable, "-m", "nodeagent")
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
on_storage = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("bindfs") or not os.path.exists("/dev/fuse"), reason="mounts bindfs (requirements/apt-test.txt)")
in_another_time = pytest.mark.skipif(os.geteuid() != 0, reason="makes a time namespace")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """One node in this process; `attach` gives it more."""
    with small_world(tmp_path, count=1) as made:
        yield made


@pytest.fixture
def attach(world: World) -> Iterator[Callable[..., tuple[AgentProcess, Node]]]:
    """Enrols an agent that is a process; `command` is what it is started by."""
    running = []

    def add(name: str, *, command: tuple[str, ...] = AGENT, **changes: Any) -> tuple[AgentProcess, Node]:
        cluster, folder = world.cluster, world.folder / name
        folder.mkdir()
        with cluster.db.read() as tx:
            cluster_id = meta.cluster_id(tx)
        process = AgentProcess(folder, command=command, node_id=cluster.ids.uuid(), cluster_id=cluster_id, name=name, **changes)
        running.append(process)
        assert process.address, process.log()
        process.admit({keys.load(world.config.data_dir / "keys").public: wire.ADMIN})
        node_id = json.loads((folder / "config.json").read_text())["node_id"]
        node = Node(
            id=node_id, name=name, state=NodeState.ENABLED, address=process.address, public_key=process.public, ssh="", host_key="",
            zone="", architecture="x86_64", agent_version="", generation=0, created_at=cluster.clock.now())
        report = cluster.agents.call(node, "inventory.read", wire.InventoryRead(0)).body
        with cluster.db.write() as tx:
            nodes.insert(tx, node)
            nodes.ensure_inventory(tx, node.id, fleet.first_inventories(world.config, report))
            fleet.take_report(tx, node.id, report, cluster.clock.now())
        return process, node

    yield add
    for process in running:
        if process.process.poll() is None:
            process.process.send_signal(signal.SIGCONT)
            process.process.terminate()
            try:
                process.process.wait(3)
            except subprocess.TimeoutExpired:                 # unshare passes no signal on but its own death
                process.process.kill()
                process.process.wait(20)


def create(world: World, name: str, node: str = "", **more: Any) -> Any:
    return api.create(world.cluster, api.CreateServer(name=name, flavor="small", image="guest", node=node or None, **more)).servers[0]


def whole_life(world: World, name: str, node: str) -> None:
    """Create, look, type, stop, start, delete; nothing may be left."""
    assert create(world, name, node).node_name == node
    assert api.show(world.cluster, name).status == "ACTIVE"
    api.stop(world.cluster, name)
    assert api.show(world.cluster, name).status == "SHUTOFF"
    api.start(world.cluster, name)
    assert api.show(world.cluster, name).status == "ACTIVE"
    with api.console(world.cluster, name) as line:
        line.write(b"hello")
        until(lambda: line.read(1) == b"hello")
    api.delete(world.cluster, name)


# ---------------------------------------------------------------- F4

def test_a_frozen_agent_delays_its_own_only(world: World, attach: Callable[..., tuple[AgentProcess, Node]]) -> None:
    """I9: with one agent stopped, what other nodes are asked takes at most a second more than before; what it is asked ends in time and
    names it; once it goes on, it obeys."""
    frozen, node = attach("n2")
    create(world, "held", "n2")

    def timed(name: str) -> float:
        began = time.monotonic()
        create(world, name, "n1")
        api.stop(world.cluster, name)
        api.delete(world.cluster, name)
        return time.monotonic() - began

    usual = min(timed(f"before{n}") for n in range(3))
    frozen.process.send_signal(signal.SIGSTOP)
    with pytest.raises(NovaError, match="n2"):
        world.cluster.agents.call(node, "agent.ping", timeout_s=2)
    assert any(timed(f"during{n}") < usual + 1.0 for n in range(20))       # this machine may have other things to do now and then
    frozen.process.send_signal(signal.SIGCONT)
    until(lambda: _answers(world, node))
    api.stop(world.cluster, "held")
    assert api.show(world.cluster, "held").status == "SHUTOFF"


# ---------------------------------------------------------------- F21

def test_a_frozen_agent_gets_nothing_and_does_nothing_late(
    world: World, attach: Callable[..., tuple[AgentProcess, Node]],
) -> None:
    """Stopped, a node is stale, then down, and no server is placed there, though it is the emptier one; what was sent to it meanwhile and
    given up is not done when it goes on, and then servers are placed there again."""
    frozen, node = attach("n2")
    server = create(world, "web", "n2")
    frozen.process.send_signal(signal.SIGSTOP)
    with pytest.raises(NovaError, match="n2"):                # it lies in the socket of a living process, and has 2 s to be done
        world.cluster.agents.call(
            node, "domain.stop", wire.Stop(server.id, 1, 0.0), fence=Fence("late:1:1:do", "late", 1), timeout_s=2)
    clock = world.cluster.clock = Skewed(world.cluster.clock, world.config["placement.refresh_s"] + 1)
    assert status_of(world, "n2") == "stale"
    assert [create(world, f"other{number}").node_name for number in range(3)] == ["n1"] * 3
    with pytest.raises(NoValidHost) as nowhere:
        create(world, "there", "n2")
    assert "has not answered" in str(nowhere.value.details)
    clock.skew_s += world.config["node.down_s"]
    assert status_of(world, "n2") == "down"
    threading.Event().wait(1.0)                               # with the wait for `there`: what was sent has expired

    frozen.process.send_signal(signal.SIGCONT)
    until(lambda: status_of(world, "n2") == "up")
    assert world.cluster.agents.call(node, "domain.state", wire.DomainRef(server.id, 1)).body.power_state == "RUNNING"
    assert "domain.stop" in frozen.log() and "the request expired" in frozen.log()
    assert create(world, "again").node_name == "n2"


def status_of(world: World, name: str) -> str:
    return next(node.status for node in api_nodes.list_nodes(world.cluster) if node.name == name)


# ---------------------------------------------------------------- F20

@pytest.fixture
def storage(tmp_path: Path) -> Iterator[tuple[Path, Callable[[signal.Signals], None]]]:
    """A directory that is reached through a process, as one on a network is, and what sends that process a signal: SIGSTOP is the server
    that does not answer."""
    behind, path = tmp_path / "behind", tmp_path / "storage"
    behind.mkdir()
    path.mkdir()
    server = subprocess.Popen(["bindfs", "-f", behind, path], stdin=subprocess.DEVNULL)
    until(lambda: path.is_mount() or server.poll() is not None)
    yield path, server.send_signal
    server.kill()                                             # what still waits for it gets an error
    server.wait(10)
    subprocess.run(["umount", "-l", path], check=True)


@on_storage
def test_storage_that_hangs_delays_what_needs_it(
    world: World, attach: Callable[..., tuple[AgentProcess, Node]], storage: tuple[Path, Callable[[signal.Signals], None]],
) -> None:
    """I9: with a node's pool hanging, the same agent answers reads at once and says why it has no report, stops its servers, and
    is not silent; the create that needs the pool is done when the pool is back, once."""
    pool, signal_to = storage
    process, node = attach("n2", pool_dir=str(pool))
    server = create(world, "web", "n2")
    agents = world.cluster.agents
    signal_to(signal.SIGSTOP)

    made: list[Any] = []
    building = threading.Thread(target=lambda: made.append(create(world, "late", "n2")) or world.cluster.db.close())
    building.start()
    for _ in range(6):                                        # more than the agent has threads for reading
        with pytest.raises(AgentRefused, match=f"the pool {pool} has not answered for .* its storage hangs"):
            agents.call(node, "inventory.read", wire.InventoryRead(0.0), timeout_s=30)
    with pytest.raises(AgentRefused, match="its storage hangs"):
        agents.call(node, "image.list", timeout_s=30)
    for _ in range(6):
        assert agents.call(node, "domain.state", wire.DomainRef(server.id, 1), timeout_s=30).body.power_state == "RUNNING"
    assert [one.server for one in agents.call(node, "domain.list", wire.Page(""), timeout_s=30).body.domains] == [server.id]
    api.stop(world.cluster, "web")
    world.cluster.config = load_config(env={**world.env, "NOVACTL_PLACEMENT_REFRESH_S": "0.5", "NOVACTL_PLACEMENT_FRESH_S": "2"})
    until(lambda: status_of(world, "n2") == "stale")
    assert create(world, "other").node_name == "n1"
    with world.cluster.db.read() as tx:
        row = nodes.by_id(tx, node.id)
    assert row is not None and row.silent_since is None
    assert not made and building.is_alive()

    signal_to(signal.SIGCONT)
    building.join(120)
    assert made[0].status == "ACTIVE"
    until(lambda: status_of(world, "n2") == "up")
    assert len([path for path in pool.iterdir() if path.name.startswith("disk-")]) == 2
    assert sum(line.startswith("domain.start") for line in process.log().splitlines()) == 2


# ---------------------------------------------------------------- F8

def test_what_a_dead_agent_was_sent_is_not_done_when_it_comes_back(world: World, attach: Callable[..., tuple[AgentProcess, Node]]) -> None:
    """A command to an agent that is down fails at once and is nowhere kept: when the agent is up again, nothing happens."""
    process, node = attach("n2")
    server = create(world, "web", "n2")
    process.process.kill()
    process.process.wait(60)
    fence = Fence("late:1:1:do", "late", 1)
    began = time.monotonic()
    with pytest.raises(Unreachable):
        world.cluster.agents.call(node, "domain.stop", wire.Stop(server.id, 1, 0.0), fence=fence, timeout_s=120)
    assert time.monotonic() - began < 60
    port = node.address.rpartition(":")[2]
    config = json.loads((process.directory / "config.json").read_text())
    (process.directory / "config.json").write_text(json.dumps({**config, "listen": f"tcp://127.0.0.1:{port}"}))
    with subprocess.Popen([*AGENT, "--config", str(process.directory / "config.json")], cwd=Path(__file__).parents[2]) as again:
        until(lambda: _answers(world, node))
        threading.Event().wait(2.5)                           # RECONNECT_IVL_MAX: what was queued would have come by now
        assert world.cluster.agents.call(node, "domain.state", wire.DomainRef(server.id, 1)).body.power_state == "RUNNING"
        api.stop(world.cluster, "web")
        assert api.show(world.cluster, "web").status == "SHUTOFF"
        again.terminate()


def _answers(world: World, node: Node) -> bool:
    try:
        world.cluster.agents.call(node, "agent.ping", timeout_s=1)
        return True
    except NovaError:
        return False


# ---------------------------------------------------------------- F13

class Skewed:
    """The system's clock, so many seconds wrong."""

    def __init__(self, clock: Any, skew_s: float) -> None:
        self._clock, self.skew_s = clock, skew_s

    def now(self) -> float:
        return self._clock.now() + self.skew_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clock, name)


@pytest.mark.parametrize("skew_s", [-3600.0, 3600.0])
def test_a_controllers_wrong_clock_decides_nothing(world: World, attach: Callable[..., tuple[AgentProcess, Node]], skew_s: float) -> None:
    """An hour ahead or behind its nodes, a controller's commands are neither stale nor for ever."""
    _, node = attach("n2")
    world.cluster.clock = Skewed(world.cluster.clock, skew_s)
    whole_life(world, "web", "n2")
    _still_expires(world, node)


@in_another_time
@pytest.mark.parametrize("boot_s", [3600, 400 * 86400])
def test_an_agents_other_boot_time_decides_nothing(world: World, attach: Callable[..., tuple[AgentProcess, Node]], boot_s: int) -> None:
    """A node that has run for an hour or a year longer than the controller: commands come in time, and late ones are late there too."""
    shift = ("unshare", "-T", "--boottime", str(boot_s), "--monotonic", str(boot_s), "--fork", "--kill-child")
    _, node = attach("n2", command=(*shift, *AGENT))
    hello = world.cluster.agents.call(node, "agent.hello").body
    assert hello.boottime_s - time.clock_gettime(time.CLOCK_BOOTTIME) == pytest.approx(boot_s, abs=60)
    whole_life(world, "web", "n2")
    _still_expires(world, node)


@pytest.mark.skipif(not FAKETIME, reason="faketime is not installed (requirements/apt-test.txt)")
@pytest.mark.parametrize("skew", ["-1h", "+1h"])
def test_an_agents_wrong_clock_decides_nothing(world: World, attach: Callable[..., tuple[AgentProcess, Node]], skew: str) -> None:
    """With its wall clock an hour off and CLOCK_BOOTTIME as it is, an agent obeys, and refuses what is late."""
    _, node = attach("n2", command=("env", f"LD_PRELOAD={FAKETIME[0]}", f"FAKETIME={skew}", "FAKETIME_DONT_FAKE_MONOTONIC=1", *AGENT))
    whole_life(world, "web", "n2")
    _still_expires(world, node)


def _still_expires(world: World, node: Node) -> None:
    """A command with no time left is stale, whatever the clocks show."""
    link = world.cluster.agents.link(node)
    deadline = time.monotonic() + 60
    fence = Fence("expired:1:1:do", "expired", 1)
    request = link.request("node.prepare", wire.Prepare(), fence, deadline)
    late = dataclasses.replace(request, valid_until_s=request.valid_until_s - 60.5)
    reply, _ = link.answer(late, None, deadline)
    assert reply.kind == wire.ERROR and reply.body["code"] == wire.Code.STALE


# ---------------------------------------------------------------- F22

def test_an_older_agent_serves_a_newer_controller(world: World, attach: Callable[..., tuple[AgentProcess, Node]]) -> None:
    """I11: an agent of before gets fields it does not know and obeys; what it cannot do it says, and the rest works."""
    process, node = attach("n2", command=(sys.executable, str(OLDER)))
    whole_life(world, "web", "n2")
    newer = set(wire.METHODS) - set(_older_methods())
    assert newer
    for method in sorted(newer):
        row = wire.METHODS[method]
        if row.streams or row.args is not wire.Nothing:
            continue
        fence = Fence(f"{method}:1:1:do", "newer", 1) if row.mutates else None
        with pytest.raises(AgentRefused, match="not a method"):
            world.cluster.agents.call(node, method, fence=fence, timeout_s=30)
    assert create(world, "beside", "n1").status == "ACTIVE"


def _older(program: str) -> Any:
    """What `program` prints, as JSON, with the older agent's modules."""
    environment = {**os.environ, "PYTHONPATH": str(OLDER)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, cwd="/", capture_output=True, check=True)
    return json.loads(done.stdout)


def _older_methods() -> list[str]:
    return list(_older("import json; from nodeagent import wire; print(json.dumps(list(wire.METHODS)))"))


def test_a_newer_agent_serves_an_older_controller(tmp_path: Path) -> None:
    """The messages of a create as the older release writes them, without the fields that came later: all obeyed, each answer readable
    there."""
    node = Bare(tmp_path)
    node.prepare()
    sha256 = node.put_image()
    spec = node.spec(sha256)
    clock = node.agent.clock
    program = f"""
import json, sys
from nodeagent import wire
spec = wire.DomainSpec(server={spec.server!r}, epoch=1, name='web', vcpus=1, memory_mb=64, disk_gb=1, image_sha256={sha256!r},
    mac='52:54:00:00:00:01', network='default', architecture='x86_64', has_seed=False)
ref = wire.DomainRef(spec.server, 1)
calls = [('disk.create', wire.DiskSpec(spec.server, 1, {sha256!r}, 1)), ('domain.define', spec), ('domain.start', ref),
    ('domain.stop', wire.Stop(spec.server, 1, 0.0)), ('domain.undefine', ref), ('disk.delete', ref)]
sent = [wire.Request(f'old:{{n}}:1:do', method, wire.to_plain(args), 5.0, 'old', 'old', 1, {clock.boot_id!r}, {clock.boottime_s() + 60!r})
    for n, (method, args) in enumerate(calls)]
reads = ('agent.hello', 'domain.list', 'inventory.read', 'image.list')
sent += [wire.Request(f'r{{n}}', method, {{}}, 5.0, 'old') for n, method in enumerate(reads)]
print(json.dumps([[frame.decode() for frame in wire.encode(request)] for request in sent]))
"""
    said = []
    for frames in _older(program):
        node.send_frames([frame.encode() for frame in frames])
        reply, _ = node.next()
        assert reply.kind == wire.RESULT, (frames, reply.body)
        said.append([json.loads(frames[1])["method"], wire.to_plain(reply)])
    readable = f"""
import json
from nodeagent import wire
said = json.loads({json.dumps(said)!r})
read = [wire.from_plain(wire.METHODS[method].result, wire.from_plain(wire.Reply, reply).body) for method, reply in said]
print(json.dumps([type(result).__name__ for result in read]))
"""
    assert len(_older(readable)) == len(said)
    node.down()


def test_a_protocol_that_is_not_spoken_is_refused(tmp_path: Path) -> None:
    """Frames of a protocol to come get an answer that names those spoken, and no effect."""
    node = Bare(tmp_path)
    frames = wire.encode(node.request("agent.hello"))
    for protocol in (b"NV0", b"NV2", b"", b"NV1 "):
        node.send_frames([protocol, *frames[1:]])
        reply, _ = node.next()
        assert reply.body["code"] == wire.Code.BAD_REQUEST and "NV1" in reply.body["message"]
    node.down()
