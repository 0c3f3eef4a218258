"""What each of many equal servers finds on a node that has those before it already: columns with a row for each server. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain, repeat

from novactl.scheduler import lanes
from novactl.scheduler.filters import FILTERS
from novactl.scheduler.filters.base import Filter
from novactl.scheduler.fleet import ALIVE, ENABLED, Fleet
from novactl.scheduler.request import NodeView, Request
from novactl.scheduler.weighers import WEIGHERS, Weigher
from novactl.scheduler.weighers.base import multiplier_of, normalise, normalised


def can_count(check: Filter) -> bool:
    """Whether a filter's columns do for a stack. A plug-in's might look for a node by its id, which many rows have."""
    return FILTERS.get(check.name) is check and hasattr(check, "columns")


def can_order(weighers: Sequence[tuple[Weigher, float]], request: Request) -> bool:
    """Whether what each of these weighs rests on nothing but the node: a scale without ends of its own looks at all candidates, and a
    group at where its other servers went."""
    return request.group is None and request.spread is None and all(
        weigher.minval is not None and weigher.maxval is not None and WEIGHERS.get(weigher.name) is weigher
        and (hasattr(weigher, "columns") or getattr(weigher, "by_facts", False)) for weigher, _ in weighers)


class Stack:
    """The rows are those of the first node with none of `request`'s servers more, with one, with two, and so on, `most` of them; then the
    second node's. `views` are in the order of their ids and share no disk that is asked for."""

    def __init__(self, request: Request, views: Sequence[NodeView], most: Sequence[int]) -> None:
        self.request, self.views, self.most = request, views, most
        self.at = list(chain.from_iterable(map(repeat, range(len(views)), most)))
        self.fleet = self._columns()

    def _columns(self) -> Fleet:
        base, at = Fleet.of(self.views), self.at
        more = lanes.Lane(chain.from_iterable(map(range, self.most)))
        ready = [ENABLED * bool(base.enabled is None or base.enabled[row]) + ALIVE * bool(base.alive is None or base.alive[row])
                 for row in range(base.size)]
        fleet = Fleet(lanes, lanes.take(base.ids, at), base.facts, {
            "ready": lanes.take(ready, at), "reported_at": lanes.take(base.reported_at, at), "servers": lanes.take(base.servers, at) + more,
            "building": lanes.take(base.building, at), "failed_builds": lanes.take(base.failed_builds, at),
            "shape": lanes.take(base.shape, at), "generations": lanes.take(base.generations, at) + more,
        })
        for name, capacity in base.capacity.items():
            amount = self.request.amounts.get(name, 0)
            used = lanes.take(base.used[name], at)
            fleet.capacity[name], fleet.max_unit[name] = lanes.take(capacity, at), lanes.take(base.max_unit[name], at)
            fleet.used[name] = used + more * amount if amount else used
            fleet.smallest_max[name] = base.smallest_max[name]
        fleet.lacking = set(base.lacking)
        for kept, whole in ((base.min_unit, fleet.min_unit), (base.step_size, fleet.step_size)):
            whole |= {name: lanes.take(column, at) for name, column in kept.items()}
        return fleet

    def room(self, checks: Sequence[Filter]) -> list[int]:
        """How many go onto each node before one of the filters says no."""
        room = list(self.most)
        for check in checks:
            mask = check.columns(self.request, self.fleet)    # type: ignore[attr-defined]
            if mask is None:
                continue
            begin = 0
            for number, count in enumerate(self.most):
                here = mask[begin:begin + count]
                room[number] = min(room[number], here.index(False) if False in here else count)
                begin += count
        return room

    def order(self, weighers: Sequence[tuple[Weigher, float]], room: Sequence[int]) -> list[int]:
        """The indices of the nodes that they go to, one after the other, `room` of them to a node. Without some of the nodes, and from any
        of these placements on, the others' are the same in the same order.

        The best next one is taken, of equals the first node's. So whatever comes behind a worse one on its node waits for that
        one, and is taken at once then: the order is that of the worst score up to each.
        """
        scores = self._scores(weighers)
        worst: list[float] = []
        rows: list[int] = []
        begin = 0
        for count, fits in zip(self.most, room, strict=True):
            worst += accumulate(scores[begin:begin + count], min)
            rows += range(begin, begin + fits)
            begin += count
        rows.sort(key=worst.__getitem__, reverse=True)        # stable, so that equals stay in the order of nodes
        return [self.at[row] for row in rows]

    def _scores(self, weighers: Sequence[tuple[Weigher, float]]) -> list[float]:
        """The sums that the pipeline gives, by the same arithmetic."""
        request, fleet = self.request, self.fleet
        scores = lanes.full(fleet.size, 0.0)
        for weigher, multiplier in weighers:
            factors = [multiplier_of(weigher, multiplier, view.facts) for view in self.views]
            factor = lanes.take(factors, self.at) if len(set(factors)) > 1 else next(iter(factors), 0.0)
            if hasattr(weigher, "columns"):
                raw = weigher.columns(request, fleet)
            else:
                raw = lanes.take([weigher(request, view) for view in self.views], self.at)
            if isinstance(raw, float):
                column = normalise([raw, raw], weigher.minval, weigher.maxval)[0] * factor
                if column == 0.0:
                    continue
            else:
                column = normalised(lanes, raw, fleet.size, weigher.minval, weigher.maxval) * factor
            scores = scores + column
        return scores
