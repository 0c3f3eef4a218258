"""Whether what runs is what the database says, and mending what is not."""

from __future__ import annotations

from dataclasses import dataclass

from novactl.api.authority import Role, needs
from novactl.api.resolve import resolve
from novactl.cluster import Cluster
from novactl.conductor.drift import Drift
from novactl.conductor.progress import Watch
from novactl.conductor.survey import survey
from novactl.db import nodes, servers
from novactl.errors import NovaError


@dataclass(frozen=True, kw_only=True)
class DriftView:
    """One thing that does not agree. `repair` is what `cluster repair` does about it, "" where a person must (`command`), or need not
    (`is_fault` False: told only). `result` is what came of repairing: "", "mended", or why not."""

    kind: str
    object: str
    node: str
    what: str
    repair: str
    command: str
    is_fault: bool
    object_id: str
    node_id: str
    result: str = ""


def verify(cluster: Cluster) -> tuple[DriftView, ...]:
    """Ask all agents and compare; faults first. Nothing is changed. Nodes that do not answer are told as such."""
    return tuple(_view(drift) for drift in survey(cluster))


@needs(Role.ADMIN)
def repair(
    cluster: Cluster, *, server: str = "", node: str = "", dry_run: bool = False, watch: Watch | None = None,
) -> tuple[DriftView, ...]:
    """Mend what can be mended: of all, or of one server, or on one node. What a person must see to is in the answer, too.

    Raises NotFound for a server or node that is not known.
    """
    from novactl.conductor.mend import mend

    found = [drift for drift in _chosen(cluster, survey(cluster), server, node) if drift.is_fault]
    if dry_run:
        return tuple(_view(drift) for drift in found)
    return tuple(_view(drift, _result(drift, error)) for drift, error in zip(found, mend(cluster, found, watch), strict=True))


def _chosen(cluster: Cluster, found: tuple[Drift, ...], server: str, node: str) -> list[Drift]:
    with cluster.db.read() as tx:
        node_id = resolve(tx, "node", nodes, node).id if node else ""
        server_id = ""
        if server:
            past = servers.past(tx, server)
            server_id = past.id if past is not None else resolve(tx, "server", servers, server).id
    return [drift for drift in found if node_id in ("", drift.node_id) and server_id in ("", drift.object_id)]


def _result(drift: Drift, error: NovaError | None) -> str:
    if not drift.repair:
        return ""
    return "mended" if error is None else error.message


def _view(drift: Drift, result: str = "") -> DriftView:
    return DriftView(
        kind=drift.kind.value, object=drift.object, node=drift.node, what=drift.what, repair=drift.repair, command=drift.command,
        is_fault=drift.is_fault, object_id=drift.object_id, node_id=drift.node_id, result=result)
