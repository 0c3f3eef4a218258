"""The scheduler's parts: profiles, filters and weighers; which are in force, where they come from, and whether they work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from types import CodeType
from typing import Any, NamedTuple

from novactl import plugins
from novactl.config import SETTINGS, Config
from novactl.errors import Ambiguous, NotFound, NovaError
from novactl.model.facts import Facts
from novactl.model.finding import Finding
from novactl.model.node import METRICS, NodeState
from novactl.model.resources import DISK_GB, MEMORY_MB, PCPU, VCPU, Inventory
from novactl.model.topology import Hardware
from novactl.model.wants import Wants
from novactl.scheduler.filters import FILTERS
from novactl.scheduler.filters.base import applies as asked
from novactl.scheduler.fleet import Fleet
from novactl.scheduler.profiles import PROFILES, Profile
from novactl.scheduler.request import NodeView, Request, Rules
from novactl.scheduler.weighers import WEIGHERS

KINDS = ("profile", "filter", "weigher")


class PartRow(NamedTuple):
    """`enabled`: in the profile in force. `multiplier` is a weigher's there. `source` is built-in, or a distribution and version."""

    kind: str
    name: str
    enabled: bool
    multiplier: float | None
    source: str
    about: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """One of them in full. `node` are the fields it reads of a node, `request` those of a request and its wants; `settings` are
    those it depends on. `multiplier_key` is the aggregates' metadata key that replaces a weigher's multiplier. Of a profile, `filters`
    and `weighers` are its own."""

    kind: str
    name: str
    enabled: bool
    source: str
    about: str
    multiplier: float | None = None
    multiplier_key: str = ""
    node: tuple[str, ...] = ()
    request: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    by_facts: bool = False
    columns: bool = False
    filters: tuple[str, ...] = ()
    weighers: Mapping[str, float] | None = None


def list_parts(config: Config) -> tuple[PartRow, ...]:
    """Profiles, filters, weighers; those of packages after the built-in ones, also such as cannot be loaded."""
    current = plugins.configured(config)
    rows = [PartRow("profile", p.name, p.name == current.name, None, "built-in", _profile_line(p)) for p in PROFILES.values()]
    rows += [_row(current, "filter", part, "built-in") for part in FILTERS.values()]
    rows += [_row(current, "weigher", part, "built-in") for part in WEIGHERS.values()]
    for one in plugins.installed():
        if one.fault:
            rows.append(PartRow(one.kind, one.name, False, None, one.source, one.fault.message))
        else:
            rows.append(_row(current, one.kind, one.plugin, one.source))
    return tuple(sorted(rows, key=lambda row: KINDS.index(row.kind)))


def show(config: Config, name: str, *, kind: str = "") -> Part:
    """Raises NotFound, Ambiguous where a filter and a weigher share the name and no `kind` is given, BadConfig for a broken plug-in."""
    current = plugins.configured(config)
    found = [row for row in list_parts(config) if row.name == name and kind in ("", row.kind)]
    if not found:
        import difflib

        names = sorted({row.name for row in list_parts(config)})
        raise NotFound(kind or "profile, filter or weigher", name, similar=difflib.get_close_matches(name, names, 3),
                       command="novactl scheduler list")
    if len(found) > 1:
        raise Ambiguous("scheduler part", name, [f"novactl scheduler show {name} --kind {row.kind}" for row in found])
    row, = found
    if row.kind == "profile":
        return _profile(current if row.enabled else PROFILES[name], enabled=row.enabled)
    part = (FILTERS if row.kind == "filter" else WEIGHERS).get(name) or _plugin(row.kind, name)
    return Part(
        kind=row.kind, name=name, enabled=row.enabled, source=row.source, about=plugins.about(part), multiplier=row.multiplier,
        multiplier_key=getattr(part, "multiplier_key", ""), node=_read(part, NodeView), request=_read(part, Request, Wants),
        settings=_settings(part), by_facts=bool(getattr(part, "by_facts", False)), columns=hasattr(part, "columns"))


def check(config: Config) -> tuple[Finding, ...]:
    """Loads what the settings ask for and calls each part once on a made-up node; then loads what else is installed."""
    found: list[Finding] = []
    try:
        current, rules = plugins.configured(config), plugins.rules(config)
    except NovaError as fault:
        current, rules = None, None
        found.append(Finding("settings", "fail", fault.message, fault.hint))
    else:
        found.append(Finding("settings", "ok", f"profile {current.name}: {len(current.filters)} filters, {len(current.weighers)} weighers"))
        found += [_tried("filter", part, rules) for part in current.filters]
        found += [_tried("weigher", part, rules) for part, _ in current.weighers]
    used = {(finding.check) for finding in found}
    for one in plugins.installed():
        what = f"{one.kind} {one.name}"
        if what not in used:
            found.append(
                Finding(what, "warn", one.fault.message, one.fault.hint) if one.fault
                else Finding(what, "ok", f"{one.source}, not in force", f"placement.{one.kind}s with +{one.name} puts it in force"))
    return tuple(found)


def _row(current: Profile, kind: str, part: Any, source: str) -> PartRow:
    multipliers = {weigher.name: multiplier for weigher, multiplier in current.weighers} if kind == "weigher" else {}
    enabled = part.name in multipliers if kind == "weigher" else part.name in {f.name for f in current.filters}
    return PartRow(kind, part.name, enabled, multipliers.get(part.name), source, _first_sentence(plugins.about(part)))


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.partition("\n\n")[0].split())
    return paragraph.partition(". ")[0].removesuffix(".")


def _profile_line(profile: Profile) -> str:
    return "weighs " + (", ".join(f"{weigher.name} {multiplier:g}" for weigher, multiplier in profile.weighers) or "nothing")


def _profile(profile: Profile, *, enabled: bool) -> Part:
    return Part(
        kind="profile", name=profile.name, enabled=enabled, source="built-in", about=_profile_line(profile),
        filters=tuple(f.name for f in profile.filters), weighers={w.name: multiplier for w, multiplier in profile.weighers},
        settings=("placement.profile", "placement.filters", "placement.weighers", "placement.host_subset_size", "placement.shuffle_equals"))


def _plugin(kind: str, name: str) -> Any:
    one = next(one for one in plugins.installed() if (one.kind, one.name) == (kind, name))
    if one.fault:
        raise one.fault
    return one.plugin


def _read(part: Any, *records: type) -> tuple[str, ...]:
    """The fields of `records` that the code of `part` names."""
    names = set(_names(part))
    return tuple(field.name for record in records for field in fields(record) if field.name in names)


def _settings(part: Any) -> tuple[str, ...]:
    known = {setting.name for setting in SETTINGS}
    return tuple(name for name in (f"placement.{field}" for field in _read(part, Rules)) if name in known)


def _names(part: Any) -> Iterator[str]:
    """The attributes that a part's methods name, and the functions of its module that they call."""
    own = getattr(part, "plugin", part)
    module = getattr(type(own), "__module__", "") if not hasattr(own, "__code__") else own.__module__
    todo = [own] if hasattr(own, "__code__") else [f for c in type(own).__mro__ for f in vars(c).values() if hasattr(f, "__code__")]
    seen: set[int] = set()
    while todo:
        function = todo.pop()
        if id(function) in seen:
            continue
        seen.add(id(function))
        for name in _co_names(function.__code__):
            yield name
            called = function.__globals__.get(name)
            if hasattr(called, "__code__") and called.__module__ == module:
                todo.append(called)


def _co_names(code: CodeType) -> Iterable[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _co_names(constant)


def _tried(kind: str, part: Any, rules: Rules) -> Finding:
    """`part` called once on a made-up node."""
    check, ask = f"{kind} {part.name}", getattr(part, "ask", part)
    request = Request(
        server="check", amounts={VCPU: 1, MEMORY_MB: 1024, DISK_GB: 1}, architecture="x86_64", rules=rules)
    try:
        answer = ask(request, _NODE)
        column = part.columns(request, Fleet.of([_NODE])) if hasattr(part, "columns") and asked(part, request) else None
        column = [column] if isinstance(column, float) else column       # the same for all
    except NovaError as fault:
        return Finding(check, "fail", fault.message, fault.hint)
    if column is not None and column[0] != (answer if kind == "weigher" else answer is None):
        return Finding(check, "fail", f"{plugins.source_of(part)}: its columns say {column[0]!r} of a node, its call {answer!r}",
                       "both forms are to give the same")
    return Finding(check, "ok", plugins.source_of(part))


_NODE = NodeView(
    id="check", name="check", state=NodeState.ENABLED, facts=Facts(architecture="x86_64"), reported_at=0.0, address="tcp://192.0.2.1:7766",
    inventories={name: Inventory(name, 1 << 20) for name in (VCPU, PCPU, MEMORY_MB, DISK_GB)}, used={},
    metrics=dict.fromkeys(METRICS, 0.0), hardware=Hardware(), fittings=(), images={})
