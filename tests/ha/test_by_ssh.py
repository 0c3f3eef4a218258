"""Fencing over SSH, where the connection is lost half way. (What runs on the host is in test_fencing.py and on real hosts.)"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from novactl.api import ha as api
from novactl.api import nodes as nodes_api
from novactl.api import servers as servers_api
from novactl.conductor import fences
from novactl.db import nodes
from novactl.enroll import access
from novactl.enroll.shell import Output
from novactl.errors import FencingFailed, Unreachable
from novactl.model.node import NodeState
from tests.ha.test_fencing import power_cut, server_on, state_of
from tests.world import World, small_world


class Line:
    """A host at the other end: what is said to it, until the connection is lost at `lost`."""

    def __init__(self, lost: str) -> None:
        self.lost, self.said = lost, list[str]()

    def run(self, script: str, args: tuple[str, ...] = (), timeout_s: float = 0.0) -> Output:
        self.said.append(script)
        if script == self.lost:
            raise Unreachable("n1:22 closed the connection")
        return Output(0, "none\n" if script == fences._STOP else "", "")

    def close(self) -> None:
        self.said.append("closed")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Server web with --ha on n1, which is fenced over SSH."""
    with small_world(tmp_path) as made:
        server_on(made, "n1")
        with made.cluster.db.write() as tx:
            node = nodes.by_name(tx, "n1")
            assert node is not None
            nodes.update(tx, dataclasses.replace(node, undo={"access": {"host": "n1"}}))
        nodes_api.set_(made.cluster, "n1", nodes_api.SetNode(fencing={"method": "ssh"}))
        yield made


def lost_at(script: str, monkeypatch: pytest.MonkeyPatch) -> Line:
    line = Line(script)
    monkeypatch.setattr(access, "open_shell", lambda *args: line)
    return line


def test_a_power_off_that_is_not_heard_takes_back_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Agent and libvirt were stopped and no QEMU was seen any more: that is why its servers may run elsewhere."""
    line = lost_at(fences._POWER_OFF, monkeypatch)
    power_cut(world, "n1")
    fenced = api.fence(world.cluster, "n1")
    assert isinstance(fenced, api.Fenced) and [one.node_name for one in fenced.elsewhere] == ["n2"]
    assert "no QEMU was left running there; whether it powers off is not known: n1:22 closed" in fenced.node.reason
    assert line.said == [fences._STOP, fences._POWER_OFF, "closed"]


@pytest.mark.parametrize(("script", "why"), [
    (fences._STOP, "SSH: n1:22 closed the connection"),
    (fences._POWER_OFF, "could not be told to power off .n1:22 closed the connection., and its agent answers"),
])
def test_what_is_not_known_to_be_dead_is_not_fenced(world: World, monkeypatch: pytest.MonkeyPatch, script: str, why: str) -> None:
    """Nothing was seen; or an agent is left that could start a guest."""
    lost_at(script, monkeypatch)
    with pytest.raises(FencingFailed, match=why):
        api.fence(world.cluster, "n1")
    assert state_of(world, "n1") is NodeState.ENABLED and servers_api.show(world.cluster, "web").node_name == "n1"
