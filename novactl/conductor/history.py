"""One line in an object's history."""

from __future__ import annotations

from typing import TYPE_CHECKING

from novactl.cluster import Cluster
from novactl.db import events, meta
from novactl.db.statements import Tx
from novactl.model.node import Node
from novactl.model.operation import EventRecord, Operation
from novactl.model.server import Server

if TYPE_CHECKING:
    from novactl.conductor.saga import Run


NOTES = frozenset({
    "adopted", "aggregate", "answers", "booted", "cleaned", "db.restore", "db.upgrade", "drift", "enrolled", "enrolment failed", "fence",
    "fenced", "init", "key changed", "key not changed", "leads", "not_fenced", "removal failed", "removed", "silent", "taken_in",
})
"""Events that are neither a kind of operation nor of `states.Event`."""


def note(run: Run, tx: Tx, event: str, detail: str = "") -> None:
    """On behalf of the operation that is driven."""
    note_of(run.cluster, tx, run.operation, event, detail)


def note_of(cluster: Cluster, tx: Tx, op: Operation, event: str, detail: str = "") -> None:
    """On behalf of an operation, about its object."""
    events.record(tx, EventRecord(
        at=cluster.clock.now(), object_kind=op.object_kind, object_id=op.object_id, object_name=op.object_name,
        operation_id=op.id, event=str(event), actor=op.actor, detail=detail, reason=op.reason))


def note_taken(cluster: Cluster, tx: Tx, op: Operation, detail: str) -> None:
    """That this process's user has taken an operation over."""
    events.record(tx, EventRecord(
        at=cluster.clock.now(), object_kind=op.object_kind, object_id=op.object_id, object_name=op.object_name,
        operation_id=op.id, event=op.kind, actor=cluster.actor, detail=detail, reason=cluster.reason))


def note_on(cluster: Cluster, tx: Tx, subject: Server | Node, event: str, detail: str = "") -> None:
    """About a server or a node, where no operation is behind it."""
    kind = "server" if isinstance(subject, Server) else "node"
    events.record(tx, EventRecord(
        at=cluster.clock.now(), object_kind=kind, object_id=subject.id, object_name=subject.name,
        operation_id="", event=str(event), actor=cluster.actor, detail=detail, reason=cluster.reason))


def note_cluster(cluster: Cluster, tx: Tx, event: str, detail: str) -> None:
    """About the cluster itself, where no operation can be behind it: its tables are made anew."""
    events.record(tx, EventRecord(
        at=cluster.clock.now(), object_kind="cluster", object_id=meta.cluster_id(tx), object_name="cluster", operation_id="", event=event,
        actor=cluster.actor, detail=detail, reason=cluster.reason))
