"""High availability: servers that asked for it are started elsewhere once their node has been fenced, and not before.

The leader of the conductors calls `look_after` every few seconds: it renews the leases of nodes that fence themselves, fences nodes
that have been silent for `ha.fence_after_s` and have such servers, and evacuates those of fenced nodes. Without a way of
fencing nothing is done, and it says so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from novactl.agents import wire
from novactl.cluster import Cluster
from novactl.conductor import evacuate_server, fence_node, fences, recover
from novactl.conductor.faults import failed_lately
from novactl.conductor.history import note_of
from novactl.conductor.holding import refuse_busy, restored
from novactl.conductor.saga import begin
from novactl.db import claims, images, nodes, operations, servers
from novactl.db.statements import Tx
from novactl.errors import Busy, Conflict, NovaError, Unreachable
from novactl.model.node import Node, NodeState
from novactl.model.operation import Operation, OperationState
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU
from novactl.model.server import Server
from novactl.states import Event, advance

Write = Callable[[], contextlib.AbstractContextManager[Tx]]
ASKED_S = 2.0
"""What a node that is to be fenced gets to answer."""


def begin_fencing(cluster: Cluster, tx: Tx, node: Node, fencing: dict[str, str], *, detached: bool) -> Operation:
    """`fencing` empty: somebody has powered it off by hand. What is stuck on it, for it did not answer, is given up. Raises Busy."""
    if node.state in (NodeState.ENABLED, NodeState.DISABLED):
        recover.give_up_stuck(cluster, tx, node.id, Conflict(f"node {node.name} is being fenced"))
    refuse_busy(cluster, tx, node.id)
    if not fencing:                                           # it was asked, and did not answer: who hears it from now on says so there
        nodes.silent(tx, node.id, cluster.clock.now())
    operation = begin(
        cluster, tx, fence_node.FENCE, fence_node.of_node(node, fencing), ("node", node.id, node.name), detached=detached)
    note_of(cluster, tx, operation, "fence", fencing.get("method", "by hand"))
    return operation


def begin_evacuation(cluster: Cluster, tx: Tx, server: Server, *, detached: bool) -> Operation:
    """What is stuck on it, for its node did not answer, is given up. Raises Conflict while its node is not fenced, or where its disk
    could not be made anew, and Busy."""
    source = nodes.by_id(tx, server.node_id)
    if source is None:
        raise Conflict(f"server {server.name} is on no node", command=f"novactl server show {server.name}")
    if source.state is not NodeState.FENCED:
        raise evacuate_server.unfenced(source.name, server.name)
    why = Conflict(f"node {source.name} is fenced: nothing of it runs there")
    recover.give_up_stuck(cluster, tx, server.id, why, but=recover.ENDED_FIRST)
    refuse_busy(cluster, tx, server.id)
    server = servers.by_id(tx, server.id) or server
    if server.image_sha256 == wire.NO_IMAGE and not source.shared_disk:
        raise Conflict(
            f"server {server.name} was adopted: its disk is on node {source.name} and came from no image of ours, so none can be made anew",
            hint="bring the node back, then novactl node enable", command=f"novactl node enable {source.name}")
    image = next((image for image in images.all_(tx) if image.sha256 == server.image_sha256), None)
    if image is None:
        raise Conflict(
            f"image {server.image_name} is not known any more: the disk of server {server.name} cannot be made anew",
            hint="take the same image in again", command="novactl image create")
    held = claims.held(tx, server.id, server.node_id)
    extra = {**dict.fromkeys((VCPU, MEMORY_MB, DISK_GB), 0), **(held.amounts if held else {})}
    record = evacuate_server.of_server(
        server, extra, image.disk_format, (image.size_bytes, image.virtual_size_bytes), source.shared_disk)
    state = advance(server.state, Event.BEGIN_EVACUATE, server.name)
    operation = begin(cluster, tx, evacuate_server.EVACUATE, record, ("server", server.id, server.name), detached=detached)
    servers.move_state(tx, server, state, operation_id=operation.id, at=cluster.clock.now())
    note_of(cluster, tx, operation, Event.BEGIN_EVACUATE, f"from node {source.name}")
    return operation


# ---------------------------------------------------------------- by itself

def look_after(cluster: Cluster, write: Write | None = None) -> tuple[list[str], list[str]]:
    """(ids of operations begun, which nobody drives yet; what an admin is to be told). `write` is the leader's transaction: one
    who was overtaken begins nothing. Raises Superseded."""
    said = renew_leases(cluster, write)
    with cluster.db.read() as tx:
        old = restored(tx)
    if old:
        return [], [*said, f"nothing is fenced, nor started elsewhere: {old.message}"]
    fencing, refrained = fence_the_silent(cluster, write or cluster.db.write)
    moving, refused = evacuate_the_fenced(cluster, write=write)
    return [*fencing, *(operation.id for operation in moving)], [*said, *refrained, *refused.values()]


def renew_leases(cluster: Cluster, write: Write | None = None) -> list[str]:
    """Nodes that fence themselves may run their servers for another while; those that are to do so no more hear of that. Returns what
    is to be said.

    A node that is being fenced gets nothing: its row is read after the greeting that bounds the lease, however late that is sent. What an
    agent may have heard is written before, that it does fence itself only after it has said so.
    """
    with cluster.db.read() as tx:
        peers = [node for node in nodes.all_(tx) if _concerned(node)]
    hellos = cluster.agents.fan_out(peers, "agent.hello", timeout_s=ASKED_S) if peers else {}
    greeted = [node for node in peers if not isinstance(hellos[node.id], NovaError)]
    if not greeted:
        return []
    now = cluster.clock.now()
    with cluster.db.read() as tx:
        told = {node.id: node for one in greeted if (node := nodes.by_id(tx, one.id)) and _concerned(node)}
    unheard = [node for node in told.values() if _delay_s(node) > (node.armed_s or 0.0)]
    if unheard:
        with (write or cluster.db.write)() as tx:
            for node in unheard:
                if not nodes.arm(tx, node.id, _delay_s(node)):
                    del told[node.id]
    answers = {id_: _renewed(cluster, node, hellos[id_].body) for id_, node in told.items()}
    if not answers:
        return []
    with (write or cluster.db.write)() as tx:
        for id_, error in answers.items():
            if error is None:
                _heard(tx, told[id_], now)
            elif _knows_no_leases(error):
                nodes.end_lease(tx, id_)
    return [f"node {told[id_].name} does not fence itself, as it is to: {error.message}" for id_, error in answers.items()
            if error is not None and not isinstance(error, Unreachable) and error.details.get("code") != wire.Code.STALE]


def _concerned(node: Node) -> bool:
    return bool(node.address) and node.state in (NodeState.ENABLED, NodeState.DISABLED) and (
        node.fencing.get("method") == "self" or node.armed_s is not None)


def _delay_s(node: Node) -> float:
    """After how long without a lease its agent is to stop its servers; 0.0: never."""
    return fences.self_fence_s(node.fencing) if node.fencing.get("method") == "self" else 0.0


def _renewed(cluster: Cluster, node: Node, hello: wire.Hello) -> NovaError | None:
    """Tell it until when it may go on. None: it has heard. Of two it obeys the one with the later greeting."""
    renewal = wire.Renewal(hello.boot_id, hello.boottime_s + fences.NODE_LEASE_S, _delay_s(node))
    answer = cluster.agents.fan_out([node], "lease.renew", renewal, timeout_s=ASKED_S)[node.id]
    return answer if isinstance(answer, NovaError) else None


def _heard(tx: Tx, node: Node, now: float) -> None:
    if _delay_s(node):
        nodes.grant_lease(tx, node.id, now + fences.NODE_LEASE_S, _delay_s(node))
    else:
        nodes.disarm(tx, node.id)


def _knows_no_leases(error: NovaError) -> bool:
    return error.details.get("code") == wire.Code.UNKNOWN_METHOD


def disarm(cluster: Cluster, node: Node) -> None:
    """Its agent stops no servers by itself any more, as its row says already. Raises Unreachable, AgentRefused."""
    hello = cluster.agents.call(node, "agent.hello").body
    error = _renewed(cluster, node, hello)
    if error is not None and not _knows_no_leases(error):
        raise error
    with cluster.db.write() as tx:
        nodes.disarm(tx, node.id)


def fence_the_silent(cluster: Cluster, write: Write) -> tuple[list[str], list[str]]:
    """That a node is silent may be an earlier leader's word: it is asked once more, and fenced only if it does not answer now."""
    after_s, now = cluster.config["ha.fence_after_s"], cluster.clock.now()
    if not after_s:
        return [], []
    with cluster.db.read() as tx:
        everyone = [node for node in nodes.all_(tx) if node.address and node.state in (NodeState.ENABLED, NodeState.DISABLED)]
        silent = [node for node in everyone if node.silent_since is not None and now - node.silent_since >= after_s]
        due = [node for node in silent
               if any(server.ha and server.state.is_to_run for server in servers.on_node(tx, node.id))
               and not failed_lately(tx, node.id, fence_node.FENCE.kind, now)]
    if not due:
        return [], []
    if len(silent) > 1 and len(silent) * 2 > len(everyone):
        return [], [f"{len(silent)} of {len(everyone)} nodes are silent: rather this machine is cut off, and none is fenced"]
    answers = cluster.agents.fan_out([node for node in due if node.fencing], "agent.ping", timeout_s=ASKED_S)
    begun, said = [], []
    for node in due:
        if not node.fencing:
            said.append(
                f"node {node.name} is silent and has servers with --ha, but no way of being fenced: nothing is started elsewhere;"
                f" once you have powered it off: novactl node fence {node.name} --i-have-powered-it-off")
            continue
        if not isinstance(answers[node.id], Unreachable):
            continue
        try:
            with write() as tx:
                fresh = nodes.by_id(tx, node.id)
                if fresh is not None and fresh.silent_since is not None and fresh.state is node.state:
                    begun.append(begin_fencing(cluster, tx, fresh, dict(fresh.fencing), detached=True).id)
        except Busy as busy:
            said.append(f"node {node.name} is silent and cannot be fenced yet: {busy.message}")
    return begun, said


def evacuate_the_fenced(
    cluster: Cluster, *, only: Sequence[str] | None = None, detached: bool = True, write: Write | None = None,
) -> tuple[list[Operation], dict[str, str]]:
    """Begin the evacuation of every server with `ha` that is to run on fenced nodes (or `only` these): what was begun, and, by the
    server's id, why the others were not."""
    now = cluster.clock.now()
    with cluster.db.read() as tx:
        lost = [node for node in nodes.all_(tx) if node.state is NodeState.FENCED and (only is None or node.id in only)]
        due = [server for node in lost for server in servers.on_node(tx, node.id)
               if server.ha and server.state.is_to_run and not _held(tx, server)
               and (only is not None or not failed_lately(tx, server.id, evacuate_server.EVACUATE.kind, now))]
    begun, refused = [], {}
    for server in due:
        try:
            with (write or cluster.db.write)() as tx:
                fresh = servers.by_id(tx, server.id)
                if fresh is not None and fresh.node_id == server.node_id and fresh.state.is_to_run and not _held(tx, fresh):
                    begun.append(begin_evacuation(cluster, tx, fresh, detached=detached))
        except Conflict as why:
            refused[server.id] = why.message
    return begun, refused


def _held(tx: Tx, server: Server) -> bool:
    """By an operation that somebody ends, or that has to be undone before all."""
    return bool(server.operation_id) and any(
        other.state is not OperationState.STUCK or other.kind in recover.ENDED_FIRST for other in operations.open_of(tx, server.id))
