"""A node without a socket: frames in, frames out, on whichever driver."""

import dataclasses
import hashlib
import itertools
import queue
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nodeagent import wire
from nodeagent.admins import FixedAdmins
from nodeagent.agent import Agent
from nodeagent.clock import BootClock
from nodeagent.config import Config
from nodeagent.dispatch import Dispatcher
from nodeagent.drivers import driver_for
from nodeagent.images import base_name
from nodeagent.ledger import Ledger

KEYS = {role: chr(ord("a") + n) * 40 for n, role in enumerate(wire.ROLES)}
REPLY_S = 60.0
"""What is waited for comes, only late on a machine that has other things to do."""
ISO = bytes(32769) + b"CD001" + bytes(2048)


def until(done: Callable[[], bool], timeout_s: float = REPLY_S) -> None:
    """Wait for `done()`; AssertionError when it does not come."""
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, "it did not come to pass"
        threading.Event().wait(0.005)


def is_gone(pid: str) -> bool:
    """Or waits for somebody to fetch its exit status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


class Node:
    """One agent. `restart` gives another process' view of the same files; `architecture` is what its guests are."""

    def __init__(self, directory: Path, *, driver: str = "fake", fake: dict[str, Any] | None = None, architecture: str = "x86_64"):
        for name in ("state", "pool"):
            (directory / name).mkdir(exist_ok=True)
        self.architecture, self.pool = architecture, directory / "pool"
        self.config = Config(
            node_id=str(uuid.uuid4()), cluster_id=str(uuid.uuid4()), name="h1", driver=driver, libvirt_uri="test:///default",
            state_dir=str(directory / "state"), pool_dir=str(directory / "pool"), pool_name=f"t-{directory.name}"[:60],
            fake=fake or {})
        self.clock = BootClock()
        self.network = "default" if driver == "fake" else "t-net"
        self.operation, self._numbers = str(uuid.uuid4()), itertools.count(1)
        self._up()

    def _up(self) -> None:
        self.replies: queue.Queue[tuple[bytes, wire.Reply, bytes | None]] = queue.Queue()
        admins = FixedAdmins({key: (role, role) for role, key in KEYS.items()})
        ledger = Ledger(str(Path(self.config.state_dir) / "ledger.db"))
        self.agent = Agent(self.config, driver_for(self.config), self.clock, ledger, admins)
        self.dispatcher = Dispatcher(self.agent, self._take)
        self.agent.start()

    def _take(self, peer: bytes, frames: list[bytes]) -> None:
        self.replies.put((peer, *wire.decode(wire.Reply, frames)))

    def down(self) -> None:
        self.dispatcher.close()
        self.agent.close()

    def restart(self, **changes: Any) -> None:
        """`changes` are the configuration's."""
        self.down()
        self.config = dataclasses.replace(self.config, **changes)
        self._up()

    def reboot(self, **changes: Any) -> None:
        """The host loses power and comes back in another boot."""
        self.agent.driver.lose_power()
        self.clock = BootClock()
        self.clock.boot_id = str(uuid.uuid4())
        self.restart(**changes)

    def request(self, method: str, args: Any = None, **envelope: Any) -> wire.Request:
        """The envelope a correct caller sends, but for what `envelope` says."""
        number = next(self._numbers)
        plain = {"id": f"{self.operation}:{number}:1:do", "method": method, "args": wire.to_plain(args) if args else {}}
        if method in wire.METHODS and wire.METHODS[method].mutates:
            clock = self.agent.clock
            plain.update(operation=self.operation, epoch=1, boot_id=clock.boot_id, valid_until_s=clock.boottime_s() + 60)
        return wire.Request(**{**plain, **envelope})

    def send(self, request: wire.Request, payload: bytes | None = None, *, role: str = wire.ADMIN, peer: bytes = b"peer") -> None:
        self.send_frames(wire.encode(request, payload), role=role, peer=peer)

    def send_frames(self, frames: list[bytes], *, role: str = wire.ADMIN, peer: bytes = b"peer") -> None:
        reply = self.dispatcher.receive(peer, KEYS.get(role, role), frames)
        if reply is not None:
            self._take(peer, reply)

    def next(self, timeout_s: float = REPLY_S) -> tuple[wire.Reply, bytes | None]:
        return self.replies.get(timeout=timeout_s)[1:]

    def ask(self, request: wire.Request, payload: bytes | None = None, *, role: str = wire.ADMIN) -> tuple[wire.Reply, bytes | None]:
        """The request's result or error; other replies that come meanwhile stay in order behind it."""
        self.send(request, payload, role=role)
        others = []
        while True:
            peer, reply, answered = self.replies.get(timeout=REPLY_S)
            if reply.id == request.id and reply.kind != wire.PROGRESS:
                for other in others:
                    self.replies.put(other)
                return reply, answered
            others.append((peer, reply, answered))

    def ok(self, method: str, args: Any = None, payload: bytes | None = None, **envelope: Any) -> Any:
        """The result, as the method's dataclass."""
        reply, _ = self.ask(self.request(method, args, **envelope), payload)
        assert reply.kind == wire.RESULT, f"{method}: {reply.body}"
        return wire.from_plain(wire.METHODS[method].result, reply.body)

    def refusal(
        self, method: str, args: Any = None, payload: bytes | None = None, *, role: str = wire.ADMIN, **envelope: Any
    ) -> wire.Failure:
        reply, _ = self.ask(self.request(method, args, **envelope), payload, role=role)
        assert reply.kind == wire.ERROR, f"{method}: {reply.body}"
        return wire.from_plain(wire.Failure, reply.body)

    # ---- servers

    def prepare(self, **limits: int) -> None:
        self.ok("node.prepare", wire.Prepare(network=self.network, limits=limits))

    def put_image(self, content: bytes = bytes(1 << 20)) -> str:
        """The whole image over the wire -> its SHA-256. The test driver keeps volumes in memory and sees no file: there it is told."""
        sha256 = hashlib.sha256(content).hexdigest()
        self.ok("image.begin", wire.ImageOffer(sha256, len(content), len(content), "raw"))
        self.ok("image.chunk", wire.ImageChunk(sha256, 0), content)
        if self.config.driver == "libvirt":
            name = base_name(sha256, "raw")
            with self.agent.driver.link.acting("tell the test driver of an image") as conn:
                pool = conn.storagePoolLookupByName(self.config.pool_name)
                if name not in pool.listVolumes():
                    xml = f"<volume><name>{name}</name><capacity>{len(content)}</capacity><target><format type='raw'/></target></volume>"
                    pool.createXML(xml, 0)
        self.ok("image.finish", wire.ImageRef(sha256))
        return sha256

    def spec(self, sha256: str, **changes: Any) -> wire.DomainSpec:
        plain = {
            "server": str(uuid.uuid4()), "epoch": 1, "name": "web1", "vcpus": 1, "memory_mb": 64, "disk_gb": 1, "image_sha256": sha256,
            "mac": "52:54:00:00:00:01", "network": self.network, "architecture": self.architecture}
        return wire.DomainSpec(**{**plain, **changes})

    def define(self, sha256: str, **changes: Any) -> wire.DomainSpec:
        """Disk, seed and domain of a new server."""
        spec = self.spec(sha256, **changes)
        self.ok("disk.create", wire.DiskSpec(spec.server, spec.epoch, sha256, spec.disk_gb))
        self.ok("seed.write", wire.DomainRef(spec.server, spec.epoch), ISO)
        self.ok("domain.define", spec)
        return spec
