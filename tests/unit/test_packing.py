"""The weigher `imbalance`, with its arithmetic, and what the pack profile makes of it."""

import pytest

from novactl.model.facts import Facts
from novactl.model.node import NodeState
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU, Inventory
from novactl.scheduler import lanes
from novactl.scheduler.fleet import Fleet
from novactl.scheduler.pipeline import place
from novactl.scheduler.profiles import PROFILES
from novactl.scheduler.request import NodeView, Request
from novactl.scheduler.weighers.packing import imbalance


def node(name: str, vcpus: int, memory_mb: int, used: tuple[int, int] = (0, 0)) -> NodeView:
    return NodeView(
        id=name, name=name, state=NodeState.ENABLED, facts=Facts(architecture="x86_64"), reported_at=0.0,
        inventories={VCPU: Inventory(VCPU, vcpus, ratio_milli=2000), MEMORY_MB: Inventory(MEMORY_MB, memory_mb),
                     DISK_GB: Inventory(DISK_GB, 1000)},
        used={VCPU: used[0], MEMORY_MB: used[1]})


SERVER = Request(server="s", architecture="x86_64", amounts={VCPU: 4, MEMORY_MB: 4096, DISK_GB: 10})


@pytest.mark.parametrize(("view", "apart"), [
    (node("a", 16, 32_768), 0.0),                             # |4/32 - 4096/32768| = |1/8 - 1/8|
    (node("b", 16, 16_384), 0.125),                           # |1/8 - 1/4|
    (node("c", 8, 65_536), 0.1875),                           # |4/16 - 1/16|
    (node("d", 16, 32_768, (12, 4096)), 0.25),                # |16/32 - 8192/32768|
    (node("e", 16, 0), 0.875),                                # no memory: none left of it, |1/8 - 1|
    (node("f", 0, 0), 0.0),
    (node("g", 16, 32_768, (40, 0)), 1.25),                   # beyond its capacity; the scale ends at 1
])
def test_imbalance_is_the_distance_of_two_shares(view: NodeView, apart: float) -> None:
    """After placement, of what the ratios allow; the column says the same."""
    assert imbalance(SERVER, view) == apart
    assert list(imbalance.columns(SERVER, Fleet.of([view], lanes))) == [apart]


def test_pack_fills_a_begun_node_before_an_empty_one() -> None:
    """Of equally balanced nodes the fuller is taken."""
    nodes = [node("a", 16, 32_768), node("b", 16, 32_768, (8, 8192)), node("c", 16, 32_768, (4, 4096))]
    assert [c.node for c in place(SERVER, nodes, PROFILES["pack"]).candidates] == ["b", "c", "a"]


def test_pack_leaves_no_processors_without_memory() -> None:
    """A server with much memory goes where processors are what is used up."""
    thirsty = Request(server="s", architecture="x86_64", amounts={VCPU: 2, MEMORY_MB: 16_384, DISK_GB: 10})
    nodes = [node("a", 16, 32_768, (4, 16_384)), node("b", 16, 32_768, (16, 4096))]
    chosen = place(thirsty, nodes, PROFILES["pack"]).chosen
    assert chosen is not None and chosen.node == "b"          # b: |18/32 - 20480/32768|; a: |6/32 - 1|
