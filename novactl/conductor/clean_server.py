"""server.clean: what a server left on a node that is not its own any more, or that is deleted, is removed from there."""

from __future__ import annotations

from dataclasses import dataclass

from novactl.conductor import domain
from novactl.conductor.history import note
from novactl.conductor.saga import Run, Saga, Step, nothing
from novactl.db import nodes, servers
from novactl.db.statements import Tx
from novactl.errors import Conflict


@dataclass(frozen=True, kw_only=True)
class CleanServer:
    """`epoch` is the server's newest: the node obeys no older one."""

    server: str
    node: str
    epoch: int


def check(run: Run, record: CleanServer) -> CleanServer:
    """It is not there that the server lives. Nothing moves it there meanwhile: it has one operation at a time."""
    with run.cluster.db.read() as tx:
        server = servers.by_id(tx, record.server)
    if server is not None and server.deleted_at is None and server.node_id == record.node:
        raise Conflict(f"server {server.name} is on node {server.node_name} by now: nothing is removed", command="novactl cluster verify")
    return record


def destroy(run: Run, record: CleanServer) -> CleanServer:
    domain.power_off(run, record)
    return record


def undefine(run: Run, record: CleanServer) -> CleanServer:
    domain.undefine(run, record)
    return record


def files(run: Run, record: CleanServer) -> CleanServer:
    """Its seed, and its disk, unless that lies where the server has it now."""
    if not shares_disk(run, record):
        domain.delete_seed(run, record)
        domain.delete_disk(run, record)
    return record


def shares_disk(run: Run, record: CleanServer) -> bool:
    with run.cluster.db.read() as tx:
        server = servers.by_id(tx, record.server)
        there = nodes.by_id(tx, record.node)
        home = nodes.by_id(tx, server.node_id) if server is not None and server.deleted_at is None and server.node_id else None
    return home is not None and there is not None and bool(there.shared_disk) and there.shared_disk == home.shared_disk


def cleaned(run: Run, tx: Tx, record: CleanServer) -> None:
    note(run, tx, "cleaned", f"from {nodes.name_of(tx, record.node)}")


_UNTOUCHED = nothing("what is removed was nobody's any more")
CLEAN: Saga[CleanServer] = Saga(
    kind="server.clean",
    record=CleanServer,
    steps=(
        Step("check", do=check, undo=_UNTOUCHED),
        Step("destroy", do=destroy, undo=_UNTOUCHED),
        Step("undefine", do=undefine, undo=_UNTOUCHED),
        Step("files", do=files, undo=_UNTOUCHED),
    ),
    finish=cleaned,
    point_of_no_return="destroy",
    resumes=True,
)
SAGAS = {CLEAN.kind: CLEAN}
