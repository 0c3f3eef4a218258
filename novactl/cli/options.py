"""The flags and arguments that several commands share, and the completion of live names."""

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from novactl.cli.render import FORMATS
from novactl.cli.session import Session
from novactl.cli.tree import OUTPUT_PANEL
from novactl.errors import UsageError


def live_names(noun: str) -> Any:
    """Completes the names of `noun` from the database; silent where there is none."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        from novactl.api.names import names

        return names(ctx.obj.cluster, noun, incomplete)

    return complete


def _formats(incomplete: str) -> list[str]:
    return [name for name in FORMATS if name.startswith(incomplete)]


def _choice(noun: str, kind: Any, text: str) -> Any:
    return Annotated[kind, typer.Option(metavar=noun.upper(), show_default=False, autocompletion=live_names(noun), help=text)]


def _target(noun: str, metavar: str) -> Any:
    return Annotated[str, typer.Argument(metavar=metavar, show_default=False, autocompletion=live_names(noun),
                                         help=f"The {noun}: its name, its id, or 4 or more first letters of the id.")]


def _targets(noun: str, metavar: str) -> Any:
    return Annotated[list[str], typer.Argument(metavar=metavar, show_default=False, autocompletion=live_names(noun),
                                               help="One or more: name, id, or 4 or more first letters of the id.")]


ServerRef, ServerRefs = _target("server", "SERVER"), _targets("server", "SERVER...")
NodeRef, NodeRefs = _target("node", "NODE"), _targets("node", "NODE...")
FlavorRef, FlavorRefs = _target("flavor", "FLAVOR"), _targets("flavor", "FLAVOR...")
ImageRef, ImageRefs = _target("image", "IMAGE"), _targets("image", "IMAGE...")
KeypairRef, KeypairRefs = _target("keypair", "KEYPAIR"), _targets("keypair", "KEYPAIR...")
Flavor, Image = _choice("flavor", str, "The size."), _choice("image", str, "What the disk is made from.")
Key = _choice("keypair", str | None, "The SSH key the server is given.")
OnNode = _choice("node", str | None, "Only this node.")
OnZone = _choice("zone", str | None, "Only nodes of this zone.")
ZoneName = _choice("zone", str | None, "The availability zone that its nodes are.")
InProject = _choice("project", str | None, "The project it belongs to (default: default).")
OfProject = _choice("project", str | None, "Only those of this project.")
OfServer, OfNode = _choice("server", str, "Only those of this server, also of one that is gone."), _choice(
    "node", str, "Only those of this node, also of one that is gone.")
OperationRef = Annotated[str, typer.Argument(
    metavar="OPERATION", show_default=False, autocompletion=live_names("operation"), help="Its id, or 4 or more first letters of it.")]
OperationRefs = Annotated[list[str], typer.Argument(
    metavar="OPERATION...", show_default=False, autocompletion=live_names("operation"),
    help="One or more ids, or 4 or more first letters of each.")]
AggregateRef, AggregateRefs = _target("aggregate", "AGGREGATE"), _targets("aggregate", "AGGREGATE...")
GroupRef, GroupRefs = _target("server-group", "GROUP"), _targets("server-group", "GROUP...")
ProjectRef, ProjectRefs = _target("project", "PROJECT"), _targets("project", "PROJECT...")

NewName = Annotated[str, typer.Argument(
    metavar="NAME", show_default=False, help="Letters, digits, '_', '.' and '-'; at most 63.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything and show what would be; change nothing.")]
Yes = Annotated[bool, typer.Option(
    "--yes", "-y", help="Do not ask. Needed where nobody can answer (NOVACTL_YES=1 does the same).")]
Force = Annotated[bool, typer.Option("--force", help="Although it is in use; what becomes of that is said above.")]
Properties = Annotated[list[str], typer.Option(
    "--property", metavar="KEY=VALUE", show_default=False, help="May be repeated.")]
PropertyKeys = Annotated[list[str], typer.Option("--property", metavar="KEY", show_default=False, help="May be repeated.")]
Hardware = Annotated[list[str], typer.Option(
    "--add", metavar="COUNTxCPUSc/RAM/DISK", show_default=False, help="As if such nodes were there: 2x64c/256G/2T; may be repeated.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
Async = Annotated[bool, typer.Option("--async", help="Do not wait: print the operation's id.")]
Timeout = Annotated[str, typer.Option(
    metavar="DURATION", show_default=False, help="Wait at most so long (90, 90s, 2m); then exit 124, the operation goes on.")]

_Output = Annotated[str, typer.Option(
    "--output", "-o", metavar="FORMAT", envvar="NOVACTL_OUTPUT", show_envvar=False, rich_help_panel=OUTPUT_PANEL,
    autocompletion=_formats, help=f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
    " (auto: a table on a terminal, tab-separated in a pipe).")]
_Columns = Annotated[str, typer.Option(
    "--columns", "-c", metavar="NAMES", show_default=False, rich_help_panel=OUTPUT_PANEL,
    help="These columns only, by comma; +NAME adds one, -NAME takes one away.")]
_NoHeaders = Annotated[bool, typer.Option("--no-headers", rich_help_panel=OUTPUT_PANEL, help="No line of column titles.")]
_Sort = Annotated[str, typer.Option(
    metavar="NAMES", show_default=False, rich_help_panel=OUTPUT_PANEL, help="Sort by these columns; -NAME downwards.")]


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


VIEW_PARAMETERS = (
    _keyword("output", _Output, "auto"), _keyword("columns", _Columns, ""),
    _keyword("no_headers", _NoHeaders, False), _keyword("sort", _Sort, ""),
)
"""What every verb that shows something takes beside its own flags."""

REASON = _keyword("reason", Annotated[str, typer.Option(
    "--reason", metavar="TEXT", show_default=False, help="What it is for: kept with the operation and its events.")], "")
"""What every verb that changes something takes."""

HINT_PANEL = "Where it goes"


def _hint(kind: Any, flag: str, metavar: str, text: str, noun: str = "") -> Any:
    return Annotated[kind, typer.Option(
        flag, metavar=metavar, show_default=False, rich_help_panel=HINT_PANEL, help=text,
        autocompletion=live_names(noun) if noun else None)]


HINT_PARAMETERS = (
    _keyword("project", _hint(str, "--project", "PROJECT", "Whose it is, and whose quota counts (default: default).", "project"), ""),
    _keyword("group", _hint(str, "--group", "GROUP", "The server group it joins.", "server-group"), ""),
    _keyword("spread_by", _hint(
        str, "--spread-by", "LABEL", "Spread the batch, or with --group the group, over the values of this label of nodes."), ""),
    _keyword("same_host", _hint(list[str], "--same-host", "SERVER", "Beside one of these servers; may be repeated.", "server"), ()),
    _keyword("different_host", _hint(
        list[str], "--different-host", "SERVER", "Beside none of these servers; may be repeated.", "server"), ()),
    _keyword("near", _hint(str, "--near", "CIDR", "Nodes whose address is in this network: 10.0.0.0/24."), ""),
    _keyword("query", _hint(str, "--query", "JSON", "Nodes of which this is true: '[\">=\", \"$free_ram_mb\", 8192]'."), ""),
)
"""What a server may ask of its node beside its size: everywhere where a place is asked for."""


def with_hints(function: Any) -> Any:
    """A verb that takes HINT_PARAMETERS as flags, and gets them as one `hints`."""
    own = [parameter for parameter in inspect.signature(function).parameters.values() if parameter.name != "hints"]

    def call(**given: Any) -> Any:
        from novactl.api.hints import Hints

        said = {parameter.name: given.pop(parameter.name) for parameter in HINT_PARAMETERS}
        return function(**given, hints=Hints(**{name: tuple(v) if isinstance(v, list | tuple) else v for name, v in said.items()}))

    call.__name__, call.__doc__ = function.__name__, function.__doc__
    call.__signature__ = inspect.Signature([*own, *HINT_PARAMETERS])  # type: ignore[attr-defined]
    return call


def n_plus_1(text: str) -> Any:
    """The flag of N+1, by both its names."""
    return Annotated[bool | None, typer.Option(
        "--n+1/--no-n+1", "--n-plus-1/--no-n-plus-1", show_default=False, help=text)]


def text_of(session: Session, file: Path | None, what: str) -> str | None:
    """The text of `file`, '-' being standard input; None where there is none. Raises UsageError saying `what` it is."""
    if file is None:
        return None
    try:
        text = session.stdin.read() if str(file) == "-" else file.expanduser().read_text(encoding="utf-8")
        text.encode("utf-8")                                  # in the C locale what is not UTF-8 was read all the same
        return text
    except (OSError, UnicodeError) as error:
        raise UsageError(f"cannot read {what} from {file}: {error}") from error


def duration(text: str) -> float | None:
    """A --timeout as seconds; "" is None. Raises UsageError."""
    from novactl.model.units import duration_s

    return duration_s(text) if text else None


def pairs(texts: list[str]) -> dict[str, str]:
    """['rack=r2'] -> {'rack': 'r2'}. Raises UsageError."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"{text!r} is not KEY=VALUE")
        found[key] = value
    return found
