"""node.fence: make sure that a node runs nothing any more. Only then may its servers be started elsewhere.

Undone, the node is what it was to us; whether it has been switched off by then is for whoever looks at it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from novactl.conductor import fences
from novactl.conductor.history import note
from novactl.conductor.saga import Run, Saga, Step, nothing
from novactl.db import nodes
from novactl.db.statements import Tx
from novactl.errors import Conflict, NotFound, NovaError
from novactl.model.key import Role
from novactl.model.node import Node, NodeState


@dataclass(frozen=True, kw_only=True)
class FenceNode:
    """`fencing` says how (novactl.conductor.fences); empty: the actor has done it by hand. `state`, `reason`, `state_since` and
    `state_by` are what the node's row said before (0.0: nothing). `evidence` is why it is believed to be off."""

    node: str
    name: str
    state: str
    reason: str
    state_since: float
    state_by: str
    fencing: Mapping[str, str] = field(default_factory=dict)
    evidence: str = ""
    grace_s: float = 0.0
    """What its agent is waited for, beside the time that every operation has."""


def of_node(node: Node, fencing: Mapping[str, str]) -> FenceNode:
    return FenceNode(
        node=node.id, name=node.name, state=node.state.value, reason=node.reason, state_since=node.state_since or 0.0,
        state_by=node.state_by, fencing=fencing, grace_s=fences.waits_s(node, fencing))


def hold(run: Run, record: FenceNode) -> FenceNode:
    """From now on it takes no servers, nothing is started there, and its lease is not renewed. Raises Conflict where it is only said to be
    off, and was heard since: then something may have been started there."""
    with run.tx() as tx:
        if not record.fencing and _locked(tx, record).silent_since is None:
            raise Conflict(
                f"node {record.name} has answered since it was said to be powered off: it is on", hint="nothing is started elsewhere",
                command=f"novactl node check {record.name}")
        _become(run, tx, record, NodeState.FENCING, f"being fenced by {record.fencing.get('method', 'hand')}")
    return record


def let_go(run: Run, record: FenceNode) -> None:
    with run.tx() as tx:
        node = _locked(tx, record)
        if node.state is NodeState.FENCING:
            nodes.update(tx, dataclasses.replace(
                node, state=NodeState(record.state), reason=record.reason, state_since=record.state_since or None,
                state_by=record.state_by))


def power_off(run: Run, record: FenceNode) -> FenceNode:
    if not record.fencing:
        return dataclasses.replace(record, evidence=fences.by_hand(run.operation.actor))
    with run.cluster.db.read() as tx:
        node = nodes.by_id(tx, record.node)
    if node is None:
        raise NotFound("node", record.name)
    run.progress(detail=f"by {record.fencing['method']}")
    return dataclasses.replace(record, evidence=fences.power_off(run.cluster, node, record.fencing))


def fenced(run: Run, tx: Tx, record: FenceNode) -> None:
    _become(run, tx, record, NodeState.FENCED, record.evidence, fenced_at=run.cluster.clock.now())
    note(run, tx, "fenced", record.evidence)


def not_fenced(run: Run, tx: Tx, record: FenceNode, error: NovaError) -> None:
    note(run, tx, "not_fenced", error.message)


def _become(run: Run, tx: Tx, record: FenceNode, state: NodeState, reason: str, *, fenced_at: float | None = None) -> None:
    nodes.update(tx, dataclasses.replace(
        _locked(tx, record), state=state, reason=reason, state_since=run.cluster.clock.now(), state_by=run.operation.actor,
        fenced_at=fenced_at))


def _locked(tx: Tx, record: FenceNode) -> Node:
    nodes.lock(tx, record.node)
    node = nodes.by_id(tx, record.node)
    if node is None:
        raise NotFound("node", record.name)
    return node


FENCE: Saga[FenceNode] = Saga(
    kind="node.fence",
    role=Role.ADMIN,
    record=FenceNode,
    steps=(
        Step("hold", do=hold, undo=let_go),
        Step("power_off", do=power_off, undo=nothing("what is off stays off until somebody switches it on")),
    ),
    finish=fenced,
    fail=not_fenced,
)
SAGAS = {FENCE.kind: FENCE}
