"""server.evacuate: a server of a fenced node is built again on another, under the next epoch.

What it holds on the lost node stays held, by the operation, until it runs elsewhere: the way back is a rename. Its disk
lay on the lost node and is made anew from its image, except where both nodes have the same pool of disks: then the disk stays.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from novactl.agents import wire
from novactl.conductor import create_server as create
from novactl.conductor.domain import delete_disk, delete_seed, node_of, power_off, server_in, undefine
from novactl.conductor.history import note
from novactl.conductor.pools import apart
from novactl.conductor.saga import Run, Saga, Step, nothing
from novactl.db import claims, nodes, placement, servers
from novactl.db.statements import Tx
from novactl.errors import Conflict, NovaError, NoValidHost, Unreachable
from novactl.model.node import Node, NodeState
from novactl.model.resources import DISK_GB
from novactl.model.server import Server
from novactl.states import Event, VmState, advance

ANSWERS_S = 1.0
"""A fenced node that is back answers within that; every server of one that is off waits for so long."""


@dataclass(frozen=True, kw_only=True)
class EvacuateServer(create.CreateServer):
    """`source_epoch` is the server's on the node it leaves (`source`); `pool` the shared disks it is on, "" for the node's own; `runs`:
    it is started when it is there."""

    source_epoch: int
    pool: str = ""
    runs: bool = True
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Node id -> why the server's disk is not there."""

    @property
    def excluded(self) -> Mapping[str, str]:
        return {self.source: "is the node it leaves", **self.elsewhere, **super().excluded}

    @property
    def takes_its_disk(self) -> bool:
        return bool(self.pool)

    def may_leave(self, tx: Tx) -> None:
        """Not where its node is back, and enabled by now."""
        source = nodes.by_id(tx, self.source)
        if source is None or source.state is not NodeState.FENCED:
            raise unfenced(source.name if source else self.source, self.name)


def of_server(server: Server, extra: Mapping[str, int], image_format: str, sizes: tuple[int, int], pool: str) -> EvacuateServer:
    """The record. `extra` is what it holds where it is, by resource class; `sizes` are its image's in bytes: file, disk."""
    return EvacuateServer(
        server=server.id, name=server.name, vcpus=server.vcpus, memory_mb=server.memory_mb, disk_gb=server.disk_gb,
        image_sha256=server.image_sha256, image_format=image_format, image_size_bytes=sizes[0], image_virtual_size_bytes=sizes[1],
        architecture=server.architecture, zone=server.zone, only_node="", source=server.node_id, source_epoch=server.epoch, pool=pool,
        extra=extra, runs=server.vm_state is not VmState.STOPPED)


def fenced(run: Run, record: EvacuateServer) -> EvacuateServer:
    """Nothing of it runs on the node it leaves: that was made sure of. Nodes without its disk, or with it unsaid, are left out."""
    with run.cluster.db.read() as tx:
        source = nodes.by_id(tx, record.source)
        others = {node.id: why for node in nodes.all_(tx) if source is not None and (why := _without_its_disk(record, source, node))}
    if source is None or source.state is not NodeState.FENCED:
        raise unfenced(source.name if source else record.source, record.name)
    _not_there(run, record, source)
    return dataclasses.replace(record, elsewhere=others)


def _without_its_disk(record: EvacuateServer, source: Node, node: Node) -> str:
    """Why it cannot be built there: it would be without its disk, or that would be made anew over the one it has. "" where it can."""
    are_two = apart(_pool_id(node), _pool_id(source))
    if record.pool and node.shared_disk != record.pool:
        return f"does not have the disks {record.pool}, where the server's is"
    if record.pool:
        return "" if not are_two else (
            f"has another pool than node {source.name}, though it is called {record.pool}: is it mounted there? If it is, and lost its"
            f" id, put {_pool_id(source)} into .novactl-pool there")
    if node.id == source.id or are_two is not False:
        return ""
    return f"has node {source.name}'s pool of disks, and their rows do not say so: novactl node set NODE --shared-disk POOL, for both"


def _pool_id(node: Node) -> str:
    """As its last report had it, if it is one."""
    found = str((node.report or {}).get("pool_id") or "")
    return found if found.isalnum() and len(found) <= 32 else ""


def _not_there(run: Run, record: EvacuateServer, source: Node) -> None:
    """A fenced node that answers is back, or has fenced itself: then it has to say. Raises Conflict where the server runs there, or
    may: only silence is what is to be expected of a node that is off."""
    try:
        run.call(source, "agent.ping", timeout_s=ANSWERS_S)
    except Unreachable:
        return
    except NovaError:
        pass                                                  # an answer, too
    try:
        seen = run.call(source, "domain.state", wire.DomainRef(record.server))
    except NovaError as error:
        raise Conflict(
            f"node {source.name} is fenced, but answers, and cannot say whether server {record.name} runs: {error.message}",
            hint="nothing is started elsewhere until it says so, or is off", command=f"novactl node check {source.name}") from error
    if seen.power_state not in ("SHUTDOWN", "CRASHED", "ABSENT", "NOSTATE"):
        raise Conflict(
            f"server {record.name} runs on node {source.name}, which is fenced, but is back: nothing is started elsewhere",
            hint="what is its own goes on there", command=f"novactl node enable {source.name}")


def unfenced(node: str, server: str) -> Conflict:
    return Conflict(
        f"node {node} is not fenced: server {server} may still run there, and its disk must not be opened twice",
        hint="nothing is started elsewhere until it is made sure that the node is off", command=f"novactl node fence {node}")


def place(run: Run, record: EvacuateServer) -> EvacuateServer:
    placed = create.place_and_claim(run, record)
    assert isinstance(placed, EvacuateServer)
    return placed


def stay(run: Run, record: EvacuateServer) -> None:
    """The server is again where it was, with the epoch that its domain has there."""
    with run.tx() as tx:
        server, disk_gb = server_in(tx, record.server), 0
        if server.node_id and server.node_id != record.source:
            there = claims.held(tx, server.id, server.node_id)
            disk_gb = there.amounts.get(DISK_GB, 0) if there is not None and record.takes_its_disk else 0
            placement.release(tx, server.id, server.node_id)
        placement.give_back(tx, server.id, record.source, run.operation.id, disk_gb)
        servers.place(tx, server.id, record.source, record.source_epoch, run.cluster.clock.now())


def make_disk(run: Run, record: EvacuateServer) -> EvacuateServer:
    return record if record.pool else _same(create.create_disk(run, record))


def drop_disk(run: Run, record: EvacuateServer) -> None:
    if not record.pool:
        delete_disk(run, record)


def drop_seed(run: Run, record: EvacuateServer) -> None:
    """Where the disk is the server's own, the seed beside it is, too."""
    if not record.pool:
        delete_seed(run, record)


def start(run: Run, record: EvacuateServer) -> EvacuateServer:
    return _same(create.start(run, record)) if record.runs else record


def _same(record: create.CreateServer) -> EvacuateServer:
    assert isinstance(record, EvacuateServer)
    return record


def evacuated(run: Run, tx: Tx, record: EvacuateServer) -> None:
    placement.release(tx, run.operation.id, record.source)
    server, now = server_in(tx, record.server), run.cluster.clock.now()
    event = Event.EVACUATED if record.runs else Event.EVACUATED_OFF
    servers.move_state(tx, server, advance(server.state, event, server.name), operation_id="", at=now, fault="")
    source = nodes.by_id(tx, record.source)
    disk = f"its disk in {record.pool} is the same" if record.pool else "its disk is new, made from its image"
    note(run, tx, event, f"from {source.name if source else record.source} to {node_of(run, record.node).name}; {disk}")


def kept(run: Run, tx: Tx, record: EvacuateServer, error: NovaError) -> None:
    server = server_in(tx, record.server)
    if server.node_id != record.source:                       # only where it is given up without being undone
        placement.release(tx, run.operation.id, record.source)
    if server.operation_id == run.operation.id:
        servers.move_state(
            tx, server, advance(server.state, Event.ABORTED, server.name), operation_id="", at=run.cluster.clock.now(),
            fault=f"could not be started elsewhere: {error.message}")
        note(run, tx, Event.ABORTED, error.message)


def another_node(run: Run, record: EvacuateServer, error: NovaError) -> EvacuateServer | None:
    """As for a new server: the next node, where the fault was the node's."""
    if not error.elsewhere or isinstance(error, NoValidHost):
        return None
    following = create.another_node(run, record, error)
    return None if following is None else _same(following)


EVACUATE: Saga[EvacuateServer] = Saga(
    kind="server.evacuate",
    record=EvacuateServer,
    steps=(
        Step("fenced", do=fenced, undo=nothing("nothing has been done yet")),
        Step("place", do=place, undo=stay),
        Step("image", do=lambda run, record: _same(create.bring_image(run, record)),
             undo=nothing("base images are shared and content-addressed")),
        Step("disk", do=make_disk, undo=drop_disk),
        Step("seed", do=lambda run, record: _same(create.write_seed(run, record)), undo=drop_seed),
        Step("define", do=lambda run, record: _same(create.define(run, record)), undo=undefine),
        Step("start", do=start, undo=power_off),
    ),
    finish=evacuated,
    fail=kept,
    next_attempt=another_node,
)
SAGAS = {EVACUATE.kind: EVACUATE}
