"""How many more servers of a kind fit, what stops the next one, and where there is room. Pure.

The count is that of successive placements until one is refused. Without groups, shared disks and N+1 each node's share does not
depend on the order, and is reckoned; otherwise the servers are placed, one after the other, as the profile would.

With N+1 the order is exact, and every server counted is one that all plans bear. Up to 2 * _FEW placements are asked for one by
one: the count is that of successive ones. Of more, those far from a refusal are taken together, and the plans made anew for all of
them. Plans are a heuristic, and plans made anew are other plans than those repaired one server after the other: near its edge such a
count may differ from that of successive placements by a few servers either way (of 427 counts on 12 and 30 nodes four did, by two at most).
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
from novactl.scheduler.filters.base import Filter, applies, by_facts
from novactl.scheduler.profiles import DEFAULT, Profile
from novactl.scheduler.request import NodeView, Reject, Request
from novactl.scheduler.stack import Stack, can_count, can_order
from novactl.scheduler.survival import CODE, Survival

RESOURCES = "resources"
_FEW = 128
"""So many placements are tried one by one rather than together."""


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
    stack: Stack | None = None
    if hard or shared:
        contest = Contest(request, views, profile)
        while contest.place() is not None:
            pass
        room, after = contest.taken, contest.views
    else:
        room, after, stack = _reckoned(request, views, profile)
    per_node = tuple(NodeRoom(view.id, view.name, fits) for view, fits in zip(views, room, strict=True))
    fullest = min((node for node in per_node if node.fits), key=lambda node: (node.fits, node.name), default=None)
    found = Capacity(
        count=sum(room), limited_by=_stop(request, after, profile), per_node=per_node, next_to_fill=fullest.name if fullest else "")
    if survival is None:
        return found
    weighers = [pair for pair in profile.weighers if applies(pair[0], request)]
    if stack and can_order(weighers, request):
        count, refused = _ordered(request, views, stack.order(weighers, room), survival)
    else:
        count, refused = _contested(request, views, profile, survival)
    stop = Stop(CODE, len(refused), len(views), refused[min(refused)].text) if refused else found.limited_by
    return dataclasses.replace(found, n_plus_1=count, n_plus_1_limited_by=stop)


def _ordered(
    request: Request, views: Sequence[NodeView], order: Sequence[int], survival: Survival,
) -> tuple[int, Mapping[int, Reject]]:
    """How many of the placements in `order` (Stack.order) N+1 allows, and the nodes that it refused though they had room.

    A node that was refused once stays so, and those after it go on without it. Singly tried are the last before a refusal
    and a few after it; between them as many are taken together as certainly are all allowed.
    """
    own, left, refused = survival.copy(), list(order), dict[int, Reject]()
    count = alone = 0
    while left:
        if not alone and len(left) > 2 * _FEW:
            own, more, unsure = _ahead(request, views, left, own)
            count, left, alone = count + more, left[more:], unsure - more
        alone = alone or len(left)
        for number, at in enumerate(left[:alone], 1):
            reject = own.refusal(request, views[at].id)
            if reject:
                refused[at] = reject
                left, alone = [other for other in left[number:] if other != at], max(1, _FEW // 4)
                break
            own.take(request, views[at].id)
            count += 1
        else:
            left, alone = left[alone:], 0
    return count, refused


def _ahead(
    request: Request, views: Sequence[NodeView], order: Sequence[int], survival: Survival,
) -> tuple[Survival, int, int]:
    """The plans after as many placements in `order` as certainly are all allowed, how many these are, and how many are too many.

    Where the cluster bears the first so many servers together, it bore each of them: fewer servers never need more room.
    """
    low, high, known = 0, len(order) + 1, survival
    while high - low > _FEW:
        middle = high - max(1, (high - low) // 8)             # a count that is too high is found out sooner than one that is not
        joined = survival.joined(request, {views[at].id: count for at, count in Counter(order[:middle]).items()})
        if joined is None:
            high = middle
        else:
            low, known = middle, joined
    return known, low, high


def _contested(
    request: Request, views: Sequence[NodeView], profile: Profile, survival: Survival,
) -> tuple[int, Mapping[int, Reject]]:
    """As `_ordered`, where the next placement depends on more than its own node: each is decided anew, after the first refusal singly."""
    ahead = Contest(request, views, profile)
    order = list(iter(ahead.place, None))
    own, count, _ = _ahead(request, views, order, survival) if len(order) > 2 * _FEW else (survival, 0, 0)
    own = survival.copy() if own is survival else own
    counts = Counter(order[:count])
    begun = [with_server(view, request, count=counts[at]) if counts[at] else view for at, view in enumerate(views)]
    contest = Contest(request, begun, profile, own.refusal)
    while (at := contest.place()) is not None:
        own.take(request, contest.views[at].id)
        count += 1
    return count, {at: contest.refused[at] for at in contest.possible}


def _reckoned(request: Request, views: Sequence[NodeView], profile: Profile) -> tuple[list[int], list[NodeView], Stack]:
    """For each node how many fit, the node with all of them, and columns of them all."""
    checks = profile.checks(request)
    standing = [check for check in checks if by_facts(check)]
    moving = [check for check in checks if not by_facts(check) and check.name not in (*STEADY, RESOURCES)]
    steady = [check for check in checks if check.name in (*STEADY, RESOURCES) and not by_facts(check)]
    kinds: dict[str, bool] = {}
    most: list[int] = []
    for view in views:
        key = view.facts.key
        if key not in kinds:
            kinds[key] = not any(check(request, view) for check in standing)
        passes = kinds[key] and not any(check(request, view) for check in steady)
        most.append(_by_amounts(request, view) if passes else 0)
    slow = [check for check in moving if not can_count(check)]
    if slow:
        most = [_one_by_one(request, view, slow, upto) for view, upto in zip(views, most, strict=True)]
    stack = Stack(request, views, most)
    room = stack.room([check for check in moving if can_count(check)])
    return room, [with_server(view, request, count=fits) if fits else view for view, fits in zip(views, room, strict=True)], stack


def _by_amounts(request: Request, view: NodeView) -> int:
    """How many its resources hold."""
    return min(
        (inventory.capacity - view.used.get(name, 0)) // amount if (inventory := view.inventories.get(name)) else 0
        for name, amount in request.amounts.items() if amount)


def _one_by_one(request: Request, view: NodeView, checks: Sequence[Filter], most: int) -> int:
    """How many go onto a node, server after server, until one of the filters says no."""
    fits = 0
    while fits < most and not any(check(request, view) for check in checks):
        view, fits = with_server(view, request), fits + 1
    return fits


def _stop(request: Request, views: Sequence[NodeView], profile: Profile) -> Stop:
    """What most of the nodes say to one more, those that only lack room before those that would not have it anyway."""
    checks = profile.checks(request)
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
