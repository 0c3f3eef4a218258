"""One line in an object's history, on behalf of an operation."""

from __future__ import annotations

from novactl.conductor.saga import Run
from novactl.db import events
from novactl.db.statements import Tx
from novactl.model.operation import EventRecord


def note(run: Run, tx: Tx, event: str, detail: str = "") -> None:
    op = run.operation
    events.record(tx, EventRecord(
        at=run.cluster.clock.now(), object_kind=op.object_kind, object_id=op.object_id, object_name=op.object_name,
        operation_id=op.id, event=str(event), actor=op.actor, detail=detail))
