"""Between controllers and agents: messages that are late, lost, doubled and overtaken, over connections that break.

`Agents` and `Link` are the real ones on sockets of this file. A connection is up once both sides heard each other; a
request that reached the agent's machine is read by the agent whenever it can, also when its sender is long gone.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from types import SimpleNamespace
from typing import Any

import zmq

from novactl.agents import client, wire
from novactl.agents.client import Agents
from novactl.agents.link import Answer, Link, Peer, result_of
from novactl.errors import AgentTimeout, NovaError, Unreachable
from tests.simulate.scheduler import Process, Scheduler

THERE, BACK = "there", "back"
LOOK_S = 0.0001
"""What looking at a socket in vain takes, or who looks again and again would stop the time."""


@dataclass
class Weather:
    """Chances for one message. Delays in seconds; `late_s` is the longest of those that are late."""

    lost: float = 0.0
    doubled: float = 0.0
    late: float = 0.0
    late_s: float = 30.0


class Network:
    """Who reaches whom. `cut` holds (controller host, node name, direction)."""

    def __init__(self, scheduler: Scheduler, chance: Random, log: Any) -> None:
        self.scheduler, self.chance, self._log = scheduler, chance, log
        self.weather = Weather()
        self.cut: set[tuple[str, str, str]] = set()
        self.nodes: dict[str, Any] = {}
        self.sockets: dict[bytes, Socket] = {}
        self.by_fd: dict[int, Socket] = {}
        self._held: list[tuple[tuple[str, str, str], Any]] = []
        self._count = 0

    def peer_id(self) -> bytes:
        self._count += 1
        return b"peer%d" % self._count

    def hears(self, node: Any, peer: bytes) -> bool:
        """Whether the connection on which `peer` spoke to the node's agent is still there."""
        socket = self.sockets.get(peer)
        return socket is not None and socket.process.alive and socket.session == node.session

    def reaches(self, host: str, node: str) -> bool:
        return (host, node, THERE) not in self.cut and (host, node, BACK) not in self.cut

    def cut_off(self, ways: Sequence[tuple[str, str, str]]) -> None:
        self.cut.update(ways)
        for socket in list(self.sockets.values()):
            if not self.reaches(socket.host, socket.node.name) and self.chance.random() < 0.5:
                socket.session = 0                            # reset; else TCP goes on trying

    def heal(self, ways: Sequence[tuple[str, str, str]]) -> None:
        self.cut.difference_update(ways)
        held, self._held = self._held, []
        for way, deliver in held:
            if way in self.cut:
                self._held.append((way, deliver))
            else:
                self.scheduler.after(0.2 + self.chance.random(), deliver)

    def request(self, socket: Socket, frames: list[bytes]) -> None:
        node = socket.node
        machine = node.machine

        def deliver() -> None:
            if node.machine == machine:                       # a reboot empties its buffers
                node.deliver(socket.id, frames)

        self._carry((socket.host, node.name, THERE), socket, deliver, shown(frames))

    def reply(self, node: Any, peer: bytes, frames: list[bytes]) -> None:
        socket = self.sockets.get(peer)
        if socket is None or socket.closed or not socket.process.alive or socket.session != node.session:
            return

        def deliver() -> None:
            if not socket.closed and socket.process.alive and socket.session == node.session:
                socket.take(frames)

        self._carry((socket.host, node.name, BACK), socket, deliver, shown(frames))

    def _carry(self, way: tuple[str, str, str], socket: Socket, deliver: Any, text: str) -> None:
        chance, weather = self.chance, self.weather
        if way in self.cut:
            if chance.random() < 0.6:
                self._held.append((way, deliver))
            return
        if chance.random() < weather.lost:
            self._log(self.scheduler.now, way[1], f"LOST {way[2]}: {text}")
            if chance.random() < 0.7:
                socket.session = 0
            return
        self.scheduler.after(0.001 + chance.random() * 0.01, deliver) if chance.random() >= weather.late else self._late(deliver, way, text)
        if chance.random() < weather.doubled:
            self._late(deliver, way, f"again {text}")

    def _late(self, deliver: Any, way: tuple[str, str, str], text: str) -> None:
        delay_s = self.chance.random() ** 2 * self.weather.late_s
        self._log(self.scheduler.now, way[1], f"LATE by {delay_s:.1f} s {way[2]}: {text}")
        self.scheduler.after(delay_s, deliver)


def shown(frames: Sequence[bytes]) -> str:
    """One line for the history. `body` of a reply is an error's code and message, or nothing."""
    plain = json.loads(bytes(frames[1]))
    if "method" in plain:
        return f"{plain['method']} {short(plain['id'])} e{plain.get('epoch', 0)}"
    body = plain.get("body", {})
    return f"{plain['kind']} {short(plain['id'])} {body.get('code', '')} {body.get('message', '')}"[:160].rstrip()


def short(request_id: str) -> str:
    """`operation:step:attempt:direction:method` without most of the operation's id."""
    operation, _, rest = request_id.partition(":")
    return f"{operation[:8]}:{rest}" if rest else request_id


class Socket:
    """A DEALER's place: what `novactl.agents.client` does with one."""

    def __init__(self, network: Network, process: Process) -> None:
        self.network, self.process, self.host = network, process, process.host
        self.id, self.closed, self.session = network.peer_id(), False, 0
        self.node: Any = None
        self.inbox: deque[list[bytes]] = deque()
        self.waiter: Any = None

    def connect(self, address: str) -> None:
        self.node = self.network.nodes[address]
        self.network.sockets[self.id] = self

    def close(self, linger: int | None = None) -> None:
        self.closed = True
        self.network.sockets.pop(self.id, None)

    def is_up(self) -> bool:
        """Connected, or connected now: the handshake needs the agent itself."""
        if self.session and self.session == self.node.session:
            return True
        self.session = self.node.session if self.node.answers and self.network.reaches(self.host, self.node.name) else 0
        return bool(self.session)

    def poll(self, timeout: int | None = None, flags: int = zmq.POLLIN) -> int:
        """As zmq's: milliseconds; 0 when nothing came."""
        scheduler = self.network.scheduler
        deadline = scheduler.now + (timeout or 0) / 1000
        while True:
            if flags == zmq.POLLOUT and self.is_up():
                return zmq.POLLOUT
            if flags == zmq.POLLIN and self.inbox:
                return zmq.POLLIN
            left = deadline - scheduler.now
            if left <= 1e-9:
                scheduler.sleep(LOOK_S)
                return 0
            self.wait(min(left, 0.25) if flags == zmq.POLLOUT else left)

    def wait(self, seconds: float) -> None:
        scheduler = self.network.scheduler
        self.waiter = scheduler.living()
        scheduler.wait(seconds)
        self.waiter = None

    def take(self, frames: list[bytes]) -> None:
        self.inbox.append(frames)
        if self.waiter is not None:
            self.network.scheduler.wake(self.waiter)

    def setsockopt(self, option: int, value: Any) -> None:
        """How a connection is made again is the network's business here."""

    def getsockopt(self, option: int) -> Any:
        """As zmq's of EVENTS; of FD what `conductors.Listener` takes for a descriptor."""
        if option == zmq.FD:
            fd = int(self.id[4:])
            self.network.by_fd[fd] = self
            return fd
        return (zmq.POLLIN if self.inbox else 0) | (zmq.POLLOUT if self.is_up() else 0)

    def send_multipart(self, frames: list[bytes], flags: int = 0, copy: bool = True) -> None:
        if not self.is_up():
            raise zmq.Again
        self.network.scheduler.step(f"send {shown(frames)}")
        self.network.request(self, list(frames))

    def recv_multipart(self, flags: int = 0) -> list[bytes]:
        if not self.inbox:
            raise zmq.Again
        return self.inbox.popleft()


_KEYS = SimpleNamespace(public="k" * 40)


class SimAgents(Agents):
    """The agents as one process sees them."""

    def __init__(self, network: Network, process: Process, actor: str, connect_s: float, ring: Any) -> None:
        super().__init__(lambda: None, actor=actor, connect_s=connect_s, ring=ring)    # type: ignore[arg-type, return-value]
        self._context = network                               # type: ignore[assignment]
        self._prefix = f"r-{process.name}-"

    def context(self) -> Any:
        return self._context

    def keys(self) -> Any:
        return _KEYS

    def rekey(self) -> bool:
        return False

    def diagnose(self, peer: Peer) -> NovaError:
        return Unreachable(f"node {peer.name} ({peer.address}) does not answer", command=f"novactl node check {peer.name}")

    def close(self) -> None:
        pass


def asked(agents: Agents, peers: Sequence[Peer], method: str, args: Any, terms: Any) -> dict[str, Answer | NovaError]:
    """As `novactl.agents.fanout._asked`, without its descriptors."""
    scheduler: Scheduler = agents.context().scheduler         # type: ignore[attr-defined]
    hurry, began = terms.hurry, scheduler.now
    hurried = began + max(hurry.values(), default=0.0)
    found: dict[str, Answer | NovaError] = {}
    links = [agents.link(peer) for peer in peers]
    deadline = client.time.monotonic() + terms.timeout_s
    unsent = {link.peer.id: link.request(method, args, terms.fence(link.peer) if terms.fence else None, deadline) for link in links}
    sent: dict[str, wire.Request] = {}
    while True:
        for link in links:
            if link.peer.id in unsent and link.socket.is_up():
                request = sent[link.peer.id] = unsent.pop(link.peer.id)
                link.socket.send_multipart(wire.encode(request))
            answer = _taken(link, sent.get(link.peer.id), method)
            if answer is not None and link.peer.id not in found:
                found[link.peer.id] = answer
        waiting = [link for link in links if link.peer.id not in found]
        patient = any(link.peer.id not in hurry for link in waiting)
        left = (began + terms.timeout_s if patient else hurried) - scheduler.now
        if not waiting or left <= 1e-9:
            break
        for link in waiting:
            link.socket.waiter = scheduler.living()
        scheduler.wait(min(left, 0.25))
        for link in waiting:
            link.socket.waiter = None
    for link in waiting:
        name = link.peer.name
        found[link.peer.id] = AgentTimeout(name, method, terms.timeout_s) if link.peer.id in sent else agents.diagnose(link.peer)
        link.close()
    return found


def _taken(link: Link, request: wire.Request | None, method: str) -> Answer | NovaError | None:
    while request is not None and link.socket.inbox:          # type: ignore[attr-defined]
        reply, payload = wire.decode(wire.Reply, link.socket.recv_multipart())
        if reply.id == request.id and reply.kind != wire.PROGRESS:
            try:
                return Answer(result_of(link.peer, method, reply), payload)
            except NovaError as refused:
                return refused
    return None
