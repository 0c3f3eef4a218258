"""server.delete: once the domain is destroyed there is only forward. The claim goes last, so a crash never oversells."""

from __future__ import annotations

from dataclasses import dataclass

from novactl.agents import wire
from novactl.conductor import domain
from novactl.conductor.history import note
from novactl.conductor.saga import Run, Saga, Step, nothing
from novactl.db import placement, servers
from novactl.db.statements import Tx
from novactl.errors import NovaError
from novactl.states import Event, advance


@dataclass(frozen=True, kw_only=True)
class DeleteServer:
    """`node` is "" for a server that never got one. `lost`: the node is gone for good and is not asked."""

    server: str
    node: str
    epoch: int
    grace_s: float = 0.0
    lost: bool = False

    @property
    def has_domain(self) -> bool:
        """Whether there is something on a node to remove."""
        return bool(self.node) and not self.lost


def reach(run: Run, record: DeleteServer) -> DeleteServer:
    """The node answers: otherwise the server stays as it is, rather than half gone."""
    if record.has_domain:
        run.call(domain.node_of(run, record.node), "domain.state", domain.ref(record))
    return record


def destroy(run: Run, record: DeleteServer) -> DeleteServer:
    if record.has_domain:
        if record.grace_s:
            stop = wire.Stop(record.server, record.epoch, record.grace_s)
            run.call(domain.node_of(run, record.node), "domain.stop", stop, timeout_s=record.grace_s + 60)
        domain.power_off(run, record)
    return record


def undefine(run: Run, record: DeleteServer) -> DeleteServer:
    if record.has_domain:
        domain.undefine(run, record)
    return record


def delete_disks(run: Run, record: DeleteServer) -> DeleteServer:
    if record.has_domain:
        domain.delete_seed(run, record)
        domain.delete_disk(run, record)
    return record


def gone(run: Run, tx: Tx, record: DeleteServer) -> None:
    server, now = servers.by_id(tx, record.server), run.cluster.clock.now()
    if server is None or server.deleted_at is not None:
        return
    if record.node:
        placement.release(tx, record.server, record.node)
    servers.move_state(tx, server, advance(server.state, Event.DELETED, server.name), operation_id="", at=now)
    servers.gone(tx, server.id, now)
    note(run, tx, Event.DELETED)


def kept(run: Run, tx: Tx, record: DeleteServer, error: NovaError) -> None:
    server = servers.by_id(tx, record.server)
    if server is not None and server.operation_id == run.operation.id:
        servers.move_state(
            tx, server, advance(server.state, Event.ABORTED, server.name), operation_id="", at=run.cluster.clock.now())
        note(run, tx, Event.ABORTED, error.message)


_UNTOUCHED = nothing("nothing has been done yet")

DELETE: Saga[DeleteServer] = Saga(
    kind="server.delete",
    record=DeleteServer,
    steps=(
        Step("reach", do=reach, undo=_UNTOUCHED),
        Step("destroy", do=destroy, undo=_UNTOUCHED),
        Step("undefine", do=undefine, undo=_UNTOUCHED),
        Step("disk", do=delete_disks, undo=_UNTOUCHED),
    ),
    finish=gone,
    fail=kept,
    point_of_no_return="destroy",
    resumes=True,
    timeout="timeout.delete_s",
)
SAGAS = {DELETE.kind: DELETE}
