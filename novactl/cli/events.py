"""`novactl events`: what has happened, in one list."""

from typing import Annotated, Any

import typer

from novactl.cli import columns
from novactl.cli.options import OfNode, OfServer, duration
from novactl.cli.render import Stream
from novactl.cli.session import session_of
from novactl.cli.tree import Noun
from novactl.errors import UsageError

NOUN = Noun()


@NOUN.verb("events", columns.EVENTS_OF_ALL)
def events(
    ctx: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing what happens; with -o json an object a line.")] = False,
    since: Annotated[str, typer.Option(metavar="DURATION", show_default=False, help="Only what is no older: 90s, 1h, 7d.")] = "",
    server: OfServer = "", node: OfNode = "",
    event: Annotated[str, typer.Option(metavar="EVENT", show_default=False, help="Only these: server.create, built, ...")] = "",
    actor: Annotated[str, typer.Option(metavar="USER@HOST", show_default=False, help="Only what this user did.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, metavar="N", help="At most so many, the newest.")] = 1000,
) -> Any:
    """List what has happened: who did what, when, why, with what result.

    novactl events --since 1h
    novactl events --server web1 -o json
    novactl events --follow -o json
    """
    from novactl.api import events as api

    session = session_of(ctx)
    of = api.asked(session.cluster, server=server, node=node, event=event, actor=actor, since_s=duration(since))
    if not follow:
        return api.list_events(session.cluster, of, limit=limit)
    if session.captured is not None:
        raise UsageError("events --follow cannot run in a batch", hint="events can")
    return Stream(api.follow(session.cluster, of, limit=limit, is_read=session.stdout.is_read))
