"""`novactl scheduler`: what placement decides with."""

from typing import Annotated, Any

import typer

from novactl.cli import columns
from novactl.cli.render import Shown
from novactl.cli.session import session_of
from novactl.cli.tree import Noun
from novactl.errors import ExitStatus

NOUN = Noun("scheduler", settles=False)


@NOUN.verb("list", columns.PARTS)
def list_(ctx: typer.Context) -> Any:
    """List profiles, filters and weighers: which are in force, with what multiplier, and where they come from.

    novactl scheduler list
    novactl scheduler list -o json
    """
    from novactl.api import scheduler as api

    return api.list_parts(session_of(ctx).config)


@NOUN.verb("show", columns.RECORD)
def show(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="A profile, a filter or a weigher.")],
    kind: Annotated[str, typer.Option(
        metavar="KIND", show_default=False, help="profile, filter or weigher, where several have the name.")] = "",
) -> Any:
    """Show a profile, filter or weigher: what it does, what it reads, and the settings it depends on.

    novactl scheduler show pack
    novactl scheduler show resources
    """
    from novactl.api import scheduler as api
    from novactl.errors import UsageError

    if kind not in ("", *api.KINDS):
        raise UsageError(f"there is no kind {kind!r}", hint=f"one of {', '.join(api.KINDS)}")
    return api.show(session_of(ctx).config, name, kind=kind)


@NOUN.verb("check", columns.FINDINGS)
def check(ctx: typer.Context) -> Any:
    """Load what the settings ask for and try each filter and weigher on a made-up node; exit 1 if one fails.

    novactl scheduler check
    """
    from novactl.api import scheduler as api

    findings = api.check(session_of(ctx).config)
    failed = any(finding.verdict == "fail" for finding in findings)
    return Shown(findings, status=ExitStatus.FAILED if failed else ExitStatus.OK)
