"""server.adopt: a domain that was somebody else's becomes a server where it is, without being touched."""

from __future__ import annotations

from dataclasses import dataclass

from novactl.agents import wire
from novactl.conductor.domain import node_of, ref, server_in, spec_of
from novactl.conductor.history import note
from novactl.conductor.saga import Run, Saga, Step
from novactl.db import placement, servers
from novactl.db.statements import Tx
from novactl.errors import NovaError
from novactl.model.key import Role
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU
from novactl.states import Event, advance


@dataclass(frozen=True, kw_only=True)
class AdoptServer:
    """`server` is the domain's UUID. `force`: it is claimed also where it does not fit, because it is there already."""

    server: str
    node: str
    epoch: int
    force: bool = False
    power: str = ""
    """As the node tells it when it has become a server."""


def claim(run: Run, record: AdoptServer) -> AdoptServer:
    with run.tx() as tx:
        server = server_in(tx, record.server)
        wanted = placement.Claim(
            server.id, record.node, {VCPU: server.vcpus, MEMORY_MB: server.memory_mb, DISK_GB: server.disk_gb},
            project_id=server.project_id, name=server.name)
        if record.force:
            placement.acknowledge(tx, wanted)
        else:
            placement.claim(tx, wanted)
        servers.place(tx, server.id, record.node, record.epoch, run.cluster.clock.now())
    return record


def release(run: Run, record: AdoptServer) -> None:
    with run.tx() as tx:
        placement.release(tx, record.server, record.node)
        servers.place(tx, record.server, "", record.epoch, run.cluster.clock.now())


def mark(run: Run, record: AdoptServer) -> AdoptServer:
    node = node_of(run, record.node)
    with run.cluster.db.read() as tx:
        spec = spec_of(server_in(tx, record.server), record.epoch)
    run.call(node, "domain.adopt", spec)
    state: wire.DomainState = run.call(node, "domain.state", ref(record))
    return AdoptServer(server=record.server, node=record.node, epoch=record.epoch, force=record.force, power=state.power_state)


def unmark(run: Run, record: AdoptServer) -> None:
    run.call(node_of(run, record.node), "domain.release", ref(record))


def adopted(run: Run, tx: Tx, record: AdoptServer) -> None:
    server, now = server_in(tx, record.server), run.cluster.clock.now()
    event = Event.BUILT if record.power in ("RUNNING", "PAUSED", "SUSPENDED") else Event.ADOPTED_OFF
    servers.move_state(tx, server, advance(server.state, event, server.name), operation_id="", at=now)
    servers.launched(tx, server.id, now)
    note(run, tx, "adopted", f"on {node_of(run, record.node).name}")


def not_adopted(run: Run, tx: Tx, record: AdoptServer, error: NovaError) -> None:
    server, now = server_in(tx, record.server), run.cluster.clock.now()
    servers.move_state(
        tx, server, advance(server.state, Event.BUILD_FAILED, server.name), operation_id="", at=now, fault=error.message)
    servers.gone(tx, server.id, now)
    note(run, tx, Event.BUILD_FAILED, error.message)


ADOPT: Saga[AdoptServer] = Saga(
    kind="server.adopt",
    role=Role.ADMIN,
    record=AdoptServer,
    steps=(Step("claim", do=claim, undo=release), Step("mark", do=mark, undo=unmark)),
    finish=adopted,
    fail=not_adopted,
)
SAGAS = {ADOPT.kind: ADOPT}
