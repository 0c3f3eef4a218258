"""server.delete: once the domain is destroyed there is only forward. The claim goes last, so a crash never oversells.

It goes on under the server's next epoch: whatever an operation before it still sends, the node refuses from the first change
that this one makes there. Until then nobody has told the node, and a server that is kept is again of the epoch it had.
"""

from __future__ import annotations

from dataclasses import dataclass

from novactl.agents import wire
from novactl.cluster import Cluster
from novactl.conductor import domain
from novactl.conductor.history import note
from novactl.conductor.holding import refuse_busy
from novactl.conductor.saga import Run, Saga, Step, begin, nothing
from novactl.db import operations, placement, servers
from novactl.db.statements import Tx
from novactl.errors import NovaError
from novactl.model.operation import Operation
from novactl.model.server import Server
from novactl.states import Event, advance


@dataclass(frozen=True, kw_only=True)
class DeleteServer:
    """`node` is "" for a server that never got one. `kept_epoch` is the server's when it is not deleted after all (0: stays as it
    is). `lost`: the node is gone for good and is not asked."""

    server: str
    node: str
    epoch: int
    kept_epoch: int = 0
    grace_s: float = 0.0
    lost: bool = False

    @property
    def has_domain(self) -> bool:
        """Whether there is something on a node to remove."""
        return bool(self.node) and not self.lost


def begin_one(cluster: Cluster, tx: Tx, server: Server, *, grace_s: float, lost: bool, detached: bool) -> Operation:
    """The operation that deletes it, with its state and its epoch moved. Raises Busy, Conflict."""
    refuse_busy(cluster, tx, server.id)
    record = DeleteServer(
        server=server.id, node=server.node_id, epoch=server.epoch + 1, kept_epoch=server.epoch, grace_s=grace_s, lost=lost)
    state, now = advance(server.state, Event.BEGIN_DELETE, server.name), cluster.clock.now()
    operation = begin(cluster, tx, DELETE, record, ("server", server.id, server.name), detached=detached)
    servers.move_state(tx, server, state, operation_id=operation.id, at=now)
    servers.place(tx, server.id, server.node_id, record.epoch, now)
    return operation


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
    server, now = servers.by_id(tx, record.server), run.cluster.clock.now()
    if server is None or server.operation_id != run.operation.id:
        return
    servers.move_state(tx, server, advance(server.state, Event.ABORTED, server.name), operation_id="", at=now)
    if record.kept_epoch and not _touched(run, tx):
        servers.place(tx, server.id, server.node_id, record.kept_epoch, now)
    note(run, tx, Event.ABORTED, error.message)


def _touched(run: Run, tx: Tx) -> bool:
    """Whether the node may have heard of the epoch: so it is where a deletion that got stuck half-way is given up for another."""
    return DELETE.no_way_back(max((step.position for step in operations.steps(tx, run.operation.id)), default=-1))


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
