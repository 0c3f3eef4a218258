"""A PUB socket for admins only: CURVE, and a ZAP handler of its own that knows whose keys are enrolled.

Were that handler to stop, nobody would be let in: the socket has a ZAP domain and enforces it. A subscriber who does not keep
up loses what does not fit its queue, and sees so by the numbers of the messages.
"""

from __future__ import annotations

import threading
import time

import zmq
from zmq.utils import z85

from nodeagent import wire, zap
from novactl.agents.keys import KeyPair
from novactl.errors import UsageError

QUEUE = 1000
"""Messages that wait for one subscriber."""
SUBSCRIPTION_BYTES = 1024
REBIND_S = 2.0
"""libzmq lets go of a closed socket's address a moment later."""
_OPTIONS = (
    (zmq.LINGER, 0),
    (zmq.SNDHWM, QUEUE),
    (zmq.MAXMSGSIZE, SUBSCRIPTION_BYTES),
    (zmq.HANDSHAKE_IVL, 2000),
    (zmq.BACKLOG, 64),
    (zmq.TCP_KEEPALIVE, 1),
    (zmq.HEARTBEAT_IVL, 5000),
    (zmq.HEARTBEAT_TTL, 15000),
    (zmq.HEARTBEAT_TIMEOUT, 15000),
)


class Publisher:
    """Binds at once; `endpoint` is where. `admitted` are public keys in Z85. `send` and `admit` belong to one thread."""

    def __init__(self, keys: KeyPair, endpoint: str, admitted: frozenset[str]) -> None:
        self._keys, self._wanted, self._admitted = keys, endpoint, admitted
        self._context = zmq.Context()
        self._zap = self._context.socket(zmq.REP)
        self._zap.setsockopt(zmq.LINGER, 0)
        self._zap.bind(zap.ENDPOINT)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._answer, name="zap", daemon=True)
        self._thread.start()
        try:
            self._socket = self._bound()
        except BaseException:
            self._end()
            raise

    def send(self, topic: str, body: bytes) -> None:
        """To everybody who subscribed to a beginning of `topic`. Never waits."""
        self._socket.send_multipart([topic.encode(), body], zmq.NOBLOCK)

    def admit(self, keys: frozenset[str]) -> None:
        """From now on these. libzmq does not cut off one who is in: when a key is gone, all must come in again."""
        gone, self._admitted = self._admitted - keys, keys
        if gone or self._socket.closed:                       # closed: it could not be bound again the last time
            self._socket.close(linger=0)
            self._socket = self._bound(REBIND_S)

    def close(self) -> None:
        self._socket.close(linger=0)
        self._end()

    def _end(self) -> None:
        self._closing.set()
        self._thread.join()
        self._zap.close(linger=0)
        self._context.term()

    def _bound(self, patience_s: float = 0.0) -> zmq.Socket:
        socket = self._context.socket(zmq.PUB)
        for option, value in _OPTIONS:
            socket.setsockopt(option, value)
        socket.setsockopt(zmq.IPV6, int("[" in self._wanted))
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret.encode())
        socket.setsockopt(zmq.ZAP_DOMAIN, wire.ZAP_DOMAIN.encode())
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        deadline = time.monotonic() + patience_s
        while True:
            try:
                socket.bind(self._wanted)
                break
            except zmq.ZMQError as failed:
                if failed.errno == zmq.EADDRINUSE and time.monotonic() < deadline:
                    time.sleep(0.02)
                    continue
                socket.close(linger=0)
                raise UsageError(
                    f"cannot publish at {self._wanted}: {failed.strerror}", hint="an address of this machine: tcp://0.0.0.0:7767",
                    command="novactl conductor run --publish tcp://127.0.0.1:7767") from None
        self.endpoint: str = socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()
        self._wanted = self.endpoint
        return socket

    def _answer(self) -> None:
        while not self._closing.is_set():
            if self._zap.poll(200):
                request = self._zap.recv_multipart()
                self._zap.send_multipart(zap.answer(request, lambda key: key in self._admitted, z85.encode))
