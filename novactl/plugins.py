"""Filters and weighers by name: the built-in ones, and those of installed packages.

A package adds one by an entry point in group `novactl.filters` or `novactl.weighers` that names an object with the
protocol of scheduler.filters or scheduler.weighers. Entry points are looked through only for a name that is not
built in: the look takes longer than a decision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from novactl.errors import BadConfig
from novactl.scheduler.filters import FILTERS
from novactl.scheduler.profiles import PROFILES, Profile
from novactl.scheduler.weighers import WEIGHERS

FILTER_GROUP, WEIGHER_GROUP = "novactl.filters", "novactl.weighers"


def profile(
    name: str = "default", *, filters: Sequence[str] | None = None, weighers: Mapping[str, float] | None = None,
) -> Profile:
    """The built-in profile `name`, with its filters or its weighers (name -> multiplier) replaced where given.

    Raises BadConfig for a name that neither we nor an installed package know.
    """
    if name not in PROFILES:
        raise BadConfig(f"placement profile {name!r} is not known", hint=f"one of {', '.join(PROFILES)}")
    base = PROFILES[name]
    return Profile(
        name,
        base.filters if filters is None else tuple(_find(FILTER_GROUP, FILTERS, f) for f in filters),
        base.weighers if weighers is None else tuple(
            (_find(WEIGHER_GROUP, WEIGHERS, w), float(multiplier)) for w, multiplier in weighers.items()),
    )


def _find(group: str, built_in: Mapping[str, Any], name: str) -> Any:
    found = built_in.get(name)
    if found is not None:
        return found
    from importlib.metadata import entry_points

    for entry in entry_points(group=group, name=name):
        return entry.load()
    known = [*built_in, *(e.name for e in entry_points(group=group) if e.name not in built_in)]
    kind = group.removeprefix("novactl.").removesuffix("s")
    raise BadConfig(f"{kind} {name!r} is not known", hint=f"one of {', '.join(known)}")
