"""One question to many agents at once."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import zmq

from nodeagent import wire
from novactl.agents.diagnose import Probe
from novactl.agents.link import Answer, Fence, Link, Peer, keys_of, result_of
from novactl.errors import AgentTimeout, NovaError, Unreachable

if TYPE_CHECKING:
    from novactl.agents.client import Agents


CHANGING_S = 0.5
"""So long at most it takes to find out which of its two keys an agent has while it is changed."""
PATIENCE = 0.4
"""The share of their time after which those that nothing could be sent to are looked at: do they refuse this key?"""
MOST_PROBED = 256


class Terms(NamedTuple):
    """`hurry` gives some peers (by id) less time: they are waited for alone no longer than that. `fence` is for mutations."""

    timeout_s: float
    hurry: Mapping[str, float] = {}
    fence: Callable[[Peer], Fence] | None = None


def fan_out(agents: Agents, peers: Sequence[Peer], method: str, args: Any, terms: Terms) -> dict[str, Answer | NovaError]:
    """Peer id -> answer or error. Sends to whoever is connected, then to the others as they come up, until the deadline."""
    if terms.fence is None:
        return _asked(agents, peers, method, args, terms)
    answers = _asked(agents, peers, "agent.hello", None, terms._replace(fence=None))
    there = [peer for peer in peers if isinstance(answers[peer.id], Answer)]
    return answers | _asked(agents, there, method, args, terms)


def _asked(agents: Agents, peers: Sequence[Peer], method: str, args: Any, terms: Terms) -> dict[str, Answer | NovaError]:
    timeout_s, hurry, fence = terms
    began = time.monotonic()
    deadline, hurried = began + timeout_s, began + max(hurry.values(), default=0.0)
    patient = sum(peer.id not in hurry for peer in peers)
    found: dict[str, Answer | NovaError] = {}
    waiting: dict[int, tuple[Link, wire.Request]] = {}
    unsent: set[int] = set()
    probes: list[Probe] | None = None
    look_at = began + PATIENCE * (hurried - began if hurry else timeout_s)
    with select.epoll() as epoll:
        for peer in peers:
            link = agents.link(peer)
            if getattr(peer, "next_public_key", ""):
                link.choose(min(CHANGING_S, timeout_s))
            request = link.request(method, args, fence(peer) if fence else None, deadline)
            fd = link.socket.getsockopt(zmq.FD)
            waiting[fd] = link, request
            epoll.register(fd, select.EPOLLIN)
            if not _sent(link, request):
                unsent.add(fd)
        # libzmq's descriptor signals changes, and only once: each socket is tried before the first wait and then
        # whenever it signals, until it has nothing more to take or give.
        ready = list(waiting)
        while True:
            for fd in ready:
                link, request = waiting.get(fd, (None, None))
                if link is None:
                    continue
                answer = _answer(link, request, method)
                # EVENTS takes in what was signalled; a send alone may leave it for later, and it is signalled once. It comes last:
                # receiving takes signals in, too, and of a connection that came up just then nothing would be heard again
                if answer is None and fd in unsent and link.socket.getsockopt(zmq.EVENTS) & zmq.POLLOUT and _sent(link, request):
                    unsent.discard(fd)
                    answer = _answer(link, request, method)
                if isinstance(answer, Answer) and method == "agent.hello":
                    link.greeted(answer.body)                 # now: commands expire in its clock as it stands against ours
                if answer is not None:
                    found[link.peer.id] = answer
                    patient -= link.peer.id not in hurry
                    epoll.unregister(fd)
                    del waiting[fd]
            left_s = (deadline if patient else hurried) - time.monotonic()
            if not waiting or left_s <= 0:
                break
            patience_s = look_at - time.monotonic()
            if probes is None and patience_s <= 0:
                probes = _probes(agents, [waiting[fd][0].peer for fd in waiting if fd in unsent])
            ready = [fd for fd, _ in epoll.poll(left_s if probes is not None else min(left_s, patience_s))]
    for fd, (link, _) in waiting.items():
        name = link.peer.name
        found[link.peer.id] = AgentTimeout(name, method, timeout_s) if fd not in unsent else Unreachable(
            f"node {name} ({link.peer.address}) does not answer", command=f"novactl node check {name}")
        link.close()
    for probe in probes or ():
        found[probe.peer.id] = (isinstance(found[probe.peer.id], Unreachable) and probe.denied()) or found[probe.peer.id]
        probe.close()
    return found


def _probes(agents: Agents, peers: Sequence[Peer]) -> list[Probe]:
    """Of a node whose key is being changed nothing would be learnt."""
    return [Probe(agents.context(), agents.keys(), peer) for peer in peers if len(keys_of(peer)) == 1][:MOST_PROBED]


def _sent(link: Link, request: wire.Request) -> bool:
    try:
        link.socket.send_multipart(wire.encode(request), flags=zmq.NOBLOCK)
    except zmq.Again:
        return False
    return True


def _answer(link: Link, request: wire.Request, method: str) -> Answer | NovaError | None:
    """The answer if it has come; replies to earlier questions, and that it is under way, are passed over."""
    try:
        while True:
            reply, payload = wire.decode(wire.Reply, link.socket.recv_multipart(zmq.NOBLOCK))
            if reply.id == request.id and reply.kind != wire.PROGRESS:
                return Answer(result_of(link.peer, method, reply), payload)
    except zmq.Again:
        return None
    except wire.BadMessage as bad:
        return Unreachable(f"node {link.peer.name} sent what is not our protocol: {bad}")
    except NovaError as refused:
        return refused
