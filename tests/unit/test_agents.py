"""The admin's side of the wire: what each silence means, and that nothing waits for the absent."""

from __future__ import annotations

import dataclasses
import itertools
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from novactl.agents import keys, wire
from novactl.agents.client import Agents
from novactl.agents.link import Fence
from novactl.db import nodes
from novactl.errors import AgentRefused, AgentTimeout, BadConfig, Denied, NovaError, Unreachable
from novactl.model.node import Node
from tests.world import World, small_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with small_world(tmp_path) as made:
        yield made


def node(world: World, name: str = "n1") -> Node:
    with world.cluster.db.read() as tx:
        found = nodes.by_name(tx, name)
    assert found is not None
    return found


def test_a_call_is_answered(world: World) -> None:
    """hello tells who, which boot, which role."""
    hello = world.cluster.agents.call(node(world), "agent.hello").body
    assert (hello.node_id, hello.role, hello.driver) == (node(world).id, "admin", "fake")


def test_nobody_listening_is_said_so_in_time(world: World) -> None:
    """A closed port: exit 6 within connect_s, with what may be the cause."""
    began = world.cluster.clock.monotonic()
    with pytest.raises(Unreachable, match="does not answer") as silent:
        world.cluster.agents.call(dataclasses.replace(node(world), address="tcp://127.0.0.1:9"), "agent.ping", timeout_s=60)
    assert world.cluster.clock.monotonic() - began < 30
    assert silent.value.exit_status == 6


def test_an_impostor_is_recognised(world: World) -> None:
    """Another agent's key at the address: nothing is sent to it, and the error says so."""
    wrong = dataclasses.replace(node(world), public_key=node(world, "n2").public_key)
    with world.cluster.db.write() as tx:
        nodes.update(tx, wrong)
    with pytest.raises(Unreachable, match="not the agent enrolled as n1"):
        world.cluster.agents.call(wrong, "agent.ping")


def test_an_unknown_admin_is_told(world: World, tmp_path: Path) -> None:
    """A key the agent does not know is refused in the handshake; the admin reads why (exit 8)."""
    stranger = keys.ensure(tmp_path / "other")
    agents = Agents(lambda: stranger, actor="mallory", connect_s=3)
    with pytest.raises(Denied, match="does not admit this admin's key") as denied:
        agents.call(node(world), "agent.ping")
    assert denied.value.exit_status == 8
    agents.close()


def test_a_listener_that_never_speaks_costs_only_its_deadline(world: World) -> None:
    """A TCP port that accepts and says nothing is an agent that hangs: Unreachable within the deadline, and nobody is told to enrol."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        began = world.cluster.clock.monotonic()
        with pytest.raises(Unreachable, match="accepts connections and says nothing") as hangs:
            world.cluster.agents.call(
                dataclasses.replace(node(world), address=f"tcp://127.0.0.1:{mute.getsockname()[1]}"), "agent.ping", timeout_s=60)
        assert "enrol" not in hangs.value.hint and "handshake" not in hangs.value.details
        assert world.cluster.clock.monotonic() - began < 30


def test_fan_out_answers_for_each(world: World) -> None:
    """Two that answer and one that does not: each has its own outcome, within the deadline."""
    dead = dataclasses.replace(node(world), id="dead", name="dead", address="tcp://127.0.0.1:9")
    found = world.cluster.agents.fan_out([node(world), node(world, "n2"), dead], "inventory.read", wire.InventoryRead(5), timeout_s=3)
    assert isinstance(found["dead"], Unreachable)
    assert {a.body.hostname for a in found.values() if not isinstance(a, NovaError)} == {"n1", "n2"}


def test_a_connection_that_breaks_as_it_is_used(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could be sent, and when it is sent the connection has gone: the next one takes it, within connect_s; without one it is silent."""
    agents, sent, breaks = world.cluster.agents, zmq.Socket.send_multipart, iter([True, True])

    def send(socket: zmq.Socket, frames: list[bytes], *how: int, **more: int) -> None:
        if socket.type == zmq.DEALER and next(breaks, False):
            raise zmq.Again
        sent(socket, frames, *how, **more)

    monkeypatch.setattr(zmq.Socket, "send_multipart", send)
    assert agents.call(node(world), "agent.hello").body.boot_id == world.agents["n1"].clock.boot_id
    breaks = itertools.repeat(True)
    with pytest.raises(Unreachable):
        agents.call(node(world), "agent.ping", timeout_s=0.2)


def test_a_mutation_without_a_fence_is_a_programming_error(world: World) -> None:
    """What changes a node always carries a request id and an epoch."""
    with pytest.raises(ValueError, match="needs a fence"):
        world.cluster.agents.call(node(world), "domain.start", wire.DomainRef(world.cluster.ids.uuid()))


def test_a_reboot_between_two_calls_is_noticed(world: World) -> None:
    """When the host has another boot id than the connection knew, the call asks again and is sent once more."""
    agents, there, server = world.cluster.agents, node(world), world.cluster.ids.uuid()
    agents.call(there, "disk.delete", wire.DomainRef(server, 1), fence=Fence("r1", "op", 1))
    world.agents["n1"].clock.boot_id = "another boot"
    agents.call(there, "disk.delete", wire.DomainRef(server, 1), fence=Fence("r2", "op", 1))
    assert world.agents["n1"].ledger.answer("r2") is not None


def test_an_older_epoch_is_refused(world: World) -> None:
    """After epoch 2 was seen, a message of epoch 1 of the same operation changes nothing."""
    agents, there, server = world.cluster.agents, node(world), world.cluster.ids.uuid()
    agents.call(there, "disk.delete", wire.DomainRef(server, 1), fence=Fence("r1", "op", 2))
    with pytest.raises(AgentRefused) as refused:
        agents.call(there, "disk.delete", wire.DomainRef(server, 1), fence=Fence("r2", "op", 1))
    assert refused.value.details["code"] == wire.Code.STALE


def test_a_slow_answer_is_a_timeout_not_a_failure(tmp_path: Path) -> None:
    """An agent that is busy longer than asked for: AgentTimeout, and its late answer does not confuse the next call."""
    with small_world(tmp_path, count=1) as world:
        from novactl.api import servers as api

        made = api.create(world.cluster, api.CreateServer(name="web", flavor="small", image="guest")).servers[0]
        api.stop(world.cluster, "web")
        world.agents["n1"].driver._fake = {"start_delay_s": 4.0}
        fence = Fence("slow", "op", 1)
        with pytest.raises(AgentTimeout):
            world.cluster.agents.call(node(world), "domain.start", wire.DomainRef(made.id, made.epoch), fence=fence, timeout_s=1.0)
        again = world.cluster.agents.call(node(world), "domain.state", wire.DomainRef(made.id)).body
        assert again.server == made.id


def test_an_answer_lost_with_its_connection_is_asked_for_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reply never arrives: the same request id is sent again, the agent answers from its ledger, and did it once."""
    from novactl.agents import link

    agents, there, server, lost = world.cluster.agents, node(world), world.cluster.ids.uuid(), []
    monkeypatch.setattr(link, "ASK_AGAIN_S", 0.2)
    dispatcher = world.endpoints["n1"].dispatcher
    send = dispatcher._send

    def losing(peer: bytes, frames: list[bytes]) -> None:
        if b'"r1"' in frames[1] and not lost:
            lost.append(frames)
        else:
            send(peer, frames)

    dispatcher._send = losing
    agents.call(there, "disk.delete", wire.DomainRef(server, 1), fence=Fence("r1", "op", 1))
    assert len(lost) == 1
    assert world.agents["n1"].ledger.answer("r1") is not None


def test_the_silent_are_not_waited_for_once_the_others_have_answered(world: World) -> None:
    """`hurry` bounds what a peer that is hardly expected to answer costs the rest."""
    dead = dataclasses.replace(node(world), id="dead", name="dead", address="tcp://127.0.0.1:9")
    began = world.cluster.clock.monotonic()
    found = world.cluster.agents.fan_out([node(world), dead], "agent.ping", timeout_s=60, hurry={"dead": 0.2})
    assert world.cluster.clock.monotonic() - began < 30
    assert isinstance(found["dead"], Unreachable) and not isinstance(found[node(world).id], NovaError)


def test_threads_have_connections_of_their_own(world: World) -> None:
    """Eight threads calling at once each get their own answers."""
    failed: list[object] = []

    def many() -> None:
        for name in ("n1", "n2") * 25:
            body = world.cluster.agents.call(node(world, name), "inventory.read", wire.InventoryRead(60)).body
            if body.hostname != name:
                failed.append(body)
        world.cluster.db.close()

    threads = [threading.Thread(target=many) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """The admin key must be 0600; a damaged one is said to be damaged; the pair never prints its secret."""
    pair = keys.ensure(tmp_path)
    assert pair.secret not in repr(pair) and (tmp_path / "admin.secret").stat().st_mode & 0o777 == 0o600
    assert keys.ensure(tmp_path) == pair
    (tmp_path / "admin.secret").chmod(0o644)
    with pytest.raises(BadConfig, match="can be read by others"):
        keys.load(tmp_path)
    (tmp_path / "admin.secret").chmod(0o600)
    (tmp_path / "admin.secret").write_text("short")
    with pytest.raises(BadConfig, match="damaged"):
        keys.load(tmp_path)
