"""Gathering what the database says and what all agents say, so that they can be compared: nothing is changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from novactl.agents import wire
from novactl.cluster import Cluster
from novactl.conductor import fleet
from novactl.conductor.drift import Drift, Open, Past, Place, Rows, drifts
from novactl.conductor.holding import owned_by_the_living
from novactl.db import derived, nodes, operations, placement, servers
from novactl.db.servers import PowerRow
from novactl.db.statements import Tx
from novactl.errors import NovaError
from novactl.model.node import NodeState
from novactl.model.operation import OperationState

DEADLINE_S = 5.0


def survey(cluster: Cluster) -> tuple[Drift, ...]:
    """Ask every agent, in parallel, and compare; faults first. Takes about DEADLINE_S at most."""
    from novactl import __version__

    with cluster.db.read() as tx:
        before = servers.powers(tx)
        places = _places(tx)
        asked = [node for node in nodes.all_(tx) if node.address and node.state is not NodeState.ENROLLING]
    heard = fleet.reports(cluster, asked, 0.0, timeout_s=DEADLINE_S)
    reports = {id_: report for id_, report in heard.items() if not isinstance(report, NovaError)}
    silent = {id_: error.message for id_, error in heard.items() if isinstance(error, NovaError)}
    with cluster.db.read() as tx:
        return drifts(_rows(cluster, tx, before, places, reports), reports, silent, __version__)


def _rows(
    cluster: Cluster, tx: Tx, before: Sequence[PowerRow], places: Mapping[str, Place], reports: Mapping[str, wire.Report],
) -> Rows:
    """The rows as they are now, but for the servers that changed since `before`, while the agents were asked."""
    now, was = servers.powers(tx), {row.id: row for row in before}
    steady = [row for row in now if was.get(row.id) == row]
    living = {row.id for row in now}
    told = {domain.server for report in reports.values() for domain in report.domains}
    told |= {id_ for report in reports.values() for id_ in report.files}
    return Rows(
        servers=steady, places={id_: place for id_, place in _places(tx).items() if id_ in places}, claims=placement.all_(tx),
        open=_open(cluster, tx), pasts={id_: past for id_ in sorted(told - living) if (past := past_of(tx, id_)) is not None},
        diverged={id_ for id_, report in reports.items() if not operations.is_ours(tx, report.seq, report.seq_operation)},
        usage_is_right=derived.usage_is_right(tx), changing=(living | was.keys()) - {row.id for row in steady})


def _places(tx: Tx) -> dict[str, Place]:
    sums = {row.id: row for row in nodes.rows(tx)}
    return {
        node.id: Place(node.id, node.name, node.boot_id, node.shared_disk, sums[node.id].servers, sums[node.id].used, node.enroll_again,
                       node.state in (NodeState.FENCING, NodeState.FENCED))
        for node in nodes.all_(tx) if node.id in sums}


def _open(cluster: Cluster, tx: Tx) -> list[Open]:
    now = cluster.clock.now()
    return [
        Open(op.id, op.kind, op.object_id, op.object_name, owned_by_the_living(op, now), op.state is OperationState.STUCK)
        for op in operations.under_way(tx)]


def past_of(tx: Tx, id_: str) -> Past | None:
    """A server that has been deleted, as its row or the journal has it; None for one that this database has never known."""
    gone = servers.past(tx, id_)
    if gone is not None:
        return Past(gone.name, gone.epoch) if gone.deleted_at is not None else None
    deletion = operations.last_of(tx, id_, "server.delete")
    if deletion is not None and deletion.state is OperationState.OK:
        return Past(deletion.object_name, int(deletion.record.get("epoch") or 0))
    return None
