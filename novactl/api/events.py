"""What has happened: who did what, when, why, with what result."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from novactl.api.asked import check_event, id_of
from novactl.api.patience import Patience
from novactl.api.resolve import resolve
from novactl.cluster import Cluster
from novactl.db import events, nodes
from novactl.db.events import Asked
from novactl.errors import NotFound, UsageError
from novactl.model.operation import EventRecord

LOOK_S = 0.5
"""So often the database is asked for what is new."""


def asked(cluster: Cluster, *, server: str = "", node: str = "", event: str = "", actor: str = "", since_s: float | None = None) -> Asked:
    """`server` and `node` are names or ids, also of what is gone. Raises UsageError."""
    if server and node:
        raise UsageError("an event is of a server or of a node", hint="--server or --node")
    return Asked(
        object_kind="server" if server else "node" if node else "", named=server or node, event=event, actor=actor,
        since=0.0 if since_s is None else cluster.clock.now() - since_s)


def list_events(cluster: Cluster, of: Asked, *, limit: int) -> tuple[EventRecord, ...]:
    """The newest, oldest first. Raises UsageError for an event that there is not, NotFound for an object that there never was."""
    with cluster.db.read() as tx:
        found = events.last(tx, of, limit)[1]
        if not found and of.event:
            check_event(tx, of.event)
        if not found and of.named:
            found = events.last(tx, of._replace(named=id_of(tx, of.object_kind, of.named)), limit)[1]
        return found


def follow(cluster: Cluster, of: Asked, *, limit: int, is_read: Callable[[], bool] = lambda: True) -> Iterator[EventRecord]:
    """The newest, oldest first, and then, as long as `is_read`, what happens, also to objects that there are not yet.

    Raises UsageError for an event that there is not, DatabaseLost where the database stays away.
    """
    from novactl.conductor.notify import Events
    from novactl.db import notices

    with cluster.db.read() as tx:
        at, found = notices.newest(tx), events.last(tx, of, limit)[1]
        if not found and of.event:
            check_event(tx, of.event)
    yield from found
    coming, patience = Events(cluster, at), Patience(cluster)
    while is_read():
        new = patience.look(coming.more, [])
        yield from (event for _, event in new if of.takes(event))
        if not new:
            cluster.clock.sleep(LOOK_S)


def of_node(cluster: Cluster, ref: str) -> tuple[EventRecord, ...]:
    """What happened to a node, oldest first; one that is gone is found by its name or id. Raises NotFound."""
    with cluster.db.read() as tx:
        try:
            return events.of(tx, resolve(tx, "node", nodes, ref).id)
        except NotFound:
            found = events.last(tx, Asked(object_kind="node", named=ref), 1_000_000)[1]
            if not found:
                raise
            return found
