"""The one thread that serves all endpoints: epoll, ZAP, and the test that a stranger's key is refused."""

import os
import select
import threading
import time
from collections import deque
from typing import Callable, Deque, Dict, List, Optional, Tuple

import zmq
from zmq.utils import z85

from nodeagent import zap
from nodeagent.agent import Agent
from nodeagent.endpoint import Endpoint
from nodeagent.nodekeys import NodeKeys, Pair

OLDEST_LIBZMQ = (4, 3, 3)
"""Older ones can be starved before authentication (CVE-2020-15166)."""

TICK_S = 1.0
RETRY_S = 0.005
SELF_TEST_S = 5.0
JOB_S = 10.0

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
