"""`novactl conductor`: the optional service that does by itself what commands do on demand."""

import contextlib
from typing import Annotated, Any

import typer

from novactl.cli import columns
from novactl.cli.options import DryRun
from novactl.cli.session import cluster_of, session_of
from novactl.cli.tree import Noun

NOUN = Noun("conductor", settles=False)

User = Annotated[bool, typer.Option("--user", help="In your own systemd manager, not the machine's.")]


@NOUN.verb("run")
def run(
    ctx: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="One round, now, instead of a service: for a timer.")] = False,
    publish: Annotated[str, typer.Option(
        metavar="tcp://ADDRESS:PORT", show_default=False, help="Publish events there, for admins only (default: conductor.publish).")] = "",
    json_logs: Annotated[bool, typer.Option("--json-logs", help="One JSON object a line on standard error.")] = False,
) -> None:
    """Take in all agents' reports, end interrupted operations, keep nodes and database alike, tell of events; until SIGTERM.

    Of several conductors one leads; the others take over when it ends.

    novactl conductor run
    novactl conductor run --publish tcp://0.0.0.0:7767 --json-logs
    novactl conductor run --once
    """
    from novactl.api import service as api

    session = session_of(ctx)

    def write(line: str) -> None:
        with contextlib.suppress(OSError, ValueError):        # nobody reads it any more: no reason to end
            print(line, end="", file=session.stderr, flush=True)

    api.run(session.cluster, write, publish=publish, once=once, as_json=json_logs)


@NOUN.verb("show", columns.RECORD)
def show(ctx: typer.Context) -> Any:
    """Show which conductor leads, since when, how far behind it is, and which others wait.

    novactl conductor show
    novactl conductor show -o json
    """
    from novactl.api import service as api

    return api.show(cluster_of(ctx))


@NOUN.verb("install", columns.RECORD, changes=True)
def install(ctx: typer.Context, user: User = False, dry_run: DryRun = False) -> Any:
    """Have systemd run a conductor here, now and at boot. Safe to repeat.

    novactl conductor install
    novactl conductor install --user
    novactl conductor install --dry-run
    """
    from novactl.api import service as api

    session = session_of(ctx)
    unit = api.install(session.cluster, for_user=user, dry_run=dry_run)
    if not dry_run:
        session.note(f"the conductor runs. Undo: novactl conductor uninstall{' --user' if user else ''}")
    elif not session.wants_json and session.captured is None:
        session.stdout.write(unit.text)                       # as it would be in the file
        return None
    return unit


@NOUN.verb("uninstall", columns.RECORD, changes=True)
def uninstall(ctx: typer.Context, user: User = False, dry_run: DryRun = False) -> Any:
    """Stop the conductor that `install` set up here, and take its unit away. Where there is none, nothing changes.

    novactl conductor uninstall
    """
    from novactl.api import service as api

    return api.uninstall(cluster_of(ctx), for_user=user, dry_run=dry_run)
