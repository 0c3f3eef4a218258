"""The conductor as a service: run, show, install, uninstall."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from novactl.api.authority import Role, needs
from novactl.cluster import Cluster
from novactl.conductor import owner
from novactl.conductor.change import changing
from novactl.db import leases, meta, nodes, notices
from novactl.db.crossing import begun_anew
from novactl.errors import Partial
from novactl.model.node import NodeState

if TYPE_CHECKING:
    from novactl.conductor.unit import Unit


@dataclass(frozen=True, kw_only=True)
class ConductorView:
    """`leader` is its process ("" while nobody leads), since when, by which admin; `lease_until` when another may take over, by
    the database's clock. `waiting` are the other conductors that run. `oldest_report_s` is the age of the oldest report of a node
    that answers; `events_behind` are those that the hook has not been through, None where there is no hook. Subscribers connect to
    `publish` and must find `key` there ("" for nothing published)."""

    leader: str
    epoch: int
    leader_since: float | None
    actor: str
    lease_until: float | None
    waiting: tuple[str, ...]
    oldest_report_s: float | None
    silent_nodes: int
    events_behind: int | None
    publish: str
    key: str


@needs(Role.ADMIN)
def run(cluster: Cluster, write: Callable[[str], object], *, publish: str = "", once: bool = False, as_json: bool = False) -> None:
    """Be a conductor until SIGTERM or SIGINT; `write` is given its log, a line at a time.

    `once`: one round, now, unless another leads; raises Partial for what failed. Raises SchemaNewer as soon as it is.
    """
    from novactl.conductor.journal import Journal
    from novactl.conductor.service import Conductor
    from novactl.conductor.supervision import Supervisor, until_told

    supervisor = Supervisor(os.environ.pop("NOTIFY_SOCKET", ""))
    conductor = Conductor(cluster, Journal(write, cluster.clock, as_json=as_json), publish=publish, supervisor=supervisor)
    if not once:
        with until_told(supervisor, conductor.end_hooks) as stop:
            conductor.run(stop)
        return
    failed = conductor.once()
    if failed:
        raise Partial(f"{len(failed)} of the conductor's duties failed", reasons=[error.message for error in failed])


def show(cluster: Cluster) -> ConductorView:
    """Who leads, who waits, and how far it is. Asks no agent."""
    from novactl.conductor.leader import LEADER, is_free, running
    from novactl.conductor.notify import TOLD
    from novactl.conductor.service import status

    with cluster.db.read() as tx:
        now, lease, said = leases.now(tx, cluster.clock.now()), leases.read(tx, LEADER), status(tx)
        waiting = [owner.shown(one.owner) for one in running(tx, now)]
        rows, told, newest = nodes.rows(tx), meta.get(tx, TOLD), notices.newest(tx)
    leads = lease is not None and not is_free(lease, now)
    leader = owner.shown(lease.owner) if lease and leads else ""
    if leader in waiting:
        waiting.remove(leader)
    heard = [row.reported_at for row in rows if row.state == NodeState.ENABLED and row.silent_since is None and row.reported_at]
    return ConductorView(
        leader=leader, epoch=lease.epoch if lease else 0, leader_since=said.since if said and leads else None,
        actor=said.actor if said and leads else "", lease_until=lease.until if lease and leads else None, waiting=tuple(waiting),
        oldest_report_s=max(0.0, cluster.clock.now() - min(heard)) if heard else None,
        silent_nodes=sum(row.silent_since is not None for row in rows),
        events_behind=None if told is None else max(0, newest - int(told)),
        publish=_reachable(said.publish, lease.owner) if said and lease and leads else "",
        key=said.key if said and leads and said.publish else "")


def _reachable(endpoint: str, leader: str) -> str:
    """An address for every interface stands for the leader's host."""
    host = leader.partition(" ")[0]
    for every in ("//0.0.0.0:", "//*:", "//[::]:"):
        endpoint = endpoint.replace(every, f"//{host}:")
    return endpoint


@needs(Role.ADMIN)
def install(cluster: Cluster, *, for_user: bool = False, dry_run: bool = False) -> Unit:
    """Have systemd run a conductor on this machine, now and at boot. Safe to repeat.

    Raises NoSystemd, Conflict for settings that only this shell has, NovaError for what may not be written.
    """
    from novactl.conductor import unit

    cluster.db.check_schema()                                 # a conductor without a cluster would only restart for ever
    wanted = unit.unit(cluster.config, for_user=for_user)
    if dry_run:
        return wanted
    made = unit.install(wanted, for_user=for_user)
    _journal(cluster, "conductor.install", made)
    return made


@needs(Role.ADMIN)
def uninstall(cluster: Cluster, *, for_user: bool = False, dry_run: bool = False) -> Unit:
    """Undo `install`; where there is nothing to undo, nothing changes."""
    from novactl.conductor import unit

    gone = unit.uninstall(for_user=for_user, dry_run=dry_run)
    if dry_run:
        return gone
    _journal(cluster, "conductor.uninstall", gone)
    return gone


class _Here(NamedTuple):
    """The conductor of a machine, as what is changed."""

    name: str
    id: str = ""


@begun_anew
def _journal(cluster: Cluster, kind: str, unit: Unit) -> None:
    with changing(cluster, kind, {"unit": str(unit.path)}, dry_run=False) as tx:
        tx.on(_Here(os.uname().nodename), detail=f"{unit.path}: {unit.state}")
