"""Filters of how much is on a node, and of what the settings keep."""

from __future__ import annotations

from dataclasses import replace

import pytest

from novactl.scheduler.filters import FILTERS, ON_DEMAND
from novactl.scheduler.profiles import PROFILES
from novactl.scheduler.request import NodeView, Request
from tests.unit.scheduler_world import NODE, REQUEST, in_aggregates, node, ruled, verdict


def loaded(building: int, servers: int, *metadata: dict[str, str]) -> NodeView:
    return replace(in_aggregates(*metadata), building=building, servers=servers)


TABLE = [
    # ---- operations: fewer than the limit
    ("io_ops", REQUEST, loaded(7, 0), None),                                   # 7 < 8
    ("io_ops", REQUEST, loaded(8, 0), "operations under way: has 8, at most 8 (the settings' limit)"),
    ("io_ops", ruled(max_io_ops=2), NODE, "operations under way: has 2, at most 2 (the settings' limit)"),
    ("io_ops", REQUEST, loaded(8, 0, {"max_io_ops_per_host": "9"}), None),     # the aggregate's word before the settings'
    ("io_ops", REQUEST, loaded(4, 0, {"max_io_ops_per_host": "9"}, {"max_io_ops_per_host": "4"}),
     "operations under way: has 4, at most 4 (its aggregates' limit)"),        # the least of several
    ("io_ops", REQUEST, loaded(0, 0, {"max_io_ops_per_host": "0"}), "operations under way: has 0, at most 0 (its aggregates' limit)"),
    ("io_ops", REQUEST, loaded(7, 0, {"max_io_ops_per_host": "many"}), None),  # no number: passed over
    # ---- servers likewise
    ("servers_limit", REQUEST, loaded(0, 49), None),                           # 49 < 50
    ("servers_limit", REQUEST, loaded(0, 50), "servers: has 50, at most 50 (the settings' limit)"),
    ("servers_limit", REQUEST, loaded(0, 50, {"max_instances_per_host": "60"}), None),
    ("servers_limit", ruled(max_servers=1), loaded(0, 10, {"max_instances_per_host": "10, 20"}),
     "servers: has 10, at most 10 (its aggregates' limit)"),
    # ---- what aggregates say holds in every profile, and nothing else does
    ("aggregate_io_ops", ruled(max_io_ops=1), loaded(99, 99), None),
    ("aggregate_io_ops", REQUEST, loaded(2, 0, {"max_io_ops_per_host": "2"}),
     "operations under way: has 2, at most 2 (its aggregates' limit)"),
    ("aggregate_io_ops", REQUEST, loaded(1, 9, {"max_io_ops_per_host": "2"}), None),
    ("aggregate_servers", ruled(max_servers=1), loaded(99, 99), None),
    ("aggregate_servers", REQUEST, loaded(0, 5, {"max_instances_per_host": "5"}), "servers: has 5, at most 5 (its aggregates' limit)"),
    ("aggregate_servers", REQUEST, loaded(9, 4, {"max_instances_per_host": "5"}), None),
    # ---- metrics
    ("metrics", REQUEST, NODE, None),
    ("metrics", ruled(metrics={"load_1m": -1.0}), NODE, "metrics: its reports lack load_1m"),
    ("metrics", ruled(metrics={"load_1m": -1.0}, metrics_required=False), NODE, None),
    ("metrics", ruled(metrics={"load_1m": -1.0}), node(metrics={"load_1m": 0.0}), None),
    ("metrics", ruled(metrics={"load_1m": -1.0, "disk_used_gb": 1.0, "memory_used_mb": 1.0}), node(metrics={"load_1m": 0.0}),
     "metrics: its reports lack disk_used_gb, memory_used_mb"),
]


@pytest.mark.parametrize(("name", "asked", "seen", "text"), TABLE)
def test_filter(name: str, asked: Request, seen: NodeView, text: str | None) -> None:
    """A filter passes a node, or rejects it with this sentence; its column says the same."""
    assert verdict(name, asked, seen) == text


KEPT, OTHER = "isolated: image win is kept for other nodes", "isolated: kept for other images than debian"


@pytest.mark.parametrize(("image", "nodes", "restrict", "text"), [
    ("win", {"n1"}, True, None),
    ("win", {"n2"}, True, KEPT),
    ("debian", {"n1"}, True, OTHER),
    ("debian", {"n2"}, True, None),
    ("win", {"n1"}, False, None),
    ("win", {"n2"}, False, KEPT),
    ("debian", {"n1"}, False, None),
    ("debian", {"n2"}, False, None),
    ("win", set(), True, KEPT),
    ("", {"n1"}, True, "isolated: kept for other images than none"),
])
def test_isolated(image: str, nodes: set[str], restrict: bool, text: str | None) -> None:
    """Nova's truth table: which images and which nodes are kept for each other, restricted or not."""
    asked = ruled(image=image, isolated_images=frozenset({"win"}), isolated_nodes=frozenset(nodes), restrict_isolated=restrict)
    assert verdict("isolated", asked, NODE) == text


@pytest.mark.parametrize(("nodes", "restrict", "passes"), [
    (set(), True, True), ({"n1"}, True, False), ({"n1"}, False, True), ({"n2"}, True, True),
])
def test_isolated_nodes_without_isolated_images(nodes: set[str], restrict: bool, passes: bool) -> None:
    """With no image isolated, a restricted isolated node takes nothing."""
    asked = ruled(isolated_nodes=frozenset(nodes), restrict_isolated=restrict)
    assert (verdict("isolated", asked, NODE) is None) == passes


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda p: p.name)
def test_every_profile_has_every_filter_that_speaks_only_when_asked(profile: object) -> None:
    """All filters but those that bring limits of their own are in every profile."""
    assert {check.name for check in profile.filters} == FILTERS.keys() - ON_DEMAND  # type: ignore[attr-defined]
