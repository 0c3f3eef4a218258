"""Small clusters whose servers were placed one after the other, for laws about many of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from novactl.model.facts import AggregateFacts, Facts
from novactl.model.group import Policy
from novactl.model.node import NodeState
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU, Inventory
from novactl.model.wants import Wants
from novactl.scheduler.pipeline import place
from novactl.scheduler.profiles import PROFILES
from novactl.scheduler.request import GroupView, NodeView, Peer, Request
from novactl.scheduler.survival import Resident

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
