"""A look at a server: whether it runs, and its addresses, as its node sees them now."""

from __future__ import annotations

import dataclasses

from novactl.agents import wire
from novactl.cluster import Cluster
from novactl.conductor import reconcile
from novactl.db import nodes, servers
from novactl.errors import NovaError
from novactl.model.server import Server
from novactl.states import ABSENT, found


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
    if seen.power_state != ABSENT and seen.epoch != server.epoch:
        return server                                         # a copy that was left behind says nothing of it
    if found(server.state, seen.power_state) or server.state.waits_for_its_node:
        reconcile.settle(cluster, [node.id])
        with cluster.db.read() as tx:
            server = servers.by_id(tx, server.id) or server
    if seen.addresses and seen.addresses != server.addresses:
        with cluster.db.write() as tx:
            servers.seen(tx, server.id, server.node_id, seen.addresses)
        server = dataclasses.replace(server, addresses=seen.addresses)
    return server
