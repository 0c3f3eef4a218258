"""Where a server goes: the request as the rows have it, the decision, and the claim in the transaction that decided.

One server is decided on among rows read for it alone. A batch is decided on among columns that are kept and changed as its
claims are written, in one transaction: each decision sees the ones before it, and all of them are durable together or none is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from novactl.cluster import Cluster
from novactl.conductor import fleet as fleets
from novactl.conductor.residents import is_guarded, survival
from novactl.db import groups, nodes, placement, servers
from novactl.db.refusals import Crossed
from novactl.db.statements import Tx
from novactl.errors import Conflict, NoValidHost
from novactl.model.aggregate import MAX_IO_OPS
from novactl.model.group import Policy
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU, Amounts
from novactl.model.server import Server
from novactl.model.topology import Fitting
from novactl.plugins import configured, rules
from novactl.scheduler import lanes
from novactl.scheduler.fleet import ODD, Fleet
from novactl.scheduler.pipeline import KEEP, TOLD, needs_views, pick, place, with_reasons
from novactl.scheduler.request import Decision, GroupView, Peer, Request
from novactl.scheduler.telling import rejection_lines, request_line, shortened, summary_line

if TYPE_CHECKING:
    from novactl.scheduler.survival import Survival

MANY = 16
"""From so many decisions on numpy earns its import."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One server to place: its row, and what only this try knows. `extra` are amounts beyond its row's (a 0 there takes one away).
    `moves`: it leaves a fenced node, and has lent what it holds there."""

    server: Server
    extra: Mapping[str, int] = field(default_factory=dict)
    only_node: str = ""
    exclude: Mapping[str, str] = field(default_factory=dict)
    moves: bool = False

    @property
    def amounts(self) -> Amounts:
        whole = {VCPU: self.server.vcpus, MEMORY_MB: self.server.memory_mb, DISK_GB: self.server.disk_gb, **self.extra}
        return {name: amount for name, amount in whole.items() if amount}


Known = dict[tuple[str, str], str]
"""(label, node id) -> the label's value there."""


def request_of(
    cluster: Cluster, tx: Tx, asked: Asked, mates: Sequence[Peer] = (), known: Known | None = None,
) -> Request:
    """What the scheduler is asked for this server, its group and its peers as they are now. `mates` are its batch so far; `known`
    is kept from one of a batch to the next, and filled: each node's labels are read once."""
    server, config = asked.server, cluster.config
    wants, nowhere = server.wants, groups.lost(tx) if asked.moves else frozenset()
    named = dict.fromkeys((*wants.same_host, *wants.different_host))
    peers = {id_: Peer(found.id, found.name, found.node_id) for id_ in named if (found := servers.by_id(tx, id_))}
    if nowhere:
        wants = replace(wants, same_host=tuple(id_ for id_ in wants.same_host if id_ not in peers or peers[id_].node not in nowhere))
    known = {} if known is None else known
    group = group_view(tx, server, known, nowhere)
    spread = None
    if wants.spread_by:
        members = group.members if group else tuple(mates)
        spread = GroupView(
            name=group.name if group else "", policy=Policy.SOFT_ANTI_AFFINITY, scope=wants.spread_by, members=members,
            domains=_domains(tx, wants.spread_by, members, known))
    return Request(
        server=server.name, amounts=asked.amounts, architecture=server.architecture, zone=server.zone, node=asked.only_node,
        exclude=asked.exclude, now=cluster.clock.now(), fresh_s=config["placement.fresh_s"], seed=int(server.id[:8], 16),
        project=server.project_id, flavor=server.flavor_name, image=server.image_name, wants=wants, peers=peers, rules=rules(config),
        group=group, spread=spread)


def group_view(tx: Tx, server: Server, known: Known, nowhere: Collection[str] = ()) -> GroupView | None:
    """The server's group as it is without the server; None where it is in none. Hard affinity does not look at members on nodes that
    are `nowhere`."""
    group = groups.by_id(tx, server.group_id) if server.group_id else None
    if group is None:
        return None
    if group.policy is not Policy.AFFINITY:
        nowhere = ()
    members = tuple(
        Peer(m.id, m.name, "" if m.node_id in nowhere else m.node_id) for m in groups.members(tx, group.id) if m.id != server.id)
    return GroupView(
        name=group.name, policy=group.policy, scope=group.scope, max_per_domain=group.max_per_domain, members=members,
        domains=_domains(tx, group.scope, members, known) if group.scope else {})


def _domains(tx: Tx, label: str, members: Sequence[Peer], known: Known) -> dict[str, str]:
    there = {member.node for member in members if member.node}
    new = {id_ for id_ in there if (label, id_) not in known}
    if new:
        known |= {(label, id_): value for id_, value in groups.domains(tx, new, label).items()}
    return {id_: known[label, id_] for id_ in there}


class Placer:
    """Decides and claims. Kept from one decision to the next, it keeps the columns too, and changes them as its own claims do.

    What others did in between it does not see, unless told to `forget`: a claim rests on the node's generation, so that a stale
    decision is refused (placement.Moved, and all is read anew) and never overfills a node.
    """

    def __init__(self, cluster: Cluster, *, many: bool = False) -> None:
        self.cluster = cluster
        self.profile = configured(cluster.config)
        self._xp: Any = lanes.arrays() if many else lanes
        self._fleet: Fleet | None = None
        self._survival: Survival | None = None
        self._whole = False
        self._names: dict[str, str] = {}

    def forget(self) -> None:
        """Read the nodes anew with the next decision."""
        self._fleet = self._survival = None

    def decide(self, tx: Tx, request: Request, *, told: int = TOLD) -> Decision:
        """Where such a server would go. Names the best few, and of the rejected nodes at most `told` with their reasons;
        where no node will do, all of them. With `told` 0 nothing is named: for who only wants the place."""
        fleet = self.columns(tx, request)
        counts: dict[str, int] = {}
        keep = fleet.size if fleet.size <= told else KEEP
        guard = self._survival.refusal if self._survival else None
        if guard and fleet.size <= told:                      # few enough for N+1 to be asked of each
            return place(request, fleet.views.values(), self.profile, guard)
        decision = pick(request, fleet, self.profile, guard, keep=max(1, keep), counts=counts if told else None)
        if decision.chosen is None:
            return explained(self.cluster, tx, request)
        return self._told(tx, decision, told) if told else decision

    def claim(self, tx: Tx, asked: Asked, decision: Decision, *, best: bool = True) -> None:
        """Claim the chosen node. With `best` it must be as it was decided on, else its room decides.

        Raises placement.Moved (place again; what was kept is forgotten) and QuotaExceeded.
        """
        assert decision.chosen is not None and self._fleet is not None, "decided by this placer"
        server, request, node = asked.server, decision.request, decision.chosen.node
        index = self._fleet.index(node)
        fitting = self._fitted(request, index)
        try:
            placement.claim(tx, placement.Claim(
                server.id, node, asked.amounts, project_id=server.project_id, group_id=server.group_id, fitting=fitting,
                generation=self._fleet.generations[index] if best else None, name=server.name, moves=asked.moves))
        except placement.Moved:
            self.forget()
            raise
        self._fleet.take(index, asked.amounts, fitting)
        if self._survival:
            self._survival.take(request, node, server.id)

    def _fitted(self, request: Request, index: int) -> Fitting | None:
        if not request.wants.pieces:
            return None
        from novactl.scheduler.topology import fitting_on

        view = self._fleet.views[index]                       # type: ignore[union-attr]
        found = fitting_on(request, view)
        if isinstance(found, str):                            # the filters numa and pci have seen to that, where they were asked
            raise Conflict(
                f"server {request.server} on node {view.name}: {found}", hint="placement.filters leaves out numa or pci: put it back")
        return found

    def columns(self, tx: Tx, request: Request) -> Fleet:
        """What the next decision on such a request would be taken among: what is kept, or read now."""
        whole = needs_views(request, self.profile)
        if self._fleet is None or (whole and not self._whole):
            self._fleet, self._whole = self._read(tx, request, whole), whole
        return self._fleet

    def _read(self, tx: Tx, request: Request, whole: bool) -> Fleet:
        if whole or is_guarded(tx):
            views = fleets.views(tx, **_needs(request))
            self._survival = survival(self.cluster, tx, views)
            return Fleet.of(views, self._xp)
        rows = nodes.lean_rows(tx, request.now)
        odd = [row[0] for row in rows if row[3] & ODD]
        shapes, views = nodes.shapes(tx), fleets.views(tx, only=odd) if odd else ()
        try:
            fleet = Fleet.of_rows(rows, shapes, views, self._xp)
        except KeyError:                                      # a row of before another's commit, and the shapes of after it
            raise Crossed("nodes were changed while they were read", hint="look again, then try again") from None
        if self._counts_operations(fleet):
            for node_id, count in servers.busy_on(tx).items():
                fleet.building[fleet.index(node_id)] = count
        return fleet

    def _counts_operations(self, fleet: Fleet) -> bool:
        judges = (*self.profile.filters, *(weigher for weigher, _ in self.profile.weighers))
        return any(judge.name == "io_ops" for judge in judges) or any(facts.values(MAX_IO_OPS) for facts in fleet.facts)

    def _told(self, tx: Tx, decision: Decision, told: int) -> Decision:
        shown = list(decision.rejected)[:told]
        views = fleets.views(tx, only=shown, **_needs(decision.request)) if shown else ()
        self._names |= {view.id: view.name for view in views}
        for candidate in decision.candidates:
            if candidate.node not in self._names:
                self._names[candidate.node] = nodes.name_of(tx, candidate.node)
        spoken_of = (*shown, *(candidate.node for candidate in decision.candidates))
        return with_reasons(decision, views, self.profile, {node: self._names[node] for node in spoken_of})


def explained(cluster: Cluster, tx: Tx, request: Request) -> Decision:
    """What would be decided, with every node's every reason. Nothing is claimed."""
    views = fleets.views(tx, **_needs(request))
    plans = survival(cluster, tx, views)
    return place(request, views, configured(cluster.config), plans.refusal if plans else None)


def _needs(request: Request) -> dict[str, bool]:
    """What the views must have beside the usual for this request."""
    return {"hardware": request.wants.pieces, "images": bool(request.rules.image_properties)}


def refusal(decision: Decision, *, placed: int = 0) -> NoValidHost:
    """Why no node will do: one line a node. `placed` are the servers of its batch that would have had a place."""
    asked = request_line(decision.request)
    if not decision.looked_at:
        return NoValidHost(f"no node can host {asked}: no node is enrolled", command="novactl node enroll [user@]HOST")
    before = f" ({placed} of its batch before it would fit; none was created)" if placed else ""
    short = shortened(decision, TOLD)
    return NoValidHost(
        f"no node can host {asked}{before}. {summary_line(decision)}", reasons=rejection_lines(decision),
        hint="free some room, enrol another node, or ask for less", command="novactl node list",
        details={"rejected": short.to_plain()["rejected"], "names": dict(short.names)})
