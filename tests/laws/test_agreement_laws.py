"""One question, asked of the cluster in every way there is: the answers agree, also where chance, groups and odd inventories decide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from novactl.api import capacity, creation, placement
from novactl.api import servers as api
from novactl.api.hints import Hints
from novactl.cluster import Cluster
from novactl.config import load_config
from novactl.db import aggregates, flavors, groups, images, meta, nodes, servers
from novactl.errors import NoValidHost
from novactl.model.aggregate import Aggregate
from novactl.model.flavor import Flavor
from novactl.model.group import Policy
from novactl.model.image import Image
from novactl.model.node import NodeState
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU, Inventory
from tests.laws.ledger import GPU, group, node, recomputed, sums

ANY = 1000
METADATA = [
    {"max_instances_per_host": "2"}, {"ssd": "true"}, {"balance_weight_multiplier": "0.5"}, {"instance_type": "small"},
    {"filter_tenant_id": "default"}]
QUERIES = ["", "", "", '[">=", "$free_ram_mb", 6]', '["<", "$num_instances", 2]']


@dataclass
class Asked:
    """A cluster with the settings of the moment, and what is asked of it. `by_chance`: equal requests may get different nodes."""

    cluster: Cluster
    hints: Hints
    by_chance: bool
    guarded: bool

    def wanted(self, name: str, *, plain: bool = False, **changes: object) -> api.CreateServer:
        hints = Hints() if plain else self.hints
        return api.CreateServer(**{"name": name, "flavor": "small", "image": "i", "hints": hints, **changes})  # type: ignore[arg-type]

    def batch(self, count: int, **changes: object) -> list[str] | None:
        """The nodes of a batch that is only tried; None where it is refused."""
        try:
            return [server.node_name for server in api.create(
                self.cluster, self.wanted("b", count=count, **changes), dry_run=True).servers]
        except NoValidHost:
            return None


def furnished(cluster: Cluster, chance: Random) -> None:
    """One to six nodes of every kind, aggregates, and a flavor that may ask for more than size."""
    now, few = cluster.clock.now(), (1,) * 28 + (2, 3)
    with cluster.db.write() as tx:
        for table in (aggregates, flavors, images):
            for one in table.all_(tx):
                table.delete(tx, one.id)
        made = [
            Aggregate(id=f"a{n}", name=f"a{n}", metadata=chance.choice(METADATA), created_at=0.0) for n in range(chance.choice((0, 0, 2)))]
        for one in made:
            aggregates.insert(tx, one)
        for number in range(chance.randint(1, 6)):
            name, pool = f"n{number}", chance.choice(("", "", "", "san"))
            nodes.insert(tx, node(
                name, reported_at=now - chance.choice((*[0] * 9, ANY)), shared_disk=pool,
                labels=chance.choice(({}, {"rack": "r1"}, {"rack": "r2"})),
                state=chance.choice((*[NodeState.ENABLED] * 9, NodeState.DISABLED))))
            stock = {}
            for kind, most in ((VCPU, 12), (MEMORY_MB, 30), (DISK_GB, 40), (GPU, 4)):
                total = 40 if pool and kind == DISK_GB else chance.randint(most // 3, most)
                if kind != GPU or chance.random() < 0.4:
                    stock[kind] = Inventory(
                        kind, total, reserved=chance.choice((*[0] * 12, 1, total)), ratio_milli=chance.choice((1000, 1500, 4000, 333)),
                        min_unit=chance.choice(few), max_unit=chance.choice((total, ANY)) + 2, step_size=chance.choice(few))
            nodes.ensure_inventory(tx, name, stock)
            for one in made:
                if chance.random() < 0.5:
                    aggregates.add_node(tx, one.id, name)
        specs = {"resources:CUSTOM_GPU": "1"} if chance.random() < 0.1 else {}
        flavors.insert(tx, Flavor(
            id="f", name="small", vcpus=chance.randint(1, 2), memory_mb=chance.randint(1, 4), disk_gb=chance.randint(0, 3), created_at=0.0,
            specs=specs))
        images.insert(tx, Image(
            id="i", name="i", sha256="0" * 64, disk_format="raw", size_bytes=1, virtual_size_bytes=1, architecture="x86_64", source="",
            created_at=0.0))


def asked(cluster: Cluster, chance: Random) -> Asked:
    """Some profile, perhaps chance among the best, a group, a spread, a query, N+1; a few servers are there."""
    furnished(cluster, chance)
    profile, subset = chance.choice(("default", "default", "pack", "pack", "simple", "random", "zone")), chance.choice("111112")
    shuffle, guarded = chance.random() < 0.2, chance.random() < 0.3
    grouped = chance.random() < 0.5
    with cluster.db.write() as tx:
        meta.put(tx, meta.N_PLUS_1, str(int(guarded)))
        if grouped:
            groups.insert(tx, group("g", chance.choice(list(Policy)), scope=chance.choice(("", "rack")), most=chance.choice((1, 2))))
    env = {"HOME": "/", "NOVACTL_DATA_DIR": str(cluster.config.data_dir), "NOVACTL_PLACEMENT_PROFILE": profile,
           "NOVACTL_PLACEMENT_HOST_SUBSET_SIZE": subset, "NOVACTL_PLACEMENT_SHUFFLE_EQUALS": str(shuffle).lower()}
    found = Asked(
        Cluster(load_config(env=env), actor="tester@laws"), guarded=guarded,
        hints=Hints(group="g" if grouped else "", spread_by=chance.choice(("", "", "rack")), query=chance.choice(QUERIES)),
        by_chance=profile in ("random", "zone") or subset == "2" or shuffle)
    for number in range(chance.randint(0, 4)):
        begun(found, f"old{number}")
    return found


def begun(of: Asked, name: str) -> str | None:
    """The node of a server that is created in earnest, as far as its claim."""
    try:
        creation.begin_batch(of.cluster, of.wanted(name), [name], detached=True)
    except NoValidHost:
        return None
    with of.cluster.db.read() as tx:
        return next(server.node_name for server in servers.all_(tx) if server.name == name)


@settings(max_examples=80)
@given(seed=st.integers(0, 2**32))
def test_every_answer_agrees(clusters: Callable[[str], Cluster], seed: int) -> None:
    """explain, why-not of each node, --node, a trial, a batch and single creations: the same nodes will do, and the same one is taken."""
    of = asked(clusters("sqlite"), Random(seed))
    explained, tried = creation.explain(of.cluster, of.wanted("x")), of.batch(1)
    possible = {explained.names[candidate.node] for candidate in explained.candidates}
    assert (tried is not None) == bool(possible) and (tried is None or tried[0] in possible)
    if tried and not of.by_chance:
        assert explained.chosen and tried == [explained.names[explained.chosen.node]]
    for name in explained.names.values():
        (row,) = [row for row in placement.why_not(of.cluster, of.wanted("x"), name).rows if row.node == name]
        assert (row.verdict != "rejected") == (name in possible) == (of.batch(1, node=name) is not None)
    batch = of.batch(ANY, min_count=1) or []
    assert bool(batch) == bool(possible)
    if batch:
        assert of.batch(len(batch) + 1) is None
        first = of.batch(min(len(batch), 6))
        assert first is not None and (of.by_chance or first == batch[:6])
        if not of.by_chance and not of.hints.spread_by:       # singles know nothing of each other
            assert [begun(of, f"s{number}") for number in range(len(first))] == first
    with of.cluster.db.read() as tx:
        kept, counted = sums(tx), recomputed(tx)
    assert all(wanted.items() <= kept[name].items() for name, wanted in counted.items())
    of.cluster.close()


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32))
def test_capacity_is_what_a_batch_fits(clusters: Callable[[str], Cluster], seed: int) -> None:
    """So many as `capacity` says fit, fit in one batch, and no more (where no N+1 is kept: there plans are made one after the other).

    Where nodes of one pool say different things of its size, how many fit depends on who comes first, and `capacity` knows no chance.
    """
    of = asked(clusters("sqlite"), Random(seed))
    with of.cluster.db.read() as tx:
        pooled = any(row.shared_disk for row in nodes.rows(tx))
    if not of.guarded and not (pooled and of.by_chance):
        (told,) = capacity.of_flavors(of.cluster, capacity.AskCapacity(flavors=["small"], image="i"))
        assert len(of.batch(ANY, min_count=1, plain=True) or []) == told.fits
    of.cluster.close()
