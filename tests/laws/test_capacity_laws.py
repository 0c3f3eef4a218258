"""Capacity is what successive placements come to."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novactl.scheduler import capacity as module
from novactl.scheduler.capacity import capacity
from novactl.scheduler.contest import Contest
from novactl.scheduler.filters.base import applies
from novactl.scheduler.pipeline import place
from novactl.scheduler.profiles import PROFILES, Profile
from novactl.scheduler.request import Reject, Request
from novactl.scheduler.stack import Stack, can_order
from novactl.scheduler.survival import Resident, Survival
from novactl.scheduler.weighers import WEIGHERS
from tests.laws.worlds import World, requests, worlds

MANY = st.sampled_from([
    *PROFILES.values(), Profile("several", PROFILES["default"].filters, tuple((WEIGHERS[name], factor) for name, factor in (
        ("ram", 1.0), ("cpu", 1.0), ("servers", -0.5), ("soft_affinity", 1.0), ("disk", -0.3))))])


def successive(world: World, asked: Request, profile: Profile, survival: Survival | None = None) -> list[str]:
    """The nodes that such servers go to, one after the other, until none is left."""
    found: list[str] = []
    while True:
        full = world.request(asked)
        chosen = place(full, world.nodes.values(), profile, survival.refusal if survival else None).chosen
        if chosen is None:
            return found
        if survival:
            assert survival.refusal(full, chosen.node) is None
            survival.take(full, chosen.node)
        found.append(chosen.node)
        world.put(Resident(f"more{len(found)}", asked.server, chosen.node, asked))


@settings(max_examples=200)
@given(worlds(), st.data(), MANY)
def test_the_count_is_that_of_successive_placements(world: World, data: st.DataObject, profile: Profile) -> None:
    """With groups, hints, limits and shared disks; what each node takes adds up to it where nodes share nothing."""
    asked = data.draw(requests(world, "more"))
    full = world.request(asked)
    found = capacity(full, world.nodes.values(), profile)
    nodes = list(world.nodes.values())
    went = successive(world, asked, profile)
    assert found.count == len(went)
    if full.group is None and not any(node.shared_disk for node in nodes):
        assert {room.id: room.fits for room in found.per_node if room.fits} == dict(Counter(went))


@settings(max_examples=200)
@given(worlds(), st.data(), MANY)
def test_a_contest_decides_as_place_does(world: World, data: st.DataObject, profile: Profile) -> None:
    """The same node each time, down to the ties, until none is left."""
    asked = data.draw(requests(world, "more"))
    contest, found = Contest(world.request(asked), world.nodes.values(), profile), []
    while (at := contest.place()) is not None:
        found.append(contest.views[at].id)
    assert found == successive(world, asked, profile)


@settings(max_examples=150)
@given(worlds(), st.data(), st.sampled_from([PROFILES["default"], PROFILES["pack"], PROFILES["zone"]]))
def test_an_order_reckoned_is_that_of_placements(world: World, data: st.DataObject, profile: Profile) -> None:
    """The same node each time, and so it is when some nodes take no more from one of the placements on."""
    asked = replace(data.draw(requests(world, "more")), group=None)
    views = sorted((replace(node, shared_disk="") for node in world.nodes.values()), key=lambda node: node.id)
    full = world.request(asked)
    weighers = [pair for pair in profile.weighers if applies(pair[0], full)]
    assert can_order(weighers, full)
    stop, out = data.draw(st.integers(0, 6)), data.draw(st.sets(st.sampled_from([node.id for node in views])))
    found: list[str] = []

    def guard(_: Request, node: str) -> Reject | None:
        return Reject("out", "") if node in out and len(found) >= stop else None

    contest = Contest(full, views, profile, guard)
    while (at := contest.place()) is not None:
        found.append(views[at].id)
    room = [one.fits for one in capacity(full, views, profile).per_node]
    order = [views[at].id for at in Stack(full, views, room).order(weighers, room)]
    assert found == order[:stop] + [node for node in order[stop:] if node not in out]


@settings(max_examples=150)
@given(worlds(), st.data(), MANY)
def test_with_n_plus_1_as_well(world: World, data: st.DataObject, profile: Profile) -> None:
    """Placed one after the other under the guard."""
    asked = data.draw(requests(world, "more"))
    survival = Survival(world.nodes.values(), world.residents, profile)
    before = survival.losses()
    found = capacity(world.request(asked), world.nodes.values(), profile, survival)
    assert survival.losses() == before
    assert found.n_plus_1 == len(successive(world, asked, profile, survival))


@given(worlds(), st.data())
def test_going_ahead_skips_nothing(world: World, data: st.DataObject) -> None:
    """Where many placements are taken for granted at once, as many are found as one by one, and the cluster bears them."""
    asked = replace(data.draw(requests(world, "more")), group=None)
    views, residents = list(world.nodes.values()), world.residents
    survival = Survival(views, residents)
    one_by_one = capacity(world.request(asked), views, survival=survival).n_plus_1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_FEW", 2)
        ahead = capacity(world.request(asked), views, survival=survival).n_plus_1
    assert ahead == one_by_one
