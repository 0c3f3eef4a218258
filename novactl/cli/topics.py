"""The topics of `novactl help TOPIC`. What can be drawn from the code is drawn from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple


class Topic(NamedTuple):
    line: str
    text: Callable[[], str]


def index() -> str:
    width = max(map(len, TOPICS))
    return "Topics (novactl help TOPIC):\n" + "".join(f"  {name:<{width}}  {topic.line}\n" for name, topic in TOPICS.items())


def _exit_codes() -> str:
    from novactl.errors import EXIT_STATUS_HELP

    rows = "".join(f"{int(status):>5}  {status.name.lower():<14} {text}\n" for status, text in EXIT_STATUS_HELP.items())
    return "The exit status of novactl:\n\n" + rows


def _formats() -> str:
    return """Output formats (-o FORMAT, or NOVACTL_OUTPUT):

  auto    a table on a terminal, tsv in a pipe
  table   for people: sizes and ages in human units; folded to the terminal, never cut in a pipe
  wide    table with every column
  json    {"schema_version": 1, "items": [...]} for lists, {"schema_version": 1, FIELD: ...} for one object
  yaml    the same document as YAML
  csv     comma-separated, first the names of the columns
  tsv     tab-separated, first the names of the columns; backslash, tab and newline are written \\\\, \\t and \\n
  name    names only, one a line
  grid, github, plain    tables for documents

Machine formats carry raw units, named in the field (_mb, _gb, _bytes, _s), and times as RFC 3339 in UTC.
A missing value is -, an unknown one ?; in JSON they are null or empty.
Data goes to stdout; progress, questions and errors go to stderr. With -o json errors are JSON, too:
{"schema_version": 1, "error": {"code", "message", "exit_status", "hint", "try", "reasons", "operation", "details"}}

  -c NAMES     only these columns; +NAME adds one, -NAME takes one away
  --sort NAMES sort by these columns; -NAME downwards
  NO_COLOR, CLICOLOR_FORCE   switch colour off, or on
"""


def _names() -> str:
    from novactl.model.ids import MIN_PREFIX

    return f"""How objects are named:

A name is looked up as an exact name, then as an exact id, then as the first letters of an id, at least {MIN_PREFIX}.
If several ids begin so, the command does nothing, lists them and exits 2. Where nothing is found it exits 3.
A name has at most 63 letters, digits, '_', '.' and '-', and begins with a letter or digit.
"""


def _confirmation() -> str:
    return """What asks before it acts:

`server delete`, `image delete`, `node remove`, and every verb that stops, reboots or deletes several objects at once.
The question says what will happen; the answer is No unless you type y.
-y, --yes or NOVACTL_YES=1 answers beforehand. Where nobody can answer (no terminal, NOVACTL_NO_INPUT=1, a batch)
and --yes is not given, nothing is changed and the exit status is 2. --dry-run never asks.
"""


def _configuration() -> str:
    from novactl.config import SETTINGS

    rows = "".join(f"  {row.name:<28} {row.help} (default: {row.default!r})\n" for row in SETTINGS)
    return f"""The configuration file is $NOVACTL_CONFIG, or novactl/config.toml in $XDG_CONFIG_HOME (~/.config).
Data is kept in $NOVACTL_DATA_DIR, or novactl in $XDG_DATA_HOME (~/.local/share). An unknown key is an error.
The environment goes before the file: database.url is NOVACTL_DATABASE_URL there.

{rows}"""


def _batch() -> str:
    return """`novactl batch` runs one command a line, without the word novactl, in one process:

  printf 'server stop web1\\nserver list --status ACTIVE\\n' | novactl batch

Words are split and quoted as in a shell; blank lines and lines that begin with # are skipped. For each line one JSON
object is printed: {"line": N, "command": TEXT, "exit_status": N, "result": OBJECT or null, "error": OBJECT or null}.
`result` is what the command prints with -o json. Exit 0 if all succeeded, 7 if some failed, 1 if all failed.
"""


TOPICS: Mapping[str, Topic] = {
    "exit-codes": Topic("what the exit status means", _exit_codes),
    "formats": Topic("output formats, columns, streams", _formats),
    "names": Topic("how objects are named", _names),
    "confirmation": Topic("what asks before it acts, and --yes", _confirmation),
    "configuration": Topic("the configuration file and its settings", _configuration),
    "batch": Topic("many commands in one process", _batch),
}
