"""What a node has to do, and what chance says."""

from __future__ import annotations

from zlib import crc32

from novactl.scheduler.request import NodeView, Request


class Servers:
    """How many servers it has (Nova's NumInstancesWeigher)."""

    name = "servers"
    minval: float | None = None
    maxval: float | None = None

    def __call__(self, request: Request, node: NodeView) -> float:
        return float(node.servers)


class Chance:
    """A number of [0, 1) that depends on `request.seed`, the server and the node alone."""

    name = "chance"
    minval: float | None = 0.0
    maxval: float | None = 1.0

    def __call__(self, request: Request, node: NodeView) -> float:
        return crc32(f"{request.seed}/{request.server}/{node.id}".encode()) / 2**32


servers, chance = Servers(), Chance()
