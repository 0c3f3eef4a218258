"""What a table is: its columns, and how their values are told to people.

`key` is the column's name for -c, --sort and machine formats and, unless `get` is given, the record's field. `human` turns its value into
text for people (`now` is given for ages); machine formats print the raw value. `where` is one of ALL, WIDE (only -o wide
and machine formats), TABLE (only tables: values put together for people) and DATA (only machine formats). A `firm`
column is not folded on a narrow terminal: what is copied or read as a number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from novactl.model import units

ALL, WIDE, TABLE, DATA = "all", "wide", "table", "data"
MISSING, UNKNOWN = "-", "?"


def _text(value: Any, now: float) -> str:
    if isinstance(value, tuple | list):
        return ", ".join(str(item) for item in value) or MISSING
    if hasattr(value, "items"):
        return ", ".join(f"{key}={item}" for key, item in value.items()) or MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _by(format_one: Callable[[Any], str]) -> Callable[[Any, float], str]:
    return lambda value, now: format_one(value)


def age(value: Any, now: float) -> str:
    return units.human_seconds(max(0.0, now - value))


def clock_time(value: Any, now: float) -> str:
    from novactl.cli.plain import rfc3339

    return rfc3339(value)


mebibytes, gibibytes, bytes_, seconds = (
    _by(units.human_mib), _by(units.human_gib), _by(units.human_bytes), _by(units.human_seconds))


class Column(NamedTuple):
    key: str
    title: str
    get: Callable[[Any], Any] | None = None
    human: Callable[[Any, float], str] = _text
    where: str = ALL
    absent: str = MISSING
    firm: bool = False

    def value(self, record: Any) -> Any:
        return getattr(record, self.key) if self.get is None else self.get(record)

    def for_people(self, record: Any, now: float) -> str:
        value = self.value(record)
        return self.absent if value is None or value == "" else self.human(value, now)


class Table(NamedTuple):
    """`rows` finds the lines in a value that is not itself a tuple of records; `footer` is a last line for people.

    A `bare` table never has titles.
    """

    columns: tuple[Column, ...]
    rows: Callable[[Any], Sequence[Any]] | None = None
    footer: Callable[[Any], str] | None = None
    bare: bool = False
