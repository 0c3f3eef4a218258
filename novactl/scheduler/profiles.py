"""Profiles: which filters must agree, and what counts how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from novactl.scheduler.filters import FILTERS, ON_DEMAND, Filter, requested
from novactl.scheduler.filters.base import applies
from novactl.scheduler.request import Request
from novactl.scheduler.weighers import Weigher
from novactl.scheduler.weighers.kinds import no_zone
from novactl.scheduler.weighers.load import chance, failures, metrics, servers
from novactl.scheduler.weighers.packing import imbalance
from novactl.scheduler.weighers.peers import soft_affinity, soft_anti_affinity, spread
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

    def checks(self, request: Request) -> list[Filter]:
        """The filters that have something to say of this request; its own word (`requested`) comes first."""
        return [check for check in (requested, *self.filters) if applies(check, request)]


_STANDARD = tuple(check for check in FILTERS.values() if check.name not in ON_DEMAND)

AGREED = 10_000.0
"""What a group's soft policy and `spread_by` weigh: whoever asks for them means it, so that one member more or less decides
before any other weigher, up to some thousand members in one place."""
_ASKED = ((soft_affinity, AGREED), (soft_anti_affinity, AGREED), (spread, AGREED))
_EVERY_DAY = ((failures, -1.0), (metrics, 1.0), *_ASKED)
"""A node that fails what it is given stays empty, and would be given the next: each failure takes a tenth off."""

DEFAULT = Profile("default", _STANDARD, ((balance, 1.0), (imbalance, -2.0), *_EVERY_DAY))
"""Spread: keep the scarcest resource of every node as plentiful as can be, and no node with processors that have no memory left.

Servers that ask for the same are spread by either alone. Where they differ, balance alone fills hosts of one size less well than Nova's
default does before the first refusal (0.61 of the volume bound to 0.69, tests/bench/packing.py); with the imbalance it is 0.78.

Nova's default adds free RAM, CPU and disk, the newest hypervisor and the fewest operations, each brought to 0..1 among the candidates:
equal votes, in which a host without memory may win by its disk. Those weighers are here too, switched on by `placement.weighers`.
"""

PROFILES: Mapping[str, Profile] = {
    p.name: p for p in (
        DEFAULT,
        Profile("pack", _STANDARD, ((imbalance, -1.0), (balance, -0.25), *_EVERY_DAY)),
        Profile("simple", _STANDARD, ((servers, -1.0), *_EVERY_DAY)),
        Profile("random", _STANDARD, ((chance, 1.0), *_ASKED)),
        Profile("zone", _STANDARD, ((no_zone, 2.0), (chance, 1.0), *_ASKED)),
    )
}
"""Beside the default: its opposite (fill nodes up, and leave neither processors without memory nor memory without processors), and
the classic three of Nova. SimpleScheduler: fewest servers. ChanceScheduler. ZoneScheduler: by chance within the zone asked for; where
none is asked, by chance among the nodes of no zone (Nova's default zone), and in a zone only when none of those will do."""
