"""Columns decide as nodes do, whatever is asked and whatever the fleet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novactl.model.facts import AggregateFacts, Facts
from novactl.model.group import Policy
from novactl.model.node import NodeState
from novactl.model.resources import DISK_GB, HOT, MEMORY_MB, VCPU, Inventory
from novactl.model.wants import Wants
from novactl.scheduler import lanes
from novactl.scheduler.filters import FILTERS, requested
from novactl.scheduler.filters.base import applies
from novactl.scheduler.fleet import Fleet
from novactl.scheduler.pipeline import pick, place
from novactl.scheduler.profiles import PROFILES, Profile
from novactl.scheduler.request import GroupView, NodeView, Peer, Reject, Request
from novactl.scheduler.weighers import WEIGHERS

IDS = "abcdefgh"
GPU = "CUSTOM_GPU"
AGGREGATES = [
    AggregateFacts("fast", {"ssd": "true", "balance_weight_multiplier": "0.5", "max_instances_per_host": "3"}),
    AggregateFacts("big", {"max_io_ops_per_host": "2", "ram_weight_multiplier": "2", "instance_type": "small,large"}),
    AggregateFacts("mine", {"filter_tenant_id": "default, p1", "trait:CUSTOM_X": "required"}),
]
SMALL = st.integers(0, 40)
ENGINES = pytest.mark.parametrize("xp", [lanes, numpy], ids=["lanes", "numpy"])


@st.composite
def facts(draw: st.DrawFn) -> Facts:
    return Facts(
        architecture=draw(st.sampled_from(["x86_64", "x86_64", "aarch64"])), zone=draw(st.sampled_from(["", "z1", "z2"])),
        labels=draw(st.sampled_from([{}, {"rack": "r1"}, {"rack": "r2"}])), virt_type="qemu", virt_types=("kvm", "qemu"),
        traits=frozenset(draw(st.sets(st.sampled_from(["CUSTOM_X", "HW_CPU_X86_AVX2"])))),
        hypervisor_version=draw(st.sampled_from([0, 7_002_000, 9_000_000])),
        aggregates=tuple(draw(st.lists(st.sampled_from(AGGREGATES), max_size=2, unique_by=lambda a: a.name))))


KINDS = st.lists(facts(), min_size=1, max_size=3)


@st.composite
def fleets(draw: st.DrawFn) -> list[NodeView]:
    kinds, classes = draw(KINDS), draw(st.sampled_from([HOT, HOT, (*HOT, GPU)]))
    found = []
    for id_ in draw(st.lists(st.sampled_from(IDS), max_size=8, unique=True)):
        inventories = {}
        for name in classes:
            if draw(st.integers(0, 9)):
                total = draw(SMALL)
                inventories[name] = Inventory(
                    name, total, draw(st.integers(0, 2)), draw(st.sampled_from([333, 1000, 1000, 1500, 4000])),
                    draw(st.sampled_from([1, 1, 1, 2])), draw(st.sampled_from([max(1, total), 2**31 - 1])),
                    draw(st.sampled_from([1, 1, 1, 2])))
        found.append(NodeView(
            id=id_, name=f"n{id_}", state=draw(st.sampled_from([NodeState.ENABLED] * 3 + [NodeState.DISABLED])),
            facts=draw(st.sampled_from(kinds)), inventories=inventories, used={name: draw(SMALL) for name in inventories},
            servers=draw(st.integers(0, 4)), reported_at=draw(st.sampled_from([None, 900.0, 990.0, 990.0, 1000.0])),
            silent_since=draw(st.sampled_from([None, None, None, 950.0])),
            lease_until=draw(st.sampled_from([None, None, None, 990.0, 1000.0, 1020.0])), building=draw(st.integers(0, 3)),
            failed_builds=draw(st.integers(0, 2)), generation=draw(SMALL), address="tcp://10.0.0.7:7766",
            metrics={"load_1m": float(draw(st.integers(0, 3))), "memory_used_mb": 5.0, "disk_used_gb": 1.0}, hardware=None, fittings=()))
    return found


@st.composite
def requests(draw: st.DrawFn) -> Request:
    peers = {id_: Peer(id_, f"s{id_}", draw(st.sampled_from(["", *IDS]))) for id_ in ("p", "q")}
    group = None
    if draw(st.booleans()):
        members = tuple(peers.values())
        group = GroupView(
            name="web", policy=draw(st.sampled_from(list(Policy))), scope=draw(st.sampled_from(["", "rack"])), members=members,
            max_per_domain=draw(st.integers(1, 2)), domains={member.node: "r1" for member in members if member.node})
    amounts = {VCPU: draw(st.integers(0, 8)), MEMORY_MB: draw(st.integers(0, 8)), DISK_GB: draw(st.integers(0, 8))}
    if draw(st.integers(0, 4)) == 0:
        amounts[GPU] = draw(st.integers(0, 2))
    wants = Wants(
        required=frozenset(draw(st.sampled_from([(), (), ("CUSTOM_X",)]))),
        forbidden=frozenset(draw(st.sampled_from([(), ("HW_CPU_X86_AVX2",)]))),
        specs=draw(st.sampled_from([{}, {}, {"aggregate_instance_extra_specs:ssd": "true"}, {"capabilities:architecture": "x86_64"}])),
        same_host=draw(st.sampled_from([(), (), ("p",)])), different_host=draw(st.sampled_from([(), ("q",)])),
        spread_by=draw(st.sampled_from(["", "rack"])))
    return Request(
        server="s", amounts=amounts, architecture=draw(st.sampled_from(["x86_64", "x86_64", "aarch64"])), group=group, peers=peers,
        zone=draw(st.sampled_from(["", "", "z1"])), node=draw(st.sampled_from(["", "", "", "a"])), wants=wants, now=1000.0,
        exclude=draw(st.sampled_from([{}, {}, {"b": "fire"}, {"z": "gone"}])), seed=draw(st.integers(0, 5)), flavor="small",
        fresh_s=draw(st.sampled_from([5.0, 60.0, 200.0])))


def same(xp: Any, request: Request, views: list[NodeView], profile: Profile) -> None:
    truth, seen = place(request, views, profile), pick(request, Fleet.of(views, xp), profile, keep=3)
    assert [(c.node, c.score, dict(c.weights)) for c in seen.candidates] == [
        (c.node, c.score, dict(c.weights)) for c in truth.candidates[:len(seen.candidates)]]
    assert (seen.possible, seen.looked_at) == (truth.possible, truth.looked_at)
    assert len(seen.candidates) >= min(3, truth.possible)


@ENGINES
@settings(max_examples=60)
@given(requests(), fleets(), st.sampled_from(list(PROFILES.values())), st.sampled_from([(1, False), (2, False), (1, True), (3, True)]))
def test_columns_choose_what_nodes_choose(xp: Any, request: Request, views: list[NodeView], profile: Profile, chance: Any) -> None:
    """The same candidates in the same order with the same scores and weights, to the last bit, in every profile."""
    same(xp, request, views, replace(profile, host_subset_size=chance[0], shuffle_equals=chance[1]))


@ENGINES
@settings(max_examples=60)
@given(requests(), fleets(), st.sampled_from([name for name in WEIGHERS if name != "image_properties"]), st.sampled_from([1.0, -2.5]))
def test_every_weigher_weighs_alike(xp: Any, request: Request, views: list[NodeView], name: str, multiplier: float) -> None:
    """Each weigher alone, in both directions."""
    same(xp, request, views, Profile("one", PROFILES["default"].filters, ((WEIGHERS[name], multiplier),)))


@ENGINES
@settings(max_examples=60)
@given(requests(), fleets())
def test_every_filter_judges_alike(xp: Any, request: Request, views: list[NodeView]) -> None:
    """Each vectorised filter's mask is True exactly where the filter has no reason; a filter that does not apply rejects nothing."""
    fleet = Fleet.of(views, xp)
    for check in (requested, *FILTERS.values()):
        truth = [check(request, fleet.views[index]) is None for index in range(fleet.size)]
        if not applies(check, request):
            assert all(truth), check.name
        elif hasattr(check, "columns"):
            mask = check.columns(request, fleet)
            assert ([True] * fleet.size if mask is None else [bool(entry) for entry in mask]) == truth, check.name


@ENGINES
@settings(max_examples=60)
@given(requests(), fleets(), st.lists(st.integers(0, 7), max_size=6))
def test_a_fleet_that_took_servers_is_the_fleet_read_anew(xp: Any, request: Request, views: list[NodeView], where: list[int]) -> None:
    """Taking a server changes the columns as the ledger changes the rows."""
    fleet = Fleet.of(views, xp)
    amounts = {name: amount for name, amount in request.amounts.items() if name in fleet.capacity}
    for index in where:
        if index < fleet.size:
            fleet.take(index, amounts)
    anew = Fleet.of(fleet.views.values(), xp)
    for name in fleet.capacity:
        assert list(fleet.used[name]) == list(anew.used[name])
    assert list(fleet.servers) == list(anew.servers) and fleet.generations == anew.generations
    same(xp, request, list(fleet.views.values()), PROFILES["default"])


@ENGINES
@settings(max_examples=60)
@given(fleets(), st.sampled_from(['["<", "$num_instances", 2]', '[">=", "$free_ram_mb", 9]']), st.lists(st.integers(0, 7), max_size=6))
def test_what_is_remembered_of_a_node_is_forgotten_when_it_changes(xp: Any, views: list[NodeView], query: str, where: list[int]) -> None:
    """The same question again and again on one fleet, servers taken in between: each time as if all were looked at anew."""
    fleet = Fleet.of(views, xp)
    asked = Request(server="s", amounts={MEMORY_MB: 1}, architecture="x86_64", now=1000.0, wants=Wants(query=query))
    for index in where:
        truth = place(asked, fleet.views.values())
        counts: dict[str, int] = {}
        seen = pick(asked, fleet, counts=counts, keep=8)
        assert [c.node for c in seen.candidates] == [c.node for c in truth.candidates]
        assert counts.get("query", 0) <= truth.counts.get("query", 0)
        if index < fleet.size:
            fleet.take(index, {MEMORY_MB: 1})


@ENGINES
@settings(max_examples=60)
@given(requests(), fleets(), st.sets(st.sampled_from(IDS)), st.sampled_from([(1, False), (2, False), (1, True)]))
def test_a_guard_is_heeded_alike(xp: Any, request: Request, views: list[NodeView], refused: set[str], chance: Any) -> None:
    """The node that is taken is one the guard lets pass, and the same by columns, also where chance has a word."""
    profile = replace(PROFILES["default"], host_subset_size=chance[0], shuffle_equals=chance[1])

    def guard(_: Request, node: str) -> Reject | None:
        return Reject("guard", "no") if node in refused else None

    truth, seen = place(request, views, profile, guard), pick(request, Fleet.of(views, xp), profile, guard)
    assert (seen.chosen and seen.chosen.node) == (truth.chosen and truth.chosen.node)
    assert seen.chosen is None or seen.chosen.node not in refused
    assert all(node in refused for node in seen.rejected)


NUMBERS = st.lists(st.tuples(st.integers(-50, 50), st.integers(1, 50), st.booleans()), min_size=1, max_size=9)


@given(NUMBERS, st.integers(-9, 9))
def test_lanes_are_arrays(rows: list[tuple[int, int, bool]], number: int) -> None:
    """Every operation of a Lane gives what numpy's array gives."""
    def told(xp: Any) -> list[Any]:
        a, b, m = (xp.asarray([row[at] for row in rows]) for at in range(3))
        results = [
            a + b, a - number, number - a, a * b, a / b, number / b, b % 3, number % b, a <= b, a < number, number >= a, a == b,
            a != number, a > b, m & (a > 0), m | (a > 0), ~m, xp.where(m, a, b),
            xp.where(a > 0, 1.0, b), xp.maximum(a, b), xp.minimum(a, number),
            xp.full(3, 7), abs(a),
            xp.flatnonzero(m), xp.take(a, xp.flatnonzero(m)) if any(m) else xp.full(0, 0), number + a, number * a,
        ]
        return [[bool(v) if isinstance(v, bool | numpy.bool_) else float(v) for v in column] for column in results]

    assert told(lanes) == told(numpy)


def test_a_reject_is_not_needed_to_pass() -> None:
    """A filter without columns and not of facts alone is asked node by node, also where columns are used."""
    class Odd:
        name = "odd"

        def __call__(self, request: Request, node: NodeView) -> Reject | None:
            return None if node.id in "bd" else Reject("odd", "not b or d")

    views = [NodeView(id=i, name=i, state=NodeState.ENABLED, facts=Facts(architecture="x"), inventories={}, used={}) for i in "abcd"]
    profile = Profile("p", (Odd(),), PROFILES["default"].weighers)
    decision = pick(Request(server="s", amounts={}, architecture="x"), Fleet.of(views, numpy), profile)
    assert [c.node for c in decision.candidates] == ["b", "d"] and decision.possible == 2
