"""One question to many agents at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import zmq

from nodeagent import wire
from novactl.agents.client import Answer, Link, Peer, result_of
from novactl.errors import AgentTimeout, NovaError, Unreachable

if TYPE_CHECKING:
    from novactl.agents.client import Agents


def fan_out(agents: Agents, peers: Sequence[Peer], method: str, args: Any, timeout_s: float) -> dict[str, Answer | NovaError]:
    """Peer id -> answer or error. Sends to whoever is connected, then to the others as they come up, until the deadline."""
    deadline = time.monotonic() + timeout_s
    found: dict[str, Answer | NovaError] = {}
    waiting: dict[zmq.Socket, tuple[Link, wire.Request]] = {}
    unsent: set[zmq.Socket] = set()
    poller = zmq.Poller()
    for peer in peers:
        link = agents.link(peer)
        request = link.request(method, args, None, deadline)
        waiting[link.socket] = link, request
        if _sent(link, request):
            poller.register(link.socket, zmq.POLLIN)
        else:
            unsent.add(link.socket)
            poller.register(link.socket, zmq.POLLIN | zmq.POLLOUT)
    while waiting and (left_ms := int((deadline - time.monotonic()) * 1000)) > 0:
        for socket, events in poller.poll(left_ms):
            link, request = waiting[socket]
            if socket in unsent and events & zmq.POLLOUT and _sent(link, request):
                unsent.discard(socket)
                poller.modify(socket, zmq.POLLIN)
            if events & zmq.POLLIN and (answer := _answer(link, request, method)) is not None:
                found[link.peer.id] = answer
                poller.unregister(socket)
                del waiting[socket]
    for socket, (link, _) in waiting.items():
        name = link.peer.name
        found[link.peer.id] = AgentTimeout(name, method, timeout_s) if socket not in unsent else Unreachable(
            f"node {name} ({link.peer.address}) does not answer", command=f"novactl node check {name}")
        link.close()
    return found


def _sent(link: Link, request: wire.Request) -> bool:
    try:
        link.socket.send_multipart(wire.encode(request), flags=zmq.NOBLOCK)
    except zmq.Again:
        return False
    return True


def _answer(link: Link, request: wire.Request, method: str) -> Answer | NovaError | None:
    """The answer if it is there; None when what came belongs to an earlier question."""
    try:
        reply, payload = wire.decode(wire.Reply, link.socket.recv_multipart(zmq.NOBLOCK))
        return Answer(result_of(link.peer, method, reply), payload) if reply.id == request.id else None
    except zmq.Again:
        return None
    except wire.BadMessage as bad:
        return Unreachable(f"node {link.peer.name} sent what is not our protocol: {bad}")
    except NovaError as refused:
        return refused
