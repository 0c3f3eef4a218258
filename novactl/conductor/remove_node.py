"""node.remove: everything enrolment put on the machine goes, then the node's row. The name is free at once.

Until the agent has given up its pool and network, a failure puts the node back as it was; from then on only forward.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from novactl.agents import wire
from novactl.cluster import Cluster
from novactl.conductor.background import hand_over
from novactl.conductor.change import changing
from novactl.conductor.driver import Driver
from novactl.conductor.enrolment import Peer, askable, machine, stayed
from novactl.conductor.history import note
from novactl.conductor.holding import busy, owned_by_the_living
from novactl.conductor.progress import Progress, Watch, unwatched
from novactl.conductor.saga import Run, Saga, Step, begin, nothing
from novactl.db import nodes, operations, placement, servers
from novactl.db.statements import Tx
from novactl.enroll import service, steps
from novactl.enroll.access import Access, Trust, open_shell
from novactl.enroll.goal import Goal
from novactl.enroll.log import EnrolLog
from novactl.enroll.request import SudoPassword
from novactl.enroll.site import Before, Site
from novactl.errors import Conflict, InUse, NotFound, NovaError, Unreachable
from novactl.model.key import Role
from novactl.model.node import Node, NodeState
from novactl.model.operation import Operation, OperationState


@dataclass(frozen=True, kw_only=True)
class RemoveRecord:
    """`state` and `reason` are what the node's row said before; `origin` what the machine was before it was enrolled."""

    node_id: str
    name: str
    state: str
    reason: str
    address: str
    public_key: str
    access: Access
    goal: Goal
    origin: Before
    limits: Mapping[str, int]
    left: tuple[str, ...] = ()

    @property
    def peer(self) -> Peer:
        return Peer(self.node_id, self.name, self.address, self.public_key)


def _site(run: Run, record: RemoveRecord) -> Site:
    return Site(machine(run, record.access, record.name), record.goal, record.origin)


def _unprepare(run: Run, record: RemoveRecord) -> RemoveRecord:
    """The agent gives up pool, images and network. Where it does not answer, libvirt is told to forget the pool."""
    site = _site(run, record)
    try:
        if not record.address:
            raise Unreachable("the enrolment never came to an agent")
        run.call(record.peer, "node.unprepare", timeout_s=30)
    except Unreachable as silent:
        site.shell.note(f"node.unprepare: {silent.message}")
        service.remove_pool(site)
        return dataclasses.replace(record, left=(
            *record.left, f"the agent did not answer: libvirt's network 'default' and the files in {record.goal.name}'s pool stay",))
    return record


def _prepare_again(run: Run, record: RemoveRecord) -> None:
    run.call(record.peer, "node.prepare", wire.Prepare(limits=record.limits))


def _step(of: steps.NodeStep) -> Step[RemoveRecord]:
    def do(run: Run, record: RemoveRecord) -> RemoveRecord:
        left = of.undo(_site(run, record))
        return dataclasses.replace(record, left=(*record.left, *left)) if left else record

    return Step(f"no {of.name}", do, nothing("past the point of no return: the next try goes on"))


def _finish(run: Run, tx: Tx, record: RemoveRecord) -> None:
    nodes.delete(tx, record.node_id)
    stayed(run).extend(record.left)
    note(run, tx, "removed", "; ".join(record.left))


def _fail(run: Run, tx: Tx, record: RemoveRecord, error: NovaError) -> None:
    node = nodes.by_id(tx, record.node_id)
    if node is not None:
        again = dataclasses.replace(node, state=NodeState(record.state), reason=record.reason)
        nodes.update(tx, again.stamped(node, run.cluster.clock.now(), run.operation.actor))
    note(run, tx, "removal failed", error.message)


_REVERSED = tuple(_step(of) for of in reversed(steps.STEPS))
REMOVE_NODE: Saga[RemoveRecord] = Saga(
    kind="node.remove", record=RemoveRecord, steps=(Step("unprepare", _unprepare, _prepare_again), *_REVERSED),
    finish=_finish, fail=_fail, point_of_no_return=_REVERSED[0].name, timeout="timeout.enroll_s", detaches=False, role=Role.ADMIN,
)
SAGAS = {REMOVE_NODE.kind: REMOVE_NODE}


# ---------------------------------------------------------------- from the request to the saga


def remove(
    cluster: Cluster, node_id: str, *, lost: bool = False, watch: Watch | None = None, dry_run: bool = False,
    sudo_password: SudoPassword | None = None, wait: bool = True,
) -> tuple[str, ...] | Operation:
    """Undo the enrolment of a node, or with `lost` only forget it; returns what had to stay on the machine, one line each.

    With `wait=False` a process in the background does it, once the machine has been reached; its operation is returned.

    Raises InUse while servers are on it (nothing is changed), what connecting raises (nothing is changed), Stuck when
    the machine went away half way.
    """
    with cluster.db.read() as tx:
        node = nodes.by_id(tx, node_id)
    if node is None:
        raise NotFound("node", node_id)
    if lost:
        forget(cluster, node, watch=watch or unwatched, dry_run=dry_run)
        return ()
    askable(sudo_password, wait)
    left = _undo(cluster, node, Trust(sudo_password=sudo_password), watch or unwatched, dry_run, wait)
    if isinstance(left, Operation):
        return left
    told_what_stays(node.name, left, watch)
    return left


def told_what_stays(name: str, left: tuple[str, ...], watch: Watch | None) -> None:
    if left and watch is not None:
        watch(Progress("", name, "stays on the machine", "done", detail="; ".join(left)))


def _undo(cluster: Cluster, node: Node, trust: Trust, watch: Watch, dry_run: bool, wait: bool) -> tuple[str, ...] | Operation:
    refuse_in_use(cluster, node)
    record = _record(cluster, node)
    log = EnrolLog(cluster.config.data_dir / "logs", node.name)
    try:
        shell = open_shell(record.access, trust, log.write)
    except Unreachable as gone:
        gone.hint = f"if the machine is gone for good: novactl node remove {node.name} --lost"
        raise
    try:
        if dry_run:
            return ()
        with cluster.db.write() as tx:
            nodes.lock(tx, node.id)                           # claims wait: none comes between the look and the change
            fresh = nodes.by_id(tx, node.id)
            if fresh is None:
                raise NotFound("node", node.name)
            operation = begin(cluster, tx, REMOVE_NODE, record, ("node", node.id, node.name), detached=not wait)
            _in_use(tx, fresh)
            removing = dataclasses.replace(fresh, state=NodeState.REMOVING, reason="being removed")
            nodes.update(tx, removing.stamped(fresh, cluster.clock.now(), cluster.actor))
        if not wait:
            hand_over(cluster, [operation.id])
            return operation
        return Driver(cluster, REMOVE_NODE, operation, watch, {"shell": shell, "trust": trust}).drive().left
    finally:
        shell.close()


def forget(cluster: Cluster, node: Node, *, watch: Watch, dry_run: bool) -> None:
    """Forget a machine that is gone for good, without contacting it. An operation left half way on it ends as failed.

    Raises InUse while servers are on it, Busy while a living process works on it.
    """
    refuse_in_use(cluster, node)
    if dry_run:
        return
    now = cluster.clock.now()
    with changing(cluster, "node.remove", {"lost": True}, dry_run=False) as tx:
        for operation in operations.open_of(tx, node.id):
            if owned_by_the_living(operation, now):
                raise busy(cluster, operation)
            error = Conflict(f"node {node.name} was removed as lost").as_dict()
            operations.write(tx, dataclasses.replace(operation, state=OperationState.FAILED, error=error, ended_at=now))
        _in_use(tx, node)
        nodes.delete(tx, node.id)
        tx.on(node, detail="--lost: the machine was not contacted")
    watch(Progress("", node.name, "forget", "done"))


def refuse_in_use(cluster: Cluster, node: Node) -> None:
    with cluster.db.read() as tx:
        _in_use(tx, node)


def _in_use(tx: Tx, node: Node) -> None:
    """Raises InUse naming the servers that are on the node, or are claimed for it."""
    here = servers.on_node(tx, node.id)
    if here or placement.used_on(tx, node.id):
        raise InUse(
            f"node {node.name} has {len(here) or 'claims of'} servers", reasons=[f"{s.name} ({s.id})" for s in here],
            hint="delete them first (--lost, where the host does not come back), or wait for those being built",
            command=f"novactl server list --node {node.name}")


def _record(cluster: Cluster, node: Node) -> RemoveRecord:
    undo: Mapping[str, Any] = node.undo
    with cluster.db.read() as tx:
        held = nodes.inventories_of(tx, node.id)
    return RemoveRecord(
        node_id=node.id, name=node.name, state=node.state.value, reason=node.reason, address=node.address, public_key=node.public_key,
        access=wire.from_plain(Access, undo["access"]), goal=wire.from_plain(Goal, undo["goal"]),
        origin=wire.from_plain(Before, undo["before"]), limits={name: inventory.capacity for name, inventory in held.items()},
    )
