"""Many who claim at the same moment, on each kind of database: what is there once is given once."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from novactl.cluster import Cluster
from novactl.db import aggregates, groups, nodes, placement, projects, quotas, servers
from novactl.db.placement import Claim
from novactl.db.statements import Tx
from novactl.errors import Conflict, NovaError, QuotaExceeded
from novactl.model.aggregate import Aggregate
from novactl.model.group import Policy
from novactl.model.project import DEFAULT_PROJECT
from novactl.model.resources import Inventory
from novactl.model.topology import FittedCell, Fitting, Hardware, HostCell, PciDevice
from tests import databases
from tests.laws.ledger import DISK_GB, HOT, VCPU, group, node, project, recomputed, server, sums

MANY = 8


@pytest.fixture(params=databases.EACH)
def cluster(request: pytest.FixtureRequest, clusters: Callable[[str], Cluster]) -> Cluster:
    """Four nodes with room for 8 servers each."""
    found = clusters(request.param)
    with found.db.write() as tx:
        for name in ("n0", "n1", "n2", "n3"):
            nodes.insert(tx, node(name))
            nodes.ensure_inventory(tx, name, {kind: Inventory(kind, 8, max_unit=8) for kind in HOT})
    return found


def race(cluster: Cluster, acts: Sequence[Callable[[Tx], Any]]) -> list[NovaError | None]:
    """Each act in a transaction and a thread of its own, all at once: what each raised."""
    ready = threading.Barrier(len(acts))
    found: list[NovaError | None] = [None] * len(acts)

    def run(number: int) -> None:
        ready.wait(60)
        try:
            with cluster.db.write() as tx:
                acts[number](tx)
        except NovaError as refused:
            found[number] = refused
        finally:
            cluster.db.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(acts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    with cluster.db.read() as tx:
        kept, counted = sums(tx), recomputed(tx)
        assert all(wanted.items() <= kept[name].items() for name, wanted in counted.items())
    return found


def claiming(who: int | str, node_id: str, held: dict[str, int], **more: Any) -> Callable[[Tx], Any]:
    return lambda tx: placement.claim(tx, Claim(who if isinstance(who, str) else f"c{who}", node_id, held, **more))


def won(found: list[NovaError | None]) -> int:
    return found.count(None)


@pytest.mark.parametrize("seen", [True, False])
def test_the_last_room_goes_to_one(cluster: Cluster, seen: bool) -> None:
    """Of many who want what only one can have, one gets it, whether the node's generation is compared or its room looked at."""
    with cluster.db.read() as tx:
        generation = sums(tx)["n0"]["generation"] if seen else None
    found = race(cluster, [claiming(n, "n0", {VCPU: 5}, generation=generation) for n in range(MANY)])
    assert won(found) == 1 and all(isinstance(one, placement.Moved) for one in found if one)


def test_all_who_fit_get_their_room(cluster: Cluster) -> None:
    """Claims that do not compare generations wait for each other and all succeed."""
    assert won(race(cluster, [claiming(n, "n0", {VCPU: 1}) for n in range(MANY)])) == MANY


def test_a_quota_is_never_passed(cluster: Cluster) -> None:
    """Claims on different nodes count against one limit; the other project's do not."""
    with cluster.db.write() as tx:
        for name in ("p1", "p2"):
            projects.insert(tx, project(name))
        quotas.set_(tx, "p1", "servers", 3)
    acts = [claiming(n, f"n{n % 4}", {VCPU: 1}, project_id="p2" if n >= MANY else "p1") for n in range(MANY + 4)]
    found = race(cluster, acts)
    assert won(found[:MANY]) == 3 and won(found[MANY:]) == 4
    assert all(isinstance(one, QuotaExceeded) for one in found if one)


def test_a_limit_and_claims_at_once(cluster: Cluster) -> None:
    """Whoever comes first: usage stays within the limit that is in force then."""
    acts: list[Callable[[Tx], Any]] = [claiming(n, f"n{n % 4}", {VCPU: 1}) for n in range(MANY)]
    acts.insert(3, lambda tx: quotas.set_(tx, DEFAULT_PROJECT, "servers", 4))
    race(cluster, acts)
    with cluster.db.read() as tx:
        limit, used = quotas.limits(tx, DEFAULT_PROJECT)["servers"], projects.usage(tx, DEFAULT_PROJECT)["servers"]
    assert limit == -1 or used <= limit == 4


def members(cluster: Cluster, policy: Policy) -> list[str]:
    """The ids of the servers of a new group "g"."""
    ids = [cluster.ids.uuid() for _ in range(MANY)]
    with cluster.db.write() as tx:
        groups.insert(tx, group("g", policy))
        for id_ in ids:
            servers.insert(tx, server(id_, group="g"))
    return ids


def test_anti_affinity_is_not_raced(cluster: Cluster) -> None:
    """Two members on each of four nodes at once: one of each pair gets in."""
    ids = members(cluster, Policy.ANTI_AFFINITY)
    found = race(cluster, [claiming(id_, f"n{n % 4}", {VCPU: 1}, group_id="g") for n, id_ in enumerate(ids)])
    assert won(found) == 4
    assert all(isinstance(one, placement.GroupPolicy) and "anti-affinity" in one.message for one in found if one)
    with cluster.db.read() as tx:
        assert sorted(row.node_id for row in placement.all_(tx)) == ["n0", "n1", "n2", "n3"]


def test_affinity_is_not_raced(cluster: Cluster) -> None:
    """The first members come at once, each to a node of its own choice: only those on the first one's node get in."""
    ids = members(cluster, Policy.AFFINITY)
    found = race(cluster, [claiming(id_, f"n{n % 4}", {VCPU: 1}, group_id="g") for n, id_ in enumerate(ids)])
    with cluster.db.read() as tx:
        assert len({row.node_id for row in placement.all_(tx)}) == 1
    assert won(found) == 2 and all(isinstance(one, placement.GroupPolicy) for one in found if one)


def test_a_soft_group_refuses_nobody(cluster: Cluster) -> None:
    """Soft policies only weigh."""
    ids = members(cluster, Policy.SOFT_ANTI_AFFINITY)
    assert won(race(cluster, [claiming(id_, "n0", {VCPU: 1}, group_id="g") for id_ in ids])) == MANY


def test_a_shared_disk_is_there_once(cluster: Cluster) -> None:
    """Claims on different nodes of a pool take from one disk."""
    with cluster.db.write() as tx:
        for name in ("n0", "n1"):
            nodes.update(tx, dataclasses.replace(nodes.by_id(tx, name) or node(name), shared_disk="san"))
    found = race(cluster, [claiming(n, f"n{n % 2}", {VCPU: 1, DISK_GB: 3}) for n in range(6)])
    assert won(found) == 2
    with cluster.db.read() as tx:
        assert {sums(tx)[name]["used DISK_GB"] for name in ("n0", "n1")} == {6}


@pytest.mark.parametrize("fitting", [
    Fitting(pci=("0000:01:00.0",)), Fitting(cells=(FittedCell(0, 1, 64, page_kib=2048),)),
    Fitting(cells=(FittedCell(0, 1, 64, cpus=(2,)),)), Fitting(cells=(FittedCell(0, 1, 64, cpus=(2,), isolated=True),)),
])
def test_a_piece_of_a_host_is_given_once(cluster: Cluster, fitting: Fitting) -> None:
    """A CPU, a PCI device, the last pages: whoever fitted them at the same time is sent back."""
    with cluster.db.write() as tx:
        nodes.set_hardware(tx, "n0", Hardware(
            cells=(HostCell(0, (0, 1, 2, 3), 4096, siblings=((2, 3),), pages={2048: 40}),),
            pci=(PciDevice("0000:01:00.0", "10de", "1eb8"),)))
    found = race(cluster, [claiming(n, "n0", {VCPU: 1}, fitting=fitting) for n in range(MANY)])
    assert won(found) == 1 and all(isinstance(one, placement.Moved) and "held by another" in one.message for one in found if one)
    with cluster.db.write() as tx:
        (winner,) = {row.consumer_id for row in placement.all_(tx)}
        assert placement.fittings(tx) == {"n0": [fitting]} and placement.fitting_of(tx, winner) == fitting
        placement.release(tx, winner, "n0")
        assert placement.fittings(tx) == {} and placement.fitting_of(tx, winner) is None


def test_what_is_given_back_twice_comes_back_once(cluster: Cluster) -> None:
    """Several who release one claim at the same moment."""
    with cluster.db.write() as tx:
        for number in range(2):
            claiming(number, "n0", {VCPU: 2})(tx)
    assert won(race(cluster, [lambda tx: placement.release(tx, "c0", "n0")] * MANY)) == MANY
    with cluster.db.read() as tx:
        assert sums(tx)["n0"]["used VCPU"] == 2 and projects.usage(tx, DEFAULT_PROJECT)["servers"] == 1


def test_batches_that_cross_end(cluster: Cluster) -> None:
    """Two projects' batches over the same nodes in opposite orders: nobody waits for ever, and each is whole or not there."""
    with cluster.db.write() as tx:
        for name in ("p0", "p1"):
            projects.insert(tx, project(name))

    def batch(number: int) -> Callable[[Tx], Any]:
        order = ["n0", "n1", "n2", "n3"][::1 if number else -1]
        return lambda tx: [
            placement.claim(tx, Claim(f"b{number}-{name}", name, {VCPU: 1}, project_id=f"p{number}")) for name in order]

    for _ in range(2):
        found = race(cluster, [batch(0), batch(1)])
        assert all(one is None or isinstance(one, Conflict) for one in found)
        with cluster.db.write() as tx:
            for number, failed in enumerate(found):
                assert projects.usage(tx, f"p{number}")["servers"] == (0 if failed else 4)
                for name in ("n0", "n1", "n2", "n3"):
                    placement.release(tx, f"b{number}-{name}", name)


def test_two_nodes_of_a_new_kind_at_once(cluster: Cluster) -> None:
    """Both write the facts they share; neither is in the other's way."""
    assert won(race(cluster, [
        lambda tx, name=f"m{number}": nodes.insert(tx, node(name, zone="new")) for number in range(4)])) == 4      # type: ignore[misc]
    with cluster.db.read() as tx:
        assert len({row.shape for row in nodes.rows(tx) if row.name.startswith("m")}) == 1 and len(nodes.shapes(tx)) == 2


def test_facts_that_change_from_two_sides(cluster: Cluster) -> None:
    """A label and several memberships given at the same moment: the node's facts have all of them in the end."""
    with cluster.db.write() as tx:
        for number in range(4):
            aggregates.insert(tx, Aggregate(id=f"a{number}", name=f"a{number}", metadata={}, created_at=0.0))
    acts: list[Callable[[Tx], Any]] = [
        lambda tx, of=f"a{number}": aggregates.add_node(tx, of, "n0") for number in range(4)]                     # type: ignore[misc]
    acts.append(lambda tx: nodes.update(tx, node("n0", labels={"rack": "r9"})))
    assert won(race(cluster, acts)) == 5
    with cluster.db.write() as tx:
        facts = nodes.facts_of(tx, "n0")
        assert facts.labels == {"rack": "r9"} and [one.name for one in facts.aggregates] == ["a0", "a1", "a2", "a3"]
        for number in range(4):
            aggregates.delete(tx, f"a{number}")
