"""Fencing nodes, and starting the servers of fenced ones elsewhere."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from novactl.api.authority import Role, needs
from novactl.api.node_views import NodeShown, shown
from novactl.api.resolve import resolve
from novactl.api.trial import changing
from novactl.api.waiting import Begun, run_all
from novactl.cluster import Cluster
from novactl.conductor import evacuate_server, fence_node, fleet, ha
from novactl.conductor.background import hand_over
from novactl.conductor.progress import Watch
from novactl.db import nodes, servers
from novactl.db.statements import Tx
from novactl.errors import AgentRefused, Conflict, NovaError, Unreachable, UsageError
from novactl.model.node import Node, NodeState
from novactl.model.operation import Operation
from novactl.model.server import Server

DOMAINS_S = 5.0
"""What a node that is enabled again gets to say what it has."""


@dataclass(frozen=True)
class Fenced:
    """The node as it is now; `elsewhere` are its servers that run on another node now, `stayed` those that do not (name -> why)."""

    node: NodeShown
    elsewhere: tuple[Server, ...] = ()
    stayed: tuple[tuple[str, str], ...] = ()


@needs(Role.ADMIN)
def fence(
    cluster: Cluster, ref: str, *, by_hand: bool = False, watch: Watch | None = None, dry_run: bool = False, wait: bool = True,
    timeout_s: float | None = None,
) -> Fenced | str | tuple[str, ...]:
    """Make sure that a node runs nothing, and start its servers with `ha` elsewhere. `by_hand`: the caller has powered it off.

    Raises Conflict where there is no way of fencing it, or it answers although it is said to be off; FencingFailed; Busy; WaitTimeout.
    With `wait=False` the id of the operation that fences it: its servers are started elsewhere then by a conductor, or by who asks
    again. Of a node that is fenced already, the ids of the operations that start them.
    """
    node = _node(cluster, ref)
    fencing = {} if by_hand else dict(node.fencing)
    if not by_hand and not fencing:
        raise Conflict(
            f"node {node.name} has no way of being fenced: nothing of it is started elsewhere",
            hint=f"novactl node set {node.name} --fence METHOD …, or, once you have powered it off,",
            command=f"novactl node fence {node.name} --i-have-powered-it-off")
    if by_hand:
        _refuse_living(cluster, node)
    if dry_run:
        with cluster.db.read() as tx:
            return Fenced(shown(cluster, tx, node), stayed=tuple(_due(node, servers.on_node(tx, node.id))))
    if node.state is not NodeState.FENCED:
        with cluster.db.write() as tx:
            operation = ha.begin_fencing(cluster, tx, nodes.by_id(tx, node.id) or node, fencing, detached=not wait)
        run_all(cluster, [Begun(fence_node.FENCE, operation)], watch, wait=wait, timeout_s=timeout_s)
        if not wait:
            return operation.id
    elif not wait:
        ids = tuple(one.id for one in ha.evacuate_the_fenced(cluster, only=[node.id], detached=True)[0])
        if ids:
            hand_over(cluster, ids)
        return ids
    return _evacuated(cluster, node, watch, timeout_s)


def _due(node: Node, found: tuple[Server, ...]) -> list[tuple[str, str]]:
    return [(server.name, "would be started elsewhere" if server.ha and server.state.is_to_run else _why_not(server))
            for server in found]


def _why_not(server: Server) -> str:
    return f"it is {server.status}" if server.ha else "not asked for: novactl server set NAME --ha, or novactl server evacuate NAME"


def _evacuated(cluster: Cluster, node: Node, watch: Watch | None, timeout_s: float | None) -> Fenced:
    """Why a server stayed is in its fault: one that fails does not stop the others, nor make the node less fenced."""
    begun, refused = ha.evacuate_the_fenced(cluster, only=[node.id], detached=False)
    if begun:
        with contextlib.suppress(NovaError):
            run_all(cluster, [Begun(evacuate_server.EVACUATE, one) for one in begun], watch, wait=True, timeout_s=timeout_s)
    with cluster.db.read() as tx:
        moved = [found for one in begun if (found := servers.by_id(tx, one.object_id)) and found.node_id != node.id]
        left = servers.on_node(tx, node.id)
        view = shown(cluster, tx, nodes.by_id(tx, node.id) or node)
    return Fenced(view, tuple(moved), tuple((one.name, refused.get(one.id) or one.fault or _why_not(one)) for one in left))


@needs(Role.OPERATOR)
def evacuate(
    cluster: Cluster, ref: str, *, watch: Watch | None = None, dry_run: bool = False, wait: bool = True, timeout_s: float | None = None,
) -> Server | str:
    """Start a server of a fenced node elsewhere. Raises Conflict while its node is not fenced, NoValidHost, Busy."""
    with cluster.db.read() as tx:
        server: Server = resolve(tx, "server", servers, ref)
    begun: list[Operation] = []
    with changing(cluster, dry_run=dry_run) as tx:
        begun.append(ha.begin_evacuation(cluster, tx, servers.by_id(tx, server.id) or server, detached=not wait))
    if dry_run:
        return server
    run_all(cluster, [Begun(evacuate_server.EVACUATE, begun[0])], watch, wait=wait, timeout_s=timeout_s)
    with cluster.db.read() as tx:
        return (servers.by_id(tx, server.id) or server) if wait else begun[0].id


@needs(Role.ADMIN)
def welcome(cluster: Cluster, ref: str, *, dry_run: bool = False) -> NodeShown:
    """A fenced node is back: copies of servers that live elsewhere by now are removed, then it is enabled and what is still its own
    runs again. Raises Unreachable, and Conflict where a copy could not be removed."""
    from novactl.api.verify import repair
    from novactl.conductor import reconcile
    from novactl.conductor.drift import Kind

    node = _node(cluster, ref)
    cluster.agents.call(node, "agent.ping")
    copies = [one for one in repair(cluster, node=node.name, dry_run=dry_run) if one.kind == Kind.COPY and one.result != "mended"]
    if copies and not dry_run:
        raise Conflict(
            f"node {node.name} still has {len(copies)} copies of servers that live elsewhere: it stays fenced",
            reasons=[f"{one.object}: {one.result or one.what}" for one in copies], command=f"novactl cluster repair --node {node.name}")
    there = [] if dry_run else _domains(cluster, node)
    with changing(cluster, "node.enable", {}, dry_run=dry_run) as tx:
        nodes.lock(tx, node.id)
        _refuse_others(tx, node, there)
        fresh = nodes.by_id(tx, node.id) or node
        if fresh.state is not NodeState.FENCED:
            raise Conflict(f"node {node.name} is {fresh.state.value} by now", command=f"novactl node show {node.name}")
        back = dataclasses.replace(fresh, state=NodeState.ENABLED, reason="", fenced_at=None)
        nodes.update(tx, back.stamped(fresh, cluster.clock.now(), cluster.actor))
        tx.on(fresh, detail="it is back")
        view = shown(cluster, tx, nodes.by_id(tx, node.id) or back)
    if not dry_run:
        reconcile.settle(cluster, [node.id])
    return view


def _domains(cluster: Cluster, node: Node) -> list[str]:
    """Ids of the servers that it has a domain of."""
    heard = fleet.reports(cluster, [node], 0.0, timeout_s=DOMAINS_S)[node.id]
    if isinstance(heard, NovaError):
        raise heard
    return [domain.server for domain in heard.domains]


def _refuse_others(tx: Tx, node: Node, there: Sequence[str]) -> None:
    """A copy of a server that is busy elsewhere is no drift yet, and would stay for good. Raises Conflict."""
    strange = [server for id_ in there if (server := servers.by_id(tx, id_)) and server.deleted_at is None and server.node_id != node.id]
    if strange:
        raise Conflict(
            f"node {node.name} still has domains of servers that live elsewhere: it stays fenced",
            reasons=[f"server {server.name}: it is on node {server.node_name or 'none'}" + (
                f", and {server.task_state} for operation {server.operation_id[:8]}" if server.operation_id else "")
                for server in strange],
            hint="when what is under way on them has ended, enable it again", command=f"novactl node enable {node.name}")


@needs(Role.OPERATOR)
def set_server(cluster: Cluster, ref: str, *, wants_ha: bool | None = None, dry_run: bool = False) -> Server:
    """Whether it is started elsewhere when its node has been fenced; None stays. Raises UsageError where there is nothing to set."""
    if wants_ha is None:
        raise UsageError("nothing to set", hint="--ha or --no-ha")
    with changing(cluster, "server.set", {"ha": wants_ha}, dry_run=dry_run) as tx:
        server: Server = resolve(tx, "server", servers, ref)
        if server.ha != wants_ha:
            servers.set_ha(tx, server.id, wants_ha)
        tx.on(server, detail=f"ha {'on' if wants_ha else 'off'}")
        return servers.by_id(tx, server.id) or server


def warnings_of(cluster: Cluster, server: Server) -> tuple[str, ...]:
    """What whoever sets `ha` should know of this server."""
    with cluster.db.read() as tx:
        node = nodes.by_id(tx, server.node_id)
    if not server.ha or node is None:
        return ()
    said = []
    if not node.shared_disk:
        said.append(f"the disk of server {server.name} is node {node.name}'s own: elsewhere it begins with a new one, from its image")
    if not node.fencing:
        said.append(f"node {node.name} has no way of being fenced: nothing is started elsewhere until it is fenced by hand")
    return tuple(said)


def _refuse_living(cluster: Cluster, node: Node) -> None:
    try:
        cluster.agents.call(node, "agent.ping")
    except Unreachable:
        return
    except AgentRefused:
        pass
    raise Conflict(f"node {node.name} answers: it has not been powered off", command=f"novactl node show {node.name}")


def _node(cluster: Cluster, ref: str) -> Node:
    with cluster.db.read() as tx:
        found: Any = resolve(tx, "node", nodes, ref)
    if found.state not in (NodeState.ENABLED, NodeState.DISABLED, NodeState.FENCED):
        raise Conflict(f"node {found.name} is {found.state.value}", command="novactl operation list")
    return found
