"""Why an agent does not answer: asked only once it has not, by watching one connection attempt."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import zmq

from novactl.agents.keys import KeyPair
from novactl.errors import Denied, NovaError, Unreachable

if TYPE_CHECKING:
    from novactl.agents.link import Peer


def why_silent(context: zmq.Context, keys: KeyPair, peer: Peer, *, within_s: float) -> NovaError:
    """The error to raise for `peer`: nothing listens, the wrong agent listens, or it does not know this admin's key."""
    from zmq.utils.monitor import recv_monitor_message

    from novactl.agents.link import dealer

    socket = dealer(context, keys, peer.public_key)
    monitor = socket.get_monitor_socket()
    seen = set()
    try:
        socket.connect(peer.address)
        deadline = time.monotonic() + within_s
        while monitor.poll(max(1, int((deadline - time.monotonic()) * 1000))) and time.monotonic() < deadline:
            event = recv_monitor_message(monitor)["event"]
            seen.add(event)
            if event in (zmq.EVENT_HANDSHAKE_FAILED_AUTH, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_HANDSHAKE_SUCCEEDED):
                break
    finally:
        socket.disable_monitor()
        socket.close(linger=0)
    return _named(seen, peer)


def _named(seen: set[int], peer: Peer) -> NovaError:
    where = f"node {peer.name} ({peer.address})"
    check = f"novactl node check {peer.name}"
    if zmq.EVENT_HANDSHAKE_FAILED_AUTH in seen:
        return Denied(
            f"{where} does not admit this admin's key", hint="it was revoked (novactl key list), or the node has not been told of it yet:"
            " an admin's next command there tells it", command="novactl key list", details={"handshake": "admin"})
    if zmq.EVENT_HANDSHAKE_SUCCEEDED in seen:
        return Unreachable(f"{where} answered too late", hint="it is busy, or the network is slow; try again", command=check)
    if zmq.EVENT_CONNECTED in seen:
        return Unreachable(
            f"something listens at {peer.address}, but it is not the agent enrolled as {peer.name}",
            hint="the agent has another key (re-installed?): enrol the node again", command=check, details={"handshake": "node"})
    return Unreachable(
        f"{where} does not answer", hint="the host is down, the agent is not running, or a firewall drops its port", command=check)
