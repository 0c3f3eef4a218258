"""The sockets: ROUTER with CURVE, ZAP, and the one thread that serves them. The one file that imports zmq.

Whatever a peer sends, the loop lives on: libzmq closes those who break its protocol or its limits, and what is a
message but none of ours is answered with an error.
"""

import os
import select
import threading
import time
from collections import deque
from typing import Callable, Deque, Dict, List, Optional, Tuple

import zmq
from zmq.utils import z85

from nodeagent import listener, wire, zap
from nodeagent.agent import Agent
from nodeagent.dispatch import Dispatcher
from nodeagent.journal import Seldom
from nodeagent.nodekeys import NodeKeys, Pair

OLDEST_LIBZMQ = (4, 3, 3)
"""Older ones can be starved before authentication (CVE-2020-15166)."""

FRAMES_AT_MOST = 8
LARGE_BYTES = 64 << 10
"""A frame from this size on is not copied: who handles it gets a view."""
BATCH = 64
HELD_EACH, HELD_BYTES, HELD_S = 256, 16 << 20, 30.0
TICK_S = 1.0
RETRY_S = 0.005
SELF_TEST_S = 5.0
RETIRE_S = 30.0
"""So long connections that were made with the node's former key go on."""
WITHDRAW_S = 2.0
JOB_S = 10.0

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


zmq_error = zmq.ZMQError


class Unsafe(RuntimeError):
    """The agent would not be safe to run; the text says why."""


def new_keypair() -> Tuple[str, str]:
    """A CURVE pair: (public, secret) in Z85."""
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def public_of(secret: str) -> str:
    """The public half of a CURVE secret, both in Z85."""
    return zmq.curve_public(secret.encode()).decode()


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

    def __init__(self, loop: "Loop", agent: Agent, listen: str, pair: Pair) -> None:
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


class OwnKeys:
    """What handlers may do about the node's own key, from any thread."""

    def __init__(self, loop: "Loop", endpoint: Endpoint, keys: NodeKeys) -> None:
        self.keys, self._loop, self._endpoint = keys, loop, endpoint

    def serve(self, pair: Pair) -> None:
        self._loop.do(lambda: self._endpoint.open_door(pair))

    def retire_others(self, public: str) -> None:
        self._loop.do(lambda: self._endpoint.retire_others(public))

    def withdraw(self) -> None:
        self._loop.do(self._endpoint.withdraw)


class Loop:
    """Serves endpoints until `stop`. `on_tick` is called about once a second, from the loop itself."""

    def __init__(self, sockets: int = 1023) -> None:
        if zmq.zmq_version_info() < OLDEST_LIBZMQ or not zmq.has("curve"):
            raise Unsafe(f"libzmq {zmq.zmq_version()} is too old or without CURVE: 4.3.3 or newer is needed")
        self.context = zmq.Context()
        self.context.set(zmq.MAX_SOCKETS, sockets)
        self.on_tick: Callable[[], None] = lambda: None
        self._zap = self.context.socket(zmq.REP)
        self._zap.setsockopt(zmq.LINGER, 0)
        self._zap.bind(zap.ENDPOINT)
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._posted: Deque[Tuple[Endpoint, bytes, List[bytes]]] = deque()
        self._woken = self._closed = False
        self._wake_lock = threading.RLock()
        self._epoll = select.epoll()
        self._by_fd: Dict[int, Endpoint] = {}
        self._jobs: Deque[Callable[[], None]] = deque()
        self._hot: Dict[Endpoint, None] = {}
        self._held: Dict[Endpoint, None] = {}
        self._next_tick_s = 0.0
        self._stopping = threading.Event()
        for fd in (self._zap.getsockopt(zmq.FD), self._wake_read):
            self._epoll.register(fd, select.EPOLLIN)

    def add(self, agent: Agent, listen: str, secret: str, public: str, keys: Optional[NodeKeys] = None) -> Endpoint:
        """Open one agent's port. Raises OSError where the address cannot be had. With `keys` its own key can be changed."""
        endpoint = Endpoint(self, agent, listen, Pair(public, secret))
        agent.own_keys = OwnKeys(self, endpoint, keys) if keys else None
        self.watch(endpoint.doors[0].fd, endpoint)
        return endpoint

    def watch(self, fd: int, endpoint: Endpoint) -> None:
        self._by_fd[fd] = endpoint
        self._epoll.register(fd, select.EPOLLIN)
        self._hot[endpoint] = None

    def unwatch(self, fd: int) -> None:
        del self._by_fd[fd]
        self._epoll.unregister(fd)

    @property
    def endpoints(self) -> List[Endpoint]:
        return list(dict.fromkeys(self._by_fd.values()))

    def do(self, job: Callable[[], None]) -> None:
        """Have the loop's thread do it, and raise what it raised. Not from that thread. Raises TimeoutError when the loop hangs."""
        done, failed = threading.Event(), []

        def attempt() -> None:
            try:
                job()
            except Exception as fault:  # noqa: BLE001 - raised again where it was asked for
                failed.append(fault)
            done.set()

        self._jobs.append(attempt)
        self._wake()
        if not done.wait(JOB_S):
            raise TimeoutError("the agent's loop is busy")
        if failed:
            raise failed[0]

    def post(self, endpoint: Endpoint, peer: bytes, frames: List[bytes]) -> None:
        """Send from any thread: the loop's own does it. After `close` nothing is sent any more."""
        self._posted.append((endpoint, peer, frames))
        if not self._woken:
            self._woken = True
            self._wake()

    def stop(self) -> None:
        """From any thread or a signal handler."""
        self._stopping.set()
        self._wake()

    def run(self) -> None:
        while not self._stopping.is_set():
            self.step(TICK_S)

    def close(self) -> None:
        for endpoint in self.endpoints:
            endpoint.dispatcher.close()
            endpoint.agent.close()
            endpoint.close()
        self._zap.close(0)
        self._epoll.close()
        with self._wake_lock:
            self._closed = True
            os.close(self._wake_read)
            os.close(self._wake_write)
        self._posted.clear()
        self.context.term()

    def step(self, timeout_s: float) -> None:
        """Wait for something to do, at most `timeout_s`, and do it."""
        wait_s = 0.0 if self._hot else min(timeout_s, RETRY_S if self._held else max(0.0, self._next_tick_s - time.monotonic()))
        for fd, _ in self._epoll.poll(wait_s):
            endpoint = self._by_fd.get(fd)
            if endpoint is not None:
                self._hot[endpoint] = None
            elif fd == self._wake_read:
                self._take_posted()
        while self._jobs:
            self._jobs.popleft()()
        self._answer_zap()
        self._serve(list(self._hot))
        self._retry()
        now = time.monotonic()
        if now >= self._next_tick_s:
            self._next_tick_s = now + TICK_S
            for endpoint in self.endpoints:
                endpoint.close_due(now)
                endpoint.dispatcher.tick()
                self._hot[endpoint] = None
            self.on_tick()

    def _serve(self, endpoints: List[Endpoint]) -> None:
        """A libzmq descriptor signals changes only: an endpoint is done with when a receive found nothing."""
        for endpoint in endpoints:
            if not endpoint.drain():
                self._hot.pop(endpoint, None)
            if endpoint.holds:
                self._held[endpoint] = None

    def _retry(self) -> None:
        for endpoint in list(self._held):
            if not endpoint.retry():
                del self._held[endpoint]
            if endpoint.drain():
                self._hot[endpoint] = None

    def _take_posted(self) -> None:
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            pass
        self._woken = False
        while self._posted:
            endpoint, peer, frames = self._posted.popleft()
            endpoint.send(peer, frames)
            self._hot[endpoint] = None

    def _answer_zap(self) -> None:
        while True:
            try:
                request = self._zap.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._zap.send_multipart(zap.answer(request, self._admitted, z85.encode))

    def _admitted(self, key: str) -> bool:
        return any(endpoint.agent.admins.role(key) for endpoint in self.endpoints)

    def _wake(self) -> None:
        """Under a lock that `close` takes: its descriptor's number may be another file's by then."""
        with self._wake_lock:
            if self._closed:
                return
            try:
                os.write(self._wake_write, b"\0")
            except BlockingIOError:
                pass

    def self_test(self, endpoint: Endpoint) -> None:
        """Connect with a key that nobody enrolled: Unsafe unless it is refused. A test that says nothing is a failure."""
        public, secret = zmq.curve_keypair()
        stranger = self.context.socket(zmq.DEALER)
        monitor = stranger.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        try:
            stranger.setsockopt(zmq.LINGER, 0)
            stranger.setsockopt(zmq.IPV6, int("[" in endpoint.address))
            stranger.setsockopt(zmq.CURVE_SERVERKEY, endpoint.public.encode())
            stranger.setsockopt(zmq.CURVE_PUBLICKEY, public)
            stranger.setsockopt(zmq.CURVE_SECRETKEY, secret)
            stranger.connect(endpoint.address.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]"))
            deadline = time.monotonic() + SELF_TEST_S
            while not monitor.poll(0):
                if time.monotonic() > deadline:
                    raise Unsafe("a key that is not enrolled was neither refused nor admitted")
                self.step(0.01)
            event = int.from_bytes(monitor.recv_multipart()[0][:2], "little")
            if event != zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                raise Unsafe("a key that is not enrolled was admitted")
        finally:
            stranger.disable_monitor()
            stranger.close(0)
