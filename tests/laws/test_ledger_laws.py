"""The ledger's laws: whatever is claimed, released and changed, and by how many at once, the books balance and no rule is broken."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from novactl.cluster import Cluster
from novactl.db import groups, nodes, placement, projects, quotas, servers
from novactl.db.placement import Claim
from novactl.errors import Conflict, InUse, NovaError, QuotaExceeded
from novactl.model.group import Policy
from novactl.model.node import NodeState
from novactl.model.project import DEFAULT_PROJECT
from novactl.model.resources import Inventory
from tests.laws.ledger import DISK_GB, GPU, HOT, MEMORY_MB, VCPU, Books, empty, group, node, project, recomputed, server, sums

NODES = ("n0", "n1", "n2", "n3")
PROJECTS = (DEFAULT_PROJECT, "p1", "p2")
GROUPS = {
    "apart": group("apart", Policy.ANTI_AFFINITY), "pairs": group("pairs", Policy.ANTI_AFFINITY, most=2),
    "racks": group("racks", Policy.ANTI_AFFINITY, scope="rack"), "near": group("near", Policy.AFFINITY),
    "near-rack": group("near-rack", Policy.AFFINITY, scope="rack"), "soft": group("soft", Policy.SOFT_ANTI_AFFINITY),
}
amounts = st.fixed_dictionaries(
    {VCPU: st.integers(0, 3)}, optional={MEMORY_MB: st.integers(1, 6), DISK_GB: st.integers(1, 6)},
).filter(lambda found: any(found.values())) | st.just({VCPU: 1, GPU: 1})
classes = st.sampled_from((*HOT, GPU))
somewhere = st.sampled_from(NODES)


class Ledger(RuleBasedStateMachine):
    """Every rule acts on the database and on the books; what a claim gets is what the books say it must get."""

    cluster: Cluster
    begun = 0
    """How many runs there were: servers stay as history, under ids of their own."""

    @initialize()
    def begin(self) -> None:
        Ledger.begun += 1
        self.books, self.number, self.generations = Books(groups=dict(GROUPS)), 0, dict.fromkeys(NODES, -1)
        self.over: set[tuple[str, str]] = set()
        with self.cluster.db.write() as tx:
            empty(tx)
            for name in PROJECTS[1:]:
                projects.insert(tx, project(name))
            for one in GROUPS.values():
                groups.insert(tx, one)
            for number, name in enumerate(NODES):
                self.books.nodes[name] = node(name, labels={"rack": f"r{number // 2}"}, shared_disk="pool" if number > 1 else "")
                nodes.insert(tx, self.books.nodes[name])
                self.books.stock[name] = {kind: Inventory(kind, 12, max_unit=6) for kind in HOT}
                nodes.ensure_inventory(tx, name, self.books.stock[name])

    # ---- claims

    @rule(node_id=somewhere, of=st.sampled_from(sorted(GROUPS)))
    def claim_in_a_group(self, node_id: str, of: str) -> None:
        self.claim(node_id, {VCPU: 1}, DEFAULT_PROJECT, of, "never", "server")

    @rule(node_id=somewhere, held=amounts, whose=st.sampled_from(PROJECTS), of=st.sampled_from(("", *GROUPS)),
          seen=st.sampled_from(("now", "never", "before")), kind=st.sampled_from(("server", "server", "operation")))
    def claim(self, node_id: str, held: dict[str, int], whose: str, of: str, seen: str, kind: str) -> None:
        self.number += 1
        consumer = f"{Ledger.begun}-{self.number:04}"
        with self.cluster.db.write() as tx:
            if kind == "server":
                servers.insert(tx, dataclasses.replace(server(consumer, project=whose, group=of), name=consumer))
            generation = sums(tx)[node_id]["generation"]
        asked = Claim(
            consumer, node_id, held, project_id=whose, group_id=of if kind == "server" else "", kind=kind,
            generation={"now": generation, "before": generation - 1, "never": None}[seen])
        books = self.books
        allowed = (seen != "before" and books.nodes[node_id].state is NodeState.ENABLED and books.fits(asked) and books.within_quota(asked)
                   and books.group_allows(asked))
        try:
            with self.cluster.db.write() as tx:
                before = self._everything(tx)
                try:
                    now = placement.claim(tx, asked)
                except NovaError:
                    assert self._everything(tx) == before, "a claim that is refused leaves nothing"
                    raise
                assert now == sums(tx)[node_id]["generation"] > generation
        except (placement.Moved, QuotaExceeded) as refused:
            assert not allowed, refused
            assert isinstance(refused, QuotaExceeded) == (not books.within_quota(asked))
            return
        assert allowed
        books.claims[consumer] = asked
        assert all(books.used(node_id, name) <= books.stock[node_id][name].capacity for name, amount in held.items() if amount)
        self._note_over()

    @precondition(lambda self: self.books.claims)
    @rule(data=st.data())
    def claim_again(self, data: st.DataObject) -> None:
        asked = self._held(data)
        with self.cluster.db.write() as tx:
            before = self._everything(tx)
            placement.claim(tx, dataclasses.replace(asked, generation=None))
            assert self._everything(tx) == before
        with pytest.raises(Conflict), self.cluster.db.write() as tx:
            placement.claim(tx, dataclasses.replace(asked, generation=None, amounts={**asked.amounts, VCPU: 77}))

    @precondition(lambda self: self.books.claims)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        asked = self._held(data)
        with self.cluster.db.write() as tx:
            placement.release(tx, asked.consumer_id, asked.node_id)
            once = self._everything(tx)
            placement.release(tx, asked.consumer_id, asked.node_id)
            assert self._everything(tx) == once
        del self.books.claims[asked.consumer_id]

    # ---- changes under them

    @rule(node_id=somewhere, name=classes, total=st.integers(0, 12), reserved=st.integers(0, 2), ratio=st.sampled_from((500, 1000, 1500)),
          least=st.integers(1, 2), step=st.integers(1, 2))
    def set_inventory(self, node_id: str, name: str, total: int, reserved: int, ratio: int, least: int, step: int) -> None:
        one = Inventory(name, total, min(reserved, total), ratio, least, max(1, total), step)
        in_use = any(claim.node_id == node_id and claim.amounts.get(name) for claim in self.books.claims.values())
        try:
            with self.cluster.db.write() as tx:
                nodes.set_inventory(tx, node_id, one)
        except InUse:
            assert in_use and total == 0
            return
        if total:
            self.books.stock[node_id][name] = one
        else:
            assert not in_use or name not in self.books.stock[node_id]
            self.books.stock[node_id].pop(name, None)
        self._note_over()

    @rule(node_id=somewhere, total=st.integers(0, 12), cached=st.integers(0, 3))
    def report(self, node_id: str, total: int, cached: int) -> None:
        stock = self.books.stock[node_id]
        with self.cluster.db.write() as tx:
            before = sums(tx)[node_id]["generation"]
            changed = nodes.set_totals(tx, node_id, {DISK_GB: total, VCPU: 8}, cached)
            assert (sums(tx)[node_id]["generation"] > before) == changed
        for name, there in ((DISK_GB, total), (VCPU, 8)):
            if name in stock:
                old = stock[name]
                stock[name] = dataclasses.replace(
                    old, total=there, max_unit=old.max_unit if old.total == there else max(1, there), cached=cached * (name == DISK_GB))
        self._note_over()

    @rule(node_id=somewhere, state=st.sampled_from((NodeState.ENABLED, NodeState.ENABLED, NodeState.DISABLED)),
          rack=st.sampled_from(("", "r0", "r1")), pool=st.sampled_from(("", "pool", "other")))
    def update(self, node_id: str, state: NodeState, rack: str, pool: str) -> None:
        changed = dataclasses.replace(
            self.books.nodes[node_id], state=state, labels={"rack": rack} if rack else {}, shared_disk=pool)
        with self.cluster.db.write() as tx:
            nodes.update(tx, changed)
            assert nodes.facts_of(tx, node_id).labels == changed.labels
        self.books.nodes[node_id] = changed
        self._note_over()

    @rule(whose=st.sampled_from(("", *PROJECTS)), resource=st.sampled_from(("servers", "cores", "ram_mb", "disk_gb")),
          limit=st.one_of(st.none(), st.integers(-1, 12)))
    def set_quota(self, whose: str, resource: str, limit: int | None) -> None:
        after = dataclasses.replace(self.books, limits=dict(self.books.limits))
        after.limits.pop((whose, resource), None)
        if limit is not None:
            after.limits[whose, resource] = limit
        allowed = all(not 0 <= after.limit(one, resource) < after.usage(one)[resource] for one in PROJECTS)
        try:
            with self.cluster.db.write() as tx:
                quotas.set_(tx, whose, resource, limit)
        except Conflict:
            assert not allowed
            return
        assert allowed
        self.books = after

    # ---- the laws

    @invariant()
    def the_sums_are_what_the_rows_say(self) -> None:
        with self.cluster.db.read() as tx:
            kept, counted = sums(tx), recomputed(tx)
        for node_id, wanted in counted.items():
            assert wanted.items() <= kept[node_id].items()
            assert kept[node_id]["generation"] >= self.generations[node_id], "generations never go back"
            self.generations[node_id] = kept[node_id]["generation"]
            for name in HOT:
                assert kept[node_id][f"used {name}"] == self.books.used(node_id, name)
                assert kept[node_id][f"used {name}"] <= kept[node_id][f"capacity {name}"] or (node_id, name) in self.over

    @invariant()
    def projects_use_what_their_claims_say_and_never_more_than_allowed(self) -> None:
        with self.cluster.db.read() as tx:
            for name in PROJECTS:
                usage, limits = projects.usage(tx, name), quotas.limits(tx, name)
                for resource, used in self.books.usage(name).items():
                    assert usage[resource] == used
                    assert limits[resource] == self.books.limit(name, resource)
                    assert limits[resource] < 0 or used <= limits[resource]

    @invariant()
    def hard_groups_hold(self) -> None:
        for name in ("apart", "pairs", "near"):
            places = [claim.node_id for claim in self.books.claims.values() if claim.group_id == name]
            if name == "near":
                assert len(set(places)) <= 1
            else:
                assert all(places.count(place) <= GROUPS[name].max_per_domain for place in places)

    # ---- within

    def _held(self, data: st.DataObject) -> Claim:
        return self.books.claims[data.draw(st.sampled_from(sorted(self.books.claims)))]

    def _everything(self, tx: Any) -> Any:
        return sums(tx), placement.all_(tx), [projects.usage(tx, name) for name in PROJECTS]

    def _note_over(self) -> None:
        """A change of what a node has, or of its pool, may leave it with more claimed than it has; no claim adds to that."""
        self.over = {
            (node_id, name) for node_id in NODES for name in HOT
            if self.books.used(node_id, name) > getattr(self.books.stock[node_id].get(name), "capacity", 0)}


@pytest.mark.parametrize(("kind", "examples"), [("sqlite", 80), ("postgresql", 12), ("mariadb", 12)])
@pytest.mark.timeout(1200)
def test_the_books_balance(clusters: Callable[[str], Cluster], kind: str, examples: int) -> None:
    """Any interleaving of claims, releases and changes keeps every sum, capacity, quota and group rule; what is refused leaves nothing."""
    Ledger.cluster = clusters(kind)
    run_state_machine_as_test(Ledger, settings=settings(
        max_examples=examples, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)))
