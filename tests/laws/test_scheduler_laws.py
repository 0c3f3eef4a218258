"""What holds for every request and every fleet."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from novactl.model.facts import Facts
from novactl.model.node import NodeState
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU, Inventory, shortage
from novactl.scheduler.filters import FILTERS, requested
from novactl.scheduler.pipeline import place
from novactl.scheduler.profiles import PROFILES, Profile
from novactl.scheduler.request import Decision, NodeView, Reject, Request
from novactl.scheduler.telling import explain_rows
from novactl.scheduler.weighers.base import normalise

IDS = st.sampled_from("abcdefgh")
ZONES = st.sampled_from(["", "z1", "z2"])
ARCHITECTURES = st.sampled_from(["x86_64", "x86_64", "aarch64"])
SMALL = st.integers(0, 64)
CLASSES = (VCPU, MEMORY_MB, DISK_GB)


@st.composite
def inventories(draw: st.DrawFn, name: str) -> Inventory:
    total = draw(SMALL)
    return Inventory(
        name, total, draw(st.integers(0, 3)), draw(st.sampled_from([1, 333, 1000, 1500, 4000, 16_000])),
        draw(st.integers(1, 3)), draw(st.integers(1, 64)), draw(st.sampled_from([1, 1, 2, 3])),
    )


@st.composite
def views(draw: st.DrawFn) -> NodeView:
    id_ = draw(IDS)
    return NodeView(
        id=id_, name=f"node-{id_}", state=draw(st.sampled_from([NodeState.ENABLED, NodeState.ENABLED, *NodeState])),
        facts=Facts(zone=draw(ZONES), architecture=draw(ARCHITECTURES)),
        inventories={name: draw(inventories(name)) for name in draw(st.sets(st.sampled_from(CLASSES), min_size=2))},
        used=draw(st.dictionaries(st.sampled_from(CLASSES), SMALL)), servers=draw(SMALL),
        reported_at=draw(st.sampled_from([None, 0.0, 950.0, 990.0, 1000.0])),
        silent_since=draw(st.sampled_from([None, None, 900.0])),
        reason=draw(st.sampled_from(["", "fans"])),
    )


FLEETS = st.lists(views(), max_size=8, unique_by=lambda view: view.id)
REQUESTS = st.builds(
    Request, server=st.just("s"), architecture=ARCHITECTURES, zone=ZONES, node=st.sampled_from(["", "", "", "a", "z"]),
    amounts=st.fixed_dictionaries({VCPU: st.integers(0, 8), MEMORY_MB: st.integers(0, 16), DISK_GB: st.integers(0, 8)}),
    exclude=st.dictionaries(IDS, st.just("no"), max_size=2), now=st.just(1000.0), fresh_s=st.sampled_from([0.0, 30.0, 60.0]),
    seed=st.integers(0, 3),
)
ANY_PROFILE = st.sampled_from(list(PROFILES.values()))


@given(REQUESTS, FLEETS, ANY_PROFILE)
def test_a_node_is_candidate_exactly_when_no_filter_rejects_it(request: Request, fleet: list[NodeView], profile: Profile) -> None:
    """Candidates and rejected are all nodes, each once; a rejected one holds the answer of every filter that said no."""
    decision = place(request, fleet, profile)
    candidates = [c.node for c in decision.candidates]
    assert sorted([*candidates, *decision.rejected]) == sorted(view.id for view in fleet)
    for view in fleet:
        rejects = tuple(r for check in (requested, *profile.filters) if (r := check(request, view)))
        assert decision.rejected.get(view.id, ()) == rejects
        assert (view.id in candidates) == (not rejects)


@given(REQUESTS, FLEETS, ANY_PROFILE, st.randoms())
def test_the_order_of_nodes_decides_nothing(request: Request, fleet: list[NodeView], profile: Profile, chance: object) -> None:
    """A shuffled fleet gives the same decision, down to the bytes stored."""
    shuffled = list(fleet)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = place(request, fleet, profile), place(request, shuffled, profile)
    assert json.dumps(one.to_plain()) == json.dumps(other.to_plain())


@given(REQUESTS, FLEETS, st.sets(st.sampled_from(list(FILTERS))), st.sampled_from(list(FILTERS)))
def test_another_filter_never_adds_a_candidate(request: Request, fleet: list[NodeView], some: set[str], more: str) -> None:
    """With one filter more the candidates are a subset."""
    def candidates(names: set[str]) -> set[str]:
        profile = Profile("p", tuple(FILTERS[name] for name in sorted(names)), PROFILES["default"].weighers)
        return {c.node for c in place(request, fleet, profile).candidates}

    assert candidates(some | {more}) <= candidates(some)


@given(REQUESTS, FLEETS, st.sampled_from(CLASSES))
def test_a_smaller_server_fits_wherever_the_larger_did(request: Request, fleet: list[NodeView], name: str) -> None:
    """Where minimum and step allow it, asking for less of a resource rejects no node anew."""
    fleet = [
        replace(view, inventories={n: replace(i, min_unit=1, step_size=1) for n, i in view.inventories.items()})
        for view in fleet
    ]
    less = replace(request, amounts={**request.amounts, name: request.amounts[name] // 2})
    assert {c.node for c in place(request, fleet).candidates} <= {c.node for c in place(less, fleet).candidates}


@given(REQUESTS, FLEETS, ANY_PROFILE)
def test_a_stored_decision_is_the_decision(request: Request, fleet: list[NodeView], profile: Profile) -> None:
    """Through JSON and back nothing is lost, and it is explained alike."""
    decision = place(request, fleet, profile)
    again = Decision.from_plain(json.loads(json.dumps(decision.to_plain())))
    assert again == decision and explain_rows(again) == explain_rows(decision)


@given(REQUESTS, FLEETS, ANY_PROFILE)
def test_scores_descend_and_add_up(request: Request, fleet: list[NodeView], profile: Profile) -> None:
    """Candidates come by falling score, equal ones by id; each weight is in the multiplier's range."""
    candidates = place(request, fleet, profile).candidates
    assert [(c.node, c.score) for c in candidates] == [
        (c.node, c.score) for c in sorted(candidates, key=lambda c: (-c.score, c.node))]
    for candidate in candidates:
        assert candidate.score == sum(candidate.weights.values())
        for weigher, multiplier in profile.weighers:
            assert 0 <= candidate.weights.get(weigher.name, 0.0) / multiplier <= 1


@given(st.lists(st.floats(-1e6, 1e6), max_size=9), st.none() | st.just(0.0))
def test_normalised_values_keep_their_order(raw: list[float], minval: float | None) -> None:
    """The scale is [0, 1] and never turns two values round."""
    scaled = normalise(raw, minval)
    assert all(0 <= value <= 1 for value in scaled)
    pairs = sorted(zip(raw, scaled, strict=True))
    assert all(a[1] <= b[1] for a, b in zip(pairs, pairs[1:], strict=False))


@given(
    total=st.integers(0, 10**9), reserved=st.integers(0, 10**6), ratio_milli=st.integers(1, 100_000), used=st.integers(0, 10**11),
    amount=st.integers(0, 10**9), low=st.integers(1, 8), high=st.integers(1, 10**9), step=st.integers(1, 64),
    near=st.integers(-2, 2), edge=st.booleans(),
)
def test_the_capacity_rule_is_exact(
    total: int, reserved: int, ratio_milli: int, used: int, amount: int, low: int, high: int, step: int, near: int, edge: bool,
) -> None:
    """`shortage` answers as the rule in fractions does, also one unit around the edge, where floats would not."""
    inventory = Inventory("C", total, reserved, ratio_milli, low, high, step)
    capacity = max(Fraction(0), (total - reserved) * Fraction(ratio_milli, 1000))
    if edge:
        used = max(0, int(capacity) - amount + near)
    fits = amount == 0 or (used + amount <= capacity and low <= amount <= high and amount % step == 0)
    found = shortage(inventory, "C", used, amount)
    assert (found is None) == fits
    if found:
        assert found.needs == amount and found.free == (capacity - used).__floor__() and str(amount) in found.text


def test_a_rejection_is_a_value() -> None:
    """Rejects compare by content, so that a stored one equals a fresh one."""
    assert Reject("a", "b", {"C": 1}) == Reject("a", "b", {"C": 1})
