"""Each filter alone, with its arithmetic."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from novactl.model.facts import Facts
from novactl.model.node import NodeState
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU, Inventory
from novactl.scheduler import filters
from novactl.scheduler.request import NodeView, Reject, Request

GOOD = Facts(zone="z1", architecture="x86_64")
REQUEST = Request(server="web1", amounts={VCPU: 4, MEMORY_MB: 8192, DISK_GB: 20}, architecture="x86_64", now=1000.0, fresh_s=60.0)
NODE = NodeView(
    id="a", name="n1", state=NodeState.ENABLED, facts=GOOD, used={}, reported_at=990.0,
    inventories={
        VCPU: Inventory(VCPU, 8, 0, 4000, max_unit=8),
        MEMORY_MB: Inventory(MEMORY_MB, 16_384, 512, max_unit=16_384),
        DISK_GB: Inventory(DISK_GB, 100),
    },
)


def node(**changes: Any) -> NodeView:
    return replace(NODE, **changes)


def request(**changes: Any) -> Request:
    return replace(REQUEST, **changes)


@pytest.mark.parametrize("check", [filters.requested, *filters.FILTERS.values()], ids=lambda f: f.name)
def test_a_good_node_passes_every_filter(check: filters.Filter) -> None:
    """A node that is enabled, alive, fresh, roomy, of the architecture and of the zone is rejected by no filter."""
    assert check(request(zone="z1"), NODE) is None


TABLE = [
    ("requested", request(node="b"), NODE, "another node was asked for"),
    ("requested", request(node="a"), NODE, None),
    ("requested", request(exclude={"a": "was tried and failed: start: no"}), NODE, "was tried and failed: start: no"),
    ("requested", request(exclude={"b": "no"}), NODE, None),
    ("enabled", REQUEST, node(state=NodeState.DISABLED), "state: disabled"),
    ("enabled", REQUEST, node(state=NodeState.DISABLED, reason="new fans"), 'state: disabled ("new fans")'),
    ("enabled", REQUEST, node(state=NodeState.DISABLED, reason="new fans", state_since=REQUEST.now - 300, state_by="ann@ops"),
     'state: disabled for 5 min by ann@ops ("new fans")'),
    ("enabled", REQUEST, node(state=NodeState.ENROLLING), "state: enrolling"),
    ("enabled", REQUEST, node(state=NodeState.REMOVING), "state: removing"),
    ("enabled", REQUEST, node(lease_until=REQUEST.now), "lease: fences itself and has no lease, novactl conductor run"),
    ("enabled", REQUEST, node(lease_until=REQUEST.now + 1), None),
    ("alive", REQUEST, node(silent_since=880.0), "agent: has not answered for 2 min"),          # 1000 - 880 = 120 s
    ("alive", REQUEST, node(silent_since=1001.0), "agent: has not answered for 0 s"),           # our clock was set back
    ("fresh", REQUEST, node(reported_at=None), "report: has never sent one"),
    ("fresh", REQUEST, node(reported_at=940.0), None),                                          # 60 <= 60
    ("fresh", REQUEST, node(reported_at=939.0), "report: 61 s old, at most 60 s"),              # 61 > 60
    ("fresh", REQUEST, node(reported_at=1500.0), None),                                         # taken in after `now`
    ("architecture", request(architecture="aarch64"), NODE, "architecture: needs aarch64, is x86_64"),
    ("architecture", REQUEST, node(facts=Facts(architecture="")), "architecture: needs x86_64, is unknown"),
    ("zone", request(zone="z2"), NODE, "zone: needs z2, is in z1"),
    ("zone", request(zone="z2"), node(facts=Facts(architecture="x86_64")), "zone: needs z2, is in none"),
    ("zone", REQUEST, node(facts=Facts(architecture="x86_64")), None),
    # free = (16384 - 512) * 1 - 9830 = 6042 MiB = 5.9 GiB; short 8192 - 6042 = 2150 MiB = 2.1 GiB
    ("resources", REQUEST, node(used={MEMORY_MB: 9830}),
     "memory: needs 8.0 GiB, free 5.9 GiB of 15.5 GiB (ratio 1.0, reserved 512 MiB): short by 2.1 GiB"),
    ("resources", REQUEST, node(used={MEMORY_MB: 7680}), None),                                 # 7680 + 8192 = 15872 exactly
    ("resources", REQUEST, node(used={VCPU: 28}), None),                                        # 28 + 4 = 8 * 4
    ("resources", REQUEST, node(used={VCPU: 29}), "vcpu: needs 4, free 3 of 32 (ratio 4.0, reserved 0): short by 1"),
    # no server overcommits against itself: 9 <= 32 free, but 9 > 8 CPUs
    ("resources", request(amounts={VCPU: 9}), NODE, "vcpu: needs 9, the node gives one server at most 8"),
    ("resources", request(amounts={DISK_GB: 0}), node(inventories={}), None),
    ("resources", request(amounts={"CUSTOM_GPU": 1}), NODE, "CUSTOM_GPU: needs 1, the node has none"),
    ("resources", request(amounts={DISK_GB: 3}), node(inventories={DISK_GB: Inventory(DISK_GB, 9, min_unit=4)}),
     "disk: needs 3 GiB, the node gives at least 4 GiB"),
    ("resources", request(amounts={DISK_GB: 3}), node(inventories={DISK_GB: Inventory(DISK_GB, 9, step_size=2)}),
     "disk: needs 3 GiB, the node gives multiples of 2 GiB"),
    # claimed more than there is (a disk was taken out): free = 100 - 130
    ("resources", request(amounts={DISK_GB: 1}), node(used={DISK_GB: 130}),
     "disk: needs 1 GiB, free -30 GiB of 100 GiB (ratio 1.0, reserved 0 GiB): short by 31 GiB"),
]


@pytest.mark.parametrize(("name", "asked", "seen", "text"), TABLE)
def test_filter(name: str, asked: Request, seen: NodeView, text: str | None) -> None:
    """A filter passes a node, or rejects it under its own name with this sentence."""
    reject = {"requested": filters.requested, **filters.FILTERS}[name](asked, seen)
    assert (reject and (reject.code, reject.text)) == (text and (name, text))


def test_resources_names_every_class_that_is_short() -> None:
    """What does not fit in two ways is told in both, with the numbers."""
    assert filters.FILTERS["resources"](request(amounts={VCPU: 2, MEMORY_MB: 20_000, DISK_GB: 200}), NODE) == Reject(
        "resources",
        "memory: needs 19.5 GiB, free 15.5 GiB of 15.5 GiB (ratio 1.0, reserved 512 MiB): short by 4.0 GiB; "
        "disk: needs 200 GiB, free 100 GiB of 100 GiB (ratio 1.0, reserved 0 GiB): short by 100 GiB",
        needs={MEMORY_MB: 20_000, DISK_GB: 200}, has={MEMORY_MB: 15_872, DISK_GB: 100},
    )
