"""Filters of other servers and of addresses."""

from __future__ import annotations

import pytest

from novactl.errors import UsageError
from novactl.model.group import Policy
from novactl.scheduler.filters.peers import listed, network
from novactl.scheduler.request import GroupView, NodeView, Peer, Request
from tests.unit.scheduler_world import NODE, REQUEST, kind, node, request, verdict, wanting

AFF, ANTI = Policy.AFFINITY, Policy.ANTI_AFFINITY


def grouped(policy: Policy, *nodes: str, scope: str = "", most: int = 1, **domains: str) -> Request:
    """A request of a group whose members w0, w1, … are on `nodes`."""
    members = tuple(Peer(f"i{number}", f"w{number}", where) for number, where in enumerate(nodes))
    return request(group=GroupView(name="web", policy=policy, scope=scope, max_per_domain=most, members=members, domains=domains))


TABLE = [
    # ---- group, the node itself the domain (NODE is a)
    ("group", REQUEST, NODE, None),
    ("group", grouped(AFF), NODE, None),                                       # nobody yet
    ("group", grouped(AFF, ""), NODE, None),                                   # nobody placed yet
    ("group", grouped(AFF, "a"), NODE, None),
    ("group", grouped(AFF, "b"), NODE, "group web (affinity): w0 is on another node"),
    ("group", grouped(AFF, "b", "b", ""), NODE, "group web (affinity): w0, w1 are on another node"),
    ("group", grouped(AFF, "b", "a"), NODE, None),                             # members in two places: either will do
    ("group", grouped(ANTI), NODE, None),
    ("group", grouped(ANTI, "b", ""), NODE, None),
    ("group", grouped(ANTI, "a"), NODE, "group web (anti-affinity): w0 is here, at most 1 per node"),
    ("group", grouped(ANTI, "a", "a", most=3), NODE, None),                    # 2 < 3
    ("group", grouped(ANTI, "a", "b", "a", most=2), NODE, "group web (anti-affinity): w0, w2 are here, at most 2 per node"),
    ("group", grouped(Policy.SOFT_AFFINITY, "b"), NODE, None),                 # the soft ones only weigh
    ("group", grouped(Policy.SOFT_ANTI_AFFINITY, "a"), NODE, None),
    # ---- group, a label the domain (NODE is in rack r1)
    ("group", grouped(AFF, scope="rack"), NODE, None),
    ("group", grouped(AFF, "b", scope="rack", b="r1"), NODE, None),
    ("group", grouped(AFF, "b", scope="rack", b="r2"), NODE, "group web (affinity): w0 is in rack r2, the node is in r1"),
    ("group", grouped(AFF, "b", "c", scope="rack", b="r3", c="r2"), NODE,
     "group web (affinity): w0, w1 are in rack r2, r3, the node is in r1"),
    ("group", grouped(AFF, "b", scope="rack"), NODE, "group web (affinity): w0 is in rack none, the node is in r1"),    # b lost its label
    ("group", grouped(ANTI, "b", scope="rack", b="r2"), NODE, None),
    ("group", grouped(ANTI, "b", scope="rack", b="r1"), NODE, "group web (anti-affinity): w0 is in rack r1, at most 1 per rack"),
    ("group", grouped(ANTI, "b", "c", scope="rack", most=2, b="r1", c="r1"), NODE,
     "group web (anti-affinity): w0, w1 are in rack r1, at most 2 per rack"),
    ("group", grouped(ANTI, "b", scope="rack", b="r1"), kind(labels={}),
     "group web (anti-affinity): needs to know its rack, the node has no such label"),
    ("group", grouped(AFF, scope="row"), NODE, "group web (affinity): needs to know its row, the node has no such label"),
    # ---- the same host as (db1 is on a, db2 on b, db3 nowhere yet)
    ("same_host", REQUEST, NODE, None),
    ("same_host", wanting(same_host=("p1",)), NODE, None),
    ("same_host", wanting(same_host=("p2", "p1")), NODE, None),                # any of them
    ("same_host", wanting(same_host=("p2",)), NODE, "same host: db2 is on another node"),
    ("same_host", wanting(same_host=("p2", "p3", "0123456789")), NODE,
     "same host: db2 is on another node, db3 has no node yet, server 01234567 is gone"),
    # ---- another host than
    ("different_host", REQUEST, NODE, None),
    ("different_host", wanting(different_host=("p2", "p3", "gone")), NODE, None),
    ("different_host", wanting(different_host=("p1",)), NODE, "different host: db1 is here"),
    ("different_host", wanting(different_host=("p2", "p1")), NODE, "different host: db1 is here"),
    # ---- near (NODE is 10.0.0.7)
    ("near", REQUEST, NODE, None),
    ("near", wanting(near="10.0.0.0/24"), NODE, None),
    ("near", wanting(near="10.0.0.7/32"), NODE, None),
    ("near", wanting(near="10.0.1.0/24"), NODE, "near: needs an address in 10.0.1.0/24, is 10.0.0.7"),
    ("near", wanting(near="fd00::/64"), NODE, "near: needs an address in fd00::/64, is 10.0.0.7"),
    ("near", wanting(near="fd00::/64"), node(address="tcp://[fd00::5]:7766"), None),
    ("near", wanting(near="10.0.0.0/24"), node(address="tcp://n1.example:7766"),
     "near: needs an address in 10.0.0.0/24, is known by the name n1.example"),
    ("near", wanting(near="10.0.0.0/24"), node(address=""), "near: needs an address in 10.0.0.0/24, the node has none"),
    ("near", wanting(near="here"), NODE, "near: needs an address in here, which is not a network"),
]


@pytest.mark.parametrize(("name", "asked", "seen", "text"), TABLE)
def test_filter(name: str, asked: Request, seen: NodeView, text: str | None) -> None:
    """A filter passes a node, or rejects it with this sentence; its column says the same."""
    assert verdict(name, asked, seen) == text


def test_many_names_are_counted() -> None:
    """A sentence names five and counts the rest."""
    assert listed(["b", "a"]) == "a, b"
    assert listed([f"w{number}" for number in range(8)]) == "w0, w1, w2, w3, w4 and 3 more"


@pytest.mark.parametrize(("text", "expected"), [
    ("10.1.2.3/16", "10.1.0.0/16"), ("10.1.2.3", "10.1.2.0/24"), ("fd00:1::9", "fd00:1::/64"), (" 10.0.0.0/8 ", "10.0.0.0/8"),
])
def test_networks(text: str, expected: str) -> None:
    """A network is brought to its own form; an address alone stands for its /24 or /64."""
    assert network(text) == expected


@pytest.mark.parametrize("text", ["", "n1.example", "10.0.0.0/33", "10.0.0/24", "10.0.0.0/24/8"])
def test_what_is_no_network_is_refused(text: str) -> None:
    """The refusal shows how to write one."""
    with pytest.raises(UsageError, match="neither an address nor a network") as refused:
        network(text)
    assert "10.1.0.0/16" in refused.value.hint
