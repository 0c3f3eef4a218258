"""A server's serial console: its log, and the line itself."""

from __future__ import annotations

from collections.abc import Iterator

from novactl.agents import wire
from novactl.cluster import Cluster
from novactl.db import nodes
from novactl.errors import AgentTimeout, Conflict, NotFound, NovaError
from novactl.model.node import Node
from novactl.model.server import Server

FOLLOW_EVERY_S = 0.25
OPEN_S = 10.0
TAIL_BYTES = 256 << 10
"""How far back `lines` looks."""


def _node(cluster: Cluster, server: Server) -> Node:
    with cluster.db.read() as tx:
        node = nodes.by_id(tx, server.node_id)
    if node is None:
        raise NotFound("node", server.node_id)
    return node


def log(cluster: Cluster, server: Server, *, lines: int | None, follow: bool) -> Iterator[bytes]:
    """The log from its beginning, or its last `lines`; with `follow` what comes after, for ever: b"" where nothing has come yet."""
    node = _node(cluster, server)
    offset = 0
    if lines is not None:
        ask = wire.ConsoleLogRead(server.id, offset=-TAIL_BYTES)
        answer = cluster.agents.call(node, "console.log", ask)
        tail = b"".join((answer.payload or b"").splitlines(keepends=True)[-lines:]) if lines else b""
        offset = answer.body.offset + len(answer.payload or b"")
        if tail:
            yield tail
        if not follow and offset >= answer.body.size_bytes:
            return
    while True:
        answer = cluster.agents.call(node, "console.log", wire.ConsoleLogRead(server.id, offset=offset))
        if answer.payload:
            yield answer.payload
            offset = answer.body.offset + len(answer.payload)
        elif answer.body.size_bytes < offset:                 # the log was rotated under us
            offset = 0
        elif not follow:
            return
        else:
            yield b""
            cluster.clock.sleep(FOLLOW_EVERY_S)


class Console:
    """The line to a guest's serial console. Use it in a `with` block.

    `read` and `write` may be called from different threads. `reason` says why it was closed, once it was.
    """

    def __init__(self, cluster: Cluster, server: Server) -> None:
        self._cluster, self._server = cluster, server
        self._node = _node(cluster, server)
        self._unpaid = 0
        self._early = b""
        self.reason = ""

    def __enter__(self) -> Console:
        state = self._cluster.agents.call(self._node, "domain.state", wire.DomainRef(self._server.id)).body
        if state.power_state != "RUNNING":
            raise Conflict(
                f"server {self._server.name} does not run ({state.power_state}): it has no console",
                command=f"novactl server start {self._server.name}")
        self._stream = self._cluster.agents.stream(self._node, "console.open", wire.DomainRef(self._server.id))
        try:
            opened = self._next(OPEN_S)
            if opened is None and not self.reason:
                raise AgentTimeout(self._node.name, "console.open", OPEN_S)
            self._early = opened or b""                       # nothing, but for what an older agent's guest writes just then
        except BaseException:
            self._stream.close()
            raise
        return self

    def read(self, timeout_s: float) -> bytes | None:
        """What the guest wrote, b"" when nothing came in `timeout_s`, None when the line is closed."""
        data, self._early = self._early or self._next(timeout_s), b""
        if data is None:
            return None if self.reason else b""
        self._unpaid += len(data)
        if self._unpaid >= wire.CONSOLE_WINDOW_BYTES // 2:
            self._tell("console.credit", credit_bytes=self._unpaid)
            self._unpaid = 0
        return data

    def _next(self, timeout_s: float) -> bytes | None:
        """The next piece, which may be empty; None where none came, or, with a reason, the line is closed."""
        try:
            came = None if self.reason else self._stream.read(timeout_s)
        except EOFError:
            self.reason = self._stream.result.reason
            return None
        return None if came is None else came[1] or b""

    def write(self, data: bytes) -> None:
        """To the guest, as if typed."""
        for start in range(0, len(data), wire.CHUNK_BYTES):
            self._tell("console.input", payload=data[start:start + wire.CHUNK_BYTES])

    def _tell(self, method: str, *, credit_bytes: int = 0, payload: bytes | None = None) -> None:
        self._cluster.agents.call(self._node, method, wire.ConsoleRef(self._stream.id, credit_bytes), payload)

    def __exit__(self, *_: object) -> None:
        try:
            if not self.reason:
                self._tell("console.close")
        except NovaError:
            self.reason = "the agent no longer answers"
        finally:
            self._stream.close()
