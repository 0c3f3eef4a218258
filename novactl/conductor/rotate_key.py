"""node.rotate_key: a node's own key is changed while it goes on working, and whoever asks it meanwhile is answered.

The node makes the new pair itself; its public half goes into the row beside the old one before any connection is made with it, so that the
agent, started anew at any moment, comes up with a key that is known. Open connections stay with the old key a little longer.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from novactl.agents import wire
from novactl.cluster import Cluster
from novactl.conductor.enrolment import Peer
from novactl.conductor.history import note
from novactl.conductor.holding import busy
from novactl.conductor.saga import Run, Saga, Step, begin, nothing
from novactl.db import nodes, operations
from novactl.db.statements import Tx
from novactl.errors import Conflict, NotFound, NovaError, Unreachable
from novactl.model.key import Role
from novactl.model.node import Node, NodeState
from novactl.model.operation import Operation


@dataclass(frozen=True, kw_only=True)
class RotateKey:
    """`public_key` is the new one, once the node has told it."""

    node: str
    public_key: str = ""


def make(run: Run, record: RotateKey) -> RotateKey:
    public_key = run.call(_node(run, record), "keys.next").public_key
    with run.tx() as tx:
        _write(tx, record, next_public_key=public_key)
    return dataclasses.replace(record, public_key=public_key)


def drop(run: Run, record: RotateKey) -> None:
    run.call(_node(run, record), "keys.drop")
    with run.tx() as tx:
        _write(tx, record, next_public_key="")


def serve(run: Run, record: RotateKey) -> RotateKey:
    run.call(_node(run, record), "keys.serve", wire.NodeKey(record.public_key))
    return record


def verify(run: Run, record: RotateKey) -> RotateKey:
    """A connection made with the new key and no other is answered by this node. Raises Unreachable."""
    node = _node(run, record)
    # without the id of a row, from which another key could be had
    hello = run.call(Peer("", node.name, node.address, record.public_key), "agent.hello")
    if hello.node_id != node.id:
        raise Unreachable(
            f"what answers for node {node.name} with its new key is node {hello.node_id}", command=f"novactl node check {node.name}")
    return record


def commit(run: Run, record: RotateKey) -> RotateKey:
    run.call(_node(run, record), "keys.commit", wire.NodeKey(record.public_key))
    return record


def _finish(run: Run, tx: Tx, record: RotateKey) -> None:
    _write(tx, record, public_key=record.public_key, next_public_key="")
    note(run, tx, "key changed", record.public_key)


def _fail(run: Run, tx: Tx, record: RotateKey, error: NovaError) -> None:
    note(run, tx, "key not changed", error.message)


def _node(run: Run, record: RotateKey) -> Node:
    """As the row says now: its keys change under way. Raises NotFound."""
    with run.cluster.db.read() as tx:
        return _there(tx, record.node)


def _there(tx: Tx, node_id: str) -> Node:
    found = nodes.by_id(tx, node_id)
    if found is None:
        raise NotFound("node", node_id)
    return found


def _write(tx: Tx, record: RotateKey, **keys: str) -> None:
    nodes.lock(tx, record.node)                               # what is set of it at this moment is not lost
    nodes.update(tx, dataclasses.replace(_there(tx, record.node), **keys))  # type: ignore[arg-type]


ROTATE_KEY: Saga[RotateKey] = Saga(
    kind="node.rotate_key", record=RotateKey,
    steps=(
        Step("make", make, drop),
        Step("serve", serve, nothing("dropping the key ends what it serves")),
        Step("verify", verify, nothing("it only looked")),
        Step("commit", commit, nothing("past the point of no return")),
    ),
    finish=_finish, fail=_fail, point_of_no_return="commit", role=Role.ADMIN,
)
SAGAS = {ROTATE_KEY.kind: ROTATE_KEY}


def begin_rotation(cluster: Cluster, node: Node, *, detached: bool = False, dry_run: bool = False) -> Operation | None:
    """The operation, which is to be driven; None for a dry run. Raises Conflict for a node that is not in service, and Busy."""
    with cluster.db.write() as tx:
        nodes.lock(tx, node.id)
        fresh = _there(tx, node.id)
        if fresh.state not in (NodeState.ENABLED, NodeState.DISABLED) or not fresh.address:
            raise Conflict(f"node {fresh.name} is {fresh.state.value}", command=f"novactl node show {fresh.name}")
        for other in operations.open_of(tx, node.id):
            raise busy(cluster, other)
        if dry_run:
            return None
        return begin(cluster, tx, ROTATE_KEY, RotateKey(node=node.id), ("node", node.id, node.name), detached=detached)
