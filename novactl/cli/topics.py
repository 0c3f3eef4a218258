"""The topics of `novactl help TOPIC`. What can be drawn from the code is drawn from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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

`server delete`, `server evacuate`, `image delete`, `node remove`, `db restore --force`, and every verb that stops, reboots or deletes
several objects at once. The question says what will happen; the answer is No unless you type y.
`node fence`, `node remove --lost` and `key revoke` ask for the object's name, `cluster adopt` for a word: they cannot be taken back.
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


def _table(rows: Iterable[tuple[str, str, str]]) -> str:
    rows = tuple(rows)
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "".join(f"  {one:<{widths[0]}}  {two:<{widths[1]}}  {three}\n" for one, two, three in rows)


def _placement() -> str:
    from novactl.model.aggregate_metadata import KEYS
    from novactl.model.extra_specs import FLAVOR_SPECS, IMAGE_PROPERTIES
    from novactl.model.project import QUOTAS

    quotas = ", ".join(QUOTAS)
    return f"""Where a server goes is decided by what its node has, what its flavor, image and group ask, and what admins said of nodes.

Nodes. An agent reports processors, memory, disk and traits; `node set` says how much of it may be claimed:
  capacity = (total - reserved - image cache) x ratio, and no server gets more than the total by itself.
  `node show` has the numbers. Less than is in use may be set: servers go on, and nothing more fits.
Custom classes (CUSTOM_GPU) and traits (CUSTOM_NVLINK) are an admin's own: `node set --inventory`, `node set --trait`.
`resource-class list` and `trait list` show which there are.

Extra specs of a flavor (flavor create|set --property KEY=VALUE). An unknown key is refused: Nova ignores it, or rejects every node.
{_table((entry.key, entry.takes, entry.help) for entry in FLAVOR_SPECS)}
Properties of an image (image create|set --property KEY=VALUE). Where flavor and image contradict each other, nothing is created.
{_table((entry.key, entry.takes, entry.help) for entry in IMAGE_PROPERTIES)}
What comes after OP is told by `novactl help operators`. A server keeps what its flavor and image asked when it was created.

Aggregates are sets of nodes with metadata; a node may be in several. Keys that placement reads, others are for flavors to ask:
{_table((key.key, key.takes, key.help) for key in KEYS)}
A node is in one zone at most: its own (node set --zone) or that of its aggregates. What would put it in two, or take a zone away
that its servers asked for, is refused.

Server groups keep servers together (affinity) or apart (anti-affinity), on nodes or on failure domains (--scope LABEL). The soft
ones only prefer. The others hold in the same transaction as the claim: two commands at once cannot break them. A group with
members is deleted only with --force.

Projects have quotas: {quotas}.
A project's own limit counts, else the default, else none. A limit below what is in use needs --force.

Answers. `placement explain` tells of each node whether it could take a server and why, `placement why-not NODE` of one, `server why NAME`
how it was decided for one that is there, `capacity` how many more fit. `scheduler list` shows what decides, and `scheduler show` each
part of it. `cluster set --n-plus-1` refuses what would leave the loss of one node without room for its servers.
"""


def _operators() -> str:
    from novactl.api.grammar import QUERY_OPERATORS, capabilities, operators

    return f"""Operators in the values of capabilities: and aggregate_instance_extra_specs: (a space follows each):

{_table(operators())}
An operator that is not here, or has nothing to compare with, is refused when the flavor is set.

Names after capabilities:, and with a $ before them in a query; labels:KEY is a node's label ($labels.KEY in a query):
{_table(capabilities())}
Queries (--query) are JSON, as Nova's: ["and", [">=", "$free_ram_mb", 4096], ["=", "$zone", "rack1"]]
  {" ".join(QUERY_OPERATORS)}
"""


def _operations() -> str:
    from novactl.config import SETTINGS

    timeouts = _table((row.name, f"{row.default:g} s", row.help) for row in SETTINGS if row.name.startswith("timeout."))
    return f"""Every command that changes something is an operation. The journal keeps its kind, object, arguments (but no secrets), actor,
their key, --reason, steps with times, and its result, or the error and where that came from.

  operation list    under way or stuck; --all the ended, too; --kind, --server, --node, --state, --limit
  operation show    all that is known of one; --debug and -o json: where its error came from
  operation watch   follow until the end, and exit as the operation does; wait is the quiet form (--timeout)
  operation resume  go on with what is stuck, or whose process died
  operation undo    turn that back instead
  operation cancel  turn back what a living process drives: its command ends with exit 4
  events            who did what, when, why, with what result; --follow as it happens; server events, node events

Leaving. --async does not wait, --timeout waits so long, and Ctrl-C, SIGTERM or a closed terminal end the command, not the operation:
it goes on in the background, and the command to come back is printed. Enrolling and removing nodes need this process (its SSH
connection, its passwords): interrupted, they are undone at once; interrupted again, that is left to operation resume. With --async or
--timeout a process in the background does it from the start, which can ask for no password.

States. running, unwinding (being undone), ok, failed (undone, or nothing was done), stuck: it can neither go on nor back now. The
message names step, node and the next command. A stuck operation is tried again when its node answers.

Dying. After a kill -9 at any point the next command ends what was left: creations are undone, deletions and power changes finished.

Errors are tried again here (settings operation.retries, operation.retry_s), on another node, or end the operation.

Timeouts. An operation that takes longer is turned back; past the point where it can be, it is stuck:
{timeouts}"""


TOPICS: Mapping[str, Topic] = {
    "exit-codes": Topic("what the exit status means", _exit_codes),
    "formats": Topic("output formats, columns, streams", _formats),
    "names": Topic("how objects are named", _names),
    "confirmation": Topic("what asks before it acts, and --yes", _confirmation),
    "configuration": Topic("the configuration file and its settings", _configuration),
    "placement": Topic("traits, extra specs, image properties, aggregates, groups, quotas", _placement),
    "operators": Topic("operators of extra specs, capabilities, queries", _operators),
    "operations": Topic("what is under way, who does it, and how to come back to it", _operations),
    "batch": Topic("many commands in one process", _batch),
}
