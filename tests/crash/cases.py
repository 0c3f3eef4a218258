"""Cases: which process dies at which of its points, who cleans up, and whether that one dies too. How each is written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

WAYS = ("next", "resume", "undo")
"""Who cleans up: the next command, or `operation resume|undo`."""

KINDS: Mapping[str, str] = {
    "killed": "the command is killed",
    "paused": "the command is stopped, overtaken, and goes on",
    "agent": "the agent is killed and started again at once",
    "silent": "the agent is killed and is started again when the command has ended",
    "both": "command and agent are killed at once",
    "late": "the agent is stopped, the command killed; the agent goes on while somebody cleans up",
    "spoilt": "the command is killed in its middle, and the agent while somebody cleans up",
}

_TEXT = re.compile(r"(?P<saga>[\w.+-]+)/(?P<database>\w+)/(?P<kind>\w+)(-(?P<node>n\d))?@(?P<at>\d+)/(?P<way>\w+)(@(?P<again>\d+))?\Z")


@dataclass(frozen=True)
class Case:
    """`at` is the point, from 1, of the command or of the agent of `node`. `way` cleans up, itself killed at its point `again` if
    that is not 0. `str(case)` is what `--replay` takes."""

    saga: str
    database: str
    kind: str
    at: int
    way: str = "next"
    again: int = 0
    node: str = ""

    def __str__(self) -> str:
        node, again = f"-{self.node}" if self.node else "", f"@{self.again}" if self.again else ""
        return f"{self.saga}/{self.database}/{self.kind}{node}@{self.at}/{self.way}{again}"

    @staticmethod
    def parse(text: str) -> Case:
        found = _TEXT.match(text)
        if found is None or found["kind"] not in KINDS or found["way"] not in WAYS:
            raise ValueError(f"{text!r} is not a case, such as server.create/sqlite/killed@17/next@4")
        return Case(
            found["saga"], found["database"], found["kind"], int(found["at"]), found["way"], int(found["again"] or 0), found["node"] or "")


@dataclass(frozen=True)
class Counted:
    """A saga's undisturbed run on one database: the points of its command, and of each agent that it changed something on."""

    saga: str
    database: str
    command: tuple[str, ...]
    agents: Mapping[str, tuple[str, ...]]

    @property
    def points(self) -> int:
        return len(self.command) + sum(map(len, self.agents.values()))


def singles(counted: Counted, *, full: bool) -> Iterator[Case]:
    """The cases that follow from the points alone.

    `full` has each point in each way. Without it, on SQLite: each point of the command killed and paused, each of the agents killed,
    the ways and kinds taking turns from point to point. On the others, which differ in the database alone: the command killed at each
    point and paused at those of the database, and every third point of the agents.
    """
    light = counted.database != "sqlite" and not full

    def of(kind: str, at: int, way: str, node: str = "") -> Case:
        return Case(counted.saga, counted.database, kind, at, way, node=node)

    for at, point in enumerate(counted.command, 1):
        for way in WAYS if full else (WAYS[at % 3],) if light else ("next", WAYS[1 + at // 2 % 2])[: 1 + at % 2]:
            yield of("killed", at, way)
        if "+" not in counted.saga and (not light or point.endswith(("BEGIN", "COMMIT"))):
            for way in WAYS if full else (WAYS[at % 3],):
                yield of("paused", at, way)
    for node, points in counted.agents.items():
        for at in range(1, len(points) + 1):
            for kind in _AGENTS if full else (_AGENTS[at % 3],) if not light else ("agent",) if at % 3 == 0 else ():
                yield of(kind, at, "next", node)
        for at in spread(len(points), 3) if not full and not light else ():
            yield of("silent", at, "next", node)


_AGENTS = ("agent", "both", "late", "silent")


def doubles(case: Case, points: int, total: int, *, full: bool) -> Iterator[Case]:
    """`case` cleaned up by a process with `points` points, which dies, too: at each of them where all is wanted, and on SQLite where
    `case` is the middle one of `total`; else at one of them, another from case to case."""
    everywhere = full or (case.at == middle(total) and case.database == "sqlite")
    for again in range(1, points + 1) if everywhere else (1 + case.at % points,) if points else ():
        yield Case(case.saga, case.database, case.kind, case.at, case.way, again, case.node)


def spoilt(case: Case, agents: Mapping[str, int], total: int, *, full: bool) -> Iterator[Case]:
    """`case` cleaned up while the agents die, which come by so many points then: at each of them where `case` is the middle one of
    `total`, on SQLite; where all is wanted, at the first, the middle and the last of every case, too."""
    everywhere = case.at == middle(total) and (full or case.database == "sqlite")
    for node, points in agents.items():
        for at in range(1, points + 1) if everywhere else spread(points, 3) if full else ():
            yield Case(case.saga, case.database, "spoilt", case.at, "next", at, node)


def middle(total: int) -> int:
    return (total + 1) // 2


def spread(total: int, count: int) -> Sequence[int]:
    """`count` of 1 … `total`, the first and the last among them, evenly."""
    if total <= count:
        return list(range(1, total + 1))
    return sorted({1 + round(number * (total - 1) / (count - 1)) for number in range(count)})


def shown(points: Sequence[str], at: int) -> str:
    return points[at - 1] if 0 < at <= len(points) else "?"
