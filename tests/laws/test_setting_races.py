"""Admins who change the same node at the same moment, on each kind of database: what each of them said holds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from novactl.api import nodes as api_nodes
from novactl.cluster import Cluster
from novactl.db import nodes
from tests.laws.ledger import node


@pytest.fixture(params=["sqlite", "postgresql"])
def cluster(request: pytest.FixtureRequest, clusters: Callable[[str], Cluster]) -> Cluster:
    found = clusters(request.param)
    with found.db.write() as tx:
        nodes.insert(tx, node("n0"))
    return found


def test_disabling_a_node_keeps_what_is_set_of_it_meanwhile(cluster: Cluster) -> None:
    """A label set while the other command waits for the node is there afterwards, and so is the reason."""
    def disable() -> None:
        api_nodes.disable(cluster, "n0", reason="new kernel")
        cluster.db.close()

    other = threading.Thread(target=disable)
    with cluster.db.write() as tx:
        nodes.lock(tx, "n0")
        other.start()
        other.join(0.3)                                       # it has read what it can read by now
        found = nodes.by_id(tx, "n0")
        assert found is not None
        nodes.update(tx, replace(found, labels={"rack": "r1"}))
    other.join(60)
    with cluster.db.read() as tx:
        after = nodes.by_id(tx, "n0")
    assert after is not None and (dict(after.labels), after.state.value, after.reason) == ({"rack": "r1"}, "disabled", "new kernel")
