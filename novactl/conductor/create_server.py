"""server.create: place, image, disk, seed, define, start."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from novactl.agents import wire
from novactl.conductor import fleet
from novactl.conductor.domain import (
    delete_disk,
    delete_seed,
    ensure_defined,
    node_of,
    power_off,
    power_on,
    ref,
    server_in,
    server_of,
    undefine,
)
from novactl.conductor.history import note
from novactl.conductor.placing import Asked, Placer, refusal, request_of
from novactl.conductor.saga import Run, Saga, Step, nothing
from novactl.conductor.transfer import ensure_image
from novactl.db import nodes, operations, placement, servers
from novactl.db.statements import Tx
from novactl.errors import Conflict, NovaError, NoValidHost
from novactl.scheduler.pipeline import TOLD
from novactl.scheduler.request import Decision
from novactl.scheduler.telling import shortened
from novactl.states import Event, advance


@dataclass(frozen=True, kw_only=True)
class CreateServer:
    """The record. `only_node` is the id of the node asked for, "" for any; `node` and `epoch` are what was claimed."""

    server: str
    name: str
    vcpus: int
    memory_mb: int
    disk_gb: int
    image_sha256: str
    image_format: str
    image_size_bytes: int
    image_virtual_size_bytes: int
    architecture: str
    zone: str
    only_node: str
    node: str = ""
    epoch: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    """Node id -> what went wrong there."""

    extra: Mapping[str, int] = field(default_factory=dict)
    """Amounts of resource classes beyond the server's size; 0 takes one of the size away (VCPU of a pinned server)."""
    source: str = ""
    """The node it leaves; "" for a new server."""

    @property
    def excluded(self) -> Mapping[str, str]:
        """Node id -> why it is not asked."""
        return {node: f"was tried and failed: {what}" for node, what in self.failed.items()}

    @property
    def takes_its_disk(self) -> bool:
        """The disk that it has where it is, is the one that it will have."""
        return False

    def may_leave(self, tx: Tx) -> None:
        """Raises Conflict where it is to stay on `source`; whose row is locked."""


PLACE_TRIES = 10
"""Races lost for a node before giving up (Placement's own number)."""
BEST_TRIES = 6
"""So many of them for the best node as things then are; after that any node decided on will do while it has the room."""


def place_and_claim(run: Run, record: CreateServer) -> CreateServer:
    fleet.refresh(run.cluster, max_age_s=run.cluster.config["placement.refresh_s"])
    for tried in range(PLACE_TRIES):
        try:
            decision, record = _decided(run, record, best=tried < BEST_TRIES)
        except placement.Moved:                               # another admin's claim came between: decide from fresh rows
            continue
        if decision.chosen is None:
            raise refusal(decision)
        run.progress(detail=decision.names[record.node])
        return record
    raise Conflict(f"server {record.name}: the nodes change faster than it can be placed", hint="try again")


def _decided(run: Run, record: CreateServer, *, best: bool) -> tuple[Decision, CreateServer]:
    """Decide, claim and store both in one transaction. Repeated, it finds the claim and decides nothing new."""
    cluster = run.cluster
    placer = Placer(cluster)
    with run.tx() as tx:
        server = server_in(tx, record.server)
        if server.node_id and server.node_id != record.source:
            decided = operations.decision_of(tx, record.server)
            if decided is not None:
                return Decision.from_plain(decided[1]), dataclasses.replace(record, node=server.node_id, epoch=server.epoch)
        asked = Asked(
            server=server, extra=record.extra, only_node=record.only_node, exclude=record.excluded, moves=bool(record.source))
        disk_gb = 0
        if record.source:
            disk_gb = placement.lend(
                tx, server.id, record.source, run.operation.id, group_id=server.group_id, disk=not record.takes_its_disk)
            record.may_leave(tx)
        decision = placer.decide(tx, request_of(cluster, tx, asked))
        operations.decide(tx, run.operation.id, shortened(decision, TOLD).to_plain())
        if decision.chosen is None:
            placement.give_back(tx, server.id, record.source, run.operation.id, disk_gb)
        else:
            record = dataclasses.replace(record, node=decision.chosen.node, epoch=server.epoch + 1)
            placer.claim(tx, asked, decision, best=best)
            servers.place(tx, record.server, record.node, record.epoch, cluster.clock.now())
    return decision, record


def release(run: Run, record: CreateServer) -> None:
    with run.tx() as tx:
        server = server_in(tx, record.server)
        if server.node_id:
            placement.release(tx, record.server, server.node_id)
            servers.place(tx, record.server, "", server.epoch, run.cluster.clock.now())


def bring_image(run: Run, record: CreateServer) -> CreateServer:
    offer = wire.ImageOffer(record.image_sha256, record.image_size_bytes, record.image_virtual_size_bytes, record.image_format)
    ensure_image(run, node_of(run, record.node), offer)
    return record


def create_disk(run: Run, record: CreateServer) -> CreateServer:
    run.call(node_of(run, record.node), "disk.create", wire.DiskSpec(record.server, record.epoch, record.image_sha256, record.disk_gb))
    return record


def write_seed(run: Run, record: CreateServer) -> CreateServer:
    from novactl.conductor.seed import build_seed

    run.call(node_of(run, record.node), "seed.write", ref(record), build_seed(server_of(run, record)))
    return record


def define(run: Run, record: CreateServer) -> CreateServer:
    ensure_defined(run, record)
    return record


def start(run: Run, record: CreateServer) -> CreateServer:
    power_on(run, record)
    return record


def built(run: Run, tx: Tx, record: CreateServer) -> None:
    nodes.built(tx, record.node)                              # nodes before servers: rows are locked in one order
    server, now = server_in(tx, record.server), run.cluster.clock.now()
    servers.move_state(tx, server, advance(server.state, Event.BUILT, server.name), operation_id="", at=now)
    servers.launched(tx, server.id, now)
    note(run, tx, Event.BUILT, f"on {node_of(run, record.node).name}")


def not_built(run: Run, tx: Tx, record: CreateServer, error: NovaError) -> None:
    """The server never was: its row becomes history and its name is free again."""
    server, now = server_in(tx, record.server), run.cluster.clock.now()
    if server.node_id:                                        # only where it is given up without being undone
        placement.release(tx, server.id, server.node_id)
    if record.node and error.elsewhere:
        nodes.build_failed(tx, record.node)
    servers.move_state(
        tx, server, advance(server.state, Event.BUILD_FAILED, server.name), operation_id="", at=now, fault=error.message)
    servers.gone(tx, server.id, now)
    note(run, tx, Event.BUILD_FAILED, error.message)


def another_node(run: Run, record: CreateServer, error: NovaError) -> CreateServer | None:
    """The next node, unless the fault is the request's own, no node was chosen, one node was asked for, or
    `placement.max_attempts` have been tried."""
    if not error.elsewhere or isinstance(error, NoValidHost) or not record.node or record.only_node:
        return None
    failed = {**record.failed, record.node: error.message}
    if len(failed) >= run.cluster.config["placement.max_attempts"]:
        return None
    with run.tx() as tx:
        nodes.build_failed(tx, record.node)
    return dataclasses.replace(record, node="", epoch=0, failed=failed)


CREATE: Saga[CreateServer] = Saga(
    kind="server.create",
    record=CreateServer,
    steps=(
        Step("place", do=place_and_claim, undo=release),
        Step("image", do=bring_image, undo=nothing("base images are shared and content-addressed")),
        Step("disk", do=create_disk, undo=delete_disk),
        Step("seed", do=write_seed, undo=delete_seed),
        Step("define", do=define, undo=undefine),
        Step("start", do=start, undo=power_off),
    ),
    finish=built,
    fail=not_built,
    next_attempt=another_node,
    timeout="timeout.build_s",
)
SAGAS = {CREATE.kind: CREATE}
