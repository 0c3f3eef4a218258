"""Profiles: which filters must agree, and what counts how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from novactl.scheduler.filters import FILTERS, Filter
from novactl.scheduler.weighers import Weigher
from novactl.scheduler.weighers.load import chance, servers
from novactl.scheduler.weighers.packing import imbalance
from novactl.scheduler.weighers.room import balance


@dataclass(frozen=True)
class Profile:
    """`weighers` are pairs of a weigher and its multiplier; a negative one prefers less.

    `host_subset_size`: one of so many best is taken by chance. `shuffle_equals`: among equal best ones chance decides, not the id.
    """

    name: str
    filters: tuple[Filter, ...]
    weighers: tuple[tuple[Weigher, float], ...]
    host_subset_size: int = 1
    shuffle_equals: bool = False


_ALL = tuple(FILTERS.values())

DEFAULT = Profile("default", _ALL, ((balance, 1.0),))
"""Spread: keep the scarcest resource of every node as plentiful as can be."""

PROFILES: Mapping[str, Profile] = {
    p.name: p for p in (
        DEFAULT,
        Profile("pack", _ALL, ((imbalance, -1.0), (balance, -0.25))),
        Profile("simple", _ALL, ((servers, -1.0),)),
        Profile("random", _ALL, ((chance, 1.0),)),
    )
}
"""Beside the default: its opposite (fill nodes up, and leave neither processors without memory nor memory without processors), and
two classic ones of Nova (SimpleScheduler, ChanceScheduler)."""
