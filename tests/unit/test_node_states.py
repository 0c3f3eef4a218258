"""How a node is, since when, why, and by whom."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from novactl.api import nodes as api
from novactl.api import servers as api_servers
from novactl.api.servers import CreateServer
from novactl.cluster import SystemClock
from novactl.conductor import fleet
from novactl.db import nodes
from novactl.errors import NoValidHost
from tests.world import World, small_world


class Later(SystemClock):
    """The system's clock, some seconds ahead."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now(self) -> float:
        return SystemClock.now() + self.ahead_s


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with small_world(tmp_path, count=2) as made:
        made.cluster.clock = Later()
        yield made


def seen(world: World, name: str = "n1") -> api.NodeView:
    """As the rows have it; no agent is asked."""
    return {node.name: node for node in api.list_nodes(world.cluster, refresh=False)}[name]


def test_disabled_says_since_when_why_and_by_whom(world: World) -> None:
    """Disabling stamps the state; the same again, with another reason, names who said it and not another moment."""
    before = world.cluster.clock.now()
    first = api.disable(world.cluster, "n1", reason="fans")
    assert (first.status, first.state, first.reason, first.state_by) == ("drained", "disabled", "fans", "tester@world")
    assert before <= first.status_since <= world.cluster.clock.now()
    world.cluster.clock.ahead_s = 30
    world.cluster.actor = "other@world"
    again = api.disable(world.cluster, "n1", reason="fans and dust")
    assert (again.status_since, again.reason, again.state_by) == (first.status_since, "fans and dust", "other@world")
    up = api.enable(world.cluster, "n1")
    assert (up.reason, up.state_by) == ("", "other@world") and up.status_since >= before + 30
    assert api.enable(world.cluster, "n1").status_since == up.status_since


def test_drained_is_disabled_with_nothing_on_it(world: World) -> None:
    """With a server on it a disabled node is disabled; when the last one goes it is drained."""
    server = api_servers.create(world.cluster, CreateServer(name="web", flavor="small", image="guest")).servers[0]
    assert api.disable(world.cluster, server.node_name).status == "disabled"
    api_servers.delete(world.cluster, "web")
    assert seen(world, server.node_name).status == "drained"


def test_up_then_stale_then_down_then_up(world: World) -> None:
    """As time passes and answers fail, and nothing but the rows is read."""
    clock = world.cluster.clock
    assert (seen(world).status, seen(world).reason) == ("up", "")
    clock.ahead_s = world.cluster.config["placement.fresh_s"] + 30
    old = seen(world)
    assert old.status == "stale" and "old" in old.reason and old.status_since == pytest.approx(SystemClock.now(), abs=10)
    with world.cluster.db.write() as tx:
        node = nodes.by_name(tx, "n1")
        assert nodes.silent(tx, node.id, clock.now()) and not nodes.silent(tx, node.id, clock.now() + 5)
    quiet = seen(world)
    assert quiet.status == "stale" and "not answered" in quiet.reason
    clock.ahead_s += world.cluster.config["node.down_s"]
    down = seen(world)
    assert (down.status, down.status_since) == ("down", quiet.status_since) and "1 min" in down.reason.replace("60 s", "1 min")
    fleet.refresh(world.cluster, max_age_s=0.0)
    assert seen(world).status == "up"


def test_a_node_that_never_reported_is_stale(world: World) -> None:
    """Since it is there."""
    with world.cluster.db.write() as tx:
        node = nodes.by_name(tx, "n1")
        nodes.insert(tx, dataclasses.replace(node, id=world.cluster.ids.uuid(), name="n3", report=None, reported_at=None))
    assert (seen(world, "n3").status, seen(world, "n3").reason) == ("stale", "it has never sent a report")


def test_a_refusal_names_who_took_the_node_away(world: World) -> None:
    """Who asks for a server learns who disabled the node, how long ago, and why."""
    for name in ("n1", "n2"):
        api.disable(world.cluster, name, reason="new kernel")
    world.cluster.clock.ahead_s = 7200
    with pytest.raises(NoValidHost) as refused:
        api_servers.create(world.cluster, CreateServer(name="web", flavor="small", image="guest"))
    assert 'n1: state: disabled for 2 h by tester@world ("new kernel")' in "\n".join(refused.value.reasons)
