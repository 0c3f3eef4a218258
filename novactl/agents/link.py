"""One connection to one agent: requests go out, their answers come back, and what is lost on the way is asked for again.

DEALER sockets over CURVE, `IMMEDIATE` and `LINGER=0`: what is sent goes to a living connection or fails at once, and
nothing waits in a queue for a node that comes back later. Mutations carry the operation's epoch and expire in the agent's
own boot-time clock, which `agent.hello` tells once a connection.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import zmq

from nodeagent import wire
from novactl.agents.keys import KeyPair
from novactl.errors import AgentRefused, AgentTimeout, Unreachable

if TYPE_CHECKING:
    from novactl.agents.client import Agents

ASK_AGAIN_S = 3.0
"""After so long without an answer a request is sent again; then after twice as long, and so on."""


class Peer(Protocol):
    """Where an agent is and who it must be: a Node, or what enrolment knows before there is one."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def public_key(self) -> str: ...


class Fence(NamedTuple):
    """What a mutation carries: its request id, and the operation it belongs to with that operation's epoch and number."""

    request_id: str
    operation: str
    epoch: int
    seq: int = 0


class Answer(NamedTuple):
    body: Any
    """The method's result dataclass."""
    payload: bytes | None


def keys_of(peer: Peer) -> tuple[str, ...]:
    """Its own, and while it is changed the next one."""
    return tuple(dict.fromkeys(filter(None, (peer.public_key, getattr(peer, "next_public_key", "")))))


class Link:
    """One connection of one thread to one agent. While the agent's key is changed, each of the two is tried; one is taken."""

    def __init__(self, context: zmq.Context, keys: KeyPair, peer: Peer, agents: Agents) -> None:
        self.peer, self._agents = peer, agents
        self._rivals = [dealer(context, keys, server_key) for server_key in keys_of(peer) or (peer.public_key,)]
        for socket in self._rivals:
            socket.connect(peer.address)
        self.socket = self._rivals[0]
        self._boot: tuple[str, float] | None = None
        self._early: dict[str, deque[tuple[wire.Reply, bytes | None]]] = {}
        self._asked: set[str] = set()

    def request(self, method: str, args: Any, fence: Fence | None, deadline: float, version: int | None = None) -> wire.Request:
        """The envelope; for a mutation with the agent's boot and the moment it expires there (asked for once), and the version of
        the table of keys that the agent must have."""
        plain = wire.to_plain(args) if args is not None else {}
        timeout_s = max(0.0, deadline - time.monotonic())
        if not wire.METHODS[method].mutates:
            return wire.Request(self._agents.next_id(), method, plain, timeout_s, self._agents.actor)
        if fence is None:
            raise ValueError(f"{method} changes a node and needs a fence")
        boot_id, offset_s = self._boot or self._hello(deadline)
        return wire.Request(
            fence.request_id, method, plain, timeout_s, self._agents.actor, fence.operation, fence.epoch, boot_id,
            deadline + offset_s, fence.seq, self._agents.ring.version() if version is None else version,
        )

    def _hello(self, deadline: float) -> tuple[str, float]:
        reply, _ = self.answer(self.request("agent.hello", None, None, deadline), None, deadline)
        hello: wire.Hello = result_of(self.peer, "agent.hello", reply)
        self._agents.ring.met(self.peer, hello.seq, hello.seq_operation)
        return self.greeted(hello)

    def greeted(self, hello: wire.Hello) -> tuple[str, float]:
        """The agent's boot, and its clock against ours."""
        # measured after the answer came: the command expires a little early rather than late
        self._boot = hello.boot_id, hello.boottime_s - time.monotonic()
        return self._boot

    def has_rebooted(self, deadline: float) -> bool:
        """Ask again which boot this is: True when the host has started anew since it was asked."""
        known, self._boot = self._boot, None
        return known is not None and self._hello(deadline)[0] != known[0]

    def send(self, request: wire.Request, payload: bytes | None, deadline: float) -> None:
        """Hand the request to a living connection. Raises Unreachable when there is none within `connect_s`."""
        until = min(time.monotonic() + self._agents.connect_s, deadline)
        frames = wire.encode(request, payload)
        while self.choose(max(0.0, until - time.monotonic())):
            try:
                self.socket.send_multipart(frames, flags=zmq.NOBLOCK, copy=payload is None)
                self._asked.add(request.id)
                return
            except zmq.Again:                                 # it broke between the two
                if time.monotonic() >= until:
                    break
        self.close()
        raise self._agents.diagnose(self.peer)

    def answer(self, request: wire.Request, payload: bytes | None, deadline: float) -> tuple[wire.Reply, bytes | None]:
        """Send it, and wait for the final reply."""
        self.send(request, payload, deadline)
        return self.final(request, deadline, lambda: self.send(request, payload, deadline))

    def final(self, request: wire.Request, deadline: float, again: Callable[[], None]) -> tuple[wire.Reply, bytes | None]:
        """The final reply to what was sent. While none comes `again` sends the same, ever more rarely: a connection that broke took
        the answer with it, and the agent answers a repeated id from its ledger, or says that it is under way and goes on."""
        patience_s = ASK_AGAIN_S
        while True:
            try:
                reply, body = self.receive(request, min(deadline, time.monotonic() + patience_s))
            except AgentTimeout:
                if deadline - time.monotonic() < 0.001:       # what poll rounds to nothing
                    self.forget(request)
                    raise
                patience_s *= 2
                again()
                continue
            if reply.kind != wire.PROGRESS:
                self.forget(request)
                return reply, body

    def choose(self, wait_s: float) -> bool:
        """Whether something can be sent within `wait_s`: by the first connection that comes up, and from then on by no other."""
        if len(self._rivals) == 1:
            return bool(self.socket.poll(int(wait_s * 1000), zmq.POLLOUT))
        poller = zmq.Poller()
        for socket in self._rivals:
            poller.register(socket, zmq.POLLOUT)
        ready = poller.poll(int(wait_s * 1000))
        if not ready:
            return False
        self.socket = ready[0][0]
        for socket in self._rivals:
            if socket is not self.socket:
                socket.close(linger=0)
        self._rivals = [self.socket]
        return True

    def forget(self, request: wire.Request) -> None:
        """It has been answered: what else comes for it (it was asked twice) is passed over."""
        self._asked.discard(request.id)
        self._early.pop(request.id, None)

    def receive(self, request: wire.Request, deadline: float) -> tuple[wire.Reply, bytes | None]:
        """The next reply to `request`; replies to others wait their turn. Raises AgentTimeout."""
        early = self._early.get(request.id)
        if early:
            return early.popleft()
        while True:
            left_ms = int((deadline - time.monotonic()) * 1000)
            if left_ms <= 0 and not self.socket.poll(0) or left_ms > 0 and not self.socket.poll(left_ms):
                raise AgentTimeout(self.peer.name, request.method, request.timeout_s)
            reply, payload = self._decode(self.socket.recv_multipart())
            if reply.id == request.id:
                return reply, payload
            if reply.id in self._asked:
                self._early.setdefault(reply.id, deque(maxlen=64)).append((reply, payload))

    def _decode(self, frames: list[bytes]) -> tuple[wire.Reply, bytes | None]:
        try:
            return wire.decode(wire.Reply, frames)
        except wire.BadMessage as bad:
            raise Unreachable(f"node {self.peer.name} sent what is not our protocol: {bad}") from None

    def close(self) -> None:
        for socket in self._rivals:
            socket.close(linger=0)


class Stream:
    """An open stream: iterate over what comes; `read()` waits a while for it. Close it, or use it in a `with` block."""

    def __init__(self, link: Link, request: wire.Request, peer: Peer) -> None:
        self._link, self._request, self._peer = link, request, peer
        self.id = request.id
        self.result: Any = None

    def read(self, timeout_s: float) -> tuple[Mapping[str, Any], bytes | None] | None:
        """The next (body, payload); None when nothing came in `timeout_s`. Raises EOFError when the stream has ended."""
        try:
            reply, payload = self._link.receive(self._request, time.monotonic() + timeout_s)
        except AgentTimeout:
            return None
        if reply.kind == wire.PROGRESS:
            return reply.body, payload
        self.result = result_of(self._peer, self._request.method, reply)
        raise EOFError

    def close(self) -> None:
        self._link.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def dealer(context: zmq.Context, keys: KeyPair, server_key: str) -> zmq.Socket:
    """A DEALER that speaks CURVE to the holder of `server_key` only, and queues nothing for the absent."""
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.SNDHWM, 100)
    socket.setsockopt(zmq.RCVHWM, 1000)
    socket.setsockopt(zmq.MAXMSGSIZE, wire.MAX_MESSAGE_BYTES)
    socket.setsockopt(zmq.RECONNECT_IVL, 100)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.CURVE_SERVERKEY, server_key.encode())
    socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.public.encode())
    socket.setsockopt(zmq.CURVE_SECRETKEY, keys.secret.encode())
    return socket


def result_of(peer: Peer, method: str, reply: wire.Reply) -> Any:
    try:
        if reply.kind == wire.ERROR:
            failure = wire.from_plain(wire.Failure, reply.body)
            raise AgentRefused(peer.name, method, wire.to_plain(failure))
        return wire.from_plain(wire.METHODS[method].result, reply.body)
    except wire.BadMessage as bad:
        raise Unreachable(f"node {peer.name} answered {method} with what is not our protocol: {bad}") from None
