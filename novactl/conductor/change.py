"""A change of rows alone: an operation that begins and ends in the transaction that makes it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from novactl.cluster import Cluster
from novactl.conductor import owner
from novactl.conductor.history import note_of
from novactl.db import operations
from novactl.db.statements import Tx
from novactl.model.operation import Operation, OperationState
from novactl.model.secret import recorded

KINDS = frozenset({
    "aggregate.add-node", "aggregate.create", "aggregate.delete", "aggregate.remove-node", "aggregate.set", "aggregate.unset",
    "claim.release", "cluster.adopt", "cluster.set", "conductor.install", "conductor.uninstall", "db.rebuild",
    "flavor.create", "flavor.delete", "flavor.set", "flavor.unset", "image.create", "image.delete", "image.set", "image.unset",
    "key.create", "key.revoke", "key.rotate", "key.set", "keypair.create", "keypair.delete",
    "node.disable", "node.enable", "node.enroll", "node.remove", "node.set", "node.unset",
    "project.create", "project.delete", "project.set", "quota.set", "server-group.create", "server-group.delete",
    "server.claim", "server.free", "server.set",
})
"""Of operations that are a change of rows alone; the others are sagas."""


class Change:
    """The transaction (a Tx), and what the journal is told of it. `on` must be called where the change has a kind."""

    def __init__(self, tx: Tx) -> None:
        self.all, self.one, self.run, self.run_many, self.stream = tx.all, tx.one, tx.run, tx.run_many, tx.stream
        self.subject: tuple[str, str, str] | None = None
        self.detail = ""

    def on(self, thing: Any, *, noun: str = "", detail: str = "") -> None:
        """What is changed (it has an id and a name), and in words how. `noun` where it is not the one that the kind begins with."""
        self.subject, self.detail = (noun, thing.id, thing.name), detail


class _Undone(Exception):
    """Ends a transaction that was only a trial."""


@contextlib.contextmanager
def changing(cluster: Cluster, kind: str = "", arguments: Any = None, *, dry_run: bool) -> Iterator[Change]:
    """A transaction for writing, journalled as an operation of `kind` with `arguments` (a mapping or a record, whose secret fields
    are not written). In a dry run all is done and checked in it, and then taken back."""
    with contextlib.suppress(_Undone), cluster.db.write() as tx:
        change = Change(tx)
        yield change
        if dry_run:
            raise _Undone
        if kind:
            _journal(cluster, tx, kind, arguments, change)


def _journal(cluster: Cluster, tx: Tx, kind: str, arguments: Any, change: Change) -> None:
    if change.subject is None:
        raise ValueError(f"{kind} does not say what it changes")
    if kind not in KINDS:
        raise ValueError(f"{kind} is not in the table of kinds")
    noun, id_, name = change.subject
    now, operation_id = cluster.clock.now(), cluster.ids.uuid()
    operation = Operation(
        id=operation_id, kind=kind, object_kind=noun or kind.partition(".")[0], object_id=id_, object_name=name, state=OperationState.OK,
        epoch=1, attempt=0, owner=owner.this_process(), lease_until=now, actor=cluster.actor, record=recorded(arguments or {}), error=None,
        created_at=now, ended_at=now, reason=cluster.reason, actor_key=cluster.key, seq=operations.number(tx, operation_id))
    operations.insert(tx, operation)
    note_of(cluster, tx, operation, kind, f"ok: {change.detail}" if change.detail else "ok")
