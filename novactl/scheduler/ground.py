"""What a plan for the loss of a node stands on: the nodes with what is left of them, and what servers ask of a node. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from novactl.model.resources import DISK_GB
from novactl.model.topology import Fitting
from novactl.model.wants import NOTHING_SPECIAL
from novactl.scheduler.contest import STEADY
from novactl.scheduler.filters.base import applies, by_facts
from novactl.scheduler.profiles import Profile
from novactl.scheduler.request import GroupView, NodeView, Request
from novactl.scheduler.topology import given

_OWN = ("resources", "numa", "pci")
"""Filters whose part is done here, with what a plan has moved by then."""


_MANY = 1 << 30


class Resident(NamedTuple):
    """A server where it is. `request` is what it asks of any node, by the words of its creation; servers of one kind may share it.
    Of its group name, policy, scope and limit are read: who the members are, the residents say."""

    id: str
    name: str
    node: str
    request: Request


class Kind:
    """What servers have in common that ask for the same. `demand` has (base of the class's slots, amount); `known` is what the filters
    said of a node with so many servers more, `always` whether they say yes however many."""

    def __init__(self, ground: Ground, request: Request) -> None:
        wants = request.wants
        self.apart, self.beside = wants.different_host, wants.same_host
        if self.apart or self.beside:
            wants = dataclasses.replace(wants, different_host=(), same_host=())
        self.request = dataclasses.replace(request, node="", exclude={}, group=None, peers={}, wants=wants)
        self.group: GroupView | None = request.group if request.group and request.group.policy.is_hard else None
        checks = [check for check in ground.profile.filters if check.name not in _OWN and applies(check, self.request)]
        self.of_facts = [check for check in checks if by_facts(check)]
        self.checks = [check for check in checks if not by_facts(check)]
        self.counting = [check for check in self.checks if check.name not in STEADY]
        self.pieces = wants.pieces
        self.amounts = {name: amount for name, amount in request.amounts.items() if amount}
        self.demand = [(ground.base(name), amount) for name, amount in self.amounts.items()]
        self.share = max((amount / ground.mean(base) for base, amount in self.demand), default=0.0)
        self.by_shape: dict[int, bool] = {}
        self.known: dict[tuple[int, int], bool] = {}
        self.always: dict[int, bool] = {}

    @property
    def plain(self) -> bool:
        """Whether it looks at no other server."""
        return not (self.group or self.apart or self.beside or self.pieces)


class Ground:
    """The nodes, by index in the order of their ids, and what is left of them. A slot is one resource class of one node; nodes
    of a shared disk have one slot for it together."""

    def __init__(self, nodes: Iterable[NodeView], profile: Profile) -> None:
        self.views = sorted(nodes, key=lambda node: node.id)
        self.size, self.profile = len(self.views), profile
        self.index = {view.id: at for at, view in enumerate(self.views)}
        numbers: dict[str, int] = {}
        self.shape = [numbers.setdefault(view.facts.key, len(numbers)) for view in self.views]
        pools: dict[str, int] = {}
        self.disk = [pools.setdefault(view.shared_disk, at) if view.shared_disk else at for at, view in enumerate(self.views)]
        self.disk_base, self.pooled = -1, bool(pools)
        self.free: list[int] = []
        self.heads = [0] * self.size
        self.fittings: dict[int, tuple[Fitting, ...]] = {}
        self.members: dict[str, dict[str, int]] = {}
        """Group -> domain -> members there."""
        self.where: dict[str, int] = {}
        self.kinds: dict[Any, Kind] = {}
        self._bases: dict[str, int] = {}
        self._totals: list[int] = []
        self._means: list[float] = []
        self._of_request: dict[int, tuple[Request, Kind]] = {}
        self._orders: dict[int, list[tuple[int, int]]] = {}
        self._crowded: dict[int, NodeView] = {}
        self._changes = 0

    def copy(self) -> Ground:
        """One that changes by itself; what filters said is shared."""
        twin = object.__new__(Ground)
        twin.__dict__.update(self.__dict__)
        twin.free, twin._totals, twin._means, twin.heads = list(self.free), list(self._totals), list(self._means), list(self.heads)
        twin.fittings, twin.where, twin._orders = dict(self.fittings), dict(self.where), {}
        twin.members = {group: dict(domains) for group, domains in self.members.items()}
        twin._bases, twin._of_request, twin.kinds = dict(self._bases), dict(self._of_request), dict(self.kinds)
        return twin

    # ---- what is there

    def base(self, name: str) -> int:
        """Where the slots of a resource class begin."""
        found = self._bases.get(name)
        if found is None:
            found = self._bases[name] = len(self.free)
            if name == DISK_GB:
                self.disk_base = found
            capacities = [inventory.capacity if (inventory := view.inventories.get(name)) else 0 for view in self.views]
            self.free += [capacity - view.used.get(name, 0) for capacity, view in zip(capacities, self.views, strict=True)]
            self._means.append(sum(capacities) / max(1, self.size))
            self._totals.append(sum(max(0, free) for free in self.free[found:]))
        return found

    def slot(self, base: int, at: int) -> int:
        return base + (self.disk[at] if base == self.disk_base else at)

    @property
    def bases(self) -> Iterable[int]:
        return self._bases.values()

    def total(self, base: int) -> int:
        """What is left of a class on all nodes."""
        return self._totals[base // max(1, self.size)]

    def mean(self, base: int) -> float:
        """What a node may be asked for in the mean; a little where it is nothing, so that one can divide by it."""
        return self._means[base // max(1, self.size)] or 1e-9

    def kind(self, request: Request) -> Kind:
        """The same for all requests that ask for the same."""
        known = self._of_request.get(id(request))
        if known:
            return known[1]
        group, wants = request.group, request.wants
        key = (
            tuple(sorted(request.amounts.items())), request.architecture, request.zone, request.project, request.flavor, request.image,
            group and (group.name, group.policy, group.scope, group.max_per_domain), 0 if wants == NOTHING_SPECIAL else id(wants),
            request.now, request.fresh_s, id(request.rules))
        kind = self.kinds.get(key)
        if kind is None:
            kind = self.kinds[key] = Kind(self, request)
        self._of_request[id(request)] = request, kind             # the request is held, so that its id stays its own
        return kind

    def domain(self, group: GroupView, at: int) -> str:
        return group.domain(self.views[at])

    def order(self, base: int) -> list[tuple[int, int]]:
        """(free, index) ascending. It may be a few servers old, and show more than is free: what is taken from it is checked again."""
        found = self._orders.get(base)
        if found is None:
            found = self._orders[base] = sorted((self.free[self.slot(base, at)], at) for at in range(self.size))
        return found

    def sort(self) -> None:
        """Make the orders anew where they are old. Not between a `put` and its undoing: they would show less than is free after it."""
        if self._changes > max(16, self.size // 8):
            self._orders, self._changes = {}, 0
        for base in self._bases.values():
            self.order(base)

    def allows(self, kind: Kind, at: int, more: int) -> bool:
        """Whether every filter lets such a server onto the node when it has `more` servers than it has now. Room is not looked at."""
        if self.always(kind, at):
            return True
        key = at, self.heads[at] + more
        found = kind.known.get(key)
        if found is None:
            found = kind.known[key] = self._judged(kind, *key)
        return found

    def always(self, kind: Kind, at: int) -> bool:
        """Whether they do with the servers that it was given with and with any number more: those that count them count up to a limit."""
        found = kind.always.get(at)
        if found is None:
            found = kind.always[at] = self._judged(kind, at, 0) and not any(check(kind.request, self._full(at)) for check in kind.counting)
        return found

    def _full(self, at: int) -> NodeView:
        """The node with more servers than any limit allows."""
        found = self._crowded.get(at)
        if found is None:
            found = self._crowded[at] = dataclasses.replace(self.views[at], servers=_MANY)
        return found

    def _judged(self, kind: Kind, at: int, more: int) -> bool:
        view, shape = self.views[at], self.shape[at]
        if shape not in kind.by_shape:
            kind.by_shape[shape] = not any(check(kind.request, view) for check in kind.of_facts)
        if not kind.by_shape[shape]:
            return False
        for name, amount in kind.amounts.items():
            inventory = view.inventories.get(name)
            if inventory is None or not inventory.min_unit <= amount <= inventory.max_unit or amount % inventory.step_size:
                return False
        if more and kind.counting:
            view = dataclasses.replace(view, servers=view.servers + more)
        return not any(check(kind.request, view) for check in kind.checks)

    # ---- changing it

    def put(self, resident: Resident, at: int, sign: int = 1) -> None:
        """The server is on the node now, or with -1 no longer."""
        kind = self.kind(resident.request)
        for base, amount in kind.demand:
            self.free[self.slot(base, at)] -= sign * amount
            self._totals[base // self.size] -= sign * amount
        self.heads[at] += sign
        self.note(resident, at, sign)
        if kind.pieces:
            held = self.fittings.get(at, ())
            if sign > 0:
                self.fittings[at] = (*held, given(kind.request, self.fitted(at, held)))
            else:
                self.fittings[at] = held[:-1]
        self._changes += sign

    def note(self, resident: Resident, at: int, sign: int = 1) -> None:
        """Remember where it is, for groups and hints; its claims are counted already."""
        group = self.kind(resident.request).group
        if group:
            domains = self.members.setdefault(group.name, {})
            domain = self.domain(group, at)
            domains[domain] = domains.get(domain, 0) + sign
        if resident.id and sign > 0:
            self.where[resident.id] = at

    def fitted(self, at: int, more: Sequence[Fitting]) -> NodeView:
        view = self.views[at]
        return dataclasses.replace(view, fittings=(*(view.fittings or ()), *more)) if more else view
