"""Where the servers of a lost node would go. Pure.

Packing is NP-hard, so this is a heuristic: first-fit decreasing by dominant share, by three orders of targets. It may find no
place where there is one; a place it finds is one by every filter of the profile, by the capacity rule and by hard groups.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from novactl.model.group import Policy
from novactl.model.topology import Fitting
from novactl.scheduler.ground import Ground, Kind, Resident
from novactl.scheduler.request import GroupView, NodeView
from novactl.scheduler.topology import fitting_on, given

Crowds = Mapping[Kind, Sequence[Resident]]
"""The servers of a node, by what they ask for."""


class Plan(NamedTuple):
    """For the loss of one node: its servers and the indices of the nodes they go to, some together, and those that find none. `load` is
    what the moves take, by slot; `heads` how many go to a node."""

    moves: tuple[tuple[Sequence[Resident], int], ...]
    unplaced: tuple[Resident, ...]
    load: Mapping[int, int]
    heads: Mapping[int, int]


NOTHING = Plan((), (), {}, {})


class _Order(enum.Enum):
    AROUND, EMPTIEST, FULLEST = range(3)
    """First from a place of each lost node's own, so that the plans of many nodes do not all rest on the same targets; then as packers
    do. What is added to a plan later goes to the emptiest: few nodes take it, and few placements disturb it."""


def planned(ground: Ground, lost: int, crowds: Crowds) -> Plan:
    """Where the servers of node `lost` go: the first order that places all, else the one that places the most."""
    bundles = sorted(_bundles(ground, crowds), key=lambda bundle: (-bundle.share, bundle.members[0].id))
    best = NOTHING
    orders = tuple(_Order) if _may_fit(ground, lost, bundles) else (_Order.AROUND,)
    for order in orders:
        attempt = _Attempt(ground, lost, crowds, order)
        for bundle in bundles:
            attempt.place(bundle)
        plan = attempt.plan()
        if not plan.unplaced:
            return plan
        if best is NOTHING or len(plan.unplaced) < len(best.unplaced):
            best = plan
    return best


def extended(ground: Ground, lost: int, plan: Plan, resident: Resident) -> Plan:
    """`plan` with one server more, one that looks at no other server; the moves of the others stay."""
    attempt = _Attempt(ground, lost, {}, _Order.EMPTIEST, plan)
    attempt.place(_Bundle(ground, (resident,)))
    return attempt.plan()


def repaired(ground: Ground, lost: int, plan: Plan, target: int) -> Plan:
    """`plan` of servers that look at no other server, with those that would go to `target` going elsewhere, or to what is left there."""
    kept = [move for move in plan.moves if move[1] != target]
    load, heads = dict(plan.load), dict(plan.heads)
    for base in ground.bases:
        load.pop(base + target, None)
    heads.pop(target, None)
    attempt = _Attempt(ground, lost, {}, _Order.EMPTIEST, Plan(tuple(kept), plan.unplaced, load, heads))
    alike: dict[Kind, list[Resident]] = {}
    for members, at in plan.moves:
        if at == target:
            alike.setdefault(ground.kind(members[0].request), []).extend(members)
    for members in alike.values():
        attempt.place(_Bundle(ground, members, crowd=True))
    return attempt.plan()


class _Bundle:
    """Servers that go to one node together; `demand` is theirs in all. Or a crowd of one kind, each of which goes where there is room;
    `demand` is one's."""

    def __init__(self, ground: Ground, members: Sequence[Resident], *, crowd: bool = False) -> None:
        self.members, self.crowd = members, crowd and len(members) > 1
        self.kinds = [ground.kind(member.request) for member in (members[:1] if crowd else members)]
        if len(self.kinds) == 1:
            self.demand, self.share = self.kinds[0].demand, self.kinds[0].share
            return
        whole: dict[int, int] = {}
        for kind in self.kinds:
            for base, amount in kind.demand:
                whole[base] = whole.get(base, 0) + amount
        self.demand, self.share = list(whole.items()), sum(kind.share for kind in self.kinds)


def _bundles(ground: Ground, crowds: Crowds) -> Iterator[_Bundle]:
    """Members of an affinity group that has no wider scope stay together, and so do servers that ask for the same host. Servers that
    look at no other are crowds, but one by one where nodes share a disk."""
    if not ground.pooled and all(kind.plain for kind in crowds):
        yield from (_Bundle(ground, members, crowd=True) for members in crowds.values())
        return
    pairs = [(kind, resident) for kind, members in crowds.items() for resident in members]
    here = {resident.id: number for number, (_, resident) in enumerate(pairs)}
    leader = list(range(len(pairs)))
    first_of: dict[str, int] = {}
    for number, (kind, _) in enumerate(pairs):
        linked = [here[id_] for id_ in kind.beside if id_ in here]
        if kind.group and kind.group.policy is Policy.AFFINITY and not kind.group.scope:
            linked.append(first_of.setdefault(kind.group.name, number))
        for other in linked:
            one, two = leader[number], leader[other]
            leader = [min(one, two) if of in (one, two) else of for of in leader]
    together: dict[int, list[Resident]] = {}
    for number, (_, resident) in enumerate(pairs):
        together.setdefault(leader[number], []).append(resident)
    yield from (_Bundle(ground, members) for members in together.values())


def _alike(kinds: Iterable[Kind], kind: Kind) -> int:
    """How many are in its group."""
    return sum(other.group is not None and kind.group is not None and other.group.name == kind.group.name for other in kinds)


def _may_fit(ground: Ground, lost: int, bundles: Iterable[_Bundle]) -> bool:
    """Whether the other nodes together have as much as is needed."""
    needed: dict[int, int] = {}
    for bundle in bundles:
        for base, amount in bundle.demand:
            needed[base] = needed.get(base, 0) + amount * (len(bundle.members) if bundle.crowd else 1)
    return all(
        amount <= ground.total(base) - max(0, ground.free[ground.slot(base, lost)])
        for base, amount in needed.items() if base != ground.disk_base or not ground.pooled)


class _Attempt:
    """One walk over the servers of a lost node, largest first."""

    def __init__(self, ground: Ground, lost: int, crowds: Crowds, order: _Order, start: Plan = NOTHING) -> None:
        self.ground, self.lost, self.order = ground, lost, order
        self.moves, self.unplaced = list(start.moves), list(start.unplaced)
        self.load, self.heads = dict(start.load), dict(start.heads)
        self.cursor = lost * 7919 + len(start.moves)
        self.groups: dict[str, dict[str, int]] = {}
        """Group -> domain -> members that this plan brings there, less those that leave with the lost node."""
        self.where: dict[str, int] = {}
        self.fittings: dict[int, tuple[Fitting, ...]] = {}
        for kind, members in crowds.items():
            if kind.group:
                self._count(kind.group, lost, -len(members))

    def plan(self) -> Plan:
        return Plan(tuple(self.moves), tuple(self.unplaced), self.load, self.heads)

    def place(self, bundle: _Bundle) -> None:
        if bundle.crowd:
            self._place_crowd(bundle)
            return
        at = self._target(bundle)
        if at is None:
            self.unplaced += bundle.members
            return
        for slot, amount in self._needs(bundle, at):
            self.load[slot] = self.load.get(slot, 0) + amount
        for resident, kind in zip(bundle.members, bundle.kinds, strict=True):
            self.moves.append(((resident,), at))
            self.where[resident.id] = at
            if kind.group:
                self._count(kind.group, at, 1)
            if kind.pieces:
                self.fittings[at] = (*self.fittings.get(at, ()), given(kind.request, self._then(at)))
        self.heads[at] = self.heads.get(at, 0) + len(bundle.members)

    def _place_crowd(self, bundle: _Bundle) -> None:
        free, load, left, kind = self.ground.free, self.load, list(bundle.members), bundle.kinds[0]
        for at in self._candidates(bundle.demand):
            if at == self.lost:
                continue
            before = self.heads.get(at, 0)
            most = len(left)
            for base, amount in bundle.demand:
                fits = (free[base + at] - load.get(base + at, 0)) // amount
                if fits < most:
                    most = fits
            while most > 0 and not self.ground.allows(kind, at, before + most - 1):
                most //= 2
            if most <= 0:
                continue
            for base, amount in bundle.demand:
                load[base + at] = load.get(base + at, 0) + most * amount
            self.moves.append((left[:most], at))
            self.heads[at] = before + most
            del left[:most]
            if not left:
                return
        self.unplaced += left

    def _needs(self, bundle: _Bundle, at: int) -> Iterator[tuple[int, int]]:
        """Slots and amounts: what goes to another node of the same shared disk has its disk there already."""
        ground = self.ground
        for base, amount in bundle.demand:
            if base != ground.disk_base or ground.disk[at] != ground.disk[self.lost]:
                yield ground.slot(base, at), amount

    def _target(self, bundle: _Bundle) -> int | None:
        ground, free, load = self.ground, self.ground.free, self.load
        demand, pooled = bundle.demand, ground.pooled
        for at in self._candidates(demand):
            if at == self.lost:
                continue
            if pooled:
                fits = all(free[slot] - load.get(slot, 0) >= amount for slot, amount in self._needs(bundle, at))
            else:
                fits = True
                for base, amount in demand:
                    slot = base + at
                    if free[slot] - load.get(slot, 0) < amount:
                        fits = False
                        break
            if fits and self._suits(bundle, at):
                return at
        return None

    def _candidates(self, demand: Sequence[tuple[int, int]]) -> Iterator[int]:
        """The nodes with room for what is scarcest, in this walk's order."""
        ground = self.ground
        scarce: list[tuple[int, int]] | None = None
        first = 0
        for base, amount in demand:
            if base == ground.disk_base and ground.pooled:
                continue
            order = ground.order(base)
            begin = bisect_left(order, (amount, -1))
            if scarce is None or begin > first:
                scarce, first = order, begin
        if scarce is None:
            scarce = [(0, at) for at in range(ground.size)]
        if self.order is _Order.FULLEST:
            yield from (scarce[at][1] for at in range(first, len(scarce)))
        elif self.order is _Order.EMPTIEST:
            yield from (scarce[at][1] for at in range(len(scarce) - 1, first - 1, -1))
        elif first < len(scarce):
            count = len(scarce) - first
            self.cursor += 1
            yield from (scarce[first + (self.cursor + at) % count][1] for at in range(count))

    def _suits(self, bundle: _Bundle, at: int) -> bool:
        ground, before = self.ground, self.heads.get(at, 0)
        for number, kind in enumerate(bundle.kinds):
            if not ground.allows(kind, at, before + number):
                return False
            if not kind.plain and not self._together(kind, at, _alike(bundle.kinds[:number], kind)):
                return False
        return True

    def _together(self, kind: Kind, at: int, bundled: int) -> bool:
        """Whether the other servers it speaks of allow the node, and the node has the pieces."""
        if kind.group and not self._grouped(kind.group, at, bundled):
            return False
        if any(self._at(id_) == at for id_ in kind.apart):
            return False
        if any(self._at(id_) not in (at, None) for id_ in kind.beside):
            return False
        return not kind.pieces or not isinstance(fitting_on(kind.request, self._then(at)), str)

    def _then(self, at: int) -> NodeView:
        """The node with the pieces that it will have given away by then."""
        return self.ground.fitted(at, (*self.ground.fittings.get(at, ()), *self.fittings.get(at, ())))

    def _at(self, server: str) -> int | None:
        """Where a server would be then; None while that is open, or where it is unknown."""
        found = self.where.get(server)
        if found is None:
            found = self.ground.where.get(server)
        return None if found == self.lost else found

    def _grouped(self, group: GroupView, at: int, bundled: int) -> bool:
        domain = self.ground.domain(group, at)
        there, moved = self.ground.members.get(group.name, {}), self.groups.get(group.name, {})
        here = there.get(domain, 0) + moved.get(domain, 0)
        if not domain:
            return False
        if group.policy is Policy.ANTI_AFFINITY:
            return here + bundled < group.max_per_domain
        return here > 0 or not any(there.get(name, 0) + moved.get(name, 0) > 0 for name in {*there, *moved})

    def _count(self, group: GroupView, at: int, sign: int) -> None:
        domains = self.groups.setdefault(group.name, {})
        domain = self.ground.domain(group, at)
        domains[domain] = domains.get(domain, 0) + sign
