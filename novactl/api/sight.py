"""A look at a running server: its addresses, as its node sees them now."""

from __future__ import annotations

import dataclasses

from novactl.agents import wire
from novactl.cluster import Cluster
from novactl.db import nodes, servers
from novactl.errors import NovaError
from novactl.model.server import Server


def look(cluster: Cluster, server: Server) -> Server:
    """The server with the addresses its node reports; as it was when the node does not answer."""
    with cluster.db.read() as tx:
        node = nodes.by_id(tx, server.node_id)
    if node is None:
        return server
    try:
        state: wire.DomainState = cluster.agents.call(node, "domain.state", wire.DomainRef(server.id), timeout_s=2).body
    except NovaError:
        return server
    if not state.addresses or state.addresses == server.addresses:
        return server
    with cluster.db.write() as tx:
        servers.seen(tx, server.id, state.addresses)
    return dataclasses.replace(server, addresses=state.addresses)
