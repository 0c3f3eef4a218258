"""A workload: requests replayed in order on hosts that are only numbers. Pure but for the clock it is given.

The format is "placement-workload/1", JSON: `hosts` (name, cpus, ram_mb, disk_gb, optionally az and ratios), `ratios` of overcommit
(cpu, ram, disk), `flavors` (name, vcpus, ram_mb, disk_gb) and `requests`: {"op": "create", "id", "flavor"} or {"op": "delete", "id"}.
Each create sees all that was placed before it. One that finds no host is a reject, and deleting it does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from novactl.model.facts import Facts
from novactl.model.node import NodeState
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU, Amounts, Inventory
from novactl.scheduler import lanes
from novactl.scheduler.fleet import Fleet
from novactl.scheduler.pipeline import needs_views, pick
from novactl.scheduler.profiles import Profile
from novactl.scheduler.request import STANDARD_RULES, NodeView, Request, Rules
from novactl.scheduler.saved import BadFile

FORMAT = "placement-workload/1"
ARCHITECTURE = "x86_64"
_CLASSES = ((VCPU, "cpus", "cpu", "vcpus"), (MEMORY_MB, "ram_mb", "ram", "ram_mb"), (DISK_GB, "disk_gb", "disk", "disk_gb"))


@dataclass(frozen=True)
class Workload:
    """`steps` are (server's id, flavor), the flavor "" for a delete."""

    name: str
    nodes: tuple[NodeView, ...]
    flavors: Mapping[str, Amounts]
    steps: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Replay:
    """`results` has the host's name of every create, None where there was none. `first_fail` counts the creates placed before the first
    reject (None: there was none), and `first_fail_utilisation` is what was used by then of the capacity in all. Times are in ms."""

    workload: str
    profile: str
    hosts: int
    decisions: int
    placed: int
    rejects: int
    first_fail: int | None
    first_fail_utilisation: Mapping[str, float] | None
    utilisation: Mapping[str, float]
    seconds: float
    per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    results: Mapping[str, str | None]


def workload(plain: Mapping[str, Any]) -> Workload:
    """Raises BadFile naming the entry that is not as it should be. A host's capacity is total x ratio, rounded down."""
    at = "ratios"
    try:
        ratios = _ratios(plain.get("ratios", {}), {})
        at = "hosts"
        nodes = []
        for number, host in enumerate(plain["hosts"]):
            at = f"hosts: entry {host.get('name', number)}"
            nodes.append(_node(number, host, ratios))
        at = "flavors"
        flavors = {flavor["name"]: {name: _whole(flavor[size]) for name, _, _, size in _CLASSES} for flavor in plain["flavors"]}
        at, steps = "requests", []
        for number, step in enumerate(plain["requests"]):
            at = f"requests: entry {number}"
            steps.append(_step(step, flavors))
    except (KeyError, TypeError, ValueError, AttributeError) as bad:
        what = f"{bad.args[0]!r} is missing" if isinstance(bad, KeyError) else str(bad)
        raise BadFile(f"{at}: {what}", hint=f"the format is {FORMAT}") from None
    if len({node.name for node in nodes}) < len(nodes):
        raise BadFile("hosts: two have the same name")
    return Workload(str(plain.get("name", "")), tuple(nodes), flavors, tuple(steps))


def _ratios(plain: Mapping[str, Any], default: Mapping[str, Fraction]) -> dict[str, Fraction]:
    found = {name: Fraction(str(plain[name])) if name in plain else default.get(name, Fraction(1)) for _, _, name, _ in _CLASSES}
    wrong = next((name for name, ratio in found.items() if ratio <= 0), None)
    if wrong:
        raise ValueError(f"the ratio of {wrong} is not above 0")
    return found


def _node(number: int, host: Mapping[str, Any], ratios: Mapping[str, Fraction]) -> NodeView:
    own = _ratios(host["ratios"], ratios) if "ratios" in host else ratios
    return NodeView(
        id=f"{number:08}", name=str(host["name"]), state=NodeState.ENABLED, reported_at=0.0, used={},
        facts=Facts(architecture=ARCHITECTURE, zone=str(host.get("az", ""))),
        inventories={name: _inventory(name, _whole(host[total]), own[ratio]) for name, total, ratio, _ in _CLASSES})


def _inventory(name: str, total: int, ratio: Fraction) -> Inventory:
    milli = ratio * 1000
    if milli.denominator == 1:
        return Inventory(name, total, ratio_milli=int(milli))
    return Inventory(name, total * ratio.numerator // ratio.denominator)      # finer than thousandths: the capacity itself


def _step(plain: Mapping[str, Any], flavors: Mapping[str, Amounts]) -> tuple[str, str]:
    operation, server = plain["op"], str(plain["id"])
    if operation == "delete":
        return server, ""
    if operation != "create":
        raise ValueError(f"op is {operation!r}, neither create nor delete")
    if plain["flavor"] not in flavors:
        raise ValueError(f"there is no flavor {plain['flavor']!r}")
    return server, plain["flavor"]


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a whole number of 0 or more")
    return value


def replay(
    load: Workload, profile: Profile, clock: Callable[[], float], *, xp: Any = lanes, rules: Rules = STANDARD_RULES,
    stop_at_reject: bool = False,
) -> Replay:
    """Place the workload's servers one after the other. `clock` gives seconds that only grow; a decision's time is that of
    deciding and of booking it. With `stop_at_reject` the replay ends there, and later creates have no result."""
    fleet = Fleet.of(load.nodes, xp)
    sample = Request(server="", amounts={VCPU: 1}, architecture=ARCHITECTURE, rules=rules)
    if not needs_views(sample, profile):
        fleet.views = {}
    names = [node.name for node in sorted(load.nodes, key=lambda node: node.id)]
    where: dict[str, tuple[int, Amounts]] = {}
    results: dict[str, str | None] = {}
    times: list[float] = []
    first: tuple[int, Mapping[str, float]] | None = None
    placed = 0
    for server, flavor in load.steps:
        if not flavor:
            if server in where:
                fleet.give(*where.pop(server))
            continue
        amounts = load.flavors[flavor]
        request = Request(server=server, amounts=amounts, architecture=ARCHITECTURE, flavor=flavor, rules=rules)
        began = clock()
        chosen = pick(request, fleet, profile, keep=1).chosen
        index = -1 if chosen is None else fleet.index(chosen.node)
        if chosen is not None:
            fleet.take(index, amounts)
        times.append(clock() - began)
        results[server] = None if chosen is None else names[index]
        if chosen is not None:
            where[server] = index, amounts
            placed += 1
        elif first is None:
            first = placed, _utilisation(load, where)
            if stop_at_reject:
                break
    spent = sum(times)
    return Replay(
        workload=load.name, profile=profile.name, hosts=len(names), decisions=len(times), placed=placed, rejects=len(times) - placed,
        first_fail=first[0] if first else None, first_fail_utilisation=first[1] if first else None, results=results,
        utilisation=_utilisation(load, where), seconds=round(spent, 6), per_s=round(len(times) / spent, 1) if spent else 0.0,
        p50_ms=_percentile(times, 0.50), p95_ms=_percentile(times, 0.95), p99_ms=_percentile(times, 0.99))


def _utilisation(load: Workload, where: Mapping[str, tuple[int, Amounts]]) -> dict[str, float]:
    """Used / capacity over all hosts, by the flavors' words."""
    found = {}
    for name, _, _, size in _CLASSES:
        capacity = sum(node.inventories[name].capacity for node in load.nodes)
        found[size] = round(sum(amounts[name] for _, amounts in where.values()) / capacity, 4) if capacity else 0.0
    return found


def _percentile(times: Sequence[float], part: float) -> float:
    """In ms, the one of so many that is not below `part` of them."""
    ordered = sorted(times)
    return round(ordered[min(len(ordered) - 1, int(part * len(ordered)))] * 1000, 4) if ordered else 0.0
