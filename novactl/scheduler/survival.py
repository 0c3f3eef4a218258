"""N+1: whether the loss of any one node leaves each of its servers a place, and whether a placement keeps it so. Pure.

A plan says for one node where its servers would go. The plans of different nodes share the same room, since one node is lost at
a time. A placement disturbs its own node's plan and those that would move something to that node; the others stand.

A cluster may be short already. Then a placement is refused only where it makes things worse: every server that had a place keeps
one, and the new server has one. Plans are found by a heuristic (scheduler.evacuation): it may refuse what a longer search would
allow, and never allows what has no plan.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from itertools import repeat
from typing import NamedTuple

from novactl.model.resources import spoken
from novactl.scheduler.evacuation import NOTHING, Crowds, Plan, extended, planned, repaired
from novactl.scheduler.ground import Ground, Kind, Resident
from novactl.scheduler.profiles import DEFAULT, Profile
from novactl.scheduler.request import NodeView, Reject, Request

__all__ = ["Loss", "Resident", "Survival"]

CODE = "n_plus_1"


class Loss(NamedTuple):
    """Losing `node` (`name`) would leave `servers` without a place; `size` is what the first, the largest, needs most of."""

    node: str
    name: str
    servers: tuple[str, ...]
    size: str

    @property
    def text(self) -> str:
        more = f" and {len(self.servers) - 1} more" if len(self.servers) > 1 else ""
        return f"losing {self.name} would leave {self.servers[0]} ({self.size}){more} without a place"


class Survival:
    """The plans for a fleet. `nodes` with inventories, claims and facts; `residents` are all servers that have a node.

    Whether a node may take a server is asked of the profile's filters. Nodes are looked at as they were given, and then as
    `take` changes them. Used by one thread.
    """

    def __init__(self, nodes: Iterable[NodeView], residents: Iterable[Resident], profile: Profile = DEFAULT) -> None:
        idle = (dataclasses.replace(node, building=0) for node in nodes)      # what is under way now is over when a node is lost
        self._ground = Ground(idle, profile)
        self._residents: dict[int, Crowds] = {}
        self._grouped: dict[str, set[int]] = {}
        self._tied: set[int] = set()
        """Nodes with servers that look at other servers."""
        self._plans: dict[int, Plan] = {}
        self._found: dict[int, Plan] = {}
        """Plans that are not among them yet."""
        self._weak = 0
        """The lost node that was the first to have too little room."""
        self._touching: dict[int, dict[int, int]] = {}
        """Slot -> the lost nodes whose plans rest on it, and how much; for a node itself (-1 - index) how many servers."""
        self._limited: dict[tuple[int, int], bool] = {}
        self._tried: tuple[Request, int, Resident, dict[int, Plan]] | None = None
        self._short: list[int] | None = None
        here: dict[int, dict[Kind, list[Resident]]] = {}
        for resident in residents:
            at = self._ground.index.get(resident.node)
            if at is not None:
                kind = self._ground.kind(resident.request)
                here.setdefault(at, {}).setdefault(kind, []).append(resident)
                self._tie(kind, at)
                self._ground.note(resident, at)
        self._residents |= here

    def copy(self) -> Survival:
        """One that goes its own way from here."""
        twin = object.__new__(Survival)
        twin.__dict__.update(self.__dict__)
        twin._ground = self._ground.copy()
        twin._residents = dict(self._residents)
        twin._grouped = {name: set(nodes) for name, nodes in self._grouped.items()}
        twin._tied = set(self._tied)
        twin._plans, twin._found, twin._limited = dict(self._plans), dict(self._found), dict(self._limited)
        twin._touching = {slot: dict(loads) for slot, loads in self._touching.items()}
        twin._tried = None
        return twin

    # ---- asking

    def losses(self) -> tuple[Loss, ...]:
        """What the loss of each node would leave without a place, by the nodes' ids; empty: the cluster is N+1-safe."""
        self._settle()
        return tuple(self._loss(at, plan.unplaced) for at, plan in sorted(self._plans.items()) if plan.unplaced)

    def moves(self, node_id: str) -> tuple[tuple[Resident, str], ...]:
        """Where each server of the node would go (ids of nodes), in the order that the plan takes them."""
        self._settle()
        plan = self._plans.get(self._ground.index[node_id], NOTHING)
        return tuple((resident, self._ground.views[at].id) for members, at in plan.moves for resident in members)

    def refusal(self, request: Request, node_id: str) -> Reject | None:
        """Why the server of `request` should not go to the node, which has room for it; None: the cluster bears it."""
        self._settle()
        ground, at = self._ground, self._ground.index[node_id]
        new = Resident("", request.server, node_id, request)
        disturbed = self._disturbed(ground.kind(request), at)
        changes: dict[int, Plan] = {}
        ground.sort()
        ground.put(new, at)
        try:
            for lost in (at, *sorted(disturbed - {at})):
                before = self._plans.get(lost, NOTHING)
                plan = changes[lost] = self._replanned(lost, before, at, new if lost == at else None)
                worse = _worse(before, plan)
                if worse:
                    return self._reject(self._loss(lost, worse))
        finally:
            ground.put(new, at, -1)
        self._tried = request, at, new, changes
        return None

    def joined(self, request: Request, counts: Mapping[str, int]) -> Survival | None:
        """The plans when so many servers of `request` are on each node (id -> count) as well, which have room for them.

        None where one more server would be without a place, and where the servers look at each other: then they come one by one.
        """
        self._settle()
        kind = self._ground.kind(request)
        if not kind.plain or self._ground.pooled:
            return None
        twin = self.copy()
        ground = twin._ground
        for node_id, count in counts.items():
            if count:
                at = ground.index[node_id]
                new = Resident("", request.server, node_id, request)
                twin._residents[at] = twin._with(twin._residents.get(at, {}), *repeat(new, count))
                ground.put(new, at, count)
        for lost in sorted(twin._residents, key=lambda at: (at != self._weak, at)):
            plan = twin._found[lost] = planned(ground, lost, twin._residents[lost])
            if plan.unplaced and _worse(self._plans.get(lost, NOTHING), plan):
                self._weak = lost
                return None
        twin._plans, twin._touching, twin._short = {}, {}, None
        return twin

    # ---- changing

    def take(self, request: Request, node_id: str, server_id: str = "") -> None:
        """The server is on the node now. Cheap right after `refusal` let it pass."""
        at = self._ground.index[node_id]
        if self._tried is None or self._tried[0] is not request or self._tried[1] != at:
            self._settle()
            self._tried = request, at, Resident("", request.server, node_id, request), {}
            changes = dict.fromkeys(self._disturbed(self._ground.kind(request), at) | {at})
        else:
            changes = dict(self._tried[3])
        resident = self._tried[2]._replace(id=server_id)
        self._tried = None
        self._residents[at] = self._with(self._residents.get(at, {}), resident)
        self._tie(self._ground.kind(request), at)
        self._ground.put(resident, at)
        for lost, plan in changes.items():
            self._keep(lost, plan or planned(self._ground, lost, self._residents.get(lost, {})))

    # ---- how

    def _tie(self, kind: Kind, at: int) -> None:
        """Such a server is on the node, and may look at others."""
        if kind.group:
            self._grouped.setdefault(kind.group.name, set()).add(at)
        if not kind.plain:
            self._tied.add(at)

    def _settle(self) -> None:
        """Every node with servers has a plan."""
        if len(self._plans) < len(self._residents):
            for at, crowds in self._residents.items():
                if at not in self._plans:
                    self._keep(at, self._found.pop(at, None) or planned(self._ground, at, crowds))

    def _keep(self, lost: int, plan: Plan) -> None:
        before = self._plans.get(lost, NOTHING)
        for was, now, sign in ((before.load, plan.load, 1), (before.heads, plan.heads, -1)):
            for key in was.keys() - now.keys():
                del self._touching[key if sign > 0 else ~key][lost]
            for key, amount in now.items() - was.items() if was else now.items():
                self._touching.setdefault(key if sign > 0 else ~key, {})[lost] = amount
        if self._short is not None and bool(before.unplaced) != bool(plan.unplaced):
            self._short = None
        self._plans[lost] = plan

    def _disturbed(self, kind: Kind, at: int) -> set[int]:
        """The lost nodes whose plans a server of this kind on node `at` may upset."""
        ground = self._ground
        found: set[int] = set()
        for base, amount in kind.demand:
            slot = ground.slot(base, at)
            loads, left = self._touching.get(slot, {}), ground.free[slot] - amount
            found |= {lost for lost, load in loads.items() if load > left}
        if kind.group:
            found |= self._grouped.get(kind.group.name, set())
        if kind.pieces or self._is_limited(at):
            found |= self._touching.get(~at, {}).keys()
        return found

    def _is_limited(self, at: int) -> bool:
        """Whether some filter counts the node's servers."""
        ground = self._ground
        key = at, len(ground.kinds)
        found = self._limited.get(key)
        if found is None:
            found = self._limited[key] = any(
                not ground.always(kind, at) and ground.allows(kind, at, 0) for kind in tuple(ground.kinds.values()))
        return found

    def _replanned(self, lost: int, before: Plan, at: int, new: Resident | None) -> Plan:
        """A plan for the ground as it is, by the least that `before` needs changed; `new` comes to it."""
        ground, crowds = self._ground, self._residents.get(lost, {})
        simple = lost not in self._tied and not ground.pooled
        if new is None:
            plan = repaired(ground, lost, before, at) if simple else None
        else:
            plan = extended(ground, lost, before, new) if simple and ground.kind(new.request).plain else None
        if plan is not None and len(plan.unplaced) == len(before.unplaced):
            return plan
        return planned(ground, lost, crowds if new is None else self._with(crowds, new))

    def _with(self, crowds: Crowds, *new: Resident) -> Crowds:
        """With one or more that ask for the same."""
        kind = self._ground.kind(new[0].request)
        return {**crowds, kind: (*crowds.get(kind, ()), *new)}

    def _loss(self, lost: int, unplaced: Iterable[Resident]) -> Loss:
        ground = self._ground
        ordered = sorted(unplaced, key=lambda resident: (-ground.kind(resident.request).share, resident.name))
        amounts = ground.kind(ordered[0].request).amounts
        most = max(amounts, key=lambda name: amounts[name] / ground.mean(ground.base(name)), default="")
        view = ground.views[lost]
        return Loss(view.id, view.name, tuple(r.name for r in ordered), spoken(most, amounts[most]) if most else "nothing")

    def _reject(self, loss: Loss) -> Reject:
        if self._short is None:
            self._short = sorted(at for at, plan in self._plans.items() if plan.unplaced)
        already = self._loss(self._short[0], self._plans[self._short[0]].unplaced).text if self._short else ""
        return Reject(CODE, f"N+1: {loss.text}{f' (not safe before either: {already})' if already else ''}")


def _worse(before: Plan, plan: Plan) -> list[Resident]:
    """Who had a place, or is new, and has none now."""
    if not plan.unplaced:
        return []
    had_none = {id(resident) for resident in before.unplaced}
    return [resident for resident in plan.unplaced if id(resident) not in had_none]
