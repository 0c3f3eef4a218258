"""An operator's key works with servers: it neither keeps a node alive that admins fence, nor takes it from them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent import wire
from nodeagent.wire import Code
from tests.contract.kit import Node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.down()


@pytest.mark.parametrize("self_fence_s", [0.0, 60.0])
def test_an_operator_gives_no_leases(node: Node, self_fence_s: float) -> None:
    """With them it could disarm a node that fences itself, or have its servers run on while they are started elsewhere."""
    clock = node.agent.clock
    node.ok("lease.renew", wire.Renewal(clock.boot_id, clock.boottime_s() + 30, 60.0))
    until_s = node.agent.self_fence.until_s
    longer = wire.Renewal(clock.boot_id, clock.boottime_s() + 1e9, self_fence_s)
    assert node.refusal("lease.renew", longer, role=wire.OPERATOR).code == Code.DENIED
    assert (node.agent.self_fence.self_fence_s, node.agent.self_fence.until_s) == (60.0, until_s)
