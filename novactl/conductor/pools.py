"""Whether two nodes' disks lie in one place: by their rows, where an admin said so, and by the ids that the agents keep in their pools."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from novactl.agents import wire


class Place(Protocol):
    """What of a node's row is needed; `pool` is the shared one that its disks are in, "" for its own."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def pool(self) -> str: ...


class Unlike(NamedTuple):
    """A node whose row and pool do not agree; `command` is what makes the row right."""

    node_id: str
    what: str
    command: str


def apart(one: str, other: str) -> bool | None:
    """Whether the pools with these ids are two; None where it is not known: an older agent, or one that does not answer."""
    return one != other if one and other else None


def unlike(places: Mapping[str, Place], reports: Mapping[str, wire.Report]) -> Iterator[Unlike]:
    """Nodes that have one pool without their rows' saying so, and nodes whose rows say so and have not. By node id."""
    told = sorted(((places[id_], report.pool_id) for id_, report in reports.items() if id_ in places and report.pool_id),
                  key=lambda one: one[0].name)
    for pool_id in dict.fromkeys(id_ for _, id_ in told):
        yield from _unsaid([place for place, id_ in told if id_ == pool_id])
    for pool in dict.fromkeys(place.pool for place, _ in told if place.pool):
        yield from _untrue(pool, [(place, id_) for place, id_ in told if place.pool == pool])


def _unsaid(together: Sequence[Place]) -> Iterator[Unlike]:
    said = Counter(place.pool for place in together if place.pool)
    called = said.most_common(1)[0][0] if said else ""
    for place in together:
        others = [other.name for other in together if other is not place]
        if others and (place.pool != called or not called):
            yield Unlike(
                place.id, f"its pool is node {_some(others)}'s too, and its row says"
                f" {f'that it is {place.pool}' if place.pool else 'that its disks are its own'} (of a host that was cloned, remove"
                " .novactl-pool there)", f"novactl node set {place.name} --shared-disk {called or 'POOL'}")


def _untrue(pool: str, said: Sequence[tuple[Place, str]]) -> Iterator[Unlike]:
    (common, _), = Counter(id_ for _, id_ in said).most_common(1)
    for place, id_ in said:
        if id_ != common:
            others = [other.name for other, its_id in said if its_id == common]
            yield Unlike(
                place.id, f"its row says that its disks are in {pool}, and its pool is another than node {_some(others)}'s: is it mounted"
                " on each?", f"novactl node unset {place.name} --shared-disk")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
