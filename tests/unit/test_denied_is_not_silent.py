"""Agents that refuse this admin's key are told from those that do not answer, by every command that asks them."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from novactl.api import cluster as api_cluster
from novactl.api import keys as api_keys
from novactl.api import node_views, rebuild
from novactl.api import nodes as api_nodes
from novactl.api import verify as verifying
from novactl.cluster import Cluster
from novactl.config import load_config
from novactl.db import nodes, operations
from novactl.errors import Denied, Partial, Unreachable
from tests.unit.cli_world import Prompt
from tests.world import World, small_world

REFUSES = "does not admit this admin's key"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with small_world(tmp_path) as made:
        yield made


@pytest.fixture
def outdated(world: World) -> Iterator[Cluster]:
    """A copy of the data directory from before the admin's key was rotated."""
    world.cluster.close()
    folder = world.folder / "copy"
    shutil.copytree(world.config.data_dir, folder)
    api_keys.rotate(world.cluster)
    copy = Cluster(load_config(env={**world.env, "NOVACTL_DATA_DIR": str(folder)}), actor="tester@copy")
    yield copy
    copy.close()


def unplug(cluster: Cluster, *names: str) -> None:
    with cluster.db.write() as tx:
        for node in nodes.all_(tx):
            if node.name in names:
                nodes.update(tx, dataclasses.replace(node, address="tcp://127.0.0.1:9"))


def test_of_many_asked_at_once_each_is_told_as_it_is(outdated: Cluster) -> None:
    """Denied where the agent refuses the key, Unreachable where nothing listens; also those that are given half a second."""
    unplug(outdated, "n2")
    with outdated.db.read() as tx:
        n1, n2 = nodes.all_(tx)
    for hurry in ({}, {n1.id: 0.5, n2.id: 0.5}):
        answers = outdated.agents.fan_out([n1, n2], "agent.ping", timeout_s=1.0, hurry=hurry)
        assert isinstance(answers[n1.id], Denied) and REFUSES in answers[n1.id].message
        assert isinstance(answers[n2.id], Unreachable) and "does not answer" in answers[n2.id].message


def test_the_doctor_tells_it(outdated: Cluster) -> None:
    unplug(outdated, "n2")
    found = {finding.check: finding for finding in api_cluster.doctor(outdated) if finding.check.startswith("node ")}
    assert (found["node n1"].verdict, found["node n1"].fix) == ("fail", "novactl key list") and REFUSES in found["node n1"].detail
    assert (found["node n2"].verdict, found["node n2"].fix) == ("fail", "novactl node check n2")
    assert "does not answer" in found["node n2"].detail


def test_the_list_of_nodes_tells_it(outdated: Cluster) -> None:
    """Nothing is placed there by this admin, and another's next command finds it up."""
    unplug(outdated, "n2")
    outdated.config = outdated.config.replace(placement__refresh_s=0.001)
    found = {node.name: node for node in api_nodes.list_nodes(outdated)}
    assert [found[name].status for name in ("n1", "n2")] == ["stale", "stale"]
    assert found["n1"].reason == node_views.DENIED and "has not answered" in found["n2"].reason
    assert REFUSES in found["n1"].reason
    env = {"HOME": str(outdated.config.data_dir.parent), "NOVACTL_DATA_DIR": str(outdated.config.data_dir)}
    ran = Prompt({**env, "NOVACTL_PLACEMENT_REFRESH_S": "0.001"}).run("node", "list")
    assert ran.status == 0 and f"n1: {node_views.DENIED}" in ran.err


def test_verify_tells_it(outdated: Cluster) -> None:
    assert [REFUSES in drift.what for drift in verifying.verify(outdated) if drift.kind == "silent"] == [True, True]


def test_an_adoption_that_no_node_hears_of_is_partial(outdated: Cluster) -> None:
    """Exit 7, with each node's reason and the way on; a dry run only tells them."""
    with outdated.db.read() as tx:
        highest = operations.highest_number(tx)
    assert [REFUSES in why for why in rebuild.adopt(outdated, dry_run=True).why] == [True, True]
    with pytest.raises(Partial, match="no node could be told") as deaf:
        rebuild.adopt(outdated)
    assert deaf.value.exit_status == 7 and deaf.value.command == "novactl cluster adopt" and "revoked" in deaf.value.hint
    assert [REFUSES in reason for reason in deaf.value.reasons] == [True, True]
    with outdated.db.read() as tx:
        assert operations.highest_number(tx) > highest


def test_an_adoption_that_some_hear_of_is_done(world: World) -> None:
    unplug(world.cluster, "n2")
    done = rebuild.adopt(world.cluster)
    assert done.silent == ("n2",) and "does not answer" in done.why[0]
