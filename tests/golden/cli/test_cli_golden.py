"""What the command line prints, as files: for each noun its table in each format, the help, the errors."""

import io
import re

import pytest

from novactl.cli import columns, failures, render, topics
from novactl.cli.manual import command_help
from novactl.cli.root import root
from novactl.cli.session import Session
from novactl.cli.table import Table
from novactl.db.servers import ServerRow
from novactl.errors import Ambiguous, NotFound, NoValidHost
from tests.golden.cli.records import RECORDS, TABLES

NOW = 1_700_003_600.0
FORMATS = ("table", "wide", "grid", "github", "plain", "tsv", "csv", "name", "json", "yaml")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def session(stdout: io.StringIO, **env: str) -> Session:
    made = Session([], {"TERM": "xterm", **env}, stdin=io.StringIO(), stdout=stdout, stderr=io.StringIO())
    made.now = lambda: NOW
    return made


def printed(value: object, table: Table, *, stdout: io.StringIO | None = None, **options: object) -> str:
    out = stdout or io.StringIO()
    given = {"output": "auto", "columns": "", "no_headers": False, "sort": "", **options}
    render.emit(session(out), value, table, render.View.of(table, **given))
    return out.getvalue()


def in_every_format(value: object, table: Table) -> str:
    return "".join(f"-o {output}\n{printed(value, table, output=output)}\n" for output in FORMATS)


@pytest.mark.parametrize("noun", TABLES)
def test_a_list_in_every_format(noun: str, golden) -> None:
    """A noun's list looks as its golden file says, in every format; JSON keeps its fields and their order."""
    table, value = TABLES[noun]
    golden(f"list.{noun}.txt", in_every_format(value, table))


@pytest.mark.parametrize("noun", RECORDS)
def test_one_record_in_every_format(noun: str, golden) -> None:
    """One record looks as its golden file says, in every format."""
    golden(f"show.{noun}.txt", in_every_format(RECORDS[noun], columns.RECORD))


@pytest.mark.parametrize("noun", ["server", "node", "operation", "explanation"])
def test_a_list_on_a_terminal(noun: str, golden, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a list is a table in colour, folded to the terminal's width; -o wide is not folded."""
    monkeypatch.setenv("COLUMNS", "80")
    table, value = TABLES[noun]
    shown = printed(value, table, stdout=Terminal())
    golden(f"terminal.{noun}.txt", shown + printed(value, table, stdout=Terminal(), output="wide"))


@pytest.mark.parametrize("columns", ["40", "80", "200"])
@pytest.mark.parametrize("noun", TABLES)
def test_wide_rows_are_one_line_each(noun: str, columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """-o wide has one line a row however narrow the terminal is, and each value is on it whole."""
    monkeypatch.setenv("COLUMNS", columns)
    table, value = TABLES[noun]
    rows = table.rows(value) if table.rows else value
    lines = printed(value, table, stdout=Terminal(), output="wide", no_headers=True).splitlines()
    for row, line in zip(rows, lines, strict=False):
        for column in table.columns:
            if column.where != "data":
                assert column.for_people(row, NOW) in line


def test_a_full_server_list_fits_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long names fold in a list of servers on 80 columns; states and ages do not, and no line is longer."""
    monkeypatch.setenv("COLUMNS", "80")
    row = ServerRow(
        "00000005-0000-4000-8000-000000000000", "web-frontend-production-01", "SHUTOFF", "hypervisor-rack2-07", "m1.large",
        "debian-12-generic-amd64-20240901", ("192.168.122.10", "10.0.0.7"), NOW - 3600)
    lines = printed((row,), columns.SERVERS, stdout=Terminal(), output="auto").splitlines()
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    assert max(map(len, plain)) <= 80 and len(plain) <= 5
    assert "SHUTOFF" in plain[1] and plain[1].endswith("60 min") and "m1.large" in plain[1]


ERRORS = {
    "not-found": NotFound("server", "wbe1", similar=["web1"]),
    "ambiguous": Ambiguous("server", "3f2a", ["3f2a11 web1", "3f2a22 web2"]),
    "no-valid-host": NoValidHost(
        "no node can take server web1", reasons=["n1: MEMORY_MB: needs 8192, free 5900", "n2: disabled: kernel \x1b[31m"],
        operation="3f2a", details={"rejected": {}}),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error(name: str, golden) -> None:
    """An error names itself, its reasons and the way out; control characters in it are spelled out; -o json has a stable shape."""
    made = session(io.StringIO())
    made.argv = ["server", "show", "x", "-o", "json"]
    failures.report(made, ERRORS[name])
    golden(f"error.{name}.txt", "".join(line + "\n" for line in failures.lines(ERRORS[name])) + "\n" + made.stderr.getvalue())


@pytest.mark.parametrize("words", ["", "server", "server create", "node enroll", "node set", "quota set", "aggregate", "batch"])
def test_help_pages(words: str, golden, monkeypatch: pytest.MonkeyPatch) -> None:
    """The help of a command begins with what it does and how it is used."""
    monkeypatch.setenv("COLUMNS", "100")
    context = root().make_context("novactl", ["help"], obj=session(io.StringIO()))
    golden(f"help.{words.replace(' ', '-') or 'root'}.txt", command_help(context, words.split()) + "\n")


@pytest.mark.parametrize("topic", [name for name in topics.TOPICS if name != "configuration"])
def test_help_topics(topic: str, golden) -> None:
    """The help topics say what the code says."""
    golden(f"topic.{topic}.txt", topics.TOPICS[topic].text())


def test_records_have_the_fields_that_columns_read() -> None:
    """Every column of every table finds its value in the records of its noun."""
    for table, value in TABLES.values():
        rows = table.rows(value) if table.rows else value
        for row in rows:
            for column in table.columns:
                column.value(row)
                assert column.for_people(row, NOW)
