"""Nodes: enroll, list, show, check, set, unset, enable, disable, remove."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from novactl.api import node_changes
from novactl.api.authority import Role, needs
from novactl.api.node_changes import Changed, SetNode, UnsetNode
from novactl.api.node_views import NodeShown, NodeView, shown, views
from novactl.api.resolve import resolve
from novactl.api.trial import changing
from novactl.cluster import Cluster
from novactl.conductor.node_file import remember
from novactl.db import nodes
from novactl.enroll.request import EnrollNode, EnrolPlan, HostKey, SudoPassword
from novactl.errors import Conflict, UsageError
from novactl.model.finding import Finding
from novactl.model.node import Node, NodeState

if TYPE_CHECKING:
    from novactl.conductor.progress import Watch
    from novactl.model.operation import Operation

__all__ = [
    "Changed", "EnrolPlan", "EnrollNode", "HostKey", "NodeShown", "NodeView", "SetNode", "UnsetNode", "check", "disable", "enable",
    "enroll", "list_nodes", "remove", "rotate_key", "set_", "show", "unset",
]

MAX_REASON = 255


@needs(Role.ADMIN)
def enroll(
    cluster: Cluster, wanted: EnrollNode, *, watch: Watch | None = None, dry_run: bool = False, wait: bool = True,
    timeout_s: float | None = None,
) -> NodeView | EnrolPlan | str:
    """Make a machine a node. Raises HostKeyUnknown, HostKeyChanged, SshDenied, Unreachable, EnrolFailed, Conflict.

    Safe to repeat: an enrolled machine is brought to what was asked, or left alone. With `wait=False` it is looked at here and
    changed by a process in the background: then, where there is something to change, the operation's id. With `timeout_s` likewise,
    and that process is followed. Raises WaitTimeout.
    """
    from novactl.conductor.enroll_node import enroll as act

    until = _until(cluster, timeout_s)
    made = act(cluster, wanted, watch=watch, dry_run=dry_run, wait=wait and until is None)
    if isinstance(made, EnrolPlan):
        return made
    if not isinstance(made, str):
        if not wait:
            return made.id
        made = _followed(cluster, made, watch, until).object_name
    remember(cluster)
    return show(cluster, made, refresh=False)


@needs(Role.ADMIN)
def remove(
    cluster: Cluster, ref: str, *, lost: bool = False, watch: Watch | None = None, dry_run: bool = False,
    sudo_password: SudoPassword | None = None, wait: bool = True, timeout_s: float | None = None,
) -> NodeView | str:
    """Undo an enrolment; `lost`: forget a machine that is gone. Raises InUse while servers are on it. With `wait=False` the id of
    the operation that goes on in the background; what is lost is forgotten at once. `timeout_s` is as for `enroll`."""
    from novactl.conductor.recover import free
    from novactl.conductor.remove_node import remove as act
    from novactl.conductor.remove_node import told_what_stays

    until = None if lost else _until(cluster, timeout_s)
    view = show(cluster, ref, refresh=False)
    if not dry_run and not lost:
        free(cluster, view.id)
        view = show(cluster, ref, refresh=False)
    begun = act(
        cluster, view.id, lost=lost, watch=watch, dry_run=dry_run, sudo_password=sudo_password, wait=wait and until is None)
    if not isinstance(begun, tuple):
        if not wait:
            return begun.id
        told_what_stays(view.name, tuple(_followed(cluster, begun, watch, until).record["left"]), watch)
    if not dry_run:
        remember(cluster)
    return view if dry_run else dataclasses.replace(view, status="removed", state="removed")


def check(cluster: Cluster, ref: str, *, sudo_password: SudoPassword | None = None) -> tuple[Finding, ...]:
    """What is right and wrong with a node, end to end."""
    from novactl.conductor.check_node import check as act

    return act(cluster, _find(cluster, ref), sudo_password=sudo_password)


def list_nodes(cluster: Cluster, *, refresh: bool = True) -> tuple[NodeView, ...]:
    """By name. With `refresh`, reports older than `placement.refresh_s` are asked for anew first."""
    if refresh:
        _refresh(cluster)
    with cluster.db.read() as tx:
        return views(cluster, tx)


def show(cluster: Cluster, ref: str, *, refresh: bool = True) -> NodeShown:
    """One node, with its inventories and traits."""
    if refresh:
        _refresh(cluster, _find(cluster, ref))
    with cluster.db.read() as tx:
        return shown(cluster, tx, resolve(tx, "node", nodes, ref))


@needs(Role.ADMIN)
def set_(cluster: Cluster, ref: str, change: SetNode, *, dry_run: bool = False) -> Changed:
    """Set what may be claimed of a node, and what is said of it; the same again changes nothing.

    Less than what is in use is allowed, as in Nova: servers go on, nothing more fits, and a warning says so. Raises
    UsageError (a number, class, trait, label or CPU that cannot be), Conflict (two zones, or servers that asked for the zone it
    leaves) and InUse (a pinned CPU).
    """
    return _remembered(cluster, node_changes.set_(cluster, ref, change, dry_run=dry_run), dry_run)


@needs(Role.ADMIN)
def unset(cluster: Cluster, ref: str, change: UnsetNode, *, dry_run: bool = False) -> Changed:
    """Take away what `set_` gave; what is not there is no error. Raises InUse for a class or a CPU that servers hold, and Conflict."""
    return _remembered(cluster, node_changes.unset(cluster, ref, change, dry_run=dry_run), dry_run)


def _remembered(cluster: Cluster, done: Changed, dry_run: bool) -> Changed:
    if not dry_run:
        remember(cluster)
    return done


@needs(Role.ADMIN)
def enable(cluster: Cluster, ref: str, *, dry_run: bool = False) -> NodeView:
    """It takes servers again. Enabling an enabled node changes nothing.

    One that was fenced must answer, and what it still has of servers that run elsewhere is removed first.
    """
    if _find(cluster, ref).state is NodeState.FENCED:
        from novactl.api.ha import welcome

        return welcome(cluster, ref, dry_run=dry_run)
    return _switch(cluster, ref, NodeState.ENABLED, "", dry_run)


@needs(Role.ADMIN)
def disable(cluster: Cluster, ref: str, *, reason: str = "", dry_run: bool = False) -> NodeView:
    """It takes no new servers; those it has go on running."""
    return _switch(cluster, ref, NodeState.DISABLED, reason, dry_run)


@needs(Role.ADMIN)
def rotate_key(
    cluster: Cluster, ref: str, *, watch: Watch | None = None, dry_run: bool = False, wait: bool = True, timeout_s: float | None = None,
) -> NodeView | str:
    """Change the node's own key while it goes on working; its servers notice nothing. Raises Conflict, Busy, Unreachable: then
    the old key stays; Stuck where the node went away in the very last step. With `wait=False` the operation's id."""
    from novactl.api.waiting import Begun, run_all
    from novactl.conductor.rotate_key import ROTATE_KEY, begin_rotation

    node = _find(cluster, ref)
    operation = begin_rotation(cluster, node, detached=not wait, dry_run=dry_run)
    if operation is not None:
        run_all(cluster, [Begun(ROTATE_KEY, operation)], watch, wait=wait, timeout_s=timeout_s)
        if not wait:
            return operation.id
        remember(cluster)
    return show(cluster, node.id, refresh=False)


def _switch(cluster: Cluster, ref: str, state: NodeState, reason: str, dry_run: bool) -> NodeView:
    """All of it; a dry run takes it back. Raises UsageError, NotFound, Conflict."""
    if len(reason) > MAX_REASON or (reason and not reason.isprintable()):
        raise UsageError(f"a reason is printable text of at most {MAX_REASON} characters")
    verb = "enable" if state is NodeState.ENABLED else "disable"
    with changing(cluster, f"node.{verb}", {"reason": reason} if reason else {}, dry_run=dry_run) as tx:
        named: Node = resolve(tx, "node", nodes, ref)
        nodes.lock(tx, named.id)                              # what another admin sets of it at this moment is not lost
        node = nodes.by_id(tx, named.id) or named
        if node.state not in (NodeState.ENABLED, NodeState.DISABLED):
            from novactl.conductor.holding import refuse_busy

            refuse_busy(cluster, tx, node.id)
            raise Conflict(f"node {node.name} is {node.state}", command="novactl operation list")
        changed = dataclasses.replace(node, state=state, reason=reason)
        if changed != node:
            changed = changed.stamped(node, cluster.clock.now(), cluster.actor)
            nodes.update(tx, changed)
        tx.on(node, detail=reason)
        return shown(cluster, tx, nodes.by_id(tx, node.id) or changed)


def _until(cluster: Cluster, timeout_s: float | None) -> float | None:
    return None if timeout_s is None else cluster.clock.monotonic() + timeout_s


def _followed(cluster: Cluster, operation: Operation, watch: Watch | None, until: float | None) -> Operation:
    """Until a process in the background has ended it: a machine is changed by one process, from its beginning to its end."""
    from novactl.api import operations

    left_s = None if until is None else max(0.0, until - cluster.clock.monotonic())
    return operations.watch(cluster, [operation.id], watch=watch, timeout_s=left_s)[0]


def _find(cluster: Cluster, ref: str) -> Node:
    with cluster.db.read() as tx:
        return resolve(tx, "node", nodes, ref)


def _refresh(cluster: Cluster, *only: Node) -> None:
    from novactl.conductor.fleet import refresh

    refresh(cluster, max_age_s=cluster.config["placement.refresh_s"], only=only or None, fenced=True)
