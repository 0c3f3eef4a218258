"""One node and one request to vary, and a filter's word on them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from novactl.model.facts import AggregateFacts, Facts
from novactl.model.node import NodeState
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU, Inventory
from novactl.model.wants import Wants
from novactl.scheduler import filters, lanes
from novactl.scheduler.filters.base import applies
from novactl.scheduler.fleet import Fleet
from novactl.scheduler.request import NodeView, Peer, Request, Rules

FACTS = Facts(
    architecture="x86_64", zone="z1", labels={"rack": "r1", "tier": "3"}, traits=frozenset({"CUSTOM_SSD", "HW_CPU_X86_AVX2"}),
    virt_type="kvm", virt_types=("kvm", "qemu"), hypervisor_version=7_002_005, cpu_model="EPYC", machines=("pc", "pc-q35-7.2", "q35"))
NODE = NodeView(
    id="a", name="n1", state=NodeState.ENABLED, facts=FACTS, used={VCPU: 6, MEMORY_MB: 4096, DISK_GB: 30}, servers=3, building=2,
    reported_at=990.0, address="tcp://10.0.0.7:7766",
    inventories={
        VCPU: Inventory(VCPU, 8, 0, 4000, max_unit=8),
        MEMORY_MB: Inventory(MEMORY_MB, 16_384, 512, 1500),
        DISK_GB: Inventory(DISK_GB, 100, cached=5),
    },
)
REQUEST = Request(
    server="web1", amounts={VCPU: 1, MEMORY_MB: 512, DISK_GB: 1}, architecture="x86_64", now=1000.0, flavor="m1.small",
    image="debian-12", peers={"p1": Peer("p1", "db1", "a"), "p2": Peer("p2", "db2", "b"), "p3": Peer("p3", "db3", "")})


def node(**changes: Any) -> NodeView:
    return replace(NODE, **changes)


def kind(**changes: Any) -> NodeView:
    """A node of other facts."""
    return replace(NODE, facts=replace(FACTS, **changes))


def in_aggregates(*metadata: dict[str, str]) -> NodeView:
    return kind(aggregates=tuple(AggregateFacts(f"agg{number}", data) for number, data in enumerate(metadata)))


def request(**changes: Any) -> Request:
    return replace(REQUEST, **changes)


def wanting(**wants: Any) -> Request:
    return replace(REQUEST, wants=Wants(**wants))


def ruled(*, image: str = "debian-12", **rules: Any) -> Request:
    return replace(REQUEST, image=image, rules=Rules(**rules))


def verdict(name: str, asked: Request, seen: NodeView) -> str | None:
    """The filter's sentence, None where it passes; its other forms (columns, applies) are held to say the same."""
    check = filters.FILTERS[name]
    reject = check(asked, seen)
    if not applies(check, asked):
        assert reject is None, "a filter that does not apply rejects nothing"
    elif hasattr(check, "columns"):
        mask = check.columns(asked, Fleet.of([seen], lanes))
        assert (mask is None or mask[0]) == (reject is None)
    if reject is None:
        return None
    assert reject.code == name
    return reject.text
