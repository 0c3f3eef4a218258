"""Nova's weighers on Nova's own example: the golden vector of its normalised, summed weights; and each weigher's edges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from novactl.model.facts import AggregateFacts, Facts
from novactl.model.node import NodeState
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU, Inventory
from novactl.model.topology import Fitting, Hardware, PciDevice
from novactl.model.wants import Wants
from novactl.scheduler import lanes
from novactl.scheduler.fleet import Fleet
from novactl.scheduler.pipeline import place
from novactl.scheduler.profiles import Profile
from novactl.scheduler.request import NodeView, Request, Rules
from novactl.scheduler.weighers import WEIGHERS
from novactl.scheduler.weighers.base import normalise
from tests.unit.scheduler_world import NODE, REQUEST, kind, node, ruled

ASKED = Request(server="s", amounts={}, architecture="x86_64")


def host(id: str, ram: tuple[int, int], cpus: tuple[int, int], disk: int, version: int, **more: Any) -> NodeView:
    """(MiB in all, claimed), (CPUs at ratio 4, claimed), GiB in all."""
    return NodeView(
        id=id, name=id, state=NodeState.ENABLED, facts=Facts(architecture="x86_64", hypervisor_version=version),
        inventories={
            VCPU: Inventory(VCPU, cpus[0], 0, 4000), MEMORY_MB: Inventory(MEMORY_MB, ram[0], 512), DISK_GB: Inventory(DISK_GB, disk)},
        used={VCPU: cpus[1], MEMORY_MB: ram[1]}, **more)


A = host("a", (2048, 1024), (8, 30), 1000, 6_000_000)                      # ram 2048 - 512 - 1024 = 512, cpu 8x4 - 30 = 2
B = host("b", (4608, 0), (8, 2), 1000, 6_000_000, building=4)              # ram 4608 - 512 = 4096, cpu 8x4 - 2 = 30
C = host("c", (1024, 612), (4, 0), 3000, 7_000_000)                        # ram 1024 - 512 - 612 = -100, cpu 4x4 = 16


def weight(name: str, *hosts: NodeView, multiplier: float = 1.0, request: Request = ASKED) -> list[float]:
    weigher = WEIGHERS[name]
    return [multiplier * v for v in normalise([weigher(request, h) for h in hosts], weigher.minval, weigher.maxval)]


@pytest.mark.parametrize(("name", "multiplier", "expected"), [
    ("ram", 1.0, [0.125, 1.0, 0.0]),                           # -100 counts as 0: x / 4096
    ("cpu", 1.0, [2 / 30, 1.0, 16 / 30]),                      # from 0: x / 30
    ("disk", 1.0, [1 / 3, 1 / 3, 1.0]),                        # from 0: x / 3000
    ("io_ops", -1.0, [0.0, -1.0, 0.0]),                        # from 0: x / 4, less is better
    ("version", 1.0, [0.0, 0.0, 1.0]),                         # any newer host has all of it
    ("servers", -1.0, [0.0, 0.0, 0.0]),                        # all equal
    ("failures", -1e6, [0.0, 0.0, 0.0]),
    ("pci", 1.0, [1.0, 1.0, 1.0]),                             # no devices anywhere: 100 / 100
])
def test_golden_vector(name: str, multiplier: float, expected: list[float]) -> None:
    """Hosts a, b, c weigh what Nova's weighers give them."""
    assert weight(name, A, B, C, multiplier=multiplier) == pytest.approx(expected)


def test_golden_sums() -> None:
    """Nova's default puts c first, the host with less than no memory: equal votes are a weak objective, so ours is another."""
    votes = Profile("nova", (), (*((WEIGHERS[name], 1.0) for name in ("ram", "cpu", "disk", "version")), (WEIGHERS["io_ops"], -1.0)))
    decision = place(ASKED, [A, B, C], votes)
    # c .0 + .5333 + 1 + 1 - 0, b 1 + 1 + .3333 + 0 - 1, a .125 + .0667 + .3333 + 0 - 0
    assert [(c.node, round(c.score, 4)) for c in decision.candidates] == [("c", 2.5333), ("b", 1.3333), ("a", 0.525)]


@pytest.mark.parametrize(("name", "seen", "raw"), [
    ("ram", NODE, 11_776.0),                                   # 16384 - 512 - 4096; the ratio of 1.5 is left out
    ("ram", node(inventories={}), -4096.0),
    ("cpu", NODE, 26.0),                                       # 8 x 4 - 6
    ("cpu", node(inventories={}, used={}), 0.0),
    ("disk", NODE, 65.0),                                      # 100 - 5 in the cache - 30
    ("disk", node(metrics={"disk_used_gb": 20.0}), 65.0),      # 80 empty, but 30 are promised
    ("disk", node(metrics={"disk_used_gb": 60.5}), 39.5),      # 100 - 60.5: somebody else's files
    ("servers", NODE, 3.0),
    ("io_ops", NODE, 2.0),
    ("failures", node(failed_builds=4), 4.0),
    ("version", NODE, 7_002_005.0),
    ("load", NODE, 0.0),                                       # nothing reported: not known to be idle
    ("load", node(metrics={"load_1m": 2.0}), 0.75),            # 1 - 2/8
    ("load", node(metrics={"load_1m": 12.0}), -0.5),           # the scale ends at 0
    ("load", node(metrics={"load_1m": 2.0}, inventories={}), 0.0),
    ("no_zone", NODE, 0.0),
    ("no_zone", kind(zone=""), 1.0),
])
def test_raw_weight(name: str, seen: NodeView, raw: float) -> None:
    """A weigher's value before it is brought to scale; its column says the same."""
    weigher = WEIGHERS[name]
    assert weigher(REQUEST, seen) == raw
    if hasattr(weigher, "columns"):
        assert list(weigher.columns(REQUEST, Fleet.of([seen], lanes))) == [raw]


def test_one_failure_is_a_tenth() -> None:
    """A node that failed once loses a tenth, not everything; from ten on it is as bad as can be."""
    hosts = [node(id=str(count), failed_builds=count) for count in (0, 1, 10, 99)]
    assert weight("failures", *hosts, multiplier=-1.0) == pytest.approx([0.0, -0.1, -1.0, -1.0])


DEVICES = tuple(PciDevice(f"0000:00:0{number}.0", "10de", "1db4") for number in range(3))


@pytest.mark.parametrize(("hardware", "fittings", "raw"), [
    (None, None, 100.0),
    (Hardware(), (), 100.0),
    (Hardware(pci=DEVICES), None, 97.0),                       # 100 - 3
    (Hardware(pci=DEVICES), (Fitting(pci=("0000:00:00.0",)), Fitting()), 98.0),                # 100 - (3 - 1)
    (Hardware(pci=DEVICES * 40), (), 1.0),                     # 120 devices count as 99
])
def test_pci(hardware: Hardware | None, fittings: tuple[Fitting, ...] | None, raw: float) -> None:
    """Nodes without free devices are taken first, so that devices stay for those who ask for them."""
    assert WEIGHERS["pci"](REQUEST, node(hardware=hardware, fittings=fittings)) == raw


@pytest.mark.parametrize(("rules", "seen", "raw"), [
    ({"load_1m": -1.0}, {"load_1m": 2.0}, -2.0),
    ({"load_1m": -1.0, "memory_used_mb": 0.5}, {"load_1m": 2.0, "memory_used_mb": 8.0, "disk_used_gb": 9.0}, 2.0),            # -2 + 4
    ({"load_1m": -1.0, "memory_used_mb": 0.5}, {"load_1m": 2.0}, -10_000.0),                   # one is missing
    ({"load_1m": 1.0}, {"load_1m": 0.0}, 0.0),
])
def test_metrics(rules: dict[str, float], seen: dict[str, float], raw: float) -> None:
    """The sum of what is measured, each times its weight; a node that lacks one weighs -10000."""
    assert WEIGHERS["metrics"](ruled(metrics=rules), node(metrics=seen)) == raw


def test_metrics_ask_for_settings() -> None:
    """Where the settings name no metric, none is weighed."""
    assert not WEIGHERS["metrics"].applies(REQUEST) and WEIGHERS["metrics"].applies(ruled(metrics={"load_1m": 1.0}))  # type: ignore[attr-defined]


IMAGES = {"s1": {"os_distro": "debian", "os_type": "linux"}, "s2": {"os_distro": "debian"}, "s3": {"os_distro": "windows"}}


@pytest.mark.parametrize(("rules", "images", "raw"), [
    ({}, IMAGES, 3.0),                                         # 2 x debian + 1 x linux, 1 each
    ({"os_distro": 2.0}, IMAGES, 4.0),                         # 2 x 2, os_type is not weighed
    ({"os_distro": 2.0, "os_type": -1.0}, IMAGES, 3.0),        # 2 x 2 - 1
    ({"hw_machine_type": 5.0}, IMAGES, 0.0),
    ({}, {}, 0.0),
    ({}, None, 0.0),                                           # not read
])
def test_image_properties(rules: dict[str, float], images: Any, raw: float) -> None:
    """Servers of the same property values count, each by what the settings say."""
    asked = Request(
        server="s", amounts={}, architecture="x86_64", rules=Rules(image_properties=rules),
        wants=Wants(properties={"os_distro": "debian", "os_type": "linux"}))
    assert WEIGHERS["image_properties"](asked, node(images=images)) == raw


@pytest.mark.parametrize("name", WEIGHERS)
def test_multiplier_keys_are_novas(name: str) -> None:
    """The aggregates' key of each weigher that has one ends as Nova's do, and replaces the profile's multiplier on its nodes."""
    key = getattr(WEIGHERS[name], "multiplier_key", "")
    assert not key or key.endswith("_weight_multiplier")


def test_an_aggregate_multiplies_on_its_nodes_only() -> None:
    """cpu_weight_multiplier of b's aggregates: the least of 3 and 2 replaces 1."""
    aggregates = tuple(AggregateFacts(f"g{least}", {"cpu_weight_multiplier": str(least)}) for least in (3, 2))
    b = replace(B, facts=Facts(architecture="x86_64", aggregates=aggregates))
    decision = place(ASKED, [A, b, C], Profile("p", (), ((WEIGHERS["cpu"], 1.0),)))
    assert {c.node: c.score for c in decision.candidates} == pytest.approx({"b": 2.0, "c": 16 / 30, "a": 2 / 30})
