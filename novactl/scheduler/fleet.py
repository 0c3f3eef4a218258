"""Nodes as columns: what vectorised filters and weighers work on, for many nodes or many decisions.

A column has one entry a node. It is a numpy array where `xp` is numpy, and a Lane where it is novactl.scheduler.lanes;
both know the operators and `xp`'s functions. Reasons are not told from columns: a filter tells them of a NodeView.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from novactl.model.facts import Facts
from novactl.model.node import NodeState
from novactl.model.resources import DISK_GB, HOT, Amounts
from novactl.model.topology import Fitting
from novactl.scheduler import lanes
from novactl.scheduler.request import NodeView, Request

NEVER = float("-inf")
REMEMBERED = 64
"""Questions about facts, and about nodes as they are, whose answers are kept."""
ENABLED, ALIVE, READY, ODD, FAILED = 2, 1, 3, 4, 8
"""The bits of a row's flags: its state is enabled, its agent answered the last call, its row does not tell all; FAILED and up count
the creations that failed."""


class Fleet:
    """Columns over the nodes in `ids`: enabled, alive (None: all are), lease_until (None: no view has one), reported_at (seconds
    since the epoch, NEVER), servers, building, failed_builds, shape (an index into `facts`), and by resource class capacity, used,
    max_unit, and where some inventory is stricter than 1 also min_unit and step_size. `lacking` are the classes that some node has
    no room of at all.

    `metadata_keys` are all that the aggregates of its nodes say something under. `views` has the NodeViews that were read: all, or
    those lean rows could not describe. `generations` are what claims compare. With numpy the ids ascend, so that of equal nodes the
    first found is the one to take.
    """

    def __init__(self, xp: Any, ids: Sequence[str], facts: Sequence[Facts], plain: Mapping[str, Sequence[Any]]) -> None:
        xp = xp if ids else lanes                             # numpy gives a column of nothing the wrong type
        self.xp, self.ids, self.facts = xp, ids, facts
        self.size = len(ids)
        self.sorted = False
        self.metadata_keys = {key for one in facts if one.aggregates for aggregate in one.aggregates for key in aggregate.metadata}
        self.generations = list(plain["generations"])
        self.enabled = self.alive = None
        if plain["ready"].count(READY) < self.size:
            self.enabled = xp.asarray([bool(bits & ENABLED) for bits in plain["ready"]])
            self.alive = xp.asarray([bool(bits & ALIVE) for bits in plain["ready"]])
        self.lease_until = None
        self.servers = xp.asarray(plain["servers"])
        self.building, self.failed_builds = xp.asarray(plain["building"]), xp.asarray(plain["failed_builds"])
        self.reported_at, self.shape = xp.asarray(plain["reported_at"]), xp.asarray(plain["shape"])
        self.any_failed = any(plain["failed_builds"])
        self.oldest = min(plain["reported_at"], default=NEVER)
        self.capacity: dict[str, Any] = {}
        self.used: dict[str, Any] = {}
        self.max_unit: dict[str, Any] = {}
        self.min_unit: dict[str, Any] = {}
        self.step_size: dict[str, Any] = {}
        self.lacking: set[str] = set()
        self.smallest_max: dict[str, int] = {}
        self._after: dict[str, tuple[int, Any]] = {}
        self._shares: dict[str, tuple[int, Any]] = {}
        self.views: dict[int, NodeView] = {}
        self.shared_disk: Sequence[str] = ()
        self._index: dict[str, int] = {}
        self._judged: dict[Any, Any] = {}
        self._verdicts: dict[Any, Any] = {}

    # ---- building

    @staticmethod
    def of(views: Iterable[NodeView], xp: Any = lanes) -> Fleet:
        """Columns of whole views, which stay at hand: reasons can be told, and filters without columns asked."""
        ordered = sorted(views, key=lambda view: view.id)
        facts: dict[str, int] = {}
        kinds: list[Facts] = []
        for view in ordered:
            if facts.setdefault(view.facts.key, len(kinds)) == len(kinds):
                kinds.append(view.facts)
        fleet = Fleet(xp, [view.id for view in ordered], kinds, {
            "ready": [ENABLED * (view.state is NodeState.ENABLED) + ALIVE * (view.silent_since is None) for view in ordered],
            "reported_at": [NEVER if view.reported_at is None else view.reported_at for view in ordered],
            "servers": [view.servers for view in ordered], "building": [view.building for view in ordered],
            "failed_builds": [view.failed_builds for view in ordered], "shape": [facts[view.facts.key] for view in ordered],
            "generations": [view.generation for view in ordered],
        })
        fleet.sorted = True
        if any(view.lease_until is not None for view in ordered):
            fleet.lease_until = fleet.xp.asarray([float("inf") if view.lease_until is None else view.lease_until for view in ordered])
        fleet.views = dict(enumerate(ordered))
        fleet._classes_of(dict.fromkeys((*HOT, *(name for view in ordered for name in (*view.inventories, *view.used)))))
        return fleet

    @staticmethod
    def of_rows(rows: Sequence[Sequence[Any]], shapes: Mapping[str, Facts], odd: Iterable[NodeView] = (), xp: Any = lanes) -> Fleet:
        """Columns of lean rows (novactl.db.nodes.lean_rows has the order): one tuple a node, nothing parsed.

        `odd` are the views of the nodes whose rows say so: they have classes or limits that a row does not.
        """
        if xp is not lanes:
            rows = sorted(rows, key=lambda row: row[0])
        ids, keys, generations, flags, reported_at, servers, *hot = zip(*rows, strict=True) if rows else [()] * 15
        ready, failed_builds = flags, [0] * len(ids)
        if flags.count(READY) < len(ids):
            ready, failed_builds = [bits & READY for bits in flags], [bits // FAILED for bits in flags]
        if None in reported_at:
            reported_at = tuple(NEVER if at is None else at for at in reported_at)
        kinds = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        fleet = Fleet(xp, ids, [shapes[key] for key in kinds], {
            "ready": ready, "reported_at": reported_at, "servers": servers, "building": [0] * len(ids), "failed_builds": failed_builds,
            "shape": list(map(kinds.__getitem__, keys)), "generations": generations,
        })
        fleet.sorted = xp is not lanes
        for number, name in enumerate(HOT):
            capacity, used, max_unit = hot[3 * number:3 * number + 3]
            fleet._put(name, capacity, used, max_unit)
        odd = list(odd)
        if odd:
            fleet.views = {fleet.index(view.id): view for view in odd}
            fleet._classes_of(dict.fromkeys((*HOT, *(name for view in odd for name in (*view.inventories, *view.used)))))
        return fleet

    def _classes_of(self, names: Iterable[str]) -> None:
        """Columns of `names`, taken from the views there are; of nodes without a view, what is there already."""
        if any(view.shared_disk for view in self.views.values()):
            self.shared_disk = [self.views[at].shared_disk if at in self.views else "" for at in range(self.size)]
        for name in names:
            columns = [
                list(kept[name]) if name in kept else [default] * self.size
                for kept, default in ((self.capacity, 0), (self.used, 0), (self.max_unit, 0))
            ]
            low, step = [1] * self.size, [1] * self.size
            for index, view in self.views.items():
                inventory = view.inventories.get(name)
                columns[1][index] = view.used.get(name, 0)
                columns[0][index], columns[2][index] = (inventory.capacity, inventory.max_unit) if inventory else (0, 0)
                if inventory:
                    low[index], step[index] = inventory.min_unit, inventory.step_size
            self._put(name, *columns)
            if max(low, default=1) > 1:
                self.min_unit[name] = self.xp.asarray(low)
            if max(step, default=1) > 1:
                self.step_size[name] = self.xp.asarray(step)

    def _put(self, name: str, capacity: Sequence[int], used: Sequence[int], max_unit: Sequence[int]) -> None:
        xp = self.xp
        self.capacity[name], self.used[name], self.max_unit[name] = xp.asarray(capacity), xp.asarray(used), xp.asarray(max_unit)
        self.smallest_max[name] = min(max_unit, default=0)
        if 0 in capacity:
            self.lacking.add(name)
        else:
            self.lacking.discard(name)

    # ---- looking

    def index(self, node_id: str) -> int:
        """Raises KeyError for a node that is not there."""
        if not self._index:
            self._index = {id_: number for number, id_ in enumerate(self.ids)}
        return self._index[node_id]

    def judged(self, request: Request, checks: Sequence[Any], judge: Callable[[Sequence[Any], Request, Fleet], Any]) -> Any:
        """What `judge` says of filters that look at nothing but facts: those never change here, so the same question is asked once."""
        return self._remembered(self._judged, checks, request, lambda: judge(checks, request, self))

    def verdicts(self, check: Any, request: Request) -> dict[int, tuple[NodeView, bool]]:
        """What a steady filter said of nodes where the same was asked, to be filled: index -> (the node as it was, whether it rejects)."""
        return self._remembered(self._verdicts, (check,), request, dict)

    def _remembered(self, known: dict[Any, Any], checks: Sequence[Any], request: Request, find: Callable[[], Any]) -> Any:
        wants, rules = request.wants, request.rules
        key = (*map(id, checks), request.architecture, request.zone, request.project, request.flavor, request.image, id(wants), id(rules))
        found = known.get(key)
        if found is None:
            if len(known) >= REMEMBERED:
                known.clear()
            found = known[key] = find(), (wants, rules)        # held, so that their ids stay their own
        return found[0]

    def by_facts(self, judge: Callable[[Facts], Any]) -> Any:
        """A column of what `judge` says of each node's facts; it is asked once for each kind of node."""
        return self.xp.take(self.xp.asarray([judge(facts) for facts in self.facts]), self.shape)

    def after(self, name: str, amount: int) -> Any:
        """A column of what would be used of a class with `amount` more. Filter and weigher ask for the same: it is added once."""
        known = self._after.get(name)
        if known is None or known[0] != amount:
            known = self._after[name] = amount, self.used[name] + amount
        return known[1]

    def share(self, name: str, amount: int) -> Any:
        """A column of what share of its capacity would be used with `amount` more; 1 where there is no capacity. Reckoned once."""
        known = self._shares.get(name)
        if known is None or known[0] != amount:
            wanted, capacity = self.after(name, amount), self.capacity[name]
            if name in self.lacking:
                column = self.xp.where(capacity > 0, wanted / self.xp.maximum(capacity, 1), 1.0)
            else:
                column = wanted / capacity
            known = self._shares[name] = amount, column
        return known[1]

    def only(self, node_ids: Iterable[str], *, inside: bool = True) -> Any:
        """A mask that is `inside` at the nodes named (those that are there) and the opposite elsewhere."""
        mask = self.xp.full(self.size, not inside)
        for node_id in node_ids:
            try:
                mask[self.index(node_id)] = inside
            except KeyError:
                continue
        return mask

    # ---- changing

    def take(self, index: int, amounts: Amounts, fitting: Fitting | None = None) -> None:
        """A server is on the node now, and being built there."""
        self._move(index, amounts, 1)
        if fitting and index in self.views:
            view = self.views[index]
            self.views[index] = dataclasses.replace(view, fittings=(*(view.fittings or ()), fitting))

    def give(self, index: int, amounts: Amounts) -> None:
        """A server is no longer there."""
        self._move(index, amounts, -1)

    def _move(self, index: int, amounts: Amounts, sign: int) -> None:
        for name, amount in amounts.items():
            if amount:
                for at in self._sharing(index) if name == DISK_GB else (index,):
                    self.used[name][at] += sign * amount
                    if name in self._after:
                        self._after[name][1][at] += sign * amount
                    if name in self._shares:
                        self._share_again(name, at)
        self.servers[index] += sign
        self.building[index] = max(0, self.building[index] + sign)
        for at in self._sharing(index):
            self.generations[at] += 1
            view = self.views.get(at)
            if view is not None:
                self.views[at] = _moved(view, amounts if at == index else {DISK_GB: amounts.get(DISK_GB, 0)}, sign, here=at == index)

    def _share_again(self, name: str, at: int) -> None:
        more, column = self._shares[name]
        capacity = self.capacity[name][at]
        column[at] = (self.used[name][at] + more) / capacity if capacity > 0 else 1.0

    def _sharing(self, index: int) -> Sequence[int]:
        """The node and, where its disk belongs to a pool, the others of the pool."""
        pool = self.shared_disk[index] if self.shared_disk else ""
        return [at for at, name in enumerate(self.shared_disk) if name == pool] if pool else (index,)


def _moved(view: NodeView, amounts: Amounts, sign: int, *, here: bool) -> NodeView:
    used = {**view.used, **{name: view.used.get(name, 0) + sign * amount for name, amount in amounts.items() if amount}}
    return dataclasses.replace(
        view, used=used, servers=view.servers + (sign if here else 0), generation=view.generation + 1,
        building=max(0, view.building + (sign if here else 0)))
