"""For each saga: how to begin it in a small world, what the slate was, and what being done means."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from novactl.api import adoption, creation, power
from novactl.api import servers as api
from novactl.conductor import adopt_server, clean_server, create_server, delete_server, evacuate_server, fence_node, ha, revive, rotate_key
from novactl.conductor import power as power_sagas
from novactl.conductor.driver import Driver
from novactl.conductor.saga import Saga, begin
from novactl.db import nodes, servers
from novactl.model.operation import Operation
from novactl.model.server import Server
from novactl.states import Event, advance
from tests.world import World


@dataclass(frozen=True)
class Scenario:
    """`prepare` makes what the saga starts from; `start` begins its operation; `slate` describes the world, ids and
    times aside, so that "as before" and "as when done" can be compared."""

    saga: Saga[Any]
    prepare: Callable[[World], Server | None]
    start: Callable[[World, Server | None], Operation]


def slate(world: World) -> Mapping[str, Any]:
    """All that a saga may leave behind or take away: living servers with their states, claims, domains, files, operations."""
    from novactl.db import operations, placement

    with world.cluster.db.read() as tx:
        living = {s.id: s.name for s in servers.all_(tx)}
        return {
            "servers": sorted((s.name, s.vm_state, s.task_state, s.node_id != "", s.epoch, s.operation_id) for s in servers.all_(tx)),
            "claims": sorted((living.get(c.consumer_id, "?"), c.resource_class, c.amount) for c in placement.all_(tx)),
            "nodes": sorted((node.state, node.reason) for node in nodes.all_(tx)),
            "keys": sorted(
                (node.name, node.public_key == world.endpoints[node.name].public, node.next_public_key,
                 world.agents[node.name].own_keys.keys.next() is None) for node in nodes.all_(tx)),
            "sums": sorted((row.servers, sorted(row.used.items())) for row in nodes.rows(tx)),
            "open": [o.kind for o in operations.recent(tx, ended=False)],
            "wild": sorted(one.name for agent in world.agents.values() for one in agent.driver.states().wild),
            "domains": sorted((living.get(id_, "?"), state) for id_, state in world.domains().items()),
            "files": sorted(name.replace(id_, living[id_]) for name in world.disks() for id_ in living if id_ in name)
            + [name for name in world.disks() if not any(id_ in name for id_ in living)],
        }


def _nobody(world: World) -> None:
    """Creation starts from nothing."""


def _begin_create(world: World, _: Server | None) -> Operation:
    wanted = api.CreateServer(name="web", flavor="small", image="guest")
    with world.cluster.db.write() as tx:
        ((server, record),) = creation._records(world.cluster, tx, wanted, ["web"])
        return creation._begin(world.cluster, tx, server, record, detached=False)


def _running(world: World) -> Server:
    return api.create(world.cluster, api.CreateServer(name="web", flavor="small", image="guest")).servers[0]


def _stopped(world: World) -> Server:
    server = _running(world)
    api.stop(world.cluster, server.name)
    return api.show(world.cluster, server.name, refresh=False)


def _begin(saga: Saga[Any], event: Event, record: Callable[[Server], Any]) -> Callable[[World, Server | None], Operation]:
    def start(world: World, server: Server | None) -> Operation:
        assert server is not None
        with world.cluster.db.write() as tx:
            operation = begin(world.cluster, tx, saga, record(server), ("server", server.id, server.name))
            state = advance(server.state, event, server.name)
            servers.move_state(tx, server, state, operation_id=operation.id, at=world.cluster.clock.now())
        return operation

    return start


def _down(world: World) -> Server:
    """It ran, and its host has started anew."""
    server = _running(world)
    world.agents[server.node_name].driver.lose_power()
    with world.cluster.db.write() as tx:
        (row,) = servers.powers(tx, server.node_id)
        assert servers.found(tx, row, advance(row.state, Event.FOUND_DOWN, row.name), world.cluster.clock.now(), "down")
    return api.show(world.cluster, server.name, refresh=False)


def _revival(server: Server) -> revive.Revive:
    return revive.Revive(server=server.id, node=server.node_id, epoch=server.epoch)


def leave_behind(world: World, server: Server) -> str:
    """The node's name where a running copy of the server, of an older epoch, is now beside it."""
    home = world.agents[server.node_name]
    other = next(name for name in sorted(world.agents) if name != server.node_name)
    there = world.agents[other]
    spec, mark = home.driver._guests[server.id].spec, home.driver._guests[server.id].mark
    there.driver.define(dataclasses.replace(spec, epoch=spec.epoch - 1), "raw", mark)
    for name in (f"disk-{server.id}.qcow2", f"seed-{server.id}.iso"):
        (world.folder / other / "pool" / name).write_bytes((world.folder / server.node_name / "pool" / name).read_bytes())
    there.driver.start_domain(server.id)
    return other


def _left_behind(world: World) -> Server:
    server = _running(world)
    leave_behind(world, server)
    return server


def _begin_cleaning(world: World, server: Server | None) -> Operation:
    assert server is not None
    with world.cluster.db.write() as tx:
        other = next(row.id for row in nodes.rows(tx) if row.id != server.node_id)
        record = clean_server.CleanServer(server=server.id, node=other, epoch=server.epoch)
        return begin(world.cluster, tx, clean_server.CLEAN, record, ("server", server.id, server.name))


LEGACY = {"name": "legacy", "uuid": "2f0a8a86-35a5-4a6a-9a52-8c6c6ff8b0aa", "power_state": "RUNNING", "vcpus": 2, "memory_mb": 1024}


def _wild(world: World) -> None:
    """A domain that is not ours, on n1."""
    world.agents["n1"].driver._wild[LEGACY["uuid"]] = dict(LEGACY)


def _begin_adoption(world: World, _: Server | None) -> Operation:
    with world.cluster.db.write() as tx:
        node = nodes.by_name(tx, "n1")
        assert node is not None
        spec = world.agents["n1"].driver.wild(LEGACY["uuid"])
        server = adoption._server(world.cluster, tx, spec, "", "")
        servers.insert(tx, server)
        record = adopt_server.AdoptServer(server=server.id, node=node.id, epoch=1)
        operation = begin(world.cluster, tx, adopt_server.ADOPT, record, ("server", server.id, server.name))
        servers.move_state(tx, server, server.state, operation_id=operation.id, at=world.cluster.clock.now())
        return operation


def _begin_deletion(world: World, server: Server | None) -> Operation:
    assert server is not None
    with world.cluster.db.write() as tx:
        return delete_server.begin_one(world.cluster, tx, server, grace_s=0.0, lost=False, detached=False)


def _hard(server: Server) -> power_sagas.Power:
    return dataclasses.replace(power._power(server), hard=True)


def _lost(world: World) -> Server:
    """A running server whose node has been fenced, and has lost what it had."""
    server = _running(world)
    agent = world.agents[server.node_name]
    agent.driver.destroy(server.id)
    agent.driver.undefine(server.id)
    agent.driver.delete_disk(server.id)
    for left in (world.folder / server.node_name / "pool").glob(f"*{server.id}*"):
        left.unlink()
    fence(world, server.node_name)
    with world.cluster.db.read() as tx:
        return servers.by_id(tx, server.id) or server


def fence(world: World, name: str) -> None:
    with world.cluster.db.write() as tx:
        node = nodes.by_name(tx, name)
        assert node is not None
        operation = ha.begin_fencing(world.cluster, tx, node, {}, detached=False)
    Driver(world.cluster, fence_node.FENCE, operation).drive()


def _begin_evacuation(world: World, server: Server | None) -> Operation:
    assert server is not None
    with world.cluster.db.write() as tx:
        return ha.begin_evacuation(world.cluster, tx, server, detached=False)


def _begin_fencing(world: World, _: Server | None) -> Operation:
    with world.cluster.db.write() as tx:
        node = nodes.by_name(tx, "n1")
        assert node is not None
        return ha.begin_fencing(world.cluster, tx, node, {}, detached=False)


def _begin_rotation(world: World, _: Server | None) -> Operation:
    with world.cluster.db.write() as tx:
        node = nodes.by_name(tx, "n1")
        assert node is not None
        return begin(world.cluster, tx, rotate_key.ROTATE_KEY, rotate_key.RotateKey(node=node.id), ("node", node.id, node.name))


SCENARIOS: Mapping[str, Scenario] = {
    "server.create": Scenario(create_server.CREATE, _nobody, _begin_create),
    "server.delete": Scenario(delete_server.DELETE, _running, _begin_deletion),
    "server.stop": Scenario(power_sagas.STOP, _running, _begin(power_sagas.STOP, Event.BEGIN_STOP, power._power)),
    "server.start": Scenario(power_sagas.START, _stopped, _begin(power_sagas.START, Event.BEGIN_START, power._power)),
    "server.evacuate": Scenario(evacuate_server.EVACUATE, _lost, _begin_evacuation),
    "node.rotate_key": Scenario(rotate_key.ROTATE_KEY, _running, _begin_rotation),
    "node.fence": Scenario(fence_node.FENCE, _nobody, _begin_fencing),
    "server.revive": Scenario(revive.REVIVE, _down, _begin(revive.REVIVE, Event.BEGIN_REVIVE, _revival)),
    "server.clean": Scenario(clean_server.CLEAN, _left_behind, _begin_cleaning),
    "server.adopt": Scenario(adopt_server.ADOPT, _wild, _begin_adoption),
    "server.reboot": Scenario(power_sagas.REBOOT, _running, _begin(power_sagas.REBOOT, Event.BEGIN_REBOOT_HARD, _hard)),
}
"""Enrolment and removal change a machine over SSH: their laws run on a test host (tests/integration)."""
