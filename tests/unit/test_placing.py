"""Placing on a real cluster: batches, groups, quotas, N+1, and what is told of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from novactl.api import aggregates as api_aggregates
from novactl.api import cluster as api_cluster
from novactl.api import groups as api_groups
from novactl.api import placement as api_placement
from novactl.api import projects as api_projects
from novactl.api import quotas as api_quotas
from novactl.api import servers as api
from novactl.api.creation import begin_batch
from novactl.api.hints import Hints
from novactl.conductor.placing import Asked, Placer, explained, request_of
from novactl.db import groups, nodes, placement, servers
from novactl.errors import NotFound, NoValidHost, QuotaExceeded, UsageError
from novactl.scheduler import pipeline
from tests.world import World

GIB = 1024


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Four nodes of 8 CPUs (x 4) and 16 GiB less 512 MiB, two in each rack; a flavor of 4 GiB."""
    made = World(tmp_path)
    for name in "abcd":
        made.add_node(name)
    with made.cluster.db.write() as tx:
        for node in nodes.all_(tx):
            nodes.update(tx, replace(node, labels={"rack": "r1" if node.name in "ab" else "r2"}))
    made.add_flavor("big", vcpus=2, memory_mb=4 * GIB, disk_gb=1)
    made.add_image()
    made.start()
    yield made
    made.stop()


def wanted(name: str, **changes: Any) -> api.CreateServer:
    return replace(api.CreateServer(name=name, flavor="big", image="guest"), **changes)


def places(made: api.Created) -> list[str]:
    return [server.node_name for server in made.servers]


def test_a_batch_is_placed_all_or_none(world: World) -> None:
    """Each node has room for three of 4 GiB (15.5 GiB): twelve fit, thirteen do not, and then none is left behind."""
    with pytest.raises(NoValidHost) as refused:
        api.create(world.cluster, wanted("web", count=13))
    assert "12 of its batch before it would fit; none was created" in refused.value.message and len(refused.value.reasons) == 4
    assert world.leftovers() == []
    made = api.create(world.cluster, wanted("web", count=12))
    assert sorted(places(made)) == sorted("abcd" * 3)
    assert [server.name for server in made.servers] == [f"web-{number}" for number in range(1, 13)]
    assert {server.status for server in made.servers} == {"ACTIVE"}


def test_a_batch_may_be_cut_short(world: World) -> None:
    """With --min-count what fits is created, if it is that many."""
    with pytest.raises(NoValidHost):
        api.create(world.cluster, wanted("web", count=20, min_count=13))
    assert world.leftovers() == []
    assert len(api.create(world.cluster, wanted("web", count=20, min_count=12)).servers) == 12
    with pytest.raises(UsageError, match="--min-count must be 1 to --count"):
        api.create(world.cluster, wanted("x", count=2, min_count=3))


def test_a_trial_decides_as_the_deed_does(world: World) -> None:
    """--dry-run names the nodes that the batch then goes to, and changes nothing."""
    tried = api.create(world.cluster, wanted("web", count=5), dry_run=True)
    assert world.leftovers() == [] and len(tried.decisions) == 5
    assert len(set(places(tried)[:4])) == 4
    assert sorted(places(api.create(world.cluster, wanted("web", count=5)))) == sorted(places(tried))


def test_a_batch_is_as_many_single_decisions(world: World) -> None:
    """The nodes of a batch are those that one decision after the other gives."""
    tried = api.create(world.cluster, wanted("w", count=9), dry_run=True)
    batch = [decision.chosen.node for decision in tried.decisions if decision.chosen]
    singles = []
    for number in range(9):
        (made,) = api.create(world.cluster, wanted(f"s{number}")).servers
        singles.append(made.node_id)
    assert singles == batch


def test_anti_affinity_holds_in_a_batch_and_after(world: World) -> None:
    """One a node; the fifth is told who is where."""
    api_groups.create(world.cluster, api_groups.CreateGroup(name="web", policy="anti-affinity"))
    assert sorted(places(api.create(world.cluster, wanted("web", count=4, hints=Hints(group="web"))))) == list("abcd")
    with pytest.raises(NoValidHost) as refused:
        api.create(world.cluster, wanted("more", hints=Hints(group="web")))
    assert all("anti-affinity" in reason and "web-" in reason for reason in refused.value.reasons)


def test_affinity_holds_in_a_batch(world: World) -> None:
    """All on one node, as many as it has room for; a fourth has none."""
    api_groups.create(world.cluster, api_groups.CreateGroup(name="db", policy="affinity"))
    assert len(set(places(api.create(world.cluster, wanted("db", count=3, hints=Hints(group="db")))))) == 1
    with pytest.raises(NoValidHost):
        api.create(world.cluster, wanted("more", hints=Hints(group="db")))


def test_a_batch_is_spread_over_racks(world: World) -> None:
    """Three over two racks: two and one; the label's values are what counts, not the nodes."""
    made = api.create(world.cluster, wanted("web", count=4, hints=Hints(spread_by="rack")))
    racks = ["r1" if node in "ab" else "r2" for node in places(made)]
    assert sorted(racks) == ["r1", "r1", "r2", "r2"] and racks[0] != racks[1] and racks[2] != racks[3]


def test_peers_are_found_by_name(world: World) -> None:
    """--same-host and --different-host name servers."""
    (first,) = api.create(world.cluster, wanted("a1")).servers
    (beside,) = api.create(world.cluster, wanted("a2", hints=Hints(same_host=("a1",)))).servers
    (apart,) = api.create(world.cluster, wanted("a3", hints=Hints(different_host=("a1",)))).servers
    assert beside.node_id == first.node_id != apart.node_id
    with pytest.raises(NotFound):
        api.create(world.cluster, wanted("a4", hints=Hints(same_host=("nobody",))))


def test_a_quota_is_held_where_claims_are_written(world: World) -> None:
    """Two cores a server, five allowed: the third is refused with the numbers, a batch as a whole, and deleting gives back."""
    api_projects.create(world.cluster, name="acme")
    api_quotas.set_(world.cluster, "acme", {"cores": "5"})
    hints = Hints(project="acme")
    with pytest.raises(QuotaExceeded):
        api.create(world.cluster, wanted("web", count=3, hints=hints))
    assert world.leftovers() == []
    api.create(world.cluster, wanted("web", count=2, hints=hints))
    with pytest.raises(QuotaExceeded) as refused:
        api.create(world.cluster, wanted("third", hints=hints))
    assert "acme" in refused.value.message and "cores" in refused.value.message and "5" in refused.value.message
    api.delete(world.cluster, "web-1")
    assert api.create(world.cluster, wanted("third", hints=hints)).servers[0].status == "ACTIVE"


def test_n_plus_1_is_kept(world: World) -> None:
    """Twelve fit, nine with a node to spare: losing any one leaves three servers for three nodes of three each."""
    api_cluster.set_(world.cluster, n_plus_1=True)
    with pytest.raises(NoValidHost) as refused:
        api.create(world.cluster, wanted("web", count=10))
    assert any("N+1: losing" in reason and "without a place" in reason for reason in refused.value.reasons)
    api.create(world.cluster, wanted("web", count=9))
    with pytest.raises(NoValidHost) as refused:
        api.create(world.cluster, wanted("one-more"))
    assert any("N+1: losing" in reason for reason in refused.value.reasons)
    explanation = api_placement.explain(world.cluster, wanted("explain"))
    assert {row.verdict for row in explanation.rows} == {"rejected"}
    api_cluster.set_(world.cluster, n_plus_1=False)
    assert api.create(world.cluster, wanted("one-more")).servers[0].status == "ACTIVE"


def test_why_not_compares(world: World) -> None:
    """A node that is not the best is shown below the best; one that will not do with its reasons."""
    api.create(world.cluster, wanted("x", node="a"))
    better = api_placement.why_not(world.cluster, wanted("explain"), "a")
    assert [row.verdict for row in better.rows] == ["chosen", "4th"]
    assert "could take it (4th)" in better.summary and "balance" in better.summary
    for number in (2, 3):
        api.create(world.cluster, wanted(f"x{number}", node="a"))
    full = api_placement.why_not(world.cluster, wanted("explain"), "a")
    assert [row.verdict for row in full.rows] == ["rejected"] and "short by" in full.rows[0].reasons[0]


def test_a_large_fleet_is_told_in_part(tmp_path: Path) -> None:
    """Of eighty nodes the stored decision has the best few, the reasons of 64 rejected ones, and the count of all."""
    world = World(tmp_path)
    for number in range(80):
        world.add_node(f"n{number:02}", fake={"memory_mb": 1024 if number >= 10 else 16_384})
    world.add_flavor("big", vcpus=2, memory_mb=4 * GIB, disk_gb=1)
    world.add_image()
    world.start()
    try:
        api.create(world.cluster, wanted("web1"))
        told = api.why(world.cluster, "web1")
        assert told.summary == "80 nodes, 10 possible."
        assert [row.verdict for row in told.rows][:2] == ["chosen", "2nd"]
        assert sum(row.verdict == "rejected" for row in told.rows) == 64
        api.create(world.cluster, wanted("fill", count=9))
        for number in range(2):
            api.create(world.cluster, wanted(f"fill{number}", count=10))
        with pytest.raises(NoValidHost) as refused:
            api.create(world.cluster, wanted("nowhere"))
        assert len(refused.value.reasons) == 41 and refused.value.reasons[-1].startswith("… and 40 more. Nodes that each filter rejected")
        assert "Nearest miss: n0" in refused.value.message
    finally:
        world.stop()


def test_a_placer_sees_its_own_claims_and_is_refused_on_others(world: World) -> None:
    """Kept columns follow its own claims exactly; another's claim in between makes the next one fail, and then all is read anew."""
    cluster, made = world.cluster, []
    placer = Placer(cluster, many=True)
    template = api.create(cluster, wanted("t"), dry_run=True).servers[0]
    template = replace(template, node_id="", node_name="")

    def place(other: Placer) -> str:
        server = replace(template, id=cluster.ids.uuid(), name=f"s{len(made)}")
        with cluster.db.write() as tx:
            asked = Asked(server=server)
            decision = other.decide(tx, request_of(cluster, tx, asked))
            assert decision.chosen is not None
            truth = explained(cluster, tx, request_of(cluster, tx, asked))
            if other is placer and not stale:
                assert truth.chosen == decision.chosen
            other.claim(tx, asked, decision)
            made.append(server.id)
        return decision.chosen.node

    stale = False
    for _ in range(5):
        place(placer)
    others = {place(Placer(cluster)) for _ in range(4)}
    assert len(others) == 4                                   # every node is another than it knows by now
    stale = True
    with pytest.raises(placement.Moved):
        place(placer)
    stale = False
    place(placer)
    with cluster.db.read() as tx:
        assert sum(placement.consumers(tx).values()) == 10 and servers.all_(tx) == ()


def test_a_batch_asks_what_does_not_change_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve servers on nodes that are all different: filters judge each kind of node once, and each node's label is read once."""
    with world.cluster.db.write() as tx:
        for node in nodes.all_(tx):
            nodes.update(tx, replace(node, labels={**node.labels, "host": node.name}))
    judged: list[int] = []
    read: list[str] = []
    by_kinds, domains = pipeline._by_kinds, groups.domains
    monkeypatch.setattr(pipeline, "_by_kinds", lambda *given: judged.append(1) or by_kinds(*given))
    monkeypatch.setattr(groups, "domains", lambda tx, ids, label: read.extend(ids) or domains(tx, ids, label))
    made = api.create(world.cluster, wanted("web", count=12, hints=Hints(spread_by="rack")), dry_run=True)
    assert len(made.servers) == 12 and len(judged) == 1 and len(read) == len(set(read)) == 4


def test_n_plus_1_does_not_count_what_is_under_way(world: World) -> None:
    """One operation a node at a time: creations under way on three of four nodes are no reason why a loss could not be borne."""
    api_aggregates.create(world.cluster, name="slow", properties={"max_io_ops_per_host": "1"})
    api_aggregates.add_nodes(world.cluster, "slow", list("abcd"))
    api_cluster.set_(world.cluster, n_plus_1=True)
    begin_batch(world.cluster, wanted("web", count=3), ["web-1", "web-2", "web-3"], detached=True)
    rows = api_placement.explain(world.cluster, wanted("explain")).rows
    assert [row.verdict for row in rows] == ["chosen", "rejected", "rejected", "rejected"]
    assert all("operations under way" in row.reasons[0] and len(row.reasons) == 1 for row in rows[1:])
