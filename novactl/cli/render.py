"""A command's value to the terminal, a pipe or a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from novactl.cli import table as c
from novactl.cli.plain import document, fields_of, is_time, plain
from novactl.cli.session import Session, is_terminal
from novactl.cli.table import Column, Table
from novactl.errors import ExitStatus, UsageError

if TYPE_CHECKING:
    from rich.table import Table as RichTable

STRUCTURED = ("json", "yaml")
MACHINE = ("csv", "tsv", "name")
FORMATS = ("auto", "table", "wide", *STRUCTURED, *MACHINE, "grid", "github", "plain")


class Shown(NamedTuple):
    """A value with more to say than itself.

    `rows` are the lines of a table where they differ from `value` (the whole document, for JSON). `footer` lines follow
    the table, for people. `status` is the exit status. `table` replaces the verb's table.
    """

    value: Any
    rows: Sequence[Any] | None = None
    footer: tuple[str, ...] = ()
    status: ExitStatus = ExitStatus.OK
    table: Table | None = None


class Stream(NamedTuple):
    """Values as they come, maybe without end: each is printed as soon as it is there, while somebody reads."""

    values: Iterator[Any]


class View(NamedTuple):
    """The output options, checked."""

    output: str
    columns: tuple[str, ...]
    no_headers: bool
    sort: tuple[str, ...]

    @classmethod
    def of(cls, table: Table, *, output: str, columns: str, no_headers: bool, sort: str) -> View:
        """Raises UsageError for a format or a column that is not there."""
        if output not in FORMATS:
            raise UsageError(f"there is no output format {output!r}", hint="one of " + ", ".join(FORMATS))
        view = cls(output, _names(columns), no_headers, _names(sort))
        known = {column.key for column in table.columns}
        wrong = [name for name in (*view.columns, *view.sort) if name.lstrip("+-") not in known]
        if wrong and known:
            raise UsageError(f"there is no column {wrong[0].lstrip('+-')!r}", hint="one of " + ", ".join(sorted(known)))
        return view


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def emit(session: Session, result: Any, table: Table, view: View) -> ExitStatus:
    """Print `result` (a record, a tuple of records, a `Shown`, or None for nothing) as `view` asks; its exit status."""
    if isinstance(result, Stream):
        return _pour(session, result.values, table, view)
    shown = result if isinstance(result, Shown) else Shown(result)
    if shown.table is not None:
        shown, table, view = _fitted(shown, table, view)
    if shown.value is None:
        return shown.status
    if session.captured is not None:
        session.captured.append(document(shown.value))
        return shown.status
    output = view.output
    if output == "auto":
        output = "table" if is_terminal(session.stdout) else "tsv"
    session.stdout.write(_text(session, shown, table, view, output))
    session.stdout.flush()
    return shown.status


def _pour(session: Session, values: Iterator[Any], table: Table, view: View) -> ExitStatus:
    """JSON an object a line; YAML one sequence; else the columns, tab-separated also for people: no width is known beforehand."""
    from novactl.cli import formats

    if view.sort:
        raise UsageError("what is followed has no end to be sorted at", hint="leave out --sort, or --follow")
    columns = _chosen(table.columns, view.columns, "tsv")

    def text(value: Any) -> str:
        if view.output == "json":
            return formats.as_json(plain(value), indent=None)
        if view.output == "yaml":
            return formats.as_yaml([plain(value)])
        cells = [cell(column, value) for column in columns]
        return formats.as_csv((), [cells]) if view.output == "csv" else "\t".join(formats.visible(one) for one in cells) + "\n"

    for value in values:
        session.stdout.write(text(value))
        session.stdout.flush()
        if session.stdout.lost:
            break
    return ExitStatus.OK


def _fitted(shown: Shown, declared: Table, view: View) -> tuple[Shown, Table, View]:
    """What to print where the result has another table than the verb's own, whose columns were asked for.

    One record is shown by the verb's table, so that it has them; of several outcomes those columns that there are.
    """
    table = shown.table
    known = {column.key for column in table.columns}          # type: ignore[union-attr]
    foreign = [name for name in (*view.columns, *view.sort) if name.lstrip("+-") not in known]
    if not foreign:
        return shown, table, view                             # type: ignore[return-value]
    if len(shown.rows or ()) == 1 and not isinstance(shown.value, tuple | str):
        return shown._replace(rows=(shown.value,), table=None), declared, view
    kept = view._replace(
        columns=tuple(name for name in view.columns if name not in foreign), sort=tuple(name for name in view.sort if name not in foreign))
    return shown, table, kept                                 # type: ignore[return-value]


def _text(session: Session, shown: Shown, table: Table, view: View, output: str) -> str:
    from novactl.cli import formats

    if output in STRUCTURED:
        return (formats.as_json if output == "json" else formats.as_yaml)(document(shown.value))
    rows = _rows(shown, table)
    if rows is None:
        return _record_text(session, shown.value, view, output)
    rows = _sorted(rows, table, view.sort)
    if output == "name":
        return "".join(f"{formats.visible(_name(row))}\n" for row in rows)
    columns = _chosen(table.columns, view.columns, output)
    machine = output in MACHINE
    titles = () if view.no_headers or table.bare else tuple(column.key if machine else column.title for column in columns)
    if machine:
        cells = [[cell(column, row) for column in columns] for row in rows]
        if output == "csv" and is_terminal(session.stdout):
            cells = [[formats.visible(text) for text in line] for line in cells]
        return (formats.as_csv if output == "csv" else formats.as_tsv)(titles, cells)
    now = session.now()
    cells = [[column.for_people(row, now) for column in columns] for row in rows]
    text = _people(session, titles, cells, output, [output == "wide" or column.firm for column in columns])
    footer = [*shown.footer, *([table.footer(shown.value)] if table.footer and not shown.rows else [])]
    return text + "".join(formats.visible(line) + "\n" for line in footer if line)


def _rows(shown: Shown, table: Table) -> Sequence[Any] | None:
    """The lines of the table, or None if the value is one record, shown field by field."""
    if shown.rows is not None:
        return shown.rows
    if table.rows is not None:
        return table.rows(shown.value)
    if isinstance(shown.value, tuple | list) and not hasattr(shown.value, "_fields"):
        return shown.value
    return None


def _chosen(all_columns: tuple[Column, ...], wanted: tuple[str, ...], output: str) -> list[Column]:
    shown = {c.ALL, c.DATA, c.WIDE} if output in MACHINE else {c.ALL, c.TABLE, c.WIDE} if output == "wide" else {c.ALL, c.TABLE}
    default = [column for column in all_columns if column.where in shown]
    by_key = {column.key: column for column in all_columns}
    only = [by_key[name] for name in wanted if name[0] not in "+-"]
    less = {name[1:] for name in wanted if name[0] == "-"}
    more = [by_key[name[1:]] for name in wanted if name[0] == "+"]
    chosen = only or [column for column in default if column.key not in less]
    return chosen + [column for column in more if column not in chosen]


def _sorted(rows: Sequence[Any], table: Table, sort: tuple[str, ...]) -> Sequence[Any]:
    by_key = {column.key: column for column in table.columns}
    for name in reversed(sort):
        column = by_key[name.lstrip("-")]
        present = [row for row in rows if column.value(row) is not None]
        absent = [row for row in rows if column.value(row) is None]
        rows = sorted(present, key=column.value, reverse=name.startswith("-")) + absent
    return rows


def cell(column: Column, record: Any) -> str:
    """A column's value for machines: raw numbers, RFC 3339 times, lists by comma."""
    value = plain(column.value(record), column.key)
    if value is None or value == "":
        return column.absent
    return flat(value)


def flat(value: Any) -> str:
    """A JSON-able value in one cell."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(flat(item) for item in value) or c.MISSING
    if isinstance(value, Mapping):
        return ",".join(f"{key}={flat(item)}" for key, item in value.items()) or c.MISSING
    if isinstance(value, float):
        return str(round(value, 6))
    return c.MISSING if value is None or value == "" else str(value)


def _name(row: Any) -> str:
    for field in ("name", "target", "id", "check", "object", "node"):
        found = row.get(field) if isinstance(row, Mapping) else getattr(row, field, None)
        if found:
            return str(found)
    return flat(plain(row))


def _people(session: Session, titles: Sequence[str], cells: list[list[str]], output: str, firm: Sequence[bool]) -> str:
    from novactl.cli import formats

    if output in ("table", "wide"):
        if is_terminal(session.stdout):
            return _rich(session, titles, cells, firm)
        output = "plain"
    return formats.as_tabulated(titles, cells, output)


_NARROW = 10
"""No column is folded to less: then the rows reach past the terminal's edge."""


def _rich(session: Session, titles: Sequence[str], cells: list[list[str]], firm: Sequence[bool]) -> str:
    """A table as wide as the terminal, or as the `firm` columns want it: what does not fit is folded, never cut."""
    from rich.cells import cell_len
    from rich.table import Table as RichTable
    from rich.text import Text

    from novactl.cli.formats import visible

    table = RichTable(box=None, show_header=bool(titles), header_style="bold", pad_edge=False)
    needed = 2 * (len(firm) - 1)
    for column, holds in enumerate(firm if titles or cells else ()):
        title = titles[column] if titles else ""
        natural = max(cell_len(text) for text in (title, *(visible(row[column]) for row in cells)))
        needed += natural if holds else min(natural, _NARROW)
        table.add_column(title, overflow="fold", no_wrap=holds)
    for row in cells:
        table.add_row(*(Text(visible(text), style=STYLES.get(text, "")) for text in row))
    return printed(session, table, needed)


STYLES = {
    "ACTIVE": "green", "up": "green", "ok": "green", "chosen": "green", "ERROR": "red", "down": "red", "fail": "red",
    "failed": "red", "rejected": "red", "stuck": "red", "warn": "yellow", "stale": "yellow", "disabled": "yellow",
    "drained": "yellow", "fencing": "red", "fenced": "red",
    "BUILD": "yellow", "running": "yellow", "unwinding": "yellow",
}


def printed(session: Session, renderable: RichTable, at_least: int = 0) -> str:
    """`at_least`: its width, where the terminal is narrower."""
    from rich.console import Console

    console = Console(
        file=session.stdout, force_terminal=is_terminal(session.stdout), no_color=not session.colour(session.stdout),
        highlight=False, markup=False, emoji=False, soft_wrap=False,
    )
    console.width = max(console.width, at_least)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def _record_text(session: Session, record: Any, view: View, output: str) -> str:
    """A record field by field: `field<TAB>value` for machines, aligned and in human units for people."""
    from novactl.cli import formats

    fields = fields_of(record) or {}
    if view.columns:
        fields = {name: fields[name] for name in view.columns if name in fields}
    if output == "name":
        return f"{formats.visible(_name(record))}\n"
    if output in MACHINE:
        rows = [[name, flat(plain(value, name))] for name, value in fields.items()]
        if output == "csv" and is_terminal(session.stdout):
            rows = [[name, formats.visible(text)] for name, text in rows]
        titles = () if view.no_headers else ("FIELD", "VALUE")
        return (formats.as_csv if output == "csv" else formats.as_tsv)(titles if output == "csv" else (), rows)
    now = session.now()
    rows = [[name, human_field(name, value, now)] for name, value in fields.items()]
    if output in ("table", "wide"):
        width = max((len(name) for name, _ in rows), default=0)
        lead = "\n" + " " * (width + 2)
        return "".join(f"{name:<{width}}  {lead.join(formats.visible(text).split(chr(10)))}\n" for name, text in rows)
    return formats.as_tabulated(("FIELD", "VALUE"), rows, output)


_UNITS = (("_mb", c.mebibytes), ("_gb", c.gibibytes), ("_bytes", c.bytes_), ("_s", c.seconds))


def human_field(name: str, value: Any, now: float) -> str:
    """A field's value for people; its unit is read off its name."""
    if value is None or value == "":
        return c.MISSING
    if isinstance(value, int | float) and not isinstance(value, bool):
        if is_time(name):
            distance = f"in {c.age(now, value)}" if value > now else f"{c.age(value, now)} ago"
            return f"{c.clock_time(value, now)} ({distance})"
        for suffix, human in _UNITS:
            if name.endswith(suffix):
                return human(value, now)
    if isinstance(value, tuple | list):
        return "\n".join(getattr(item, "line", None) or flat(plain(item)) for item in value) or c.MISSING
    if isinstance(value, Mapping):
        return "\n".join(f"{key}={flat(plain(item, key))}" for key, item in value.items()) or c.MISSING
    return flat(plain(value))
