"""A look at a server: whether it runs, and its addresses, as its node sees them now."""

from __future__ import annotations

import dataclasses

from novactl.agents import wire
from novactl.cluster import Cluster
from novactl.conductor.history import note_on
from novactl.db import nodes, servers
from novactl.errors import Conflict, NovaError
from novactl.model.server import Server
from novactl.states import Event, PowerState, VmState, advance

_OFF = (PowerState.SHUTDOWN, PowerState.CRASHED)


def look(cluster: Cluster, server: Server, *, must: bool = False) -> Server:
    """The server as its node sees it: the record of one that is idle is brought up to date first.

    When the node does not answer the server is returned as it was, or with `must` the error is raised.
    """
    with cluster.db.read() as tx:
        node = nodes.by_id(tx, server.node_id)
    if node is None or server.task_state:
        return server
    try:
        seen: wire.DomainState = cluster.agents.call(node, "domain.state", wire.DomainRef(server.id), timeout_s=2).body
    except NovaError:
        if must:
            raise
        return server
    server = _powered(cluster, server, seen)
    if seen.addresses and seen.addresses != server.addresses:
        with cluster.db.write() as tx:
            servers.seen(tx, server.id, server.node_id, seen.addresses)
        server = dataclasses.replace(server, addresses=seen.addresses)
    return server


def _powered(cluster: Cluster, server: Server, seen: wire.DomainState) -> Server:
    """The server with the power state its node tells. One that changed meanwhile is read again, not overwritten."""
    if server.vm_state is VmState.ACTIVE and seen.power_state in _OFF:
        event = Event.FOUND_OFF
    elif server.vm_state is VmState.STOPPED and seen.power_state == PowerState.RUNNING:
        event = Event.FOUND_ON
    elif seen.power_state == "ABSENT" and server.vm_state in (VmState.ACTIVE, VmState.STOPPED):
        event = Event.FOUND_GONE
    else:
        return server
    fault = f"node {server.node_name} has no domain of it any more" if event is Event.FOUND_GONE else ""
    now = cluster.clock.now()
    try:
        with cluster.db.write() as tx:
            servers.move_state(tx, server, advance(server.state, event, server.name), operation_id="", at=now, fault=fault)
            note_on(cluster, tx, server, event, f"on {server.node_name}")
    except Conflict:
        pass
    with cluster.db.read() as tx:
        return servers.by_id(tx, server.id) or server
