from __future__ import annotations

import tomllib
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from novactl import plugins
from novactl.errors import BadConfig
from novactl.model.facts import Facts
from novactl.model.node import NodeState
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU, Inventory
from novactl.scheduler import filters, weighers
from novactl.scheduler.pipeline import place
from novactl.scheduler.profiles import PROFILES
from novactl.scheduler.request import NodeView, Reject, Request
from novactl.scheduler.telling import explain_rows, rejection_lines, request_line, summary_line

GOOD = Facts(zone="z1", architecture="x86_64")
REQUEST = Request(
    server="web1", amounts={VCPU: 4, MEMORY_MB: 8192, DISK_GB: 20}, architecture="x86_64", zone="z1", now=1000.0, fresh_s=60.0)


def node(id: str, *, memory_mb: int = 16_384, used_mb: int = 0, **changes: Any) -> NodeView:
    view = NodeView(
        id=id, name=f"n{id}", state=NodeState.ENABLED, facts=GOOD,
        used={MEMORY_MB: used_mb}, reported_at=995.0,
        inventories={
            VCPU: Inventory(VCPU, 8, 0, 4000), MEMORY_MB: Inventory(MEMORY_MB, memory_mb), DISK_GB: Inventory(DISK_GB, 1000),
        },
    )
    return replace(view, **changes)


def test_the_emptiest_is_chosen_and_the_others_follow() -> None:
    """The default profile spreads: after placement 8/16, 12/16 and 16/16 GiB leave 0.5, 0.25 and 0 of the memory; 4/32 of the processors
    are used then, so that memory is 0.375, 0.625 and 0.875 ahead of them, which counts twice against the node."""
    decision = place(REQUEST, [node("1", used_mb=8192), node("2"), node("3", used_mb=4096)])
    assert [c.node for c in decision.candidates] == ["2", "3", "1"]
    assert [c.score for c in decision.candidates] == pytest.approx([0.5 - 0.75, 0.25 - 1.25, 0.0 - 1.75])
    assert decision.chosen and decision.chosen.weights == {"balance": 0.5, "imbalance": -0.75, "failures": 0.0}
    assert decision.rejected == {}


def test_pack_prefers_the_fullest_that_fits() -> None:
    """The pack profile fills up what is begun, where it leaves no processors without memory."""
    begun = node("1", used={VCPU: 16, MEMORY_MB: 6144})       # 20/32 and 14/16 are 0.25 apart; 4/32 and 8/16 are 0.375
    decision = place(REQUEST, [begun, node("2"), node("3", used_mb=8193)], PROFILES["pack"])
    assert [c.node for c in decision.candidates] == ["1", "2"]


def test_simple_prefers_the_fewest_servers() -> None:
    """The simple profile is Nova's SimpleScheduler."""
    decision = place(REQUEST, [node("1", servers=3), node("2", servers=1), node("3", servers=2)], PROFILES["simple"])
    assert [c.node for c in decision.candidates] == ["2", "3", "1"]


def test_equals_go_by_id() -> None:
    """Of nodes with one score the smaller id comes first."""
    assert [c.node for c in place(REQUEST, [node("c"), node("a"), node("b")]).candidates] == ["a", "b", "c"]


def test_every_reason_is_kept() -> None:
    """A node that fails four filters is told all four, in the profile's order."""
    bad = node("1", used_mb=16_384, state=NodeState.DISABLED, reason="fans", facts=replace(GOOD, zone="z2"), reported_at=None)
    decision = place(REQUEST, [bad])
    assert decision.chosen is None
    assert [r.code for r in decision.rejected["1"]] == ["enabled", "fresh", "resources", "zone"]
    assert rejection_lines(decision) == (
        'n1: state: disabled ("fans"); report: has never sent one; memory: needs 8.0 GiB, free 0 MiB of 16.0 GiB'
        " (ratio 1.0, reserved 0 MiB): short by 8.0 GiB; zone: needs z1, is in z2",
    )


def test_a_forced_node_is_still_filtered() -> None:
    """Asking for one node rejects the others, and does not make room on it."""
    decision = place(replace(REQUEST, node="1"), [node("1", used_mb=16_384), node("2")])
    assert decision.chosen is None
    assert [r.code for r in decision.rejected["1"]] == ["resources"]
    assert decision.rejected["2"] == (Reject("requested", "another node was asked for"),)


def test_fresh_s_and_seed_are_part_of_the_decision() -> None:
    """A decision says by which freshness and which chance it was taken."""
    decision = place(replace(REQUEST, seed=7, fresh_s=5.0), [node("1", reported_at=990.0)])
    assert (decision.request.seed, decision.request.fresh_s) == (7, 5.0)
    assert decision.rejected["1"][0].text == "report: 10 s old, at most 5 s"


def test_no_nodes() -> None:
    """An empty fleet is an answer, not a fault."""
    decision = place(REQUEST, [])
    assert decision.chosen is None and explain_rows(decision) == () and summary_line(decision) == "0 nodes, 0 possible."


def test_explain_rows() -> None:
    """Candidates come best first, then the rejected by name."""
    nodes = [
        node("1", used_mb=4096), node("9", facts=replace(GOOD, zone="z2")), node("2"),
        node("5", facts=replace(GOOD, architecture="aarch64"))]
    decision = place(REQUEST, nodes)
    rows = explain_rows(decision)
    assert [(r.node, r.verdict, r.reasons) for r in rows] == [
        ("n2", "chosen", ()), ("n1", "2nd", ()),
        ("n5", "rejected", ("architecture: needs x86_64, is aarch64",)), ("n9", "rejected", ("zone: needs z1, is in z2",)),
    ]
    assert summary_line(decision) == "4 nodes, 2 possible."
    assert request_line(REQUEST) == "server web1 (vcpu 4, memory 8.0 GiB, disk 20 GiB, x86_64, zone z1)"


def test_ranks_are_spoken() -> None:
    """Verdicts of many candidates read as English ordinals."""
    rows = explain_rows(place(REQUEST, [node(f"{i:02}") for i in range(1, 24)]))
    assert [rows[i - 1].verdict for i in (1, 2, 3, 4, 11, 12, 13, 21, 22, 23)] == [
        "chosen", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "23rd"]


def test_built_in_plugins_are_declared() -> None:
    """The built-in filters and weighers are the project's declared entry points, no more and no fewer."""
    declared = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["entry-points"]
    for group, built_in in ((plugins.FILTER_GROUP, filters.FILTERS), (plugins.WEIGHER_GROUP, weighers.WEIGHERS)):
        assert {name: EntryPoint(name, value, group).load() for name, value in declared[group].items()} == dict(built_in)
        assert all(found.name == name for name, found in built_in.items())


def test_a_profile_may_be_reassembled() -> None:
    """Filters and multipliers can be named; an unknown name is refused with the known ones."""
    made = plugins.profile(filters=["resources", "zone"], weighers={"servers": -2})
    assert made.filters == (filters.FILTERS["resources"], filters.FILTERS["zone"])
    assert made.weighers == ((weighers.WEIGHERS["servers"], -2.0),)
    assert plugins.profile() == PROFILES["default"]
    with pytest.raises(BadConfig, match="filter 'reources' is not known") as refused:
        plugins.profile(filters=["reources"])
    assert "resources" in refused.value.hint
    with pytest.raises(BadConfig, match="weigher 'x' is not known"):
        plugins.profile(weighers={"x": 1})
    with pytest.raises(BadConfig, match="profile 'fast' is not known"):
        plugins.profile("fast")
