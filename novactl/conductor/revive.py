"""server.revive: what ran before its host started anew, or died, runs again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from novactl.agents import wire
from novactl.cluster import Cluster
from novactl.conductor import fleet
from novactl.conductor.domain import HeldOff, node_of, power_off, power_on, server_in
from novactl.conductor.faults import failed_lately
from novactl.conductor.history import note, note_on
from novactl.conductor.holding import restored
from novactl.conductor.saga import Run, Saga, Step, begin
from novactl.db import nodes, operations, servers
from novactl.db.servers import PowerRow
from novactl.db.statements import Tx
from novactl.errors import NovaError
from novactl.model.node import Node
from novactl.model.server import Server
from novactl.states import Event, VmState, advance

AGAIN = "again"
"""A boot that no node is in: what went down with the last one is looked after once more."""
RAN = ("shutdown", "destroyed", "crashed")
"""Reasons that only a guest has which ran since its host started."""


@dataclass(frozen=True, kw_only=True)
class Revive:
    server: str
    node: str
    epoch: int


def never_ran(domain: wire.DomainState) -> bool:
    """Off, and it has not been on since its host started."""
    return domain.power_state in ("SHUTDOWN", "CRASHED") and domain.reason not in RAN


def went_down_with_it(domain: wire.DomainState, report: wire.Report) -> bool:
    """It has not run since the host started, or was stopped by a node that had to fence itself."""
    return never_ran(domain) or bool(report.fencings and domain.power_state == "SHUTDOWN" and domain.reason == "destroyed")


def start(run: Run, record: Revive) -> Revive:
    power_on(run, record)
    return record


def revived(run: Run, tx: Tx, record: Revive) -> None:
    server = server_in(tx, record.server)
    servers.move_state(
        tx, server, advance(server.state, Event.REVIVED, server.name), operation_id="", at=run.cluster.clock.now(), fault="")
    note(run, tx, Event.REVIVED, f"on {node_of(run, record.node).name}")


def _not_revived(run: Run, tx: Tx, record: Revive, error: NovaError) -> None:
    """What passes is waited for: the boot does not count as looked after, and whoever looks next tries anew, not too soon."""
    server = server_in(tx, record.server)
    if server.operation_id != run.operation.id:
        return
    node = nodes.by_id(tx, record.node)
    passes = node is not None and (error.retryable or isinstance(error, HeldOff))
    if node is not None and passes:
        nodes.booted(tx, node.id, node.boot_id, AGAIN)
    event = Event.STILL_DOWN if passes else Event.ABORTED
    then = "it is tried again, at once by novactl server start" if passes else "novactl server reboot --hard tries anew:"
    servers.move_state(
        tx, server, advance(server.state, event, server.name), operation_id="", at=run.cluster.clock.now(),
        fault=f"it did not start again: {error.message}; {then} {server.name}")
    note(run, tx, event, error.message)


REVIVE: Saga[Revive] = Saga(
    kind="server.revive", record=Revive, steps=(Step("start", do=start, undo=power_off),), finish=revived, fail=_not_revived, resumes=True,
    timeout="timeout.start_s")
SAGAS = {REVIVE.kind: REVIVE}


def of_server(server: Server) -> Revive:
    return Revive(server=server.id, node=server.node_id, epoch=server.epoch)


def begin_one(cluster: Cluster, tx: Tx, server: Server, *, detached: bool) -> str:
    """The id of the operation that starts a server which is to run and does not. Raises Conflict."""
    operation = begin(cluster, tx, REVIVE, of_server(server), ("server", server.id, server.name), detached=detached)
    state = advance(server.state, Event.BEGIN_REVIVE, server.name)
    servers.move_state(tx, server, state, operation_id=operation.id, at=cluster.clock.now())
    return operation.id


def hold_down(cluster: Cluster, tx: Tx, node: Node, report: wire.Report, rows: Sequence[PowerRow]) -> None:
    """Write that what ran is down until its node has a lease. It stays what is to run: whoever fences the node evacuates it, `revive`
    starts it."""
    for row in _down(report, rows):
        why = f"node {node.name} fences itself and has no lease, so that nothing runs there; with the next it is started again:" \
            " novactl conductor run"
        if not row.state.waits_for_its_node and servers.found(
                tx, row, advance(row.state, Event.FOUND_FENCED, row.name), cluster.clock.now(), why):
            note_on(cluster, tx, server_in(tx, row.id), Event.FOUND_FENCED, f"on {node.name}")


def _down(report: wire.Report, rows: Sequence[PowerRow]) -> list[PowerRow]:
    """The idle servers that are to run and went down with their host, or could not be started there since."""
    off = {domain.server: domain for domain in report.domains if domain.power_state in ("SHUTDOWN", "CRASHED")}
    idle = [(row, off[row.id]) for row in rows if row.vm_state is VmState.ACTIVE and not row.operation_id and row.id in off]
    return [row for row, domain in idle if domain.epoch == row.epoch and (
        row.state.waits_for_its_node or went_down_with_it(domain, report))]


def revive(
    cluster: Cluster, tx: Tx, node: Node, report: wire.Report, rows: Sequence[PowerRow], *, at_once: bool = False,
) -> tuple[str, ...]:
    """Begin to start what ran when the node's host went down; the ids of the operations, which nobody drives yet. What could not be
    started a short while ago is tried `at_once` where somebody asks for it.

    `rows` were read before the report was taken. The boot counts as looked after, in the same transaction, once none of the
    servers was busy with something else. Another process being faster, nothing is begun.
    """
    here = fleet.life(report)
    if restored(tx) or not nodes.booted(tx, node.id, node.boot_id, here):
        return ()
    held = {other.object_id for other in operations.under_way(tx)}
    begun, busy = [], any(row.operation_id for row in rows)   # its operation may end by an answer that is of another boot
    for row in _down(report, rows):
        if row.id in held or (not at_once and failed_lately(tx, row.id, REVIVE.kind, cluster.clock.now())):
            busy = True                                       # held by what does not hold its row, as a cleaning
            continue
        down = f"node {node.name} started anew, or stopped it without a lease, and it does not run there yet"
        if servers.found(tx, row, advance(row.state, Event.FOUND_DOWN, row.name), cluster.clock.now(), down):
            server = server_in(tx, row.id)
            note_on(cluster, tx, server, Event.FOUND_DOWN, f"on {node.name}")
            begun.append(begin_one(cluster, tx, server, detached=True))
        else:
            busy = True                                       # somebody wrote of it meanwhile, perhaps only that it waits
    if busy:
        nodes.booted(tx, node.id, here, node.boot_id)
    elif begun:
        note_on(cluster, tx, node, "booted", f"{len(begun)} servers to start")
    return tuple(begun)
