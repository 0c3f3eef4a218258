"""What the conductor's log says, and how often."""

import json

from novactl.cluster import SystemClock
from novactl.conductor.journal import Journal
from novactl.errors import Conflict


class Clock(SystemClock):
    def __init__(self) -> None:
        self.at = 1_800_000_000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


def test_a_line_is_an_act() -> None:
    """A time, the act, its facts; what is no single word is quoted, and nothing breaks the line."""
    lines: list[str] = []
    Journal(lines.append, Clock()).say("node silent", node="n1", detail='he said "no"\nand left', count=3, empty="")
    assert lines == ['2027-01-15T08:00:00Z node silent node=n1 detail="he said \\"no\\"\\nand left" count=3 empty=""\n']


def test_json_logs_are_objects() -> None:
    """One a line, with the time in seconds."""
    lines: list[str] = []
    Journal(lines.append, Clock(), as_json=True).say("leads", epoch=2)
    assert [json.loads(line) for line in lines] == [{"at": 1_800_000_000.0, "act": "leads", "epoch": 2}]


def test_a_failure_is_told_once_a_minute() -> None:
    """Of one kind; another kind is told at once. The next line says how many were not."""
    lines: list[str] = []
    clock = Clock()
    journal = Journal(lines.append, clock)
    for number in range(5):
        journal.failed("watch", RuntimeError(f"number {number}"))
    journal.failed("watch", Conflict("another kind"))
    assert [line.split("error=")[1] for line in lines] == ['"RuntimeError: number 0"\n', '"another kind"\n']
    clock.at += 61
    journal.failed("watch", RuntimeError("again"))
    assert lines[-1].endswith('error="RuntimeError: again" untold=4\n')


def test_many_kinds_are_not_remembered_for_ever() -> None:
    """Names of operations come and go."""
    clock = Clock()
    journal = Journal(lambda line: None, clock)
    for number in range(3000):
        clock.at += 1
        journal.failed(f"recovery of {number}", RuntimeError("no"))
    assert len(journal._told) <= 1000
