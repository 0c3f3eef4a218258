"""What agents say of their hosts is bounded: one that talks nonsense stops nobody but itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nodeagent import wire
from novactl.api import servers as api
from novactl.api.servers import CreateServer
from novactl.conductor import fleet
from novactl.db import nodes, servers
from novactl.errors import DatabaseFailed
from novactl.model.resources import MAX_INT
from tests import databases
from tests.world import World, small_world


@pytest.fixture(params=databases.EACH)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with databases.cluster(request.param) as url, small_world(tmp_path, url=url) as made:
        yield made


def test_nonsense_of_one_node_stops_no_other(world: World) -> None:
    """Numbers beyond all bounds, versions of thousands of digits, NUL: both nodes' reports are taken, at once, and claims can be made."""
    agent, cluster = world.agents["n1"], world.cluster
    honest = agent.report
    nonsense: list[dict[str, Any]] = [
        {"memory_mb": 2**63 - 1, "disk_gb": -7, "memory_used_mb": -1}, {"vcpus": 100_000_000}, {"versions": {"hypervisor": "9" * 5000}},
        {"versions": {"hypervisor": "9" * 400 + ".1"}}, {"agent_version": "1\x00\x1b[2J"}, {"agent_version": "1" * 200}, {"age_s": -1e300},
        {"boot_id": "\x00" + "b" * 200}, {"boot_id": "b" * 200, "fencings": 2**63 - 1},
        {"cells": (wire.NumaCell(0, (0,), 1024, pages={"x": 1, "9" * 5000: 1, "\u0663": 1, "2048": 4}),)},
    ]
    with cluster.db.write() as tx:
        node = nodes.by_name(tx, "n1")
        assert node is not None
        memory = nodes.inventories_of(tx, node.id)["MEMORY_MB"]
        nodes.set_inventory(tx, node.id, dataclasses.replace(memory, ratio_milli=1_000_000))
    for said in nonsense:
        agent.report = lambda age_s, said=said: dataclasses.replace(honest(age_s), **said)  # type: ignore[method-assign]
        assert fleet.refresh(cluster, max_age_s=0.0) == {}, said   # which waits for seconds, and no longer
        with cluster.db.read() as tx:
            rows = nodes.rows(tx)
            assert all(row.reported_at is not None and row.reported_at <= cluster.clock.now() for row in rows)
            assert nodes.inventories_of(tx, node.id)["MEMORY_MB"].total <= MAX_INT
            assert all(len(row.agent_version) < 33 and row.agent_version.isprintable() for row in rows)


@pytest.mark.parametrize("fault", [ValueError("nonsense"), DatabaseFailed("value too long")])
def test_what_cannot_be_written_costs_its_node_alone(world: World, monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    """A report on which the writing itself fails is that node's error; the others' are stored."""
    cluster, take = world.cluster, fleet.take_report
    with cluster.db.read() as tx:
        before = {row.name: row for row in nodes.rows(tx)}
    n1 = before["n1"].id

    def taken(tx: Any, node_id: str, report: Any, now: float) -> bool:
        if node_id == n1:
            raise fault
        return take(tx, node_id, report, now)

    monkeypatch.setattr(fleet, "take_report", taken)
    errors = fleet.refresh(cluster, max_age_s=0.0)
    assert list(errors) == [n1] and str(fault) in errors[n1].message
    with cluster.db.read() as tx:
        after = {row.name: row.reported_at for row in nodes.rows(tx)}
    assert after["n1"] == before["n1"].reported_at and after["n2"] > before["n2"].reported_at


def test_a_node_speaks_of_its_own_servers_only(world: World) -> None:
    """The addresses that another node reports of a server are not believed."""
    cluster = world.cluster
    (made,) = api.create(cluster, CreateServer(name="web", flavor="small", image="guest")).servers
    fleet.refresh(cluster, max_age_s=0.0)
    with cluster.db.read() as tx:
        home = servers.by_id(tx, made.id)
    assert home is not None
    liar = world.agents["n2" if home.node_name == "n1" else "n1"]
    spoken = world.agents[home.node_name].report(0.0).domains
    honest = liar.report
    liar.report = lambda age_s: dataclasses.replace(  # type: ignore[method-assign]
        honest(age_s), domains=tuple(dataclasses.replace(domain, addresses=("10.66.6.6",)) for domain in spoken))
    assert fleet.refresh(cluster, max_age_s=0.0) == {}
    with cluster.db.read() as tx:
        after = servers.by_id(tx, made.id)
    assert after is not None and after.addresses == home.addresses != ("10.66.6.6",)
