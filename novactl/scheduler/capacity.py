"""How many more servers of a kind fit, what stops the next one, and where there is room. Pure.

The count is that of successive placements until one is refused. Without groups, shared disks and N+1 each node's share does not
depend on the order, and is reckoned; otherwise the servers are placed, one after the other, as the profile would.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from novactl.errors import UsageError
from novactl.model.facts import Facts
from novactl.model.node import NodeState
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU, Inventory, shortage, spoken
from novactl.model.units import BadSize, gib, mib
from novactl.scheduler.contest import STEADY, Contest, with_server
from novactl.scheduler.filters import requested
from novactl.scheduler.filters.base import Filter, applies, by_facts
from novactl.scheduler.profiles import DEFAULT, Profile
from novactl.scheduler.request import NodeView, Request
from novactl.scheduler.survival import CODE, Survival

RESOURCES = "resources"
_FEW = 256
"""So many placements are tried one by one."""


class Stop(NamedTuple):
    """What the next server lacks. `code` is a filter's name, or a resource class; `nodes` of the `of` nodes looked at it stops."""

    code: str
    nodes: int
    of: int
    text: str


class NodeRoom(NamedTuple):
    """How many more fit on a node by itself, or, where they were placed one after the other, how many it took. `id`, `name`: the node's."""

    id: str
    name: str
    fits: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Capacity:
    """`count` servers fit; `n_plus_1` of them (None: not asked) before the loss of a node would leave one without a place. `next_to_fill`
    is the name of the node with room for the fewest, "" where no node has room."""

    count: int
    limited_by: Stop
    per_node: tuple[NodeRoom, ...]
    next_to_fill: str
    n_plus_1: int | None = None
    n_plus_1_limited_by: Stop | None = None


def capacity(
    request: Request, nodes: Iterable[NodeView], profile: Profile = DEFAULT, survival: Survival | None = None,
) -> Capacity:
    """How many servers of `request` fit on `nodes`. With `survival` (which stays as it is) also how many of them N+1 allows."""
    views = sorted(nodes, key=lambda node: node.id)
    hard = request.group is not None and request.group.policy.is_hard
    shared = bool(request.amounts.get(DISK_GB)) and any(view.shared_disk for view in views)
    if not request.amounts or not any(request.amounts.values()):
        raise UsageError("a server that asks for nothing fits without end", hint="ask for processors, memory or disk")
    if hard or shared:
        contest = Contest(request, views, profile)
        while contest.place() is not None:
            pass
        room, after = contest.taken, contest.views
    else:
        room, after = _reckoned(request, views, profile)
    per_node = tuple(NodeRoom(view.id, view.name, fits) for view, fits in zip(views, room, strict=True))
    fullest = min((node for node in per_node if node.fits), key=lambda node: (node.fits, node.name), default=None)
    found = Capacity(
        count=sum(room), limited_by=_stop(request, after, profile), per_node=per_node, next_to_fill=fullest.name if fullest else "")
    return found if survival is None else _surviving(found, request, views, profile, survival)


def _surviving(found: Capacity, request: Request, views: Sequence[NodeView], profile: Profile, survival: Survival) -> Capacity:
    own, begun = _ahead(request, views, profile, survival)
    contest = Contest(request, begun, profile, own.refusal)
    while (at := contest.place()) is not None:
        own.take(request, contest.views[at].id)
    stop = found.limited_by
    if contest.possible:
        stop = Stop(CODE, len(contest.possible), len(views), contest.refused[contest.possible[0]].text)
    placed = sum(view.servers for view in contest.views) - sum(view.servers for view in views)
    return dataclasses.replace(found, n_plus_1=placed, n_plus_1_limited_by=stop)


def _ahead(
    request: Request, views: Sequence[NodeView], profile: Profile, survival: Survival,
) -> tuple[Survival, Sequence[NodeView]]:
    """The plans and the nodes after as many placements as certainly are all allowed, so that few are left to be tried.

    Where the cluster bears the first so many servers together, it bore each of them: fewer servers never need more room.
    """
    contest = Contest(request, views, profile)
    order: list[int] = []
    while len(order) < _FEW and (at := contest.place()) is not None:
        order.append(at)
    if len(order) < _FEW:
        return survival.copy(), views
    while (at := contest.place()) is not None:
        order.append(at)
    low, high, step = 0, len(order) + 1, _FEW // 2
    known, counts = survival, Counter[int]()
    while high - low > 2 * _FEW:
        middle = max(high - step, (low + high) // 2)
        more = Counter(order[:middle])
        joined = survival.joined(request, {views[at].id: count for at, count in more.items()})
        if joined is None:
            high, step = middle, 2 * step
        else:
            low, known, counts = middle, joined, more
    own = survival.copy() if known is survival else known
    return own, [with_server(view, request, count=counts[at]) if counts[at] else view for at, view in enumerate(views)]


def _reckoned(request: Request, views: Sequence[NodeView], profile: Profile) -> tuple[list[int], list[NodeView]]:
    """For each node how many fit, and the node with all of them."""
    checks = [check for check in (requested, *profile.filters) if applies(check, request)]
    standing = [check for check in checks if by_facts(check)]
    moving = [check for check in checks if not by_facts(check) and check.name not in (*STEADY, RESOURCES)]
    steady = [check for check in checks if check.name in (*STEADY, RESOURCES) and not by_facts(check)]
    kinds: dict[str, bool] = {}
    room, after = [], []
    for view in views:
        key = view.facts.key
        if key not in kinds:
            kinds[key] = not any(check(request, view) for check in standing)
        fits, full = 0, view
        if kinds[key] and not any(check(request, view) for check in steady):
            fits, full = _stacked(request, view, moving)
        room.append(fits)
        after.append(full)
    return room, after


def _stacked(request: Request, view: NodeView, moving: Sequence[Filter]) -> tuple[int, NodeView]:
    """How many go onto a node that takes one: by its resources, and server after server where a filter counts something else."""
    most = min(
        (inventory.capacity - view.used.get(name, 0)) // amount if (inventory := view.inventories.get(name)) else 0
        for name, amount in request.amounts.items() if amount)
    fits = 0
    if moving:
        while fits < most and not any(check(request, view) for check in moving):
            view, fits = with_server(view, request), fits + 1
        return fits, view
    return most, with_server(view, request, count=most)


def _stop(request: Request, views: Sequence[NodeView], profile: Profile) -> Stop:
    """What most of the nodes say to one more, those that only lack room before those that would not have it anyway."""
    checks = [check for check in (requested, *profile.filters) if applies(check, request)]
    lacking: Counter[str] = Counter()
    barred: Counter[str] = Counter()
    texts: dict[str, str] = {}
    for view in views:
        rejects = [reject for check in checks if (reject := check(request, view))]
        others = [reject for reject in rejects if reject.code != RESOURCES]
        for reject in others:
            barred[reject.code] += 1
            texts.setdefault(reject.code, f"{view.name}: {reject.text}")
        if not others:
            lacking.update(
                name for name, amount in request.amounts.items()
                if shortage(view.inventories.get(name), name, view.used.get(name, 0), amount))
    if lacking:
        code, count = lacking.most_common(1)[0]
        return Stop(code, count, len(views), _left(request, views, code))
    if barred:
        code, count = barred.most_common(1)[0]
        return Stop(code, count, len(views), texts[code])
    return Stop("nodes", 0, 0, "there is no node")


def _left(request: Request, views: Iterable[NodeView], name: str) -> str:
    """'memory: needs 8.0 GiB; 37.5 GiB are left on 6 nodes, at most 5.9 GiB on one'."""
    rooms = [
        max(0, inventory.capacity - view.used.get(name, 0)) if (inventory := view.inventories.get(name)) else 0 for view in views]
    word, _, needs = spoken(name, request.amounts[name]).partition(" ")
    left, most = (spoken(name, amount).partition(" ")[2] for amount in (sum(rooms), max(rooms, default=0)))
    return f"{word}: needs {needs}; {left} left on {len(rooms)} node{'' if len(rooms) == 1 else 's'}, at most {most} on one"


# ---- nodes that are not there

class Hardware(NamedTuple):
    """Nodes to reckon with as if they were there."""

    count: int
    vcpus: int
    memory_mb: int
    disk_gb: int


_HARDWARE = re.compile(r"(?:(\d{1,5})x)?(\d{1,5})c/([^/]+)/([^/]+)\Z", re.IGNORECASE)


def hardware(text: str) -> Hardware:
    """'2x64c/256G/2T' -> two nodes of 64 CPUs, 256 GiB and 2 TiB. Raises UsageError naming the form."""
    found = _HARDWARE.match(text.strip())
    try:
        if found and int(found[1] or 1) and int(found[2]):
            return Hardware(int(found[1] or 1), int(found[2]), mib(found[3]), gib(found[4]))
    except BadSize as bad:
        raise UsageError(f"{text!r}: {bad.message}", hint="write COUNTxCPUSc/RAM/DISK, as in 2x64c/256G/2T") from None
    raise UsageError(f"{text!r} is no hardware", hint="write COUNTxCPUSc/RAM/DISK, as in 2x64c/256G/2T")


def hypothetical(
    added: Iterable[Hardware], like: Iterable[NodeView], offered: Mapping[str, tuple[int, int]], now: float,
) -> tuple[NodeView, ...]:
    """The nodes of `added`: of the kind (facts) most of the enabled nodes `like` are, with (ratio_milli, reserved) `offered` by class."""
    kinds = Counter(view.facts.key for view in like if view.state is NodeState.ENABLED)
    facts = {view.facts.key: view.facts for view in like}
    common = facts[kinds.most_common(1)[0][0]] if kinds else Facts(architecture="x86_64")
    found: list[NodeView] = []
    for one in added:
        totals = {VCPU: one.vcpus, MEMORY_MB: one.memory_mb, DISK_GB: one.disk_gb}
        inventories = {
            name: Inventory(name, total, min(total, offered[name][1]), offered[name][0], max_unit=max(1, total))
            for name, total in totals.items()}
        for _ in range(one.count):
            name = f"new-{len(found) + 1}"
            found.append(NodeView(
                id=f"new {len(found) + 1:06}", name=name, state=NodeState.ENABLED, facts=common, inventories=inventories, used={},
                reported_at=now))
    return tuple(found)
