"""Servers: create, list, show, start, stop, reboot, delete, console, events, why.

Lists are hot: nothing of the conductor, of ZeroMQ or of SQLAlchemy is imported for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from novactl.api.authority import Role, needs
from novactl.api.hints import NO_HINTS, Hints
from novactl.api.resolve import resolve
from novactl.cluster import Cluster
from novactl.db import servers
from novactl.db.servers import ServerRow
from novactl.errors import Conflict, NotFound, UsageError
from novactl.model.secret import SECRET
from novactl.states import STATUSES

if TYPE_CHECKING:
    from novactl.api.console import Console
    from novactl.api.explanation import Explanation
    from novactl.conductor.progress import Watch
    from novactl.model.operation import EventRecord
    from novactl.model.server import Server
    from novactl.scheduler.request import Decision

MAX_COUNT = 1000


@dataclass(frozen=True, kw_only=True)
class CreateServer:
    """Asked for by names. With `count` above 1 the servers are NAME-1 … NAME-count, placed all or none, or with `min_count`
    as many of them as fit and at least so many. `user_data` is cloud-init's, as text. `hints` says what else is asked of the node.
    """

    name: str
    flavor: str
    image: str
    key: str | None = None
    count: int = 1
    min_count: int | None = None
    node: str | None = None
    zone: str | None = None
    user_data: str = field(default="", metadata=SECRET)
    hints: Hints = NO_HINTS


@dataclass(frozen=True)
class Created:
    servers: tuple[Server, ...]
    operations: tuple[str, ...]
    decisions: tuple[Decision, ...]


@needs(Role.OPERATOR)
def create(
    cluster: Cluster, wanted: CreateServer, *, watch: Watch | None = None, dry_run: bool = False, wait: bool = True,
    timeout_s: float | None = None,
) -> Created:
    """Create servers and wait until they run.

    Raises NotFound, Ambiguous, AlreadyExists, UsageError before anything is written; NoValidHost, Partial and what the
    nodes say after everything written has been undone. `wait=False` hands over to a process in the background.
    Raises WaitTimeout after `timeout_s`: the background goes on.
    """
    from novactl.api.creation import create_servers

    return create_servers(cluster, wanted, watch, dry_run=dry_run, wait=wait, timeout_s=timeout_s)


def list_servers(
    cluster: Cluster, *, limit: int | None = None, status: str | None = None, node: str | None = None,
) -> tuple[ServerRow, ...]:
    """The living, newest first."""
    if status is not None and status not in STATUSES:
        raise UsageError(f"there is no status {status!r}", hint=f"one of {', '.join(STATUSES)}")
    with cluster.db.read() as tx:
        if node:
            from novactl.db import nodes

            node = resolve(tx, "node", nodes, node).name
        rows = servers.list_rows(tx, limit=None if status else limit, node=node or "")
    if status:
        rows = [row for row in rows if row.status == status][:limit]
    return tuple(rows)


def show(cluster: Cluster, ref: str, *, refresh: bool = True) -> Server:
    """The server; with `refresh` its node is asked for the guest's addresses first (a silent node is no error)."""
    server = _find(cluster, ref)
    if not refresh or not server.node_id or server.task_state:
        return server
    from novactl.api.sight import look

    return look(cluster, server)


@needs(Role.OPERATOR)
def start(cluster: Cluster, ref: str, **how: Any) -> Server | str:
    """Start a server that is shut off; one that runs is left alone. `how`: watch, dry_run, wait, timeout_s."""
    from novactl.api.power import start as act

    return act(cluster, ref, **how)


@needs(Role.OPERATOR)
def stop(cluster: Cluster, ref: str, **how: Any) -> Server | str:
    """Shut a server down, asking the guest for `grace_s` (setting server.stop_grace_s) seconds; one that is shut off is left alone."""
    from novactl.api.power import stop as act

    return act(cluster, ref, **how)


@needs(Role.OPERATOR)
def reboot(cluster: Cluster, ref: str, **how: Any) -> Server | str:
    """Reboot a server; `hard=True` powers it off and on and defines its domain anew."""
    from novactl.api.power import reboot as act

    return act(cluster, ref, **how)


@needs(Role.OPERATOR)
def delete(cluster: Cluster, ref: str, **how: Any) -> Server | str:
    """Delete a server and its disks. A creation that got stuck is undone instead."""
    from novactl.api.power import delete as act

    return act(cluster, ref, **how)


def console_log(cluster: Cluster, ref: str, *, lines: int | None = None, follow: bool = False) -> Iterator[bytes]:
    """What the guest wrote to its serial console, in pieces; with `follow` without end."""
    from novactl.api.console import log

    return log(cluster, _on_node(cluster, ref), lines=lines, follow=follow)


@needs(Role.OPERATOR)
def console(cluster: Cluster, ref: str) -> Console:
    """The serial console, to read from and write to. Raises Conflict when the server does not run."""
    from novactl.api.console import Console

    server = _on_node(cluster, ref)
    return Console(cluster, server)


def events(cluster: Cluster, ref: str) -> tuple[EventRecord, ...]:
    """What happened to a server, oldest first; a deleted one is found by its id."""
    from novactl.db import events as db_events

    with cluster.db.read() as tx:
        return db_events.of(tx, _any(tx, ref).id)


def why(cluster: Cluster, ref: str) -> Explanation:
    """The decision that placed it, as it was taken. Raises NotFound when there was none."""
    from novactl.api.explanation import explained
    from novactl.db import operations
    from novactl.scheduler.request import Decision

    with cluster.db.read() as tx:
        server = _any(tx, ref)
        stored = operations.decision_of(tx, server.id)
    if stored is None:
        raise NotFound("decision on where to place", server.name, command=f"novactl server events {server.id}")
    return explained(Decision.from_plain(stored[1]), operation=stored[0])


def _find(cluster: Cluster, ref: str) -> Server:
    with cluster.db.read() as tx:
        return resolve(tx, "server", servers, ref)


def _any(tx: Any, ref: str) -> Server:
    """The living server, or the last one that had this name or id."""
    try:
        return resolve(tx, "server", servers, ref)
    except NotFound:
        past = servers.past(tx, ref)
        if past is None:
            raise
        return past


def _on_node(cluster: Cluster, ref: str) -> Server:
    server = _find(cluster, ref)
    if not server.node_id:
        raise Conflict(f"server {server.name} is on no node ({server.status})", command=f"novactl server events {server.name}")
    return server
