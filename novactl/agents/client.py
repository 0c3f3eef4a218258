"""Calls to agents: one, many at once, a stream, a pipeline of chunks. Each thread has its own connections (link.py)."""

from __future__ import annotations

import itertools
import os
import resource
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import zmq

from nodeagent import wire
from novactl.agents.diagnose import why_silent
from novactl.agents.keys import KeyPair
from novactl.agents.link import Answer, Fence, Link, Peer, Stream, keys_of, result_of
from novactl.agents.ring import NoRing, Ring
from novactl.errors import AgentTimeout, Denied, NovaError, Unreachable

DIAGNOSE_S = 1.0
"""What finding out why an agent is silent takes at most."""


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
        if len(keys_of(peer)) > 1 and isinstance(refused, Unreachable) and not isinstance(refused, AgentTimeout):
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
        overwritten as soon as its own result was yielded. Its requests are its own: what still comes for a pipeline that broke off is
        no answer to the next one of the same step.
        """
        link, sent = self.link(peer), deque[tuple[wire.Request, bytes | None]]()
        timeout_s, version, this = wire.METHODS[method].timeout_s, self.ring.version(), next(self._numbers)
        try:
            for number, (args, payload) in enumerate(items):
                if len(sent) >= window:
                    yield self._pipelined(link, peer, sent)
                numbered = fence._replace(request_id=f"{fence.request_id}:{this}:{number}")
                request = link.request(method, args, numbered, time.monotonic() + timeout_s, version)
                sent.append((request, payload))
                link.send(request, payload, time.monotonic() + timeout_s)
            while sent:
                yield self._pipelined(link, peer, sent)
        finally:
            for request, _ in sent:
                link.forget(request)

    def _pipelined(self, link: Link, peer: Peer, sent: deque[tuple[wire.Request, bytes | None]]) -> Any:
        """The answer to the oldest of `sent`, which is taken out."""
        request, deadline = sent[0][0], time.monotonic() + sent[0][0].timeout_s

        def again() -> None:
            for other, payload in sent:
                link.send(other, payload and bytes(payload), deadline)

        reply, _ = link.final(request, deadline, again)
        sent.popleft()
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
        place = (peer.address, *keys_of(peer))
        found = links.get(place)
        if found is None or found.socket.closed:
            found = links[place] = Link(self.context(), self.keys(), peer, self)
        found.peer = peer                                     # by now it may be known by an id
        return found

    def next_id(self) -> str:
        return f"{self._prefix}{next(self._numbers)}"

    def diagnose(self, peer: Peer) -> NovaError:
        return why_silent(self.context(), self.keys(), peer, within_s=min(DIAGNOSE_S, self.connect_s))


def _of_another_boot(reply: wire.Reply) -> bool:
    return reply.kind == wire.ERROR and reply.body.get("code") == wire.Code.STALE


def _allow_many_files() -> None:
    """A connection takes three descriptors; the soft limit (1,024) is for programs that use select(2), which we do not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
