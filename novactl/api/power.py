"""start, stop, reboot and delete: one change of one server each."""

from __future__ import annotations

import dataclasses

from novactl.api.resolve import resolve
from novactl.api.sight import look
from novactl.api.waiting import Begun, run_all
from novactl.cluster import Cluster
from novactl.conductor import delete_server as deletion
from novactl.conductor import power
from novactl.conductor.progress import Watch
from novactl.conductor.saga import Saga, begin, busy
from novactl.db import events, operations, servers
from novactl.errors import Conflict, NovaError
from novactl.model.operation import EventRecord, OperationState
from novactl.model.server import Server
from novactl.states import Event, VmState, advance


def start(
    cluster: Cluster, ref: str, *, watch: Watch | None = None, dry_run: bool = False, wait: bool = True, timeout_s: float | None = None,
) -> Server | str:
    server = _seen(cluster, ref)
    if server.vm_state is VmState.ACTIVE and not server.operation_id:
        return server
    return _change(cluster, server, power.START, Event.BEGIN_START, _power(server), watch, (dry_run, wait, timeout_s))


def stop(
    cluster: Cluster, ref: str, *, watch: Watch | None = None, dry_run: bool = False, wait: bool = True, timeout_s: float | None = None,
    grace_s: float | None = None,
) -> Server | str:
    server = _seen(cluster, ref)
    if server.vm_state is VmState.STOPPED and not server.operation_id:
        return server
    record = dataclasses.replace(_power(server), grace_s=cluster.config["server.stop_grace_s"] if grace_s is None else grace_s)
    return _change(cluster, server, power.STOP, Event.BEGIN_STOP, record, watch, (dry_run, wait, timeout_s))


def reboot(
    cluster: Cluster, ref: str, *, watch: Watch | None = None, dry_run: bool = False, wait: bool = True, timeout_s: float | None = None,
    hard: bool = False,
) -> Server | str:
    server = _seen(cluster, ref)
    event = Event.BEGIN_REBOOT_HARD if hard else Event.BEGIN_REBOOT
    record = dataclasses.replace(_power(server), hard=hard, grace_s=cluster.config["server.stop_grace_s"])
    return _change(cluster, server, power.REBOOT, event, record, watch, (dry_run, wait, timeout_s))


def delete(
    cluster: Cluster, ref: str, *, watch: Watch | None = None, dry_run: bool = False, wait: bool = True, timeout_s: float | None = None,
) -> Server | str:
    server = _find(cluster, ref)
    if not dry_run and server.operation_id and _undone_creation(cluster, server):
        return _find_past(cluster, server)
    record = deletion.DeleteServer(
        server=server.id, node=server.node_id, epoch=server.epoch, grace_s=cluster.config["server.delete_grace_s"])
    return _change(cluster, server, deletion.DELETE, Event.BEGIN_DELETE, record, watch, (dry_run, wait, timeout_s))


def _undone_creation(cluster: Cluster, server: Server) -> bool:
    """A creation that got stuck, or whose process died, is undone: then there is nothing left to delete."""
    from novactl.conductor.recover import find, resume

    operation = find(cluster, server.operation_id)
    if operation.kind != "server.create" or operation.state is not OperationState.STUCK:
        return False
    return resume(cluster, operation.id, forward=False).state is OperationState.FAILED


def _find(cluster: Cluster, ref: str) -> Server:
    with cluster.db.read() as tx:
        return resolve(tx, "server", servers, ref)


def _seen(cluster: Cluster, ref: str) -> Server:
    """The server as it is, not as it was recorded: a guest may have shut itself down."""
    server = _find(cluster, ref)
    return server if server.operation_id else look(cluster, server, must=True)


def _find_past(cluster: Cluster, server: Server) -> Server:
    with cluster.db.read() as tx:
        return servers.by_id(tx, server.id) or server


def _power(server: Server) -> power.Power:
    return power.Power(server=server.id, node=server.node_id, epoch=server.epoch)


def _change(
    cluster: Cluster, server: Server, saga: Saga, event: Event, record: object, watch: Watch | None,
    how: tuple[bool, bool, float | None],
) -> Server | str:
    """Begin the saga, with the server's state moved in the same transaction, and run it. Returns the server, or the
    operation's id when nobody waits. Raises Conflict, Busy, and what the saga raises."""
    dry_run, wait, timeout_s = how
    with cluster.db.write() as tx:
        fresh = servers.by_id(tx, server.id)
        if fresh is None or fresh.deleted_at is not None:
            raise Conflict(f"server {server.name} has just been deleted")
        for other in operations.open_of(tx, fresh.id):
            raise busy(cluster, other)
        state = advance(fresh.state, event, fresh.name)
        if dry_run:
            return fresh
        operation = begin(cluster, tx, saga, record, ("server", fresh.id, fresh.name), detached=not wait)
        servers.move_state(tx, fresh, state, operation_id=operation.id, at=cluster.clock.now())
        events.record(tx, EventRecord(
            at=cluster.clock.now(), object_kind="server", object_id=fresh.id, object_name=fresh.name, operation_id=operation.id,
            event=str(event), actor=cluster.actor, detail=""))
    try:
        run_all(cluster, [Begun(saga, operation)], watch, wait=wait, timeout_s=timeout_s)
    except NovaError as error:
        error.operation = error.operation or operation.id
        raise
    return _find_past(cluster, fresh) if wait else operation.id
