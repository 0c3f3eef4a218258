"""Filters and weighers by name: the built-in ones, and those of installed packages; and the profile the settings ask for.

A package adds one by an entry point in group `novactl.filters` or `novactl.weighers` that names an object with the
protocol of scheduler.filters or scheduler.weighers (examples/plugin has one of each). It is used where `placement.filters` or
`placement.weighers` name it. Entry points are looked through only for a name that is not built in: the look takes longer
than a decision.

What is installed is not ours, so it is held at arm's length. One that cannot be loaded is a BadConfig; a filter that fails on a
node rejects that node; a weigher that fails is PluginFailed, since without its word the best node is not known. All of them
name the plug-in, its distribution and version.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from novactl.errors import BadConfig, PluginFailed
from novactl.scheduler import settings as wording
from novactl.scheduler.filters import FILTERS
from novactl.scheduler.profiles import PROFILES, Profile
from novactl.scheduler.request import NodeView, Reject, Request
from novactl.scheduler.settings import rules
from novactl.scheduler.weighers import WEIGHERS

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from novactl.config import Config

__all__ = ["FILTER_GROUP", "WEIGHER_GROUP", "Installed", "about", "configured", "installed", "profile", "rules", "source_of"]

FILTER_GROUP, WEIGHER_GROUP = "novactl.filters", "novactl.weighers"
_BUILT_IN: Mapping[str, Mapping[str, Any]] = {FILTER_GROUP: FILTERS, WEIGHER_GROUP: WEIGHERS}
_WORD = {FILTER_GROUP: "filter", WEIGHER_GROUP: "weigher"}


def configured(config: Config) -> Profile:
    """The profile in force: `placement.profile` with what `placement.filters`, `.weighers`, `.host_subset_size` and
    `.shuffle_equals` change of it. Raises BadConfig."""
    named = {name: config[f"placement.{name}"] for name in ("profile", "filters", "weighers", "host_subset_size", "shuffle_equals")}
    return _configured(*named.values())


@cache
def _configured(name: str, filters: str, weighers: str, host_subset_size: int, shuffle_equals: bool) -> Profile:
    base = profile(name)
    if not (filters or weighers or shuffle_equals or host_subset_size > 1):
        return base
    return profile(
        name,
        filters=wording.filter_names(filters, [f.name for f in base.filters]),
        weighers=wording.weigher_multipliers(weighers, {w.name: multiplier for w, multiplier in base.weighers}),
        host_subset_size=host_subset_size, shuffle_equals=shuffle_equals)


def profile(
    name: str = "default", *, filters: Sequence[str] | None = None, weighers: Mapping[str, float] | None = None,
    host_subset_size: int = 1, shuffle_equals: bool = False,
) -> Profile:
    """The built-in profile `name`, with its filters or its weighers (name -> multiplier) replaced where given.

    Raises BadConfig for a name that neither we nor an installed package know, and for a plug-in that cannot be loaded.
    """
    if name not in PROFILES:
        raise BadConfig(f"placement profile {name!r} is not known", hint=f"one of {', '.join(PROFILES)}")
    base = PROFILES[name]
    if filters is None and weighers is None and host_subset_size == 1 and not shuffle_equals:
        return base
    return Profile(
        name,
        base.filters if filters is None else tuple(_find(FILTER_GROUP, f) for f in filters),
        base.weighers if weighers is None else tuple(
            (_find(WEIGHER_GROUP, w), float(multiplier)) for w, multiplier in weighers.items()),
        host_subset_size, shuffle_equals)


class Installed(NamedTuple):
    """A plug-in of an installed package, loaded (`plugin`) or not (`fault` says why)."""

    kind: str
    name: str
    source: str
    plugin: Any
    fault: BadConfig | None


def installed() -> tuple[Installed, ...]:
    """Every plug-in there is beside the built-in ones, filters first, by name; loads them all."""
    found = []
    for group in _BUILT_IN:
        for name in sorted({entry.name for entry in _entries(group)}):
            source = " and ".join(dict.fromkeys(_source(entry) for entry in _entries(group) if entry.name == name))
            try:
                found.append(Installed(_WORD[group], name, source, _find(group, name), None))
            except BadConfig as fault:
                found.append(Installed(_WORD[group], name, source, None, fault))
    return tuple(found)


def _entries(group: str) -> list[EntryPoint]:
    """The entry points of `group` that are not ours: a plug-in does not take a built-in one's place."""
    from importlib.metadata import entry_points

    return [entry for entry in entry_points(group=group) if entry.name not in _BUILT_IN[group]]


def _source(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


def _find(group: str, name: str) -> Any:
    found = _BUILT_IN[group].get(name)
    return _load(group, name) if found is None else found


@cache
def _load(group: str, name: str) -> Any:
    word, entries = _WORD[group], _entries(group)
    named = list({(entry.value, _source(entry)): entry for entry in entries if entry.name == name}.values())
    if not named:
        known = dict.fromkeys([*_BUILT_IN[group], *(entry.name for entry in entries)])
        raise BadConfig(f"{word} {name!r} is not known", hint=f"one of {', '.join(known)}", command="novactl scheduler list")
    if len(named) > 1:
        raise BadConfig(
            f"{word} {name!r} is given by {len(named)} packages: {', '.join(_source(entry) for entry in named)}",
            hint="uninstall all of them but one")
    entry, = named
    told = f"{word} {name!r} of {_source(entry)}"
    try:
        plugin = entry.load()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - another's code
        raise BadConfig(
            f"{told} cannot be loaded from {entry.value}: {_spoken(error)}", hint="upgrade or uninstall it, or take it out of the settings",
            command="novactl scheduler check") from error
    return (_Weigher if group == WEIGHER_GROUP else _Filter)(name, _source(entry), plugin)


def _spoken(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def source_of(plugin: Any) -> str:
    """'built-in', or the distribution and version it comes with."""
    return plugin.source if isinstance(plugin, _Plugin) else "built-in"


class _Plugin:
    """An installed filter or weigher, called with care. What it has beyond the protocol (applies, columns, by_facts, steady) it
    keeps."""

    kind = ""

    def __init__(self, name: str, source: str, plugin: Any) -> None:
        told = f"{self.kind} {name!r} of {source}"
        if isinstance(plugin, type) or not callable(plugin):
            raise BadConfig(
                f"{told} is no {'object' if isinstance(plugin, type) else 'callable'}: {plugin!r}",
                hint="its entry point is to name an object that is called with (request, node)")
        self.name, self.source, self.told, self.plugin = name, source, told, plugin
        self.by_facts, self.steady = bool(getattr(plugin, "by_facts", False)), bool(getattr(plugin, "steady", False))
        for optional in ("applies", "columns"):
            own = getattr(plugin, optional, None)
            if own is not None:
                setattr(self, optional, self._careful(own))

    def _careful(self, own: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            try:
                return own(*given)
            except Exception as error:  # noqa: BLE001 - another's code
                raise self._failed(_spoken(error)) from error

        return call

    def _failed(self, how: str) -> PluginFailed:
        return PluginFailed(
            f"{self.told} failed: {how}", hint=f"upgrade it, or take it out: placement.{self.kind}s with -{self.name}",
            command="novactl scheduler check")


class _Filter(_Plugin):
    kind = "filter"

    def __call__(self, request: Request, node: NodeView) -> Reject | None:
        try:
            return self.ask(request, node)
        except PluginFailed as failed:
            return Reject(self.name, failed.message)

    def ask(self, request: Request, node: NodeView) -> Reject | None:
        """Its answer. Raises PluginFailed."""
        try:
            answer = self.plugin(request, node)
        except Exception as error:  # noqa: BLE001 - another's code
            raise self._failed(_spoken(error)) from error
        if answer is not None and not (isinstance(answer, Reject) and _is_sound(answer)):
            raise self._failed(f"it returned {answer!r}, neither a Reject nor None")
        return answer


def _is_sound(reject: Reject) -> bool:
    """Whether it can be stored and told: words that are text, numbers that are integers."""
    return isinstance(reject.code, str) and isinstance(reject.text, str) and all(
        isinstance(name, str) and isinstance(amount, int) for numbers in (reject.needs, reject.has) for name, amount in numbers.items())


class _Weigher(_Plugin):
    kind = "weigher"

    def __init__(self, name: str, source: str, plugin: Any) -> None:
        super().__init__(name, source, plugin)
        self.minval, self.maxval = _end(self.told, plugin, "minval"), _end(self.told, plugin, "maxval")
        self.multiplier_key, self.negated = str(getattr(plugin, "multiplier_key", "")), bool(getattr(plugin, "negated", False))

    def __call__(self, request: Request, node: NodeView) -> float:
        try:
            answer = self.plugin(request, node)
        except Exception as error:  # noqa: BLE001 - another's code
            raise self._failed(f"on node {node.name}: {_spoken(error)}") from error
        if not _is_number(answer):
            raise self._failed(f"on node {node.name}: it returned {answer!r}, no finite number")
        return float(answer)


def _end(told: str, plugin: Any, name: str) -> float | None:
    end = getattr(plugin, name, None)
    if end is None or _is_number(end):
        return end
    raise BadConfig(f"{told} has {name} {end!r}", hint="a number, or None")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def about(plugin: Any) -> str:
    """The docstring of a filter or weigher, of a plug-in its own."""
    import inspect

    return inspect.getdoc(getattr(plugin, "plugin", plugin)) or ""
