"""Listening to many agents at once: an `inventory.watch` stream of each, on one thread.

A connection that breaks is made again by libzmq, ever more slowly; a socket that can be written to again is a new connection,
and the stream is asked for anew. An agent that is connected and late is asked for a report, so that one that reports more
rarely than we think, or takes no more streams, is heard all the same. One that answers while its stream says nothing has lost
the stream, with a connection that broke and was made again before anybody looked: it is connected anew.
"""

from __future__ import annotations

import select
import time
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import zmq

from nodeagent import wire
from novactl.agents.link import Peer, dealer

if TYPE_CHECKING:
    from novactl.agents.client import Agents

LATE, SILENT = 1.5, 2.5
"""Intervals without a word after which an agent is asked, and after which it counts as silent."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
ANEW_S, ANEW_MAX_S = 60.0, 3600.0
"""Between two new connections to an agent whose stream says nothing: longer each time, for it may report as rarely as that."""
RECONNECT_MS, RECONNECT_MAX_MS, CONNECT_MS = 100, 10_000, 5_000
LOOK_S = 1.0
AT_ONCE = 64
"""Messages taken from one agent before the others have their turn."""


class Heard(NamedTuple):
    """A report, and how long ago it came."""

    peer: str
    report: wire.Report
    age_s: float


class _Line:
    """What is known of one agent. `watch` and `question` are the ids of requests that are open, "" for none. The stream last spoke,
    or was asked for, at `watch_s`; a question was last answered with a report at `answered_s`."""

    __slots__ = (
        "peer", "socket", "fd", "is_up", "watch", "question",
        "spoke_s", "asked_s", "watch_s", "answered_s", "pause_s", "again_s", "anew_s")

    def __init__(self, peer: Peer, socket: zmq.Socket, now_s: float, anew_s: float) -> None:
        self.peer, self.socket, self.fd = peer, socket, socket.getsockopt(zmq.FD)
        self.is_up, self.watch, self.question = False, "", ""
        self.spoke_s = self.asked_s = self.watch_s = self.answered_s = now_s
        self.anew_s = anew_s
        self.pause_s, self.again_s = 0.0, 0.0


class Watching:
    """Belongs to one thread. `interval_s`: how often agents report. `faults` has what came and was not our protocol, by peer."""

    def __init__(self, agents: Agents, interval_s: float) -> None:
        self._agents, self._interval_s = agents, max(interval_s, LOOK_S)
        self._epoll = select.epoll()
        self._lines: dict[str, _Line] = {}
        self._by_fd: dict[int, _Line] = {}
        self._ready: set[int] = set()
        self._read_s = self._look_s = time.monotonic()
        self._own = ""
        self.faults: dict[str, str] = {}

    def follow(self, peers: Iterable[Peer]) -> None:
        """Listen to these and to nobody else. One whose address or key changed is connected anew; all are, when our own did."""
        self._agents.rekey()
        own, self._own = self._own, self._agents.keys().public
        if own != self._own:                                  # this admin's key was changed: the old one is let in nowhere any more
            for line in list(self._lines.values()):
                self._drop(line)
        wanted = {peer.id: peer for peer in peers if peer.address}
        for id_, line in list(self._lines.items()):
            peer = wanted.get(id_)
            if peer is None or (peer.address, peer.public_key) != (line.peer.address, line.peer.public_key):
                self._drop(line)
        for id_, peer in wanted.items():
            if id_ not in self._lines:
                self._open(peer)

    def read(self, window_s: float) -> list[Heard]:
        """All that comes within the window, which it waits for: what comes together can then be written together."""
        now_s = time.monotonic()
        self._overslept(now_s)
        deadline, heard = now_s + window_s, list[Heard]()
        while True:
            ready, self._ready = self._ready, set()
            for fd in ready:
                if fd in self._by_fd:
                    self._serve(self._by_fd[fd], now_s, heard)
            if now_s >= self._look_s:
                self._look_s = now_s + LOOK_S
                for line in list(self._lines.values()):
                    self._look(line, now_s)
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                break
            self._ready.update(fd for fd, _ in self._epoll.poll(left_s))
            now_s = time.monotonic()
        self._read_s = now_s = time.monotonic()
        return [one._replace(age_s=now_s - one.age_s) for one in heard]

    def silent(self) -> dict[str, float]:
        """Peer id -> seconds since a word was due, of those that are silent."""
        now_s = time.monotonic()
        return {
            id_: now_s - line.spoke_s - self._interval_s for id_, line in self._lines.items()
            if now_s - line.spoke_s > SILENT * self._interval_s}

    @property
    def connected(self) -> int:
        return sum(line.is_up for line in self._lines.values())

    def close(self) -> None:
        for line in list(self._lines.values()):
            self._drop(line)
        self._epoll.close()

    # ---- connections

    def _open(self, peer: Peer, anew_s: float = 0.0) -> None:
        jitter = zlib.crc32(peer.id.encode()) % 1000
        socket = dealer(self._agents.context(), self._agents.keys(), peer.public_key)
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS + jitter // 4)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS + jitter)
        socket.setsockopt(zmq.CONNECT_TIMEOUT, CONNECT_MS)
        socket.connect(peer.address)
        line = self._lines[peer.id] = _Line(peer, socket, time.monotonic(), anew_s)
        self._by_fd[line.fd] = line
        self._epoll.register(line.fd, select.EPOLLIN)
        self._ready.add(line.fd)                              # the descriptor tells of changes; how it stands must be asked

    def _drop(self, line: _Line) -> None:
        self._epoll.unregister(line.fd)
        del self._by_fd[line.fd], self._lines[line.peer.id]
        self.faults.pop(line.peer.id, None)
        line.socket.close(linger=0)

    def _overslept(self, now_s: float) -> None:
        """While we did not listen nobody was silent: this process was stopped, or waited for the database."""
        missed_s = now_s - self._read_s
        if missed_s > self._interval_s / 2:
            for line in self._lines.values():
                line.spoke_s = min(now_s, line.spoke_s + missed_s)

    # ---- messages

    def _serve(self, line: _Line, now_s: float, heard: list[Heard]) -> None:
        """Until there is nothing more to take or to say: only then will its descriptor signal again."""
        for _ in range(AT_ONCE):
            events = line.socket.getsockopt(zmq.EVENTS)
            if events & zmq.POLLIN:
                self._take(line, line.socket.recv_multipart(zmq.NOBLOCK), now_s, heard)
                continue
            if not events & zmq.POLLOUT:
                line.is_up, line.watch, line.question = False, "", ""
                return
            line.is_up = True
            if line.watch or now_s < line.again_s:
                return
            line.watch, line.watch_s = self._send(line, "inventory.watch", {}), now_s
        self._ready.add(line.fd)

    def _take(self, line: _Line, frames: list[bytes], now_s: float, heard: list[Heard]) -> None:
        try:
            reply, _ = wire.decode(wire.Reply, frames)
            if reply.id not in (line.watch, line.question):
                return
            line.spoke_s = now_s
            if reply.id == line.question:
                line.question = ""
                line.answered_s = now_s if reply.kind == wire.RESULT else line.answered_s
            else:
                line.watch_s = now_s
            if reply.id == line.watch and reply.kind != wire.PROGRESS:
                self._ended(line, reply, now_s)
            if reply.kind == wire.PROGRESS or (reply.kind == wire.RESULT and reply.body):
                heard.append(Heard(line.peer.id, wire.from_plain(wire.Report, reply.body), now_s))
        except wire.BadMessage as bad:
            self.faults[line.peer.id] = str(bad)

    def _ended(self, line: _Line, reply: wire.Reply, now_s: float) -> None:
        """A stream's time is over, and it is asked for again; or it is not given, and is asked for ever more rarely."""
        over = reply.kind == wire.RESULT or reply.body.get("code") == wire.Code.STALE
        if not over:
            self.faults[line.peer.id] = str(reply.body.get("message", ""))[:200]
        line.watch = ""
        line.pause_s = FIRST_PAUSE_S if over else min(LONGEST_PAUSE_S, 2 * line.pause_s or FIRST_PAUSE_S)
        line.again_s = now_s + line.pause_s * (0.5 + zlib.crc32(line.peer.id.encode()) % 100 / 100)

    def _look(self, line: _Line, now_s: float) -> None:
        """What no message tells: a pause is over, or a word is due."""
        if not line.is_up:
            return
        if not line.watch and now_s >= line.again_s:
            self._ready.add(line.fd)
        late_s = LATE * self._interval_s
        if line.watch and line.answered_s - line.watch_s > max(late_s, line.anew_s):
            self._drop(line)
            self._open(line.peer, min(ANEW_MAX_S, 2 * line.anew_s or ANEW_S))
            return
        if now_s - max(line.spoke_s, line.asked_s) > late_s:
            line.asked_s = now_s
            line.question = self._send(line, "inventory.read", wire.to_plain(wire.InventoryRead(self._interval_s)))
            self._ready.add(line.fd)

    def _send(self, line: _Line, method: str, args: dict[str, object]) -> str:
        """The request's id, or "" where the connection broke at this moment."""
        request = wire.Request(self._agents.next_id(), method, args, wire.METHODS[method].timeout_s, self._agents.actor)
        try:
            line.socket.send_multipart(wire.encode(request), zmq.NOBLOCK)
        except zmq.Again:
            return ""
        return request.id
