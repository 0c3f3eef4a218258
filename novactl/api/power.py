"""start, stop, reboot and delete: one change of one server each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from novactl.api.resolve import resolve
from novactl.api.sight import look
from novactl.api.waiting import Begun, run_all
from novactl.cluster import Cluster
from novactl.conductor import delete_server as deletion
from novactl.conductor import power, revive
from novactl.conductor.change import changing
from novactl.conductor.holding import refuse_busy
from novactl.conductor.progress import Watch
from novactl.conductor.saga import Saga, begin
from novactl.db import nodes, servers
from novactl.db.crossing import uncrossed
from novactl.db.statements import Tx
from novactl.errors import Conflict, NovaError, Unreachable
from novactl.model.operation import Operation, OperationState
from novactl.model.server import Server
from novactl.states import Event, VmState, advance

How = tuple[bool, bool, float | None]
"""dry_run, wait, timeout_s."""


def start(
    cluster: Cluster, ref: str, *, watch: Watch | None = None, dry_run: bool = False, wait: bool = True, timeout_s: float | None = None,
) -> Server | str:
    server = _seen(cluster, ref)
    if server.state.waits_for_its_node and not server.operation_id:
        with cluster.db.read() as tx:
            node = nodes.by_id(tx, server.node_id)
        if node is not None and node.lacks_lease(cluster.clock.now()):
            raise Conflict(f"server {server.name} cannot be started now: {server.fault}", command="novactl conductor run")
        return _change(cluster, server, revive.REVIVE, Event.BEGIN_REVIVE, revive.of_server, watch, (dry_run, wait, timeout_s))
    if server.vm_state is VmState.ACTIVE and not server.operation_id:
        return server
    return _change(cluster, server, power.START, Event.BEGIN_START, _power, watch, (dry_run, wait, timeout_s))


def stop(
    cluster: Cluster, ref: str, *, watch: Watch | None = None, dry_run: bool = False, wait: bool = True, timeout_s: float | None = None,
    grace_s: float | None = None,
) -> Server | str:
    server = _seen(cluster, ref)
    if server.vm_state is VmState.STOPPED and not server.operation_id:
        return server
    grace = cluster.config["server.stop_grace_s"] if grace_s is None else grace_s
    return _change(
        cluster, server, power.STOP, Event.BEGIN_STOP, lambda fresh: dataclasses.replace(_power(fresh), grace_s=grace), watch,
        (dry_run, wait, timeout_s))


def reboot(
    cluster: Cluster, ref: str, *, watch: Watch | None = None, dry_run: bool = False, wait: bool = True, timeout_s: float | None = None,
    hard: bool = False,
) -> Server | str:
    server = _seen(cluster, ref)
    event = Event.BEGIN_REBOOT_HARD if hard else Event.BEGIN_REBOOT
    return _change(
        cluster, server, power.REBOOT, event,
        lambda fresh: dataclasses.replace(_power(fresh), hard=hard, grace_s=cluster.config["server.stop_grace_s"]),
        watch, (dry_run, wait, timeout_s))


def delete(
    cluster: Cluster, ref: str, *, watch: Watch | None = None, dry_run: bool = False, wait: bool = True, timeout_s: float | None = None,
    lost: bool = False,
) -> Server | str:
    server = _find(cluster, ref)
    if lost:
        _refuse_living(cluster, server)
    if not dry_run and server.operation_id and not lost:
        server = _end_stuck(cluster, server)

    def begun(tx: Tx, fresh: Server) -> Operation | None:
        fresh = _without_stuck(cluster, tx, fresh, lost)
        return None if fresh.deleted_at is not None else deletion.begin_one(
            cluster, tx, fresh, grace_s=cluster.config["server.delete_grace_s"], lost=lost, detached=not wait)

    if server.deleted_at is not None:
        return server
    try:
        return _run(cluster, server, deletion.DELETE, begun, watch, (dry_run, wait, timeout_s))
    except Unreachable as error:
        error.reasons = (*error.reasons, f"of a host that does not come back: novactl server delete {server.name} --lost")
        raise


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


def _end_stuck(cluster: Cluster, server: Server) -> Server:
    """The server once a stuck creation of it was undone (then nothing is left to delete), or a stuck deletion gone on with."""
    from novactl.conductor import recover

    operation = recover.find(cluster, server.operation_id)
    if operation.state is OperationState.STUCK and operation.kind in recover.ENDED_FIRST:
        recover.resume(cluster, recover.take_over(cluster, operation, forward=None), forward=False)
    return _find_past(cluster, server)


def _without_stuck(cluster: Cluster, tx: Tx, server: Server, lost: bool) -> Server:
    """The server, a stuck change of power given up, or, on a lost node, anything."""
    from novactl.conductor import recover

    recover.give_up_stuck(
        cluster, tx, server.id, Conflict(f"server {server.name} is being deleted"), but=() if lost else recover.ENDED_FIRST)
    return servers.by_id(tx, server.id) or server


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
    cluster: Cluster, server: Server, saga: Saga, event: Event, record: Callable[[Server], object], watch: Watch | None, how: How,
) -> Server | str:
    """As `_run`, with the server's state moved by `event`."""
    def begun(tx: Tx, fresh: Server) -> Operation:
        refuse_busy(cluster, tx, fresh.id)
        state = advance(fresh.state, event, fresh.name)
        operation = begin(cluster, tx, saga, record(fresh), ("server", fresh.id, fresh.name), detached=not how[1])
        servers.move_state(tx, fresh, state, operation_id=operation.id, at=cluster.clock.now())
        return operation

    return _run(cluster, server, saga, begun, watch, how)


def _run(
    cluster: Cluster, server: Server, saga: Saga, begun: Callable[[Tx, Server], Operation | None], watch: Watch | None, how: How,
) -> Server | str:
    """Begin the saga on the server as its row is now, in one transaction, and run it; None: there is nothing left to do. Returns
    the server, or the operation's id when nobody waits. Raises Conflict, Busy, and what the saga raises."""
    dry_run, wait, timeout_s = how

    def first() -> tuple[Server, Operation | None]:
        with changing(cluster, dry_run=dry_run) as tx:
            fresh = servers.by_id(tx, server.id)
            if fresh is None or fresh.deleted_at is not None:
                raise Conflict(f"server {server.name} has just been deleted")
            return fresh, begun(tx, fresh)

    fresh, operation = uncrossed(first)                       # what was seen of the guest before may have been written
    if dry_run or operation is None:
        if operation is not None:
            cluster.driving.pop(operation.id, None)
        return fresh if dry_run else _find_past(cluster, fresh)
    try:
        run_all(cluster, [Begun(saga, operation)], watch, wait=wait, timeout_s=timeout_s)
    except NovaError as error:
        error.operation = error.operation or operation.id
        raise
    return _find_past(cluster, fresh) if wait else operation.id
