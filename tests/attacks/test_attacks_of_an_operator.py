"""An operator's key works with servers: it neither keeps a node alive that admins fence, nor bars them from it for good."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nodeagent import wire
from nodeagent.dispatch import AHEAD, Call
from nodeagent.wire import Code
from novactl.api import operations, power, rebuild, verify
from novactl.api import servers as api
from novactl.api.servers import CreateServer
from novactl.conductor import background
from novactl.db import servers
from novactl.errors import NovaError
from tests.contract.kit import Node
from tests.world import World, small_world


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.down()


@pytest.mark.parametrize("self_fence_s", [0.0, 60.0])
def test_an_operator_gives_no_leases(node: Node, self_fence_s: float) -> None:
    """With them it could disarm a node that fences itself, or have its servers run on while they are started elsewhere."""
    clock = node.agent.clock
    node.ok("lease.renew", wire.Renewal(clock.boot_id, clock.boottime_s() + 30, 60.0))
    until_s = node.agent.self_fence.until_s
    longer = wire.Renewal(clock.boot_id, clock.boottime_s() + 1e9, self_fence_s)
    assert node.refusal("lease.renew", longer, role=wire.OPERATOR).code == Code.DENIED
    assert (node.agent.self_fence.self_fence_s, node.agent.self_fence.until_s) == (60.0, until_s)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(background, "hand_over", lambda cluster, ids: None)
    with small_world(tmp_path, count=1) as made:
        yield made


def misuse(world: World, role: str, server: str, **envelope: Any) -> wire.Reply:
    """What somebody's key sends beside novactl, and gets."""
    agent, dispatcher = world.agents["n1"], world.endpoints["n1"].dispatcher
    server_epoch = envelope.pop("server_epoch", 1)
    plain = {"operation": str(uuid.uuid4()), "epoch": 1, "boot_id": agent.clock.boot_id, "valid_until_s": agent.clock.boottime_s() + 60}
    request = wire.Request(str(uuid.uuid4()), "domain.stop", {"server": server, "epoch": server_epoch}, **{**plain, **envelope})
    call = Call(agent, request, role, "k" * 40, b"peer")
    frames = dispatcher._answer(call, wire.METHODS["domain.stop"], wire.Stop(server, server_epoch, 0.0), None)
    assert frames is not None
    return wire.decode(wire.Reply, frames)[0]


def started(world: World) -> str:
    return api.create(world.cluster, CreateServer(name="web", flavor="small", image="guest")).servers[0].id


def works(world: World) -> None:
    power.stop(world.cluster, "web")
    power.start(world.cluster, "web")


def ended(world: World) -> None:
    """What could not end while the node refused it."""
    for left in operations.list_operations(world.cluster):
        operations.resume(world.cluster, [left.id])
    verify.repair(world.cluster)


@pytest.mark.parametrize("envelope", [
    {"seq": wire.MAX_INT}, {"seq": wire.MAX_COUNT + 1}, {"seq": -1}, {"epoch": wire.MAX_INT}, {"server_epoch": wire.MAX_INT}])
@pytest.mark.parametrize("role", [wire.OPERATOR, wire.ADMIN])
def test_no_count_leaves_none_to_follow(world: World, role: str, envelope: dict[str, int]) -> None:
    """The highest number there can be bars every other one: it is refused, whoever sends it."""
    server = started(world)
    reply = misuse(world, role, server, **envelope)
    assert reply.kind == wire.ERROR and reply.body["code"] == Code.BAD_REQUEST
    works(world)


@pytest.mark.parametrize("envelope", [{"epoch": AHEAD + 2}, {"server_epoch": AHEAD + 2}])
def test_an_operator_does_not_outrun_everybody(world: World, envelope: dict[str, int]) -> None:
    """Of a server or an operation: epochs go by ones, and far ahead goes an admin's key alone."""
    server = started(world)
    reply = misuse(world, wire.OPERATOR, server, **envelope)
    assert reply.kind == wire.ERROR and reply.body["code"] == Code.DENIED and "role admin" in reply.body["message"]
    works(world)
    assert misuse(world, wire.ADMIN, server, **envelope).kind == wire.RESULT


@pytest.mark.parametrize("envelope", [{"server_epoch": AHEAD}, {"seq": wire.FAR_COUNT}, {"seq": wire.MAX_COUNT}])
def test_an_adoption_gets_past_any_count(world: World, envelope: dict[str, int]) -> None:
    """What an operator's key can do is undone by `cluster adopt`, again and again: numbers that nobody can have counted are forgotten,
    others gone past."""
    server = started(world)
    for _ in range(2):
        with world.cluster.db.read() as tx:
            known = servers.by_id(tx, server)
        assert known is not None
        more = {"server_epoch": known.epoch + AHEAD} if "server_epoch" in envelope else {"server_epoch": known.epoch, **envelope}
        if "seq" in more:
            more["seq"] = max(more["seq"], min(wire.MAX_COUNT, world.agents["n1"].ledger.highest()[0] + 10**7))
        assert misuse(world, wire.OPERATOR, server, **more).kind == wire.RESULT
        with pytest.raises(NovaError):
            works(world)
        far = more.get("seq", wire.MAX_COUNT) > wire.FAR_COUNT
        done = rebuild.adopt(world.cluster)
        assert done.silent == () and done.beyond == (("n1",) if far else ()) and done.begins < wire.FAR_COUNT + 10**8
        ended(world)
        works(world)
        assert world.agents["n1"].ledger.highest()[0] <= done.begins + 1000


def test_a_number_of_before_the_bounds_is_forgotten_too(world: World) -> None:
    """An older agent took it."""
    server = started(world)
    world.agents["n1"].ledger.raise_epochs(str(uuid.uuid4()), wire.MAX_INT, server, wire.MAX_INT, 0.0, wire.MAX_INT)
    with pytest.raises(NovaError):
        works(world)
    assert rebuild.adopt(world.cluster).beyond == ("n1",)
    ended(world)
    works(world)


def test_another_copy_of_the_database_stays_refused(world: World) -> None:
    """What an adoption forgets is beyond all counting: the numbers before its own are as stale as after any."""
    server = started(world)
    misuse(world, wire.OPERATOR, server, seq=wire.MAX_COUNT)
    rebuild.adopt(world.cluster)
    reply = misuse(world, wire.OPERATOR, server, seq=5)
    assert reply.kind == wire.ERROR and reply.body["code"] == Code.DIVERGED
