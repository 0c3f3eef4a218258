"""Each weigher alone, and the scale they are brought to, with the arithmetic."""

from __future__ import annotations

import pytest

from novactl.model.facts import Facts
from novactl.model.node import NodeState
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU, Inventory
from novactl.scheduler.request import NodeView, Request
from novactl.scheduler.weighers.base import normalise
from novactl.scheduler.weighers.load import chance, servers
from novactl.scheduler.weighers.room import balance

REQUEST = Request(server="web1", amounts={VCPU: 4, MEMORY_MB: 2000, DISK_GB: 10}, architecture="x86_64")


def node(vcpu: tuple[int, int, int], memory: tuple[int, int], disk: tuple[int, int], count: int = 0, id: str = "a") -> NodeView:
    """(total, ratio in thousandths, used) and (total, used)."""
    return NodeView(
        id=id, name=id, state=NodeState.ENABLED, facts=Facts(architecture="x86_64"), servers=count,
        inventories={
            VCPU: Inventory(VCPU, vcpu[0], 0, vcpu[1]), MEMORY_MB: Inventory(MEMORY_MB, memory[0]),
            DISK_GB: Inventory(DISK_GB, disk[0]),
        },
        used={VCPU: vcpu[2], MEMORY_MB: memory[1], DISK_GB: disk[1]},
    )


@pytest.mark.parametrize(("seen", "left"), [
    (node((8, 4000, 0), (16_000, 0), (100, 0)), 0.875),          # cpu 4/32 = .125, memory 2000/16000 = .125, disk 10/100 = .1
    (node((8, 4000, 12), (16_000, 0), (100, 0)), 0.5),           # cpu 16/32
    (node((8, 1000, 0), (16_000, 6000), (100, 0)), 0.5),         # cpu 4/8, memory 8000/16000
    (node((8, 4000, 0), (16_000, 10_000), (100, 0)), 0.25),      # memory 12000/16000
    (node((8, 4000, 0), (16_000, 0), (100, 80)), 0.1),           # disk 90/100
    (node((8, 4000, 28), (16_000, 0), (100, 0)), 0.0),           # cpu 32/32: full
    (node((0, 1000, 0), (16_000, 0), (100, 0)), 0.0),            # nothing to give: as good as full
])
def test_balance(seen: NodeView, left: float) -> None:
    """Balance is what stays free, after placement and on the ratios, of the resource that gets scarcest."""
    assert balance(REQUEST, seen) == pytest.approx(left)


def test_servers_counts() -> None:
    """`servers` is the number of servers the node has."""
    assert servers(REQUEST, node((8, 1000, 0), (1, 0), (1, 0), count=7)) == 7.0


def test_chance_is_an_argument() -> None:
    """The same seed, server and node give the same number; another seed another."""
    seen = node((8, 1000, 0), (1, 0), (1, 0))
    numbers = {chance(Request(server="s", amounts={}, architecture="", seed=seed), seen) for seed in range(100)}
    assert len(numbers) == 100 and all(0 <= number < 1 for number in numbers)
    assert chance(REQUEST, seen) == chance(REQUEST, seen)


@pytest.mark.parametrize(("raw", "ends", "expected"), [
    ([], (None, None), []),
    ([7.0], (None, None), [0.0]),                                # one candidate is not weighed
    ([7.0], (0.0, 10.0), [0.0]),
    ([5.0, 5.0], (None, None), [0.0, 0.0]),                      # all equal
    ([2.0, 4.0, 3.0], (None, None), [0.0, 1.0, 0.5]),            # (x - 2) / 2
    ([512.0, 4096.0, -100.0], (0.0, None), [0.125, 1.0, 0.0]),   # Nova's RAM vector: clamped to 0, so x / 4096
    ([2.0, 30.0, 16.0], (0.0, None), [2 / 30, 1.0, 16 / 30]),    # Nova's CPU vector
    ([0.2, 0.6], (0.0, 1.0), [0.2, 0.6]),                        # a fixed scale keeps the values
    ([-1.0, 3.0], (0.0, 1.0), [0.0, 1.0]),
])
def test_normalise(raw: list[float], ends: tuple[float | None, float | None], expected: list[float]) -> None:
    """Raw values come to [0, 1] as in nova/weights.py, golden vectors of its tests included."""
    assert normalise(raw, *ends) == pytest.approx(expected)
