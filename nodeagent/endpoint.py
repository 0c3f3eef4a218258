"""The sockets of one agent: a ROUTER with CURVE, its messages in and out, and a second one while the node's key is changed.

Whatever a peer sends, the loop lives on: libzmq closes those who break its protocol or its limits, and what is a
message but none of ours is answered with an error.
"""

import time
from collections import deque
from typing import Deque, Dict, List, Optional, Protocol, Tuple

import zmq

from nodeagent import listener, wire
from nodeagent.agent import Agent
from nodeagent.dispatch import Dispatcher
from nodeagent.journal import Seldom
from nodeagent.nodekeys import Pair

FRAMES_AT_MOST = 8
LARGE_BYTES = 64 << 10
"""A frame from this size on is not copied: who handles it gets a view."""
BATCH = 64
HELD_EACH, HELD_BYTES, HELD_S = 256, 16 << 20, 30.0
RETIRE_S = 30.0
"""So long connections that were made with the node's former key go on."""
WITHDRAW_S = 2.0

_OPTIONS = (
    (zmq.LINGER, 0),
    (zmq.MAXMSGSIZE, wire.MAX_MESSAGE_BYTES),
    (zmq.HANDSHAKE_IVL, 2000),
    (zmq.RCVHWM, 100),
    (zmq.SNDHWM, 100),
    (zmq.BACKLOG, 256),
    (zmq.TCP_KEEPALIVE, 1),
    (zmq.HEARTBEAT_IVL, 5000),
    (zmq.HEARTBEAT_TTL, 15000),
    (zmq.HEARTBEAT_TIMEOUT, 15000),
    (zmq.ROUTER_MANDATORY, 1),
)


class Serving(Protocol):
    """Who serves an endpoint. `post` may be called from any thread."""

    context: zmq.Context

    def watch(self, fd: int, endpoint: "Endpoint") -> None: ...

    def unwatch(self, fd: int) -> None: ...

    def post(self, endpoint: "Endpoint", peer: bytes, frames: List[bytes]) -> None: ...


class Door:
    """A ROUTER with one key of the node's. `number` tells its peers from those of the endpoint's other doors."""

    def __init__(self, context: zmq.Context, pair: Pair, listen: str, number: int, *, shared: bool) -> None:
        self.public, self.number = pair.public, number
        self.closes_s = float("inf")
        self.socket = context.socket(zmq.ROUTER)
        for option, value in _OPTIONS:
            self.socket.setsockopt(option, value)
        self.socket.setsockopt(zmq.CURVE_SERVER, 1)
        self.socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret.encode())
        self.socket.setsockopt(zmq.ZAP_DOMAIN, wire.ZAP_DOMAIN.encode())
        self.socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self.socket.setsockopt(zmq.IPV6, int("[" in listen))
        try:
            self.listening = listener.listen(listen, shared=shared)
        except OSError:
            self.socket.close(0)
            raise
        self.identity = listener.identity(self.listening)
        self.socket.setsockopt(zmq.USE_FD, self.listening)
        self.socket.bind(listen)
        self.address: str = self.socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()
        self.fd: int = self.socket.getsockopt(zmq.FD)


class Endpoint:
    """One agent's port. It has one door, and two while the node's key is changed: then the newer one takes the new connections.

    Only the loop's thread touches the sockets; `send` may be called from any. To the dispatcher a peer is the number of its door
    and its routing id.
    """

    def __init__(self, loop: Serving, agent: Agent, listen: str, pair: Pair) -> None:
        self.agent, self._loop, self._number = agent, loop, 0
        agent.zmq_version = zmq.zmq_version()
        self.dispatcher = Dispatcher(agent, lambda peer, frames: loop.post(self, peer, frames))
        self.doors: List[Door] = [Door(loop.context, pair, listen, 0, shared=False)]
        self._standing = self._front = self.doors[0]
        self.address = self.doors[0].address
        self._held: Dict[bytes, Deque[Tuple[float, List[bytes]]]] = {}
        self._held_bytes = 0
        self._dropped, self._faults = Seldom("peers do not take their replies: one is dropped"), Seldom("dropped a message")

    @property
    def public(self) -> str:
        """The key that new connections are made with."""
        return self._front.public

    # ------------------------------------------------------------ doors

    def open_door(self, pair: Pair) -> None:
        """New connections are made with `pair`, those there are go on. Raises OSError where the port cannot be shared so."""
        there = next((door for door in self.doors if door.public == pair.public), None)
        if there is None:
            for door in [door for door in self.doors if door is not self._standing]:
                self._close(door)                             # the kernel chooses by position: there are two at most
            listener.share(self._standing.listening)
            self._number = (self._number + 1) % 256
            there = Door(self._loop.context, pair, self.address, self._number, shared=True)
            self.doors.append(there)
            self._loop.watch(there.fd, self)
        there.closes_s = float("inf")
        self._lead_to(there)

    def retire_others(self, public: str) -> None:
        """The door of `public` is the one that stands; others close in RETIRE_S."""
        self._standing = next((door for door in self.doors if door.public == public), self._standing)
        self._lead_to(self._standing)
        self._close_others_in(RETIRE_S)

    def withdraw(self) -> None:
        """The door that stands is the only one again, once what was said at the others has been answered."""
        self._lead_to(self._standing)
        self._close_others_in(WITHDRAW_S)

    def close_due(self, now: float) -> None:
        for door in [door for door in self.doors if now >= door.closes_s]:
            self._close(door)

    def close(self) -> None:
        for door in self.doors:
            door.socket.close(0)

    def _lead_to(self, door: Door) -> None:
        if door is not self._front:
            listener.steer(door.listening, self.doors.index(door))
            self._front = door

    def _close_others_in(self, seconds: float) -> None:
        for door in self.doors:
            if door is not self._standing:
                door.closes_s = min(door.closes_s, time.monotonic() + seconds)

    def _close(self, door: Door) -> None:
        self.doors.remove(door)
        self._loop.unwatch(door.fd)
        door.socket.close(0)
        listener.await_closed(door.listening, door.identity)

    # ------------------------------------------------------------ messages

    def drain(self) -> bool:
        """Serve what has come, at most BATCH messages a door; True when there may be more."""
        left = [self._drain(door) for door in self.doors]
        return any(left)

    def _drain(self, door: Door) -> bool:
        for _ in range(BATCH):
            try:
                first = door.socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return False
            peer, frames = bytes([door.number]) + first.bytes, self._rest(door, first)
            key = _user_id(first)
            if not key:
                continue
            if frames is None:
                self._faults.count(f"the key {key} sends messages of more than {FRAMES_AT_MOST} frames")
                continue
            try:
                reply = self.dispatcher.receive(peer, key, frames)
                if reply is not None:
                    self.send(peer, reply)
            except Exception as fault:  # noqa: BLE001 - the last guard: nothing a peer sends may end the loop
                self._faults.count(f"a message of the key {key}: {type(fault).__name__}: {str(fault)[:200]}")
        return True

    def _rest(self, door: Door, first: zmq.Frame) -> Optional[List[bytes]]:
        """The frames behind the routing id; None where there are more than any message has."""
        frames, more, count = [], first.more, 0
        while more:
            frame = door.socket.recv(zmq.NOBLOCK, copy=False)
            more = frame.more
            count += 1
            if count <= FRAMES_AT_MOST:
                frames.append(frame.bytes if len(frame) < LARGE_BYTES else frame.buffer)
        return frames if count <= FRAMES_AT_MOST else None

    def send(self, peer: bytes, frames: List[bytes]) -> None:
        """To the peer now, or held back while its queue is full (behind what is held back for it already)."""
        held = self._held.get(peer)
        if held is None and self._sent(peer, frames):
            return
        size = sum(map(len, frames))
        if (held is not None and len(held) >= HELD_EACH) or self._held_bytes + size > HELD_BYTES:
            self._dropped.count()
            return
        self._held.setdefault(peer, deque()).append((time.monotonic(), frames))
        self._held_bytes += size

    def _sent(self, peer: bytes, frames: List[bytes]) -> bool:
        door = next((door for door in self.doors if door.number == peer[0]), None)
        if door is None:
            self.dispatcher.peer_gone(peer)
            return True
        try:
            door.socket.send_multipart([peer[1:], *frames], zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self.dispatcher.peer_gone(peer)
        return True

    @property
    def holds(self) -> bool:
        return bool(self._held)

    def retry(self) -> bool:
        """Send what was held back; True while some is left. Of a peer that takes nothing, it is dropped in the end."""
        oldest_s = time.monotonic() - HELD_S
        for peer, held in list(self._held.items()):
            while held and (held[0][0] < oldest_s or self._sent(peer, held[0][1])):
                self._held_bytes -= sum(map(len, held.popleft()[1]))
            if not held:
                del self._held[peer]
        return bool(self._held)


def _user_id(frame: zmq.Frame) -> str:
    """The public key (Z85) that ZAP admitted the sender with."""
    try:
        return frame.get("User-Id")
    except zmq.ZMQError:
        return ""
