"""N+1 on small fleets, with the arithmetic."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from novactl.model.facts import Facts
from novactl.model.group import Policy
from novactl.model.node import NodeState
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU, Inventory
from novactl.model.topology import GuestCell, GuestTopology, Hardware, HostCell
from novactl.model.wants import Wants
from novactl.scheduler.fleet import Fleet
from novactl.scheduler.pipeline import pick, place
from novactl.scheduler.request import GroupView, NodeView, Request
from novactl.scheduler.survival import Resident, Survival

X86 = Facts(architecture="x86_64")


def asks(gib: int, **changes: Any) -> Request:
    """A server of so much memory, one processor and no disk."""
    return Request(server="new", amounts={VCPU: 1, MEMORY_MB: gib * 1024}, architecture="x86_64", **changes)


def fleet(gib: int, servers: dict[str, dict[str, int]], **changes: Any) -> tuple[list[NodeView], list[Resident]]:
    """Nodes of `gib` GiB each, by name, with servers by name and size in GiB."""
    nodes = [
        replace(NodeView(
            id=name, name=name, state=NodeState.ENABLED, facts=X86, reported_at=0.0, servers=len(here),
            inventories={VCPU: Inventory(VCPU, 64), MEMORY_MB: Inventory(MEMORY_MB, gib * 1024), DISK_GB: Inventory(DISK_GB, 1000)},
            used={VCPU: len(here), MEMORY_MB: sum(here.values()) * 1024}), **changes)
        for name, here in servers.items()
    ]
    residents = [Resident(server, server, name, asks(size)) for name, here in servers.items() for server, size in here.items()]
    return nodes, residents


def test_a_safe_cluster_refuses_what_would_make_it_unsafe() -> None:
    """Three nodes of 64 GiB hold 32 each. 32 more on n2 leave n2's 64 the 32 + 32 of n1 and n3; 40 more leave nobody the 40."""
    nodes, residents = fleet(64, {"n1": {"db1": 32}, "n2": {"db2": 32}, "n3": {"db3": 32}})
    survival = Survival(nodes, residents)
    assert survival.losses() == () and [(r.name, node) for r, node in survival.moves("n1")] in ([("db1", "n2")], [("db1", "n3")])
    assert survival.refusal(asks(31), "n2") is None
    refused = survival.refusal(replace(asks(33), server="web1"), "n2")
    assert refused is not None and refused.code == "n_plus_1"
    assert refused.text == "N+1: losing n2 would leave web1 (memory 33.0 GiB) without a place"


def test_another_nodes_loss_counts_as_well() -> None:
    """n3 is n1's only refuge: 40 GiB and 24 more are its 64. Whatever more is put there leaves db1 without a place."""
    nodes, residents = fleet(64, {"n1": {"db1": 40}, "n2": {"db2": 40}, "n3": {"small": 24}})
    refused = Survival(nodes, residents).refusal(asks(1), "n3")
    assert refused is not None and refused.text.startswith("N+1: losing n1 would leave db1 (memory 40.0 GiB) without a place")


def test_the_guard_of_a_decision() -> None:
    """Ranked candidates that it refuses are rejected with its reason, in `place` and in `pick`; the next best is chosen."""
    nodes, residents = fleet(64, {"n1": {"db1": 40}, "n2": {"db2": 40}, "n3": {"small": 10}, "n4": {"other": 30}})
    survival = Survival(nodes, residents)
    asked = asks(8)
    decision = place(asked, nodes, guard=survival.refusal)
    columns = pick(asked, Fleet.of(nodes), guard=survival.refusal)
    assert decision.chosen == columns.chosen and decision.chosen is not None and decision.chosen.node == "n3"
    survival.take(asked, "n3")
    big = asks(34)
    assert place(big, nodes).possible == 2 and place(big, nodes, guard=survival.refusal).chosen is None
    assert "n3" in place(big, nodes, guard=survival.refusal).rejected


def test_an_unsafe_cluster_takes_what_makes_it_no_worse() -> None:
    """Nobody has room for big's 60 GiB. A small server that everyone's loss leaves a place is taken; the refusal of another tells both."""
    nodes, residents = fleet(64, {"n1": {"big": 60}, "n2": {"db2": 20}, "n3": {"db3": 20}})
    survival = Survival(nodes, residents)
    (loss,) = survival.losses()
    assert loss.text == "losing n1 would leave big (memory 60.0 GiB) without a place"
    assert survival.refusal(asks(20), "n2") is None
    survival.take(asks(20), "n2", "web1")
    assert survival.losses() == (loss,)
    refused = survival.refusal(asks(24), "n3")
    assert refused is not None and refused.text == (
        "N+1: losing n3 would leave db3 (memory 20.0 GiB) without a place"
        " (not safe before either: losing n1 would leave big (memory 60.0 GiB) without a place)")


def test_members_of_a_group_stay_apart() -> None:
    """web1's only refuge is n3; a second member there takes it away, though there is room."""
    nodes, residents = fleet(64, {"n1": {"web1": 8}, "n2": {"full": 60}, "n3": {}})
    group = GroupView(name="web", policy=Policy.ANTI_AFFINITY)
    residents[0] = residents[0]._replace(request=asks(8, group=group))
    survival = Survival(nodes, residents)
    asked = asks(4, group=group)
    assert survival.losses() == ()
    refused = survival.refusal(asked, "n3")
    assert refused is not None and "losing n1 would leave web1" in refused.text     # 8 GiB do not fit beside the 60 on n2
    assert survival.refusal(asks(4), "n3") is None
    nodes[1] = replace(nodes[1], used={})
    survival = Survival(nodes, [residents[0]])
    assert survival.refusal(asked, "n3") is None                                    # web1 to n2 then, and the new one as well
    survival.take(asked, "n3", "web2")
    assert [node for _, node in survival.moves("n1")] == ["n2"] and [node for _, node in survival.moves("n3")] == ["n2"]


def test_an_affinity_group_moves_as_one() -> None:
    """Two members of 20 GiB need one node with 40 free; two nodes with 34 each are no place."""
    group = GroupView(name="close", policy=Policy.AFFINITY)
    nodes, residents = fleet(64, {"n1": {"a": 20, "b": 20}, "n2": {"x": 30}, "n3": {"y": 30}})
    together = [r._replace(request=asks(20, group=group)) if r.node == "n1" else r for r in residents]
    assert Survival(nodes, residents).losses() == ()
    (loss,) = Survival(nodes, together).losses()
    assert loss.node == "n1" and loss.servers == ("a", "b")


def test_pieces_of_a_host_are_counted() -> None:
    """Two pinned servers of 2 CPUs need a node with 4 dedicated ones; one of them has a place on each of two nodes with 2."""
    pinned = asks(1, wants=Wants(topology=GuestTopology((GuestCell(2, 1024),), pinned=True)))

    def with_cpus(nodes: list[NodeView], *counts: int) -> list[NodeView]:
        return [
            replace(node, fittings=(), hardware=Hardware((HostCell(0, tuple(range(count)), 65_536),), dedicated=tuple(range(count))))
            for node, count in zip(nodes, counts, strict=True)]

    nodes, residents = fleet(64, {"n1": {"a": 1, "b": 1}, "n2": {}, "n3": {}})
    residents = [resident._replace(request=pinned) for resident in residents]
    assert {node for _, node in Survival(with_cpus(nodes, 4, 2, 2), residents).moves("n1")} == {"n2", "n3"}
    assert {node for _, node in Survival(with_cpus(nodes, 4, 0, 4), residents).moves("n1")} == {"n3"}
    assert Survival(with_cpus(nodes, 4, 0, 3), residents).losses()[0].servers in (("a",), ("b",))


def test_a_disabled_node_is_no_refuge() -> None:
    """Its own servers count all the same."""
    nodes, residents = fleet(64, {"n1": {"a": 1}, "n2": {"b": 1}})
    assert Survival(nodes, residents).losses() == ()
    nodes[1] = replace(nodes[1], state=NodeState.DISABLED)
    assert [loss.node for loss in Survival(nodes, residents).losses()] == ["n1"]


def test_no_nodes_and_no_servers() -> None:
    """An empty fleet is safe; so is one node without servers, until it has one."""
    assert Survival([], []).losses() == ()
    nodes, _ = fleet(64, {"n1": {}})
    survival = Survival(nodes, [])
    assert survival.losses() == ()
    refused = survival.refusal(asks(2), "n1")
    assert refused is not None and refused.text == "N+1: losing n1 would leave new (memory 2.0 GiB) without a place"
