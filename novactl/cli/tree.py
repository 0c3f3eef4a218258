"""The command tree: a noun's module is imported when the noun is used, a verb's parameters are built when it is called.

Typer builds every command of a program at each start. Here the tree holds only names and one-line helps; `Lazy.load`
makes the one command that runs (or completes) into a real Typer command.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

if TYPE_CHECKING:
    from novactl.cli.table import Table

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
ALIASES = {"ls": ("list",), "rm": ("delete", "remove")}
OUTPUT_PANEL = "Output options"


class Verb(TyperCommand):
    """A command whose help begins with what it does and its examples."""

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:
        write_head(self, ctx, formatter)
        self.format_options(ctx, formatter)

    def format_options(self, ctx: typer.Context, formatter: Any) -> None:
        panels: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                default = "Arguments" if param.param_type_name == "argument" else "Options"
                panels.setdefault(getattr(param, "rich_help_panel", None) or default, []).append(record)
        for title, records in panels.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


class Lazy(TyperCommand):
    """A command of which only the name and one line are known."""

    def __init__(self, name: str, line: str, load: Callable[[], Any], section: str = "Commands") -> None:
        super().__init__(name, help=line, short_help=line, rich_markup_mode=None)
        self._load = load
        self.section = section

    @cached_property
    def loaded(self) -> Any:
        return self._load()


class LazyGroup(TyperGroup):
    def resolve_command(self, ctx: typer.Context, args: list[str]) -> tuple[str | None, Any, list[str]]:
        if args and args[0] not in self.commands:
            full = next((name for name in ALIASES.get(args[0], ()) if name in self.commands), args[0])
            args = [full, *args[1:]]
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.loaded if isinstance(command, Lazy) else command, rest

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            ctx.obj.stderr.write(ctx.get_help() + "\n")
            ctx.exit(2)
        return super().parse_args(ctx, args)

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:
        write_head(self, ctx, formatter)
        sections: dict[str, list[tuple[str, str]]] = {}
        for command in self.commands.values():
            sections.setdefault(getattr(command, "section", "Commands"), []).append((command.name, command.short_help))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)
        Verb.format_options(self, ctx, formatter)


def split_examples(text: str) -> tuple[str, list[str]]:
    """A docstring's prose and the lines of its paragraphs that show commands."""
    prose, examples = [], []
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        lines = paragraph.splitlines()
        if lines and all(line.lstrip().startswith(("novactl", "$", "printf")) for line in lines):
            examples += [line.strip() for line in lines]
        else:
            prose.append(paragraph)
    return "\n\n".join(prose), examples


def write_head(command: Any, ctx: typer.Context, formatter: Any) -> None:
    """What a command does, its examples, and its usage."""
    text, examples = split_examples(command.help or "")
    formatter.write_text(text)
    if examples:
        with formatter.section("Examples"):
            for line in examples:
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
    formatter.write_paragraph()
    command.format_usage(ctx, formatter)


@dataclass(frozen=True)
class Spec:
    """A verb as declared: its function, and the table its result is shown with (None: it prints by itself). One that `changes`
    something takes --reason.

    `settles`: it first ends what a dead process left behind.
    """

    name: str
    function: Callable[..., Any]
    table: Table | None
    settles: bool
    changes: bool

    @property
    def line(self) -> str:
        """The first sentence of its help."""
        first = inspect.cleandoc(self.function.__doc__ or "").partition("\n")[0]
        return first.partition(". ")[0].rstrip(".") + "."

    def build(self) -> Any:
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        function = _settling(self.function) if self.settles else self.function
        function = _reasoned(function) if self.changes else function
        function = function if self.table is None else _presenting(function, self.table)
        app.command(self.name, cls=Verb, context_settings=dict(SETTINGS))(function)
        return get_command(app)


class Noun:
    """The verbs of one noun; without a name, commands of the top level. `settles` is what its verbs do first."""

    def __init__(self, name: str = "", *, settles: bool = True) -> None:
        self.name = name
        self.settles = settles and bool(name)
        self.verbs: dict[str, Spec] = {}

    def verb(self, name: str, table: Table | None = None, *, changes: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Declares a verb. With a table, its function returns a value and the verb gets the output options; with `changes` it gets
        --reason, and leaves an operation (or, where it makes the tables of operations itself, an event)."""

        def declare(function: Callable[..., Any]) -> Callable[..., Any]:
            self.verbs[name] = Spec(name, function, table, self.settles, changes)
            return function

        return declare

    def group(self, line: str) -> LazyGroup:
        commands = {spec.name: Lazy(spec.name, spec.line, spec.build) for spec in self.verbs.values()}
        return LazyGroup(name=self.name, commands=commands, help=line, rich_markup_mode=None, context_settings=dict(SETTINGS))


def lazy_noun(name: str, module: str, line: str, section: str) -> Lazy:
    """The noun or top-level command that `module` declares as `NOUN`."""

    def load() -> Any:
        noun: Noun = importlib.import_module(module).NOUN
        return noun.group(line) if noun.name else noun.verbs[name].build()

    return Lazy(name, line, load, section)


def _settling(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(**given: Any) -> Any:
        given["ctx"].obj.settles = True
        return function(**given)

    return call


def _reasoned(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with --reason, which the session hands to the cluster."""
    from novactl.cli.options import REASON

    own = inspect.signature(function)

    def call(**given: Any) -> Any:
        given["ctx"].obj.give_reason(given.pop(REASON.name))
        return function(**given)

    call.__name__, call.__doc__ = function.__name__, function.__doc__
    call.__signature__ = own.replace(parameters=[*own.parameters.values(), REASON])  # type: ignore[attr-defined]
    return call


def _presenting(function: Callable[..., Any], table: Table) -> Callable[..., Any]:
    """`function` with the output options added to its own, its result printed by them.

    The output options are checked before the function runs: a wrong `-o` changes nothing.
    """
    from novactl.cli import render
    from novactl.cli.options import VIEW_PARAMETERS

    own = inspect.signature(function)

    def call(**given: Any) -> Any:
        view = render.View.of(table, **{parameter.name: given.pop(parameter.name) for parameter in VIEW_PARAMETERS})
        session, dry_run = given["ctx"].obj, given.get("dry_run", False)
        shown = function(**given)
        if dry_run:
            session.note("dry run: nothing was changed")
        return render.emit(session, shown, table, view)

    call.__name__, call.__doc__ = function.__name__, function.__doc__
    call.__signature__ = own.replace(parameters=[*own.parameters.values(), *VIEW_PARAMETERS])  # type: ignore[attr-defined]
    return call
