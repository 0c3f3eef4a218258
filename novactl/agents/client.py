"""Calls to agents: one, many at once, a stream, a pipeline of chunks.

DEALER sockets over CURVE, `IMMEDIATE` and `LINGER=0`: what is sent goes to a living connection or fails at once, and
nothing waits in a queue for a node that comes back later. Each thread has its own sockets. Mutations carry the
operation's epoch and expire in the agent's own boot-time clock, which `agent.hello` tells once a connection.
"""

from __future__ import annotations

import itertools
import os
import resource
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import zmq

from nodeagent import wire
from novactl.agents.diagnose import why_silent
from novactl.agents.keys import KeyPair
from novactl.agents.ring import NoRing, Ring
from novactl.errors import AgentRefused, AgentTimeout, Denied, NovaError, Unreachable

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


class Agents:
    """The agents, as seen by one admin. `close()` drops every connection."""

    def __init__(self, keys: Callable[[], KeyPair], *, actor: str, connect_s: float, ring: Ring | None = None) -> None:
        self._load, self.actor, self.connect_s, self.ring = keys, actor, connect_s, ring or NoRing()
        self._pair: KeyPair | None = None
        self._generation = 0
        self._newer: dict[tuple[str, str], Peer] = {}
        self._context: zmq.Context | None = None
        self._lock = threading.Lock()
        self._local = threading.local()
        self._numbers = itertools.count(1)
        self._prefix = f"r-{os.urandom(6).hex()}-"

    def keys(self) -> KeyPair:
        """This admin's pair, read once."""
        pair = self._pair
        if pair is None:
            pair = self._pair = self._load()
        return pair

    def rekey(self) -> bool:
        """Read the pair again; True when it is another one by now. Then new connections are made with it."""
        known = self._pair
        if known is None:
            return False
        try:
            self._pair = self._load()
        except NovaError:
            return False
        self._generation += self._pair != known
        return self._pair != known

    def call(
        self, peer: Peer, method: str, args: Any = None, payload: bytes | None = None, *, fence: Fence | None = None,
        timeout_s: float | None = None,
    ) -> Answer:
        """One request, one answer.

        Raises Unreachable (nothing connected), AgentTimeout (no answer in time: it may have happened), Denied (it does not admit
        this key) or AgentRefused. `fence` is needed for mutations and only for them. An agent that has an older table of keys
        is given the newer one first.
        """
        try:
            return self._call(peer, method, args, payload, fence, timeout_s)
        except NovaError as refused:
            again = self._mended(peer, refused)
            if again is None:
                raise
        return self._call(again, method, args, payload, fence, timeout_s)

    def _mended(self, peer: Peer, refused: NovaError) -> Peer | None:
        """Only where keys were the matter, which is asked first: whatever else went wrong costs nothing more."""
        if len(_keys_of(peer)) > 1 and isinstance(refused, Unreachable) and not isinstance(refused, AgentTimeout):
            return peer                                       # the agent has changed from one of its keys to the other
        about_keys = refused.details.get("handshake") if isinstance(refused, Unreachable | Denied) else (
            refused.details.get("code") in (wire.Code.OLD_KEYS, wire.Code.DENIED))
        again = self.ring.mend(self, peer, refused) if about_keys else None
        if again is not None and again is not peer:
            self._newer[peer.id, peer.public_key] = again     # for all who still have the old row
        return again

    def _call(
        self, peer: Peer, method: str, args: Any, payload: bytes | None, fence: Fence | None, timeout_s: float | None,
    ) -> Answer:
        deadline = time.monotonic() + (timeout_s or wire.METHODS[method].timeout_s)
        link = self.link(peer)
        reply, body = self._asked(link, method, args, payload, fence, deadline)
        if fence and _of_another_boot(reply) and link.has_rebooted(deadline):
            reply, body = self._asked(link, method, args, payload, fence, deadline)
        return Answer(result_of(peer, method, reply), body)

    def _asked(
        self, link: Link, method: str, args: Any, payload: bytes | None, fence: Fence | None, deadline: float,
    ) -> tuple[wire.Reply, bytes | None]:
        """The final reply, as `Link.answer` gives it."""
        return link.answer(link.request(method, args, fence, deadline), payload, deadline)

    def stream(self, peer: Peer, method: str, args: Any = None) -> Stream:
        """Open a stream on a connection of its own. Raises as `call` does."""
        try:
            return self._stream(peer, method, args)
        except NovaError as refused:
            again = self._mended(peer, refused)
            if again is None:
                raise
        return self._stream(again, method, args)

    def _stream(self, peer: Peer, method: str, args: Any) -> Stream:
        link = Link(self.context(), self.keys(), peer, self)
        deadline = time.monotonic() + self.connect_s + 2
        try:
            request = link.request(method, args, None, deadline)
            link.send(request, None, deadline)
        except BaseException:
            link.close()
            raise
        return Stream(link, request, peer)

    def pipeline(
        self, peer: Peer, method: str, items: Iterable[tuple[Any, bytes | None]], *, fence: Fence, window: int,
    ) -> Iterator[Any]:
        """Send the items in order, `window` of them unanswered at most; yields the results in order. Raises as `call` does.

        While no answer comes all that is unanswered is sent again, in its order. Payloads are not copied before that: one may be
        overwritten as soon as its own result was yielded.
        """
        link, sent = self.link(peer), deque[tuple[wire.Request, bytes | None]]()
        timeout_s, version = wire.METHODS[method].timeout_s, self.ring.version()
        for number, (args, payload) in enumerate(items):
            if len(sent) >= window:
                yield self._pipelined(link, peer, sent)
            numbered = fence._replace(request_id=f"{fence.request_id}:{number}")
            request = link.request(method, args, numbered, time.monotonic() + timeout_s, version)
            link.send(request, payload, time.monotonic() + timeout_s)
            sent.append((request, payload))
        while sent:
            yield self._pipelined(link, peer, sent)

    def _pipelined(self, link: Link, peer: Peer, sent: deque[tuple[wire.Request, bytes | None]]) -> Any:
        """The answer to the oldest of `sent`, which is taken out."""
        request, deadline = sent[0][0], time.monotonic() + sent[0][0].timeout_s
        patience_s = ASK_AGAIN_S
        while True:
            try:
                reply, _ = link.receive(request, min(deadline, time.monotonic() + patience_s))
                break
            except AgentTimeout:
                if time.monotonic() >= deadline:
                    raise
                patience_s *= 2
                for other, payload in sent:
                    link.send(other, payload and bytes(payload), deadline)
        sent.popleft()
        link.forget(request)
        return result_of(peer, request.method, reply)

    def fan_out(
        self, peers: Sequence[Peer], method: str, args: Any = None, *, timeout_s: float, hurry: Mapping[str, float] | None = None,
        fence: Callable[[Peer], Fence] | None = None,
    ) -> dict[str, Answer | NovaError]:
        """Ask all at once; peer id -> answer, or the error it gave. Takes `timeout_s` at most; twice that for a mutation, which
        needs `fence` and greets all first.

        `hurry` maps the ids of those who are hardly expected to answer to the seconds they alone may take.
        """
        from novactl.agents.fanout import Terms, fan_out

        terms = Terms(timeout_s, hurry or {}, fence)
        answers = fan_out(self, peers, method, args, terms)
        lost = [peer for peer in peers if isinstance(answers[peer.id], Unreachable)]
        newer = self.ring.newer(lost) if lost else ()
        return answers | fan_out(self, newer, method, args, terms) if newer else answers

    def close(self) -> None:
        with self._lock:
            context, self._context = self._context, None
        if context is not None:
            context.destroy(linger=0)

    def context(self) -> zmq.Context:
        with self._lock:
            if self._context is None:
                _allow_many_files()
                self._context = zmq.Context(io_threads=2)
                self._context.set(zmq.MAX_SOCKETS, 16384)
            return self._context

    def link(self, peer: Peer) -> Link:
        """This thread's connection to `peer`."""
        peer = self._newer.get((peer.id, peer.public_key), peer)
        links: dict[tuple[str, ...], Link] | None = getattr(self._local, "links", None)
        if links is None or getattr(self._local, "of", None) != (self._context, self._generation):
            for link in (links or {}).values():
                link.close()
            links = self._local.links = {}
            self._local.of = self.context(), self._generation
        place = (peer.address, *_keys_of(peer))
        found = links.get(place)
        if found is None or found.socket.closed:
            found = links[place] = Link(self.context(), self.keys(), peer, self)
        found.peer = peer                                     # by now it may be known by an id
        return found

    def next_id(self) -> str:
        return f"{self._prefix}{next(self._numbers)}"

    def diagnose(self, peer: Peer) -> NovaError:
        return why_silent(self.context(), self.keys(), peer, within_s=min(1.0, self.connect_s))


def _keys_of(peer: Peer) -> tuple[str, ...]:
    """Its own, and while it is changed the next one."""
    return tuple(dict.fromkeys(filter(None, (peer.public_key, getattr(peer, "next_public_key", "")))))


class Link:
    """One connection of one thread to one agent. While the agent's key is changed, each of the two is tried; one is taken."""

    def __init__(self, context: zmq.Context, keys: KeyPair, peer: Peer, agents: Agents) -> None:
        self.peer, self._agents = peer, agents
        self._rivals = [dealer(context, keys, server_key) for server_key in _keys_of(peer) or (peer.public_key,)]
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
        wait_s = min(self._agents.connect_s, max(0.0, deadline - time.monotonic()))
        if not self.choose(wait_s):
            self.close()
            raise self._agents.diagnose(self.peer)
        self.socket.send_multipart(wire.encode(request, payload), flags=zmq.NOBLOCK, copy=payload is None)
        self._asked.add(request.id)

    def answer(self, request: wire.Request, payload: bytes | None, deadline: float) -> tuple[wire.Reply, bytes | None]:
        """The final reply. While none comes the same request is sent again, ever more rarely: a connection that broke took
        the answer with it, and the agent answers a repeated id from its ledger, or goes on with what it is doing."""
        self.send(request, payload, deadline)
        patience_s = ASK_AGAIN_S
        while True:
            try:
                reply, body = self.receive(request, min(deadline, time.monotonic() + patience_s))
            except AgentTimeout:
                if deadline - time.monotonic() < 0.001:       # what poll rounds to nothing
                    raise
                patience_s *= 2
                self.send(request, payload, deadline)
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


def _allow_many_files() -> None:
    """A connection takes three descriptors; the soft limit (1,024) is for programs that use select(2), which we do not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


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


def _of_another_boot(reply: wire.Reply) -> bool:
    return reply.kind == wire.ERROR and reply.body.get("code") == wire.Code.STALE


def result_of(peer: Peer, method: str, reply: wire.Reply) -> Any:
    try:
        if reply.kind == wire.ERROR:
            failure = wire.from_plain(wire.Failure, reply.body)
            raise AgentRefused(peer.name, method, wire.to_plain(failure))
        return wire.from_plain(wire.METHODS[method].result, reply.body)
    except wire.BadMessage as bad:
        raise Unreachable(f"node {peer.name} answered {method} with what is not our protocol: {bad}") from None
