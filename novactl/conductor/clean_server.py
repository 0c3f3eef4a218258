"""server.clean: what a server left on a node that is not its own any more, or that is deleted, is removed from there."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from novactl.agents import wire
from novactl.conductor import domain
from novactl.conductor.history import note
from novactl.conductor.pools import apart
from novactl.conductor.saga import Run, Saga, Step, nothing
from novactl.db import nodes, servers
from novactl.db.statements import Tx
from novactl.errors import Conflict
from novactl.model.node import Node, NodeState

ANSWERS_S = 3.0


@dataclass(frozen=True, kw_only=True)
class CleanServer:
    """`epoch` is the server's newest: the node obeys no older one. `kept` is why its files were left where they are."""

    server: str
    node: str
    epoch: int
    kept: str = ""


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
    """Its seed and its disk, where it is known that they are not those which the server has now."""
    kept = _why_kept(run, record)
    if not kept:
        domain.delete_seed(run, record)
        domain.delete_disk(run, record)
    return dataclasses.replace(record, kept=kept)


def _why_kept(run: Run, record: CleanServer) -> str:
    """"" where nothing of a living server can be in them. Raises what the nodes' answers raise: then it is asked again."""
    with run.cluster.db.read() as tx:
        server = servers.by_id(tx, record.server)
        there = nodes.by_id(tx, record.node)
        home = nodes.by_id(tx, server.node_id) if server is not None and server.deleted_at is None and server.node_id else None
    if home is None or there is None:
        return ""
    if there.shared_disk and there.shared_disk == home.shared_disk:
        are_two: bool | None = False
    elif home.state is NodeState.FENCED:                      # it may never answer again
        are_two = None
    else:
        are_two = apart(_pool_id(run, there), _pool_id(run, home))
    if are_two:
        return ""
    return f"its files stay: {_SURE if are_two is False else _UNSURE} node {home.name}"


_SURE = "they are those that it has on"
_UNSURE = "it is not known whether they are those that it has on"


def _pool_id(run: Run, node: Node) -> str:
    report: wire.Report = run.call(node, "inventory.read", wire.InventoryRead(0.0), timeout_s=ANSWERS_S)
    return report.pool_id


def cleaned(run: Run, tx: Tx, record: CleanServer) -> None:
    note(run, tx, "cleaned", f"from {nodes.name_of(tx, record.node)}" + (f"; {record.kept}" if record.kept else ""))


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
