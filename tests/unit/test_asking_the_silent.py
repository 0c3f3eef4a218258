"""Who is asked for a report before a server is placed: nobody of whom this process has just learnt that nothing comes."""

from __future__ import annotations

import dataclasses
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from novactl.api import nodes as api_nodes
from novactl.api import servers as api
from novactl.conductor import fleet
from novactl.db import nodes
from novactl.errors import AgentTimeout, Unreachable
from novactl.model.node import Node, NodeState
from tests.world import World, small_world

SETTLED_S = 0.3
"""So long a connection that was made may take to be counted."""


class Mute:
    """What takes connections and says nothing on them: a host that hangs. `knocks` counts them."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._taken: list[socket.socket] = []
        threading.Thread(target=self._take, daemon=True).start()

    @property
    def address(self) -> str:
        host, port = self._listener.getsockname()
        return f"tcp://{host}:{port}"

    @property
    def knocks(self) -> int:
        """At least one for each time that it was asked: who learns nothing may knock once more to learn why."""
        time.sleep(SETTLED_S)
        return len(self._taken)

    def _take(self) -> None:
        while True:
            try:
                self._taken.append(self._listener.accept()[0])
            except OSError:
                return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for one in (self._listener, *self._taken):
            one.close()


@contextmanager
def hanging(world: World, name: str, *, state: NodeState = NodeState.ENABLED) -> Iterator[Mute]:
    """Node `name` is known to be silent, and hangs while the block runs; then it is there again."""
    mute, was = Mute(), _node(world, name)
    _put(world, dataclasses.replace(was, address=mute.address, state=state))
    with world.cluster.db.write() as tx:
        nodes.silent(tx, was.id, world.cluster.clock.now())
    try:
        yield mute
    finally:
        _put(world, dataclasses.replace(_node(world, name), address=was.address))
        mute.close()


def _node(world: World, name: str) -> Node:
    with world.cluster.db.read() as tx:
        node = nodes.by_name(tx, name)
    assert node is not None
    return node


def _put(world: World, node: Node) -> None:
    with world.cluster.db.write() as tx:
        nodes.update(tx, node)


def _refresh(world: World, max_age_s: float = 600.0) -> dict[str, type]:
    return {id_: type(error) for id_, error in fleet.refresh(world.cluster, max_age_s=max_age_s).items()}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with small_world(tmp_path, count=3) as made:
        yield made


def test_of_many_placements_only_the_first_waits_for_a_silent_node(world: World) -> None:
    """And each of them is told of it."""
    world.cluster.config = world.cluster.config.replace(placement__refresh_s=600.0)
    with hanging(world, "n2") as mute:
        knocks = [0]
        for number in range(4):
            api.create(world.cluster, api.CreateServer(name=f"s{number}", flavor="small", image="guest"))
            knocks.append(mute.knocks)
        assert knocks[1] and len(set(knocks[1:])) == 1, knocks
        assert list(_refresh(world)) == [_node(world, "n2").id]
        assert mute.knocks == knocks[1]


def test_what_is_remembered_of_a_silent_node_is_no_older_than_a_report_may_be(world: World) -> None:
    with hanging(world, "n2") as mute:
        knocks = [0]
        for _ in range(2):
            assert _refresh(world, 0.0)[_node(world, "n2").id] in (Unreachable, AgentTimeout)
            knocks.append(mute.knocks)
        assert knocks[0] < knocks[1] < knocks[2]


def test_a_node_that_is_back_is_noticed_by_the_next_command(world: World) -> None:
    """Another process remembers nothing; and in the same one, who asks for this node alone asks it."""
    with hanging(world, "n2"):
        _refresh(world)
    assert api_nodes.show(world.cluster, "n2").silent_since is None
    with hanging(world, "n3"):
        _refresh(world)
    from novactl.cluster import Cluster

    another = Cluster(world.config, actor="another@world")
    try:
        assert {node.name: node.silent_since for node in api_nodes.list_nodes(another)} == {"n1": None, "n2": None, "n3": None}
    finally:
        another.close()


def test_a_node_that_has_been_heard_of_since_is_asked(world: World) -> None:
    """By whomever: the conductor, or an enrolment."""
    with hanging(world, "n2"):
        assert _refresh(world)
    node, now = _node(world, "n2"), world.cluster.clock.now() + 1.0
    with world.cluster.db.write() as tx:
        fleet.take_report(tx, node.id, world.agents["n2"].report(0), now)
    with hanging(world, "n2") as mute:
        assert _refresh(world)
        assert mute.knocks > 0


@pytest.mark.parametrize("state", [NodeState.FENCED, NodeState.FENCING])
def test_a_fenced_node_is_not_asked_where_servers_could_be_placed(world: World, state: NodeState) -> None:
    """Who lists the nodes asks it: it may be back."""
    with hanging(world, "n2", state=state) as mute:
        assert _refresh(world, 0.0) == {} and mute.knocks == 0
        api_nodes.list_nodes(world.cluster)
        assert mute.knocks > 0
