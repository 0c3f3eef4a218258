"""One request placed again and again: who is chosen next, of many servers that ask for the same. Pure.

It decides as `place` does each time, with every server before it on its node, and does not look at anything twice that one
placement more cannot have changed. Chance (`host_subset_size`, `shuffle_equals`) is left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from novactl.model.resources import DISK_GB
from novactl.scheduler.filters.base import applies, by_facts
from novactl.scheduler.pipeline import Guard
from novactl.scheduler.profiles import Profile
from novactl.scheduler.request import GroupView, NodeView, Peer, Reject, Request
from novactl.scheduler.topology import given
from novactl.scheduler.weighers.base import multiplier_of

OUT = float("-inf")


def with_server(node: NodeView, request: Request, *, here: bool = True, count: int = 1) -> NodeView:
    """The node when such a server (or `count` of them) is on it too, or, not `here`, on another node of its shared disk."""
    amounts = request.amounts if here else {DISK_GB: request.amounts.get(DISK_GB, 0)}
    used = dict(node.used)
    for name, amount in amounts.items():
        used[name] = used.get(name, 0) + count * amount
    fittings = node.fittings
    if here and request.wants.pieces:
        for _ in range(count):
            fittings = (*(fittings or ()), given(request, dataclasses.replace(node, fittings=fittings)))
    return dataclasses.replace(
        node, used=used, servers=node.servers + (count if here else 0), fittings=fittings, generation=node.generation + count)


STEADY = frozenset({
    "requested", "enabled", "alive", "fresh", "near", "isolated", "metrics", "same_host", "different_host", "io_ops", "aggregate_io_ops"})
"""Filters that say of a node the same whatever servers join it."""


class Contest:
    """`nodes` as they are; `place()` puts one server after the other. `refused` has the guard's word about nodes."""

    def __init__(self, request: Request, nodes: Iterable[NodeView], profile: Profile, guard: Guard | None = None) -> None:
        self.request, self.guard = request, guard
        self.views = sorted(nodes, key=lambda node: node.id)
        self.refused: dict[int, Reject] = {}
        self.taken = [0] * len(self.views)
        self._checks = profile.checks(request)
        self._moving = [check for check in self._checks if check.name not in STEADY and not by_facts(check)]
        self._kinds: dict[str, bool] = {}
        self._weighers = [pair for pair in profile.weighers if applies(pair[0], request)]
        self._factors = [[multiplier_of(w, multiplier, view.facts) for view in self.views] for w, multiplier in self._weighers]
        self._raw: list[list[float]] = [[0.0] * len(self.views) for _ in self._weighers]
        self._passing = [self._passes(view) for view in self.views]
        self._left = sum(self._passing)
        self._weigh(self.possible)
        self._ends = self._found_ends()
        self._scores: list[float] = []
        self._score_all()

    @property
    def possible(self) -> list[int]:
        """The indices of the nodes that every filter lets pass now."""
        return [at for at, passes in enumerate(self._passing) if passes]

    def place(self) -> int | None:
        """The index of the node that takes the next server; it is there then. None: no node does."""
        while True:
            score = max(self._scores, default=OUT)
            if score == OUT:
                return None
            at = self._scores.index(score)
            reject = self.guard(self.request, self.views[at].id) if self.guard else None
            if reject is None:
                break
            self.refused[at] = reject
            self._scores[at] = OUT
        self._put(at)
        return at

    def _put(self, at: int) -> None:
        request, pool = self.request, self.views[at].shared_disk
        self.taken[at] += 1
        changed = [at]
        if pool and request.amounts.get(DISK_GB):
            changed += [other for other, view in enumerate(self.views) if view.shared_disk == pool and other != at]
        for other in changed:
            self.views[other] = with_server(self.views[other], request, here=other == at)
        if request.group:
            self.request = _joined(request, request.group, self.views[at])
            self._kinds = {}
            self._judge(range(len(self.views)))
        else:
            self._judge(changed)

    def _judge(self, changed: Iterable[int]) -> None:
        """Look again at the nodes that are not what they were."""
        changed = [at for at in changed if self._passing[at]]
        before = self._left
        for at in changed:
            self._passing[at] = self._passes(self.views[at], again=self.request.group is None)
            self._left -= not self._passing[at]
        moved = self._weigh(at for at in changed if self._passing[at])
        ends = self._found_ends() if moved or self._left != before else self._ends
        if (before > 1) != (self._left > 1) or ends != self._ends:
            self._ends = ends
            self._score_all()
        else:
            for at in changed:
                self._scores[at] = self._score(at)

    def _passes(self, view: NodeView, *, again: bool = False) -> bool:
        """`again`: it passed before, and only servers joined it since."""
        for check in self._moving if again else self._checks:
            if by_facts(check):
                key = f"{check.name} {view.facts.key}"
                if key not in self._kinds:
                    self._kinds[key] = check(self.request, view) is None
                if not self._kinds[key]:
                    return False
            elif check(self.request, view) is not None:
                return False
        return True

    def _weigh(self, changed: Iterable[int]) -> bool:
        """Whether that may have moved an end of a scale."""
        moved = False
        for at in changed:
            view = self.views[at]
            for column, (weigher, _) in zip(self._raw, self._weighers, strict=True):
                value = weigher(self.request, view)
                if value != column[at]:
                    moved = moved or weigher.minval is None or weigher.maxval is None
                    column[at] = value
        return moved

    def _found_ends(self) -> list[tuple[float, float]]:
        found = []
        for column, (weigher, _) in zip(self._raw, self._weighers, strict=True):
            low, high = weigher.minval, weigher.maxval
            if low is None or high is None:
                values = [value for value, passes in zip(column, self._passing, strict=True) if passes]
                low = min(values, default=0.0) if low is None else low
                high = max(values, default=0.0) if high is None else high
            found.append((low, high))
        return found

    def _score_all(self) -> None:
        self._scores = [self._score(at) for at in range(len(self.views))]

    def _score(self, at: int) -> float:
        """The sum that the pipeline gives it, by the same arithmetic."""
        if not self._passing[at] or at in self.refused:
            return OUT
        score = 0.0
        for column, factors, (low, high) in zip(self._raw, self._factors, self._ends, strict=True):
            scaled = (min(max(column[at], low), high) - low) / (high - low) if self._left > 1 and high > low else 0.0
            score += factors[at] * scaled
        return score


def _joined(request: Request, group: GroupView, node: NodeView) -> Request:
    """The request of the next server, to whose group this one belongs now."""
    return dataclasses.replace(request, group=dataclasses.replace(
        group, members=(*group.members, Peer("", request.server, node.id)), domains={**group.domains, node.id: group.domain(node)}))
