"""Bringing rows in line with what runs: a guest that went down, died, is gone or runs again, and hosts that started anew.

A report may be older than what the database says of a server by now. So where the two disagree the rows are read, the
node is asked again, and what it says then is written only where the rows have not changed since: what was seen is then
younger than what it corrects, and no clock is asked.
"""

from __future__ import annotations

from collections.abc import Sequence

from novactl.agents import wire
from novactl.cluster import Cluster
from novactl.conductor import fleet
from novactl.conductor.history import note_on
from novactl.conductor.revive import hold_down, revive, went_down_with_it
from novactl.db import nodes, servers
from novactl.db.servers import PowerRow
from novactl.db.statements import Tx
from novactl.errors import Conflict, NovaError
from novactl.model.node import Node, NodeState
from novactl.states import Event, advance, found

DEADLINE_S = 2.0


def settle(cluster: Cluster, node_ids: Sequence[str]) -> None:
    """`follow`, and a process of their own for the operations that it began."""
    begun = follow(cluster, node_ids)
    if begun:
        from novactl.conductor.background import hand_over

        hand_over(cluster, begun)


def follow(cluster: Cluster, node_ids: Sequence[str], *, at_once: bool = False) -> tuple[str, ...]:
    """Ask these nodes again and believe what they say of their idle servers.

    Returns the ids of operations that start what ran before a host started anew; nobody drives them yet. Nodes that do not
    answer are left as they are, as are servers that change meanwhile: the next report asks for them again. What failed to start
    lately waits, but not where somebody asks for it (`at_once`).
    """
    with cluster.db.read() as tx:
        known = [nodes.by_id(tx, id_) for id_ in sorted(node_ids)]
        asked = [node for node in known if node is not None and node.address and not _is_given_up(node)]
        rows = {node.id: servers.powers(tx, node.id) for node in asked}
    heard = fleet.reports(cluster, asked, 0.0, timeout_s=DEADLINE_S)
    begun: list[str] = []
    for node in asked:
        report = heard[node.id]
        if not isinstance(report, NovaError):
            begun += _believe(cluster, node, rows[node.id], report, at_once=at_once)
    return tuple(begun)


def _is_given_up(node: Node) -> bool:
    """Its servers may be started elsewhere at any moment: whatever it says of them, nothing of them starts there until it is enabled."""
    return node.state in (NodeState.FENCING, NodeState.FENCED)


def _believe(
    cluster: Cluster, node: Node, rows: Sequence[PowerRow], report: wire.Report, *, at_once: bool = False,
) -> tuple[str, ...]:
    try:
        with cluster.db.write() as tx:
            fleet.take_report(tx, node.id, report, cluster.clock.now())
            begun: tuple[str, ...] = ()
            left = list(rows)
            if node.boot_id not in ("", fleet.life(report)):
                if report.lacks_lease or node.lacks_lease(cluster.clock.now()):     # it would stop at once what is started
                    hold_down(cluster, tx, node, report, rows)
                else:
                    begun = revive(cluster, tx, node, report, rows, at_once=at_once)
                ran = {domain.server for domain in report.domains if not went_down_with_it(domain, report)}
                left = [row for row in rows if row.id in ran]
            reasons = {domain.server: domain.reason for domain in report.domains}
            for row, told in fleet.told_of(left, report):
                take(cluster, tx, row, told, reasons.get(row.id, ""))
            return begun
    except Conflict:
        return ()                                             # another process is at it


def take(cluster: Cluster, tx: Tx, seen: PowerRow, told: str, reason: str) -> Event | None:
    """Write what a node told of the server, and why, as it was `seen` before it was asked; None where that is nothing new, or it
    has changed."""
    event = found(seen.state, told)
    if event is None:
        return None
    server = servers.by_id(tx, seen.id)
    if server is None or not servers.found(
            tx, seen, advance(seen.state, event, seen.name), cluster.clock.now(), _fault(event, server.name, server.node_name, reason)):
        return None
    note_on(cluster, tx, server, event, f"on {server.node_name}")
    return event


def _fault(event: Event, name: str, node: str, reason: str) -> str:
    if event is Event.FOUND_GONE:
        return f"node {node} has no domain of it any more"
    if event is Event.FOUND_CRASHED:
        return f"its QEMU on node {node} died; novactl server reboot --hard {name} starts it anew"
    if event is Event.FOUND_PAUSED:
        return f"paused on node {node}" + (": an input/output error, or no space left on the disk" if reason == "ioerror" else "")
    return ""
