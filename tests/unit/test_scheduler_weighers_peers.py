"""Weighers of other servers, and what profiles make of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from novactl.model.group import Policy
from novactl.model.resources import MEMORY_MB
from novactl.model.wants import Wants
from novactl.scheduler import lanes
from novactl.scheduler.filters.base import applies
from novactl.scheduler.fleet import Fleet
from novactl.scheduler.pipeline import pick, place
from novactl.scheduler.profiles import PROFILES
from novactl.scheduler.request import GroupView, NodeView, Peer, Request
from novactl.scheduler.weighers import WEIGHERS
from tests.unit.scheduler_world import kind, node, request

SOFT, APART = Policy.SOFT_AFFINITY, Policy.SOFT_ANTI_AFFINITY


def view(policy: Policy, *nodes: str, scope: str = "", **domains: str) -> GroupView:
    members = tuple(Peer(f"i{number}", f"w{number}", where) for number, where in enumerate(nodes))
    return GroupView(name="web", policy=policy, scope=scope, members=members, domains=domains)


@pytest.mark.parametrize(("name", "group", "seen", "raw"), [
    # the node itself (a)
    ("soft_affinity", view(SOFT), node(), 0.0),
    ("soft_affinity", view(SOFT, "a", "a", "b", ""), node(), 2.0),
    ("soft_anti_affinity", view(APART, "a", "a", "b"), node(), -2.0),
    ("soft_anti_affinity", view(APART, "b"), node(), 0.0),
    # its rack (r1)
    ("soft_affinity", view(SOFT, "b", "c", scope="rack", b="r1", c="r2"), node(), 1.0),
    ("soft_anti_affinity", view(APART, "b", "c", scope="rack", b="r1", c="r1"), node(), -2.0),
    ("soft_affinity", view(SOFT, "b", scope="rack", b="r1"), kind(labels={}), 0.0),
    ("soft_anti_affinity", view(APART, "b", "c", scope="rack", b="r1", c="r1"), kind(labels={}), -3.0),                # -(2 + 1)
    ("soft_anti_affinity", view(APART, scope="rack"), kind(labels={}), -1.0),
])
def test_soft_groups(name: str, group: GroupView, seen: NodeView, raw: float) -> None:
    """Members in the node's domain count for it or against it; to be apart, an unknown domain is worse than any."""
    weigher, asked = WEIGHERS[name], request(group=group)
    assert weigher(asked, seen) == raw
    assert list(weigher.columns(asked, Fleet.of([seen], lanes))) == [raw]      # type: ignore[attr-defined]
    assert [name for name in ("soft_affinity", "soft_anti_affinity") if applies(WEIGHERS[name], asked)] == [name]


@pytest.mark.parametrize("policy", [Policy.AFFINITY, Policy.ANTI_AFFINITY, None])
def test_hard_policies_are_not_weighed(policy: Policy | None) -> None:
    """Hard policies are the filter's, and without a group there is nothing to weigh."""
    asked = request(group=view(policy, "a") if policy else None)
    assert not any(applies(WEIGHERS[name], asked) for name in ("soft_affinity", "soft_anti_affinity"))


@pytest.mark.parametrize(("among", "seen", "raw"), [
    (None, node(), 0.0),                                       # nobody yet
    (None, kind(labels={}), -1.0),
    (view(APART, "b", "c", "d", scope="rack", b="r1", c="r2", d="r1"), node(), -2.0),          # b and d are in r1
    (view(APART, "b", "c", "", scope="rack", b="r3", c="r2"), node(), 0.0),
    (view(APART, "b", "c", scope="rack", b="r1", c="r2"), kind(labels={}), -3.0),
    (view(APART, "b", "c", scope="rack", c="r2"), node(), 0.0),                                # b lost its label
])
def test_spread(among: GroupView | None, seen: NodeView, raw: float) -> None:
    """Each server in the same value of the label counts against a node."""
    assert WEIGHERS["spread"](request(wants=Wants(spread_by="rack"), spread=among), seen) == raw
    assert not applies(WEIGHERS["spread"], request(spread=among))


def rack(id: str, label: str, used_mb: int = 0) -> NodeView:
    seen = kind(labels={"rack": label} if label else {})
    return replace(seen, id=id, name=id, used={MEMORY_MB: used_mb})


def order(asked: Request, nodes: list[NodeView], profile: str = "default") -> list[str]:
    decision = place(asked, nodes, PROFILES[profile])
    assert [c.node for c in pick(asked, Fleet.of(nodes), PROFILES[profile], keep=9).candidates] == [c.node for c in decision.candidates]
    return [c.node for c in decision.candidates]


@pytest.mark.parametrize("profile", PROFILES)
def test_what_was_asked_for_outranks_the_profile(profile: str) -> None:
    """Soft affinity goes to the fuller node that has a member, soft anti-affinity to the one that has none, in every profile."""
    full, empty = rack("a", "r1", 20_000), rack("b", "r2")
    assert order(request(group=view(SOFT, "a")), [full, empty], profile)[0] == "a"
    assert order(request(group=view(SOFT, "b")), [full, empty], profile)[0] == "b"
    assert order(request(group=view(APART, "b")), [full, empty], profile)[0] == "a"
    assert order(request(group=view(APART, "a")), [full, empty], profile)[0] == "b"


def test_spread_goes_to_the_rack_with_fewest() -> None:
    """Racks with 2, 0 and 1 of them: the one without comes first although it is fullest, a node of no rack last although it is empty."""
    nodes = [rack("a", "r1"), rack("b", "r2", 20_000), rack("c", "r3", 10_000), rack("d", "")]
    among = view(APART, "x", "y", "z", scope="rack", x="r1", y="r1", z="r3")
    assert order(request(wants=Wants(spread_by="rack"), spread=among), nodes) == ["b", "c", "a", "d"]


def test_among_equal_racks_balance_decides() -> None:
    """Where no member makes a difference, the emptier node is better."""
    nodes = [rack("a", "r1", 9000), rack("b", "r2", 3000), rack("c", "r2", 6000)]
    among = view(APART, "x", "y", scope="rack", x="r1", y="r2")
    assert order(request(wants=Wants(spread_by="rack"), spread=among), nodes) == ["b", "c", "a"]


def test_a_node_that_fails_is_not_the_emptiest_for_ever() -> None:
    """Beside balance each failure takes a tenth off the empty node: after five it is behind one half full, after ten one nearly full."""
    spread = replace(PROFILES["default"], weighers=((WEIGHERS["balance"], 1.0), (WEIGHERS["failures"], -1.0)))
    # of the empty node 1 - 1/32 VCPU = .969 is left; of the others 1 - memory / 23808, which is (16384 - 512) x 1.5
    half, nearly = rack("b", "", 11_392), rack("c", "", 22_000)               # 1 - 11904/23808 = .5 and 1 - 22512/23808 = .054
    for failed, expected in ((3, ["a", "b", "c"]), (5, ["b", "a", "c"]), (10, ["b", "c", "a"]), (99, ["b", "c", "a"])):
        decision = place(request(), [replace(rack("a", ""), failed_builds=failed), half, nearly], spread)
        assert [c.node for c in decision.candidates] == expected


def test_the_zone_profile_takes_nodes_of_no_zone_first() -> None:
    """Nova's ZoneScheduler: by chance in the zone asked for; with none, in no zone, and in a zone only when nothing else is left."""
    zoned, none = [rack("a", "r1"), rack("b", "r1")], [replace(kind(zone=""), id=id, name=id) for id in "cd"]
    plain = [order(request(seed=seed), [*zoned, *none], "zone") for seed in range(30)]
    assert {row[0] for row in plain} == {row[1] for row in plain} == {"c", "d"}
    assert {order(request(seed=seed, zone="z1"), [*zoned, *none], "zone")[0] for seed in range(30)} == {"a", "b"}
    assert {order(request(seed=seed), zoned, "zone")[0] for seed in range(30)} == {"a", "b"}
