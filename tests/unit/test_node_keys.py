"""A node's own key: changed without a pause, known to the cluster at every moment, and good for that node alone."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nodeagent import endpoint, listener, wire
from nodeagent.loop import new_keypair, public_of
from nodeagent.nodekeys import NodeKeys
from novactl.agents.client import Agents
from novactl.agents.keys import KeyPair
from novactl.agents.link import Fence
from novactl.api import nodes as api
from novactl.api import servers as api_servers
from novactl.conductor import fleet
from novactl.db import nodes
from novactl.errors import Conflict, Denied, Unreachable
from novactl.model.node import Node, NodeState
from tests.contract.kit import until
from tests.contract.process import AgentProcess, ask
from tests.world import World, small_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with small_world(tmp_path) as made:
        yield made


def row(world: World, name: str = "n1") -> Node:
    with world.cluster.db.read() as tx:
        found = nodes.by_name(tx, name)
    assert found is not None
    return found


def keys_of(folder: Path) -> NodeKeys:
    return NodeKeys(str(folder), public_of, new_keypair)


# ---- changing it


def test_a_rotated_node_has_another_key_and_the_same_servers(world: World) -> None:
    """Row and agent agree on a new key, of which the node alone has the secret; the guest has run all along."""
    api_servers.create(world.cluster, api_servers.CreateServer(name="w", flavor="small", image="guest"))
    before, running = row(world), {id_: agent.driver.run_id(id_) for agent in world.agents.values() for id_ in world.domains()}
    api.rotate_key(world.cluster, "n1")
    after = row(world)
    assert after.public_key not in ("", before.public_key) and after.next_public_key == ""
    assert keys_of(world.folder / "n1").current().public == after.public_key
    assert world.cluster.agents.call(after, "agent.hello").body.node_id == after.id
    assert {id_: agent.driver.run_id(id_) for agent in world.agents.values() for id_ in world.domains()} == running


def test_who_has_the_old_row_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections made before are served on; when they end, a caller with the old row reads it again, once, and goes on."""
    stale, other = row(world), Agents(world.cluster.agents.keys, actor="other", connect_s=3, ring=world.cluster.agents.ring)
    mend, mended = other.ring.mend, list[str]()
    monkeypatch.setattr(other.ring, "mend", lambda agents, peer, refused: mended.append(peer.name) or mend(agents, peer, refused))
    try:
        with other.stream(stale, "inventory.watch") as watch:
            assert watch.read(60) is not None
            api.rotate_key(world.cluster, "n1")
            world.agents["n1"].changes.notify()
            assert watch.read(60) is not None
        assert other.call(stale, "agent.hello").body.node_id == stale.id
        assert other.call(stale, "agent.ping") and mended == ["n1"]
        others = Agents(world.cluster.agents.keys, actor="others", connect_s=3, ring=world.cluster.agents.ring)
        answers = others.fan_out([stale, row(world, "n2")], "agent.ping", timeout_s=3)
        others.close()
        assert not [answer for answer in answers.values() if isinstance(answer, Exception)]
    finally:
        other.close()


def test_what_is_under_way_is_answered(tmp_path: Path) -> None:
    """A server that is being started while its node's key is changed, and the old connection is cut at once, starts once."""
    world = World(tmp_path)
    world.add_node("n1", fake={"vcpus": 8, "memory_mb": 8192, "disk_gb": 100, "start_delay_s": 1.5})
    world.add_flavor()
    world.add_image()
    world.start()
    before, endpoint.RETIRE_S = endpoint.RETIRE_S, 0.1
    made: list[Any] = []
    try:
        wanted = api_servers.CreateServer(name="w", flavor="small", image="guest")
        building = threading.Thread(target=lambda: made.append(api_servers.create(world.cluster, wanted)) or world.cluster.db.close())
        building.start()
        until(lambda: any("domain.start" in id_ for id_ in world.endpoints["n1"].dispatcher._under_way))
        api.rotate_key(world.cluster, "n1")
        building.join(120)
        assert [server.status for server in made[0].servers] == ["ACTIVE"]
        assert [world.agents["n1"].driver.run_id(id_) for id_ in world.domains()] == ["1"]
        until(lambda: len(world.endpoints["n1"].doors) == 1)
    finally:
        endpoint.RETIRE_S = before
        world.stop()


def test_again_and_again(world: World) -> None:
    """Rotations that follow one another at once each end with one new key; the doors of the keys before are shut."""
    seen = {row(world).public_key}
    for _ in range(4):
        api.rotate_key(world.cluster, "n1")
        seen.add(row(world).public_key)
    assert len(seen) == 5 and len(world.endpoints["n1"].doors) <= 2
    assert world.cluster.agents.call(row(world), "agent.hello").body.node_id == row(world).id


def test_a_node_that_does_not_serve_keeps_its_key(world: World) -> None:
    """What does not answer with the new key is not committed to: the old one stays, and nothing is left of the new."""
    before, own = row(world), world.agents["n1"].own_keys

    def elsewhere(pair: Any) -> None:
        own.keys.drop_next()
        own.keys.make_next()                                  # not the one it told

    own.serve = elsewhere
    with pytest.raises(Unreachable):
        api.rotate_key(world.cluster, "n1")
    assert (row(world).public_key, row(world).next_public_key) == (before.public_key, "") and own.keys.next() is None
    assert world.cluster.agents.call(row(world), "agent.ping")


def test_only_a_node_in_service_is_rotated(world: World) -> None:
    """One that is being removed is refused; a dry run changes nothing."""
    before = row(world).public_key
    api.rotate_key(world.cluster, "n1", dry_run=True)
    assert row(world).public_key == before
    with world.cluster.db.write() as tx:
        nodes.update(tx, dataclasses.replace(row_in(tx), state=NodeState.REMOVING))
    with pytest.raises(Conflict, match="removing"):
        api.rotate_key(world.cluster, "n1")


def row_in(tx: Any) -> Node:
    found = nodes.by_name(tx, "n1")
    assert found is not None
    return found


@pytest.mark.parametrize("step", ["keys.next", "keys.serve", "keys.commit"])
def test_started_anew_in_the_middle_it_has_a_key_that_is_known(tmp_path: Path, step: str) -> None:
    """Killed after any step, the agent comes up with the old key or the next, and the change can be ended or taken back."""
    agent = AgentProcess(tmp_path)
    old = agent.public
    new, served = "", False

    def change(method: str, args: Any = None) -> wire.Reply:
        peer = agent.dealer(server=new if served else old)
        hello = ask(peer, "agent.hello")
        assert hello
        reply = ask(peer, method, args, operation="o", epoch=1, boot_id=hello.body["boot_id"], valid_until_s=hello.body["boottime_s"] + 60)
        assert reply and reply.kind == wire.RESULT, reply
        return reply

    new = change("keys.next").body["public_key"]
    for method in ("keys.serve", "keys.commit"):
        if step != "keys.next":
            change(method, wire.NodeKey(new))
            served = True
        if method == step:
            break
    os.kill(agent.process.pid, signal.SIGKILL)
    agent.process.wait(60)
    agent = AgentProcess(tmp_path)
    served = step == "keys.commit"
    assert keys_of(tmp_path / "keys").current().public == (new if served else old)
    change("keys.commit", wire.NodeKey(new))
    reply = ask(agent.dealer(server=new), "agent.ping")
    assert reply and reply.kind == wire.RESULT
    assert agent.stop() == 0


# ---- good for that node alone


def test_a_nodes_key_is_nobody_elsewhere(world: World) -> None:
    """With the key of node n1 nobody gets in at n2, nor at n1; and who has it does not pass for n2."""
    pair = keys_of(world.folder / "n1").current()
    thief = Agents(lambda: KeyPair(pair.public, pair.secret), actor="n1", connect_s=3)
    try:
        for name in ("n1", "n2"):
            with pytest.raises(Denied, match="does not admit this admin's key"):
                thief.call(row(world, name), "agent.ping")
    finally:
        thief.close()
    posing = dataclasses.replace(row(world, "n2"), address=row(world).address)
    with pytest.raises(Unreachable, match="not the agent enrolled as n2"):
        world.cluster.agents.call(posing, "agent.ping")


def test_a_report_about_another_node_is_not_taken(world: World) -> None:
    """An agent that speaks of another node's id changes neither row; the node counts as silent, and the refusal names both."""
    liar, victim = world.agents["n1"], row(world, "n2")
    liar.config = dataclasses.replace(liar.config, node_id=victim.id, name="n2")
    liar._report = None
    before = row(world), victim
    errors = fleet.refresh(world.cluster, max_age_s=0.0)
    assert list(errors) == [before[0].id] and victim.id in errors[before[0].id].message
    assert row(world).silent_since is not None and row(world).reported_at == before[0].reported_at
    with world.cluster.db.write() as tx, pytest.raises(Unreachable, match="is not taken"):
        fleet.take_report(tx, before[0].id, liar.report(0), world.cluster.clock.now())


# ---- on disk


def test_the_secret_is_private_from_its_first_moment(tmp_path: Path) -> None:
    """0600 under umask 0, never through a link that somebody left, and not in the pair's own text."""
    before = os.umask(0)
    try:
        own = keys_of(tmp_path / "keys")
        first = own.ensure()
        (tmp_path / "target").touch()
        (tmp_path / "keys" / "agent.next.key.part").symlink_to(tmp_path / "target")
        following = own.make_next()
    finally:
        os.umask(before)
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "keys").iterdir()} == {
        "agent.key": 0o600, "agent.pub": 0o644, "agent.next.key": 0o600}
    assert (tmp_path / "target").read_text() == "" and first.secret not in repr(first)
    assert own.make_next() == following and own.commit() == following == own.current() and own.next() is None
    assert (tmp_path / "keys" / "agent.pub").read_text().strip() == following.public
    own.drop_next()


def test_the_public_half_follows_from_the_secret(tmp_path: Path) -> None:
    """A process that died between the two files leaves no pair that does not fit together."""
    own = keys_of(tmp_path)
    pair = own.ensure()
    (tmp_path / "agent.pub").write_text("of another")
    assert own.current() == pair and (tmp_path / "agent.pub").read_text().strip() == pair.public
    (tmp_path / "agent.pub").unlink()
    assert keys_of(tmp_path).ensure() == pair


# ---- the port


@pytest.mark.parametrize(("listen", "family"), [
    ("tcp://127.0.0.1:*", socket.AF_INET), ("tcp://0.0.0.0:0", socket.AF_INET), ("tcp://*:*", socket.AF_INET),
    ("tcp://[::1]:*", socket.AF_INET6), ("tcp://localhost:*", None)])
def test_where_it_can_listen(listen: str, family: int | None) -> None:
    """Addresses of both families, any address, and names."""
    with socket.socket(fileno=listener.listen(listen, shared=False)) as made:
        assert made.getsockname()[1] > 0 and family in (None, made.family) and not os.get_blocking(made.fileno())


def test_a_port_is_shared_by_nobody_unasked() -> None:
    """Without `share` a second listener is refused; with it the one that was named gets every connection."""
    first = listener.listen("tcp://127.0.0.1:*", shared=False)
    port = socket.socket(fileno=os.dup(first)).getsockname()[1]
    with pytest.raises(OSError, match="in use"):
        listener.listen(f"tcp://127.0.0.1:{port}", shared=True)
    listener.share(first)
    second = listener.listen(f"tcp://127.0.0.1:{port}", shared=True)
    sockets = [socket.socket(fileno=fd) for fd in (first, second)]
    try:
        for position in (1, 0):
            listener.steer(second, position)
            clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
            until(lambda position=position: _accepted(sockets[position]) == 20)
            assert _accepted(sockets[1 - position]) == 0
            for client in clients:
                client.close()
            COUNTED.clear()
    finally:
        for each in sockets:
            each.close()


COUNTED: dict[int, int] = {}


def _accepted(listening: socket.socket) -> int:
    """How many connections it has got so far."""
    while True:
        try:
            listening.accept()[0].close()
        except BlockingIOError:
            return COUNTED.get(listening.fileno(), 0)
        COUNTED[listening.fileno()] = COUNTED.get(listening.fileno(), 0) + 1


def test_fences_hold_for_keys_too(world: World) -> None:
    """A change of key of an operation that was taken over is refused as any other."""
    world.cluster.agents.call(row(world), "keys.next", fence=Fence("o:2", "o", 2))
    from novactl.errors import AgentRefused

    with pytest.raises(AgentRefused, match="epoch"):
        world.cluster.agents.call(row(world), "keys.drop", fence=Fence("o:1", "o", 1))
    world.cluster.agents.call(row(world), "keys.drop", fence=Fence("o:3", "o", 2))
