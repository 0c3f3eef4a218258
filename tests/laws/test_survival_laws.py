"""N+1: what a plan promises holds by every filter, one server after the other, and stays so whatever is placed."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from novactl.model.resources import DISK_GB
from novactl.model.wants import Wants
from novactl.scheduler.filters import requested
from novactl.scheduler.pipeline import place
from novactl.scheduler.survival import Resident, Survival
from tests.laws.worlds import DEFAULT, World, requests, worlds


def survives(world: World, survival: Survival, lost: str) -> set[str]:
    """Names of the servers that a plan moves, after every move has been made and no filter has said no."""
    gone = [resident for resident in world.residents if resident.node == lost]
    rest = World(
        {id_: node for id_, node in world.nodes.items() if id_ != lost}, [r for r in world.residents if r.node != lost])
    moves = [(next(g for g in gone if g.name == resident.name), target) for resident, target in survival.moves(lost)]
    waiting = [*moves]
    pool = world.nodes[lost].shared_disk
    while waiting:
        ready = [move for move in waiting if not any(
            other[0].id in move[0].request.wants.same_host for other in waiting)] or waiting
        resident, target = ready[0]
        waiting.remove(ready[0])
        asked = rest.request(resident.request)
        if pool and pool == rest.nodes[target].shared_disk:       # its disk is there already
            asked = replace(asked, amounts={**asked.amounts, DISK_GB: 0})
        missing = [id_ for id_ in asked.wants.same_host if id_ not in asked.peers]
        if missing:                                               # that one has no place itself
            asked = replace(asked, wants=Wants())
        rejects = [reject for check in (requested, *DEFAULT.filters) if (reject := check(asked, rest.nodes[target]))]
        assert not rejects, (resident.name, target, rejects)
        rest.put(resident._replace(node=target, request=replace(resident.request, amounts=asked.amounts)))
    assert len({resident.id for resident, _ in moves}) == len(moves)
    return {resident.name for resident, _ in moves}


def check_all(world: World, survival: Survival) -> None:
    short = {loss.node: set(loss.servers) for loss in survival.losses()}
    for id_ in world.nodes:
        here = {resident.name for resident in world.residents if resident.node == id_}
        assert survives(world, survival, id_) | short.get(id_, set()) == here


@given(worlds())
def test_a_plan_can_be_carried_out(world: World) -> None:
    """Every move of every plan passes every filter when it is made, and whoever has no move is named."""
    check_all(world, Survival(world.nodes.values(), world.residents, DEFAULT))


@settings(max_examples=150)
@given(worlds(), st.data())
def test_plans_stay_true_as_servers_are_placed(world: World, data: st.DataObject) -> None:
    """After each accepted placement all plans hold, and nobody lost a place that they had; a refused one changes nothing."""
    survival = Survival(world.nodes.values(), world.residents, DEFAULT)
    for number in range(data.draw(st.integers(1, 5))):
        asked = data.draw(requests(world, f"new{number}"))
        before = {name for loss in survival.losses() for name in loss.servers}
        full = world.request(asked)
        chosen = place(full, world.nodes.values(), DEFAULT, survival.refusal).chosen
        if chosen:
            assert survival.refusal(full, chosen.node) is None
            survival.take(full, chosen.node, f"new-id{number}")
            world.put(Resident(f"new-id{number}", asked.server, chosen.node, asked))
        assert {name for loss in survival.losses() for name in loss.servers} <= before
        check_all(world, survival)


@given(worlds(), st.data())
def test_a_copy_goes_its_own_way(world: World, data: st.DataObject) -> None:
    """What is placed in a copy is not in the original."""
    survival = Survival(world.nodes.values(), world.residents, DEFAULT)
    before = {id_: survival.moves(id_) for id_ in world.nodes}
    twin = survival.copy()
    asked = world.request(data.draw(requests(world, "new")))
    chosen = place(asked, world.nodes.values(), DEFAULT, twin.refusal).chosen
    if chosen:
        twin.take(asked, chosen.node, "new-id")
    assert {id_: survival.moves(id_) for id_ in world.nodes} == before
    check_all(world, survival)
