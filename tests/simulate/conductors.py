"""Conductors in the simulated world: `Conductor.run` as it is, with its lease, its watcher and all of its jobs.

What is given to them is what the kernel and libzmq have otherwise: descriptors that signal, and a power switch. Agents tick, and
send reports by themselves, as long as there is a conductor. `Listener` stands for epoll; it tells of a connection that
broke and was made again between two looks no sooner than the watcher's own question does, which a real one may.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import zmq

from nodeagent import selffence
from nodeagent.selffence import SelfFence
from novactl.agents import link, watching
from novactl.conductor import aftermath, fences, leader, service, watcher
from novactl.conductor.journal import Journal
from novactl.conductor.service import Conductor, Job
from novactl.db import leases
from novactl.errors import NovaError
from tests.simulate.scheduler import Process
from tests.simulate.transport import Network

IDLE_S = 1.0
"""How often a conductor with nothing to do looks up, instead of several times a second: each look is a turn."""
SWITCH_S = 20.0
FENCE_AFTER_S, HEARD_WITHIN_S = 40.0, 38.0
"""An agent speaks every ten seconds, is asked after fifteen, and messages are lost: one that can be heard for so long has been."""
LOOK_S = 2.0
SETTINGS = {
    "ha__fence_after_s": FENCE_AFTER_S, "conductor__verify_s": 30.0,
    "retention__operations_days": 600 / 86400, "retention__events_days": 300 / 86400,
}
CLOCKS_WRONG = {"retention__operations_days": 1.0, "retention__events_days": 1.0}
FORGET_S = 30.0
SWITCH = {"method": "command", "command": "/switch"}
SELF = {"method": "self", "self_fence_s": "60"}


class _Journal(Journal):
    """An error that nobody raises on purpose is a bug, also where the loop survives it."""

    def __init__(self, world: Any, cluster: Any) -> None:
        super().__init__(lambda line: world.log(world.scheduler.now, cluster.actor, _told(line)), cluster.clock, as_json=True)
        self._world = world

    def failed(self, what: str, error: BaseException, **facts: Any) -> None:
        if not isinstance(error, NovaError):
            self._world.oracle.broken(f"conductor: {what}: {type(error).__name__}: {error}")
        super().failed(what, error, **facts)


def _told(line: str) -> str:
    plain = json.loads(line)
    return " ".join([plain.pop("act"), *(f"{name}={value}" for name, value in plain.items() if name != "at")])[:200]


def conductor(world: Any, name: str, host: str, ended: Callable[[], None] = lambda: None) -> Process:
    """`novactl conductor run`. It ends when the event `process.own["stop"]` is set."""
    process = world.process(name, host)
    process.own["stop"] = stop = world.threading.Event()
    process.at_end.append(ended)
    world.on_process(process)

    def run() -> None:
        cluster = world.cluster(process)
        cluster.config = cluster.config.replace(**{**SETTINGS, **(CLOCKS_WRONG if world.skew and any(world.skew.values()) else {})})
        try:
            Conductor(cluster, _Journal(world, cluster)).run(stop)
        finally:
            world.scheduler.kill(process)

    world.scheduler.spawn(process, run, "main")
    return process


def is_conductor(process: Process) -> bool:
    return "stop" in process.own


class Sightings:
    """When each host could not hear each node, looked at every LOOK_S from the first conductor on."""

    def __init__(self, world: Any) -> None:
        self._world = world
        self._deaf_s: dict[tuple[str, str], list[float]] = {}
        self._began_s = 0.0

    def begin(self, hosts: Sequence[str]) -> None:
        self._began_s = self._world.scheduler.now
        self._deaf_s = {(host, name): [self._began_s] for host in hosts for name in self._world.nodes}
        self._look()

    def _look(self) -> None:
        now_s = self._world.scheduler.now
        for (host, name), times in self._deaf_s.items():
            node = self._world.nodes[name]
            if not (node.answers and self._world.network.reaches(host, name)) or self._world.refused_until.get(host, 0.0) > now_s:
                times.append(now_s)
        self._world.scheduler.after(LOOK_S, self._look)

    def longest_s(self, host: str, name: str, within_s: float) -> float:
        """The longest time of the last `within_s` in which the host could hear the node."""
        now_s = self._world.scheduler.now
        times = [now_s - within_s, *(at for at in self._deaf_s[host, name] if at > now_s - within_s), now_s]
        return max(later - sooner for sooner, later in zip(times, times[1:], strict=False))


# ---------------------------------------------------------------- what it finds in place of the world

def changes(world: Any) -> list[tuple[Any, str, Any]]:
    """As `simulated` takes them."""
    return [
        (service, "LOOK_S", IDLE_S), (aftermath, "LOOK_S", IDLE_S), (watcher, "WINDOW_S", IDLE_S),
        (service, "JOBS", tuple(_own(job) for job in service.JOBS)),
        (leases, "now", lambda tx, here: world.database_now()),
        (leader.Leadership, "write", _watched(world, leader.Leadership.write)),
        (leader.Leadership, "take", _taken(world, leader.Leadership.take)),
        (watching, "select", SimpleNamespace(epoll=lambda: Listener(world.network), EPOLLIN=zmq.POLLIN)),
        (watching, "dealer", lambda *keys: link.dealer(*keys)),
        (fences, "tool", Switch(world)),
        (selffence, "log", lambda text: None),
        (SelfFence, "fire", _by_itself(world, SelfFence.fire)),
    ]


def _own(job: Job) -> Job:
    """What a job remembers is its process's."""
    def act(leadership: Any, journal: Any) -> None:
        own = leadership.cluster.clock.process.own
        mine = own.setdefault(job.name, service._Verifying() if job.name == "verify" else job.act)
        mine(leadership, journal)

    return job._replace(act=act, every_s=(lambda config: FORGET_S) if job.name == "forget" else job.every_s)


def _watched(world: Any, write_of: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`Leadership.write`, with a look at the end whether the lease was this process's (I6)."""
    @contextlib.contextmanager
    def write(leadership: Any) -> Iterator[Any]:
        mine = leadership.lease
        with write_of(leadership) as tx:
            yield tx
            world.oracle.led(mine, leases.read(tx, leadership.name), leadership.cluster.actor)

    return write


def _taken(world: Any, take: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def taken(leadership: Any) -> bool:
        if not take(leadership):
            return False
        if leadership.lease is not None:
            world.oracle.leads(leadership.lease)
        return True

    return taken


BY_ITSELF = SimpleNamespace(request=SimpleNamespace(method="self-fence"))
"""The request of what a node does without one."""


def _by_itself(world: Any, fire: Callable[..., None]) -> Callable[..., None]:
    def fired(self_fence: Any, *what: Any) -> None:
        task = world.scheduler.living()
        task.call = BY_ITSELF
        try:
            fire(self_fence, *what)
        finally:
            task.call = None

    return fired


class Switch:
    """A power switch, worked by a program that takes its time: in the place of tool.py, for fences.py."""

    def __init__(self, world: Any) -> None:
        self._world = world

    def run(self, argv: list[str], given: str, **_: Any) -> Any:
        _path, action, name = argv
        world, node = self._world, self._world.nodes[argv[2]]
        world.scheduler.step(f"switch: {action} {name}", SWITCH_S)
        if action == "off":
            node.power(False)
            world.scheduler.step(f"switch: {name} is off", SWITCH_S)
        return SimpleNamespace(returncode=0 if node.is_off else 1, stdout="", stderr="" if node.is_off else "it is on")


# ---------------------------------------------------------------- descriptors

class Listener:
    """select.epoll over `transport.Socket`s."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._was_up: dict[int, bool | None] = {}

    def register(self, fd: int, events: int) -> None:
        self._was_up[fd] = None

    def unregister(self, fd: int) -> None:
        del self._was_up[fd]

    def close(self) -> None:
        self._was_up.clear()

    def poll(self, timeout_s: float) -> list[tuple[int, int]]:
        ready = self._signalled()
        if not ready:
            scheduler, sockets = self._network.scheduler, [self._network.by_fd[fd] for fd in self._was_up]
            for socket in sockets:
                socket.waiter = scheduler.living()
            scheduler.wait(timeout_s)
            for socket in sockets:
                socket.waiter = None
            ready = self._signalled()
        return [(fd, zmq.POLLIN) for fd in ready]

    def _signalled(self) -> list[int]:
        found = []
        for fd, was_up in self._was_up.items():
            socket = self._network.by_fd[fd]
            if socket.is_up() != was_up or socket.inbox:
                found.append(fd)
        self._was_up |= {fd: self._network.by_fd[fd].is_up() for fd in found}
        return found
