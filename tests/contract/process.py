"""The agent as a process of its own, and a bare client of its socket."""

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zmq

from nodeagent import wire
from nodeagent.__main__ import ensure_keys
from tests.contract.kit import until

START_S = 60.0


class AgentProcess:
    """`python -m nodeagent` with the fake driver on a port of its own. `admins` may be changed while it runs."""

    def __init__(
        self, directory: Path, *, env: dict[str, str] | None = None,
        command: Sequence[str] = (sys.executable, "-m", "nodeagent"), **changes: Any,
    ) -> None:
        self.directory, self.context = directory, zmq.Context()
        self.public = ensure_keys(str(directory / "keys"))
        self.admin = tuple(key.decode() for key in zmq.curve_keypair())
        self.admit({self.admin[0]: wire.ADMIN})
        (directory / "pool").mkdir(exist_ok=True)
        config = {
            "node_id": str(uuid.uuid4()), "cluster_id": str(uuid.uuid4()), "name": "h1", "listen": "tcp://127.0.0.1:*",
            "keys_dir": str(directory / "keys"), "admins_file": str(directory / "admins.json"), "state_dir": str(directory / "state"),
            "pool_dir": str(directory / "pool"), "driver": "fake", **changes}
        (directory / "config.json").write_text(json.dumps(config))
        self._stderr = (directory / "stderr").open("w+")
        self.process = subprocess.Popen(
            [*command, "--config", str(directory / "config.json")],
            cwd=Path(__file__).parents[2], env={**os.environ, **(env or {})}, stderr=self._stderr)
        until(lambda: "\n" in self.log() or self.process.poll() is not None, START_S)
        self.first_line = self.log().split("\n")[0]
        self.address = self.first_line.split()[-1] if "listening on" in self.first_line else ""

    def log(self) -> str:
        return (self.directory / "stderr").read_text()

    def admit(self, keys: dict[str, str]) -> None:
        part = self.directory / "admins.json.part"
        part.write_text(json.dumps({"keys": {key: {"name": role, "role": role} for key, role in keys.items()}}))
        part.rename(self.directory / "admins.json")

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1])

    def rss_mb(self) -> float:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)

    def dealer(self, pair: tuple[str, str] | None = None, server: str | None = None) -> zmq.Socket:
        """A connected client with the admin's pair, or another."""
        public, secret = pair or self.admin
        socket = self.context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SNDTIMEO, 60_000)
        socket.setsockopt(zmq.CURVE_SERVERKEY, (server or self.public).encode())
        socket.setsockopt(zmq.CURVE_PUBLICKEY, public.encode())
        socket.setsockopt(zmq.CURVE_SECRETKEY, secret.encode())
        socket.connect(self.address)
        return socket

    def stop(self) -> int:
        """SIGTERM -> the exit status."""
        self.process.terminate()
        status = self.process.wait(START_S)
        self._stderr.close()
        self.context.destroy(linger=0)
        return status


def ask(socket: zmq.Socket, method: str, args: Any = None, *, wait_s: float = 30.0, **envelope: Any) -> wire.Reply | None:
    """One call; None where nothing answers in `wait_s`."""
    request = wire.Request(**{"id": uuid.uuid4().hex, "method": method, "args": wire.to_plain(args) if args else {}, **envelope})
    deadline = time.monotonic() + wait_s
    if not socket.poll(int(wait_s * 1000), zmq.POLLOUT):        # a connection that was refused before it could take anything
        return None
    try:
        socket.send_multipart(wire.encode(request), flags=zmq.NOBLOCK)
    except zmq.Again:                                         # and one that was refused since
        return None
    while socket.poll(max(0, int((deadline - time.monotonic()) * 1000))):
        reply, _ = wire.decode(wire.Reply, socket.recv_multipart())
        if reply.id == request.id:
            return reply
    return None
