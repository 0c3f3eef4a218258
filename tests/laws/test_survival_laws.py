"""N+1: what a plan promises holds by every filter, one server after the other, and stays so whatever is placed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from novactl.model.facts import AggregateFacts, Facts
from novactl.model.group import Policy
from novactl.model.node import NodeState
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU, Inventory
from novactl.model.wants import Wants
from novactl.scheduler.filters import requested
from novactl.scheduler.pipeline import place
from novactl.scheduler.profiles import PROFILES
from novactl.scheduler.request import GroupView, NodeView, Peer, Request
from novactl.scheduler.survival import Resident, Survival

DEFAULT = PROFILES["default"]
SIZES = st.fixed_dictionaries({VCPU: st.integers(1, 4), MEMORY_MB: st.integers(1, 6), DISK_GB: st.integers(0, 3)})
GROUPS = st.sampled_from([
    None, None, None, ("apart", Policy.ANTI_AFFINITY, "", 1), ("pairs", Policy.ANTI_AFFINITY, "rack", 2), ("close", Policy.AFFINITY, "", 1),
    ("near", Policy.AFFINITY, "rack", 1), ("soft", Policy.SOFT_AFFINITY, "", 1)])


@dataclass
class World:
    """Nodes, and the servers that were placed on them, one after the other."""

    nodes: dict[str, NodeView]
    residents: list[Resident] = field(default_factory=list)

    def request(self, asked: Request, but: str = "") -> Request:
        """`asked` with its group's members and its peers where they are now; those on node `but` are nowhere."""
        where = {r.id: Peer(r.id, r.name, "" if r.node == but else r.node) for r in self.residents}
        group = asked.group
        if group:
            members = tuple(where[r.id] for r in self.residents if r.request.group and r.request.group.name == group.name)
            domains = {id_: node.facts.labels.get(group.scope, "") for id_, node in self.nodes.items()}
            group = replace(group, members=members, domains=domains)
        return replace(asked, group=group, peers=where)

    def put(self, resident: Resident) -> None:
        for node in self.nodes.values():
            here, pool = node.id == resident.node, self.nodes[resident.node].shared_disk
            if here or (pool and pool == node.shared_disk):
                amounts = resident.request.amounts if here else {DISK_GB: resident.request.amounts[DISK_GB]}
                used = {name: node.used.get(name, 0) + amounts.get(name, 0) for name in (VCPU, MEMORY_MB, DISK_GB)}
                self.nodes[node.id] = replace(node, used=used, servers=node.servers + here)
        self.residents.append(resident)


@st.composite
def nodes(draw: st.DrawFn) -> dict[str, NodeView]:
    found = {}
    for id_ in "abcde"[:draw(st.integers(2, 5))]:
        limit = draw(st.sampled_from([None, None, None, "2"]))
        aggregates = (AggregateFacts("few", {"max_instances_per_host": limit}),) if limit else ()
        rack = draw(st.sampled_from(["r1", "r2", "r3", ""]))
        found[id_] = NodeView(
            id=id_, name=f"n{id_}", state=draw(st.sampled_from([NodeState.ENABLED] * 6 + [NodeState.DISABLED])), reported_at=1000.0,
            facts=Facts(architecture="x86_64", zone=draw(st.sampled_from(["z1", "z2"])), aggregates=aggregates,
                        labels={"rack": rack} if rack else {}),
            inventories={VCPU: Inventory(VCPU, draw(st.integers(4, 8)), ratio_milli=2000, max_unit=8),
                         MEMORY_MB: Inventory(MEMORY_MB, draw(st.integers(6, 16))), DISK_GB: Inventory(DISK_GB, 12)},
            used={}, shared_disk=draw(st.sampled_from(["", "", "pool"])))
    return found


@st.composite
def requests(draw: st.DrawFn, world: World, name: str) -> Request:
    found = draw(GROUPS)
    wants = Wants()
    if world.residents and draw(st.integers(0, 5)) == 0:
        other = (draw(st.sampled_from(world.residents)).id,)
        wants = Wants(same_host=other) if draw(st.booleans()) else Wants(different_host=other)
    group = GroupView(name=found[0], policy=found[1], scope=found[2], max_per_domain=found[3]) if found else None
    return Request(
        server=name, amounts=draw(SIZES), architecture="x86_64", zone=draw(st.sampled_from(["", "", "z1"])), now=1000.0, wants=wants,
        group=group)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    world = World(draw(nodes()))
    for number in range(draw(st.integers(1, 12))):
        asked = draw(requests(world, f"s{number}"))
        chosen = place(world.request(asked), world.nodes.values(), DEFAULT).chosen
        if chosen:
            world.put(Resident(f"id{number}", asked.server, chosen.node, asked))
    return world


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
