"""start, stop, reboot and delete: one change of one server each."""

from __future__ import annotations

import dataclasses

from novactl.api.resolve import resolve
from novactl.api.sight import look
from novactl.api.waiting import Begun, run_all
from novactl.cluster import Cluster
from novactl.conductor import delete_server as deletion
from novactl.conductor import power
from novactl.conductor.create_server import CREATE
from novactl.conductor.holding import refuse_busy
from novactl.conductor.progress import Watch
from novactl.conductor.saga import Saga, begin
from novactl.db import nodes, servers
from novactl.errors import Conflict, NovaError, Unreachable
from novactl.model.operation import OperationState
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
    lost: bool = False,
) -> Server | str:
    server = _find(cluster, ref)
    if lost:
        _refuse_living(cluster, server)
    if not dry_run and server.operation_id:
        _end_stuck(cluster, server, lost)
        server = _find_past(cluster, server)
        if server.deleted_at is not None:
            return server
    record = deletion.DeleteServer(
        server=server.id, node=server.node_id, epoch=server.epoch, grace_s=cluster.config["server.delete_grace_s"],
        lost=lost)
    return _change(cluster, server, deletion.DELETE, Event.BEGIN_DELETE, record, watch, (dry_run, wait, timeout_s))


def _refuse_living(cluster: Cluster, server: Server) -> None:
    """Only a server whose node does not answer can be deleted as lost: otherwise its guest would run on, unknown."""
    with cluster.db.read() as tx:
        node = nodes.by_id(tx, server.node_id)
    if node is None:
        return
    try:
        cluster.agents.call(node, "agent.ping")
    except Unreachable:
        return
    raise Conflict(f"node {node.name} answers: server {server.name} is not lost", command=f"novactl server delete {server.name}")


def _end_stuck(cluster: Cluster, server: Server, lost: bool) -> None:
    """What is stuck on the server must not keep it from being deleted: a creation is undone (then nothing is left to
    delete), a deletion is gone on with, and a change of power, or anything on a lost node, is given up."""
    from novactl.conductor import recover

    operation = recover.find(cluster, server.operation_id)
    if operation.state is not OperationState.STUCK:
        return
    if operation.kind in (CREATE.kind, deletion.DELETE.kind) and not lost:
        recover.resume(cluster, recover.take_over(cluster, operation, forward=None), forward=False)
    else:
        recover.give_up(cluster, operation, Conflict(f"server {server.name} is being deleted"))


def _find(cluster: Cluster, ref: str) -> Server:
    """The server, what a dead process left of it ended first: then it may be gone."""
    with cluster.db.read() as tx:
        found: Server = resolve(tx, "server", servers, ref)
    if not found.operation_id:
        return found
    from novactl.conductor.recover import free

    free(cluster, found.id)
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
        refuse_busy(cluster, tx, fresh.id)
        state = advance(fresh.state, event, fresh.name)
        if dry_run:
            return fresh
        operation = begin(cluster, tx, saga, record, ("server", fresh.id, fresh.name), detached=not wait)
        servers.move_state(tx, fresh, state, operation_id=operation.id, at=cluster.clock.now())
    try:
        run_all(cluster, [Begun(saga, operation)], watch, wait=wait, timeout_s=timeout_s)
    except NovaError as error:
        error.operation = error.operation or operation.id
        raise
    return _find_past(cluster, fresh) if wait else operation.id
