"""Why an agent does not answer: asked only while it does not, by watching one connection attempt."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import zmq

from novactl.agents.keys import KeyPair
from novactl.errors import Denied, NovaError, Unreachable

if TYPE_CHECKING:
    from novactl.agents.link import Peer


def why_silent(context: zmq.Context, keys: KeyPair, peer: Peer, *, within_s: float) -> NovaError:
    """The error to raise for `peer`: nothing listens, it hangs, the wrong agent listens, or it does not know this admin's key."""
    probe, deadline = Probe(context, keys, peer), time.monotonic() + within_s
    try:
        while (left_s := deadline - time.monotonic()) > 0 and not probe.known(left_s):
            pass
        return _named(probe.seen, peer)
    finally:
        probe.close()


class Probe:
    """One connection attempt to `peer`, and what is `seen` of it."""

    def __init__(self, context: zmq.Context, keys: KeyPair, peer: Peer) -> None:
        from novactl.agents.link import dealer

        self.peer, self.seen = peer, set[int]()
        self._socket = dealer(context, keys, peer.public_key)
        self._monitor = self._socket.get_monitor_socket()
        self._socket.connect(peer.address)

    def known(self, wait_s: float) -> bool:
        """Whether the next thing that happens within `wait_s` tells how the handshake ended."""
        from zmq.utils.monitor import recv_monitor_message

        if not self._monitor.poll(int(wait_s * 1000)):
            return False
        event = recv_monitor_message(self._monitor)["event"]
        self.seen.add(event)
        return event in (zmq.EVENT_HANDSHAKE_FAILED_AUTH, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_HANDSHAKE_SUCCEEDED)

    def denied(self) -> Denied | None:
        """The error, where the agent is known by now to refuse this admin's key. Waits for nothing."""
        while not self.known(0) and self._monitor.poll(0):
            pass
        return denied(self.peer) if zmq.EVENT_HANDSHAKE_FAILED_AUTH in self.seen else None

    def close(self) -> None:
        self._socket.disable_monitor()
        self._socket.close(linger=0)


def denied(peer: Peer) -> Denied:
    return Denied(
        f"node {peer.name} ({peer.address}) does not admit this admin's key", hint="it was revoked (novactl key list), or the node has not"
        " been told of it yet: an admin's next command there tells it", command="novactl key list", details={"handshake": "admin"})


_TURNED_AWAY = frozenset({zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL, zmq.EVENT_DISCONNECTED})
"""What an agent with another key does, or another program."""


def _named(seen: set[int], peer: Peer) -> NovaError:
    where = f"node {peer.name} ({peer.address})"
    check = f"novactl node check {peer.name}"
    if zmq.EVENT_HANDSHAKE_FAILED_AUTH in seen:
        return denied(peer)
    if zmq.EVENT_HANDSHAKE_SUCCEEDED in seen:
        return Unreachable(f"{where} answered too late", hint="it is busy, or the network is slow; try again", command=check)
    if zmq.EVENT_CONNECTED in seen and seen.isdisjoint(_TURNED_AWAY):         # the kernel accepts for a process that is stopped
        return Unreachable(
            f"{where} accepts connections and says nothing: its agent hangs, or its host does", hint="there: systemctl restart nodeagent;"
            " guests go on running", command=check)
    if zmq.EVENT_CONNECTED in seen:
        return Unreachable(
            f"something listens at {peer.address}, but it is not the agent enrolled as {peer.name}",
            hint="the agent has another key (re-installed?): enrol the node again", command=check, details={"handshake": "node"})
    return Unreachable(
        f"{where} does not answer", hint="the host is down, the agent is not running, or a firewall drops its port", command=check)
