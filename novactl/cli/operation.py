"""`novactl operation`: changes under way, and what became of them."""

from typing import Annotated, Any

import typer

from novactl.cli import columns
from novactl.cli.options import OperationRef, OperationRefs, Quiet
from novactl.cli.progress import watching
from novactl.cli.render import Shown
from novactl.cli.session import cluster_of, session_of
from novactl.cli.tree import Noun

NOUN = Noun("operation", settles=False)


@NOUN.verb("list", columns.OPERATIONS)
def list_(
    ctx: typer.Context,
    all_: Annotated[bool, typer.Option("--all", "-a", help="Those that have ended, too.")] = False,
) -> Any:
    """List the operations under way or stuck.

    novactl operation list
    novactl operation list --all -o json
    """
    from novactl.api import operations as api

    return api.list_operations(cluster_of(ctx), all=all_)


@NOUN.verb("show", columns.OPERATIONS)
def show(ctx: typer.Context, operation: OperationRef) -> Any:
    """Show one operation and its steps.

    novactl operation show 3f2a
    """
    from novactl.api import operations as api
    from novactl.cli.plain import fields_of

    found, steps = api.show(cluster_of(ctx), operation)
    return Shown({**(fields_of(found) or {}), "steps": steps})


@NOUN.verb("resume", columns.OPERATIONS)
def resume(ctx: typer.Context, operations: OperationRefs, quiet: Quiet = False) -> Any:
    """Take operations over and drive them to their ends, side by side.

    novactl operation resume 3f2a
    """
    from novactl.api import operations as api

    session = session_of(ctx)
    with watching(session, quiet=quiet) as watch:
        ended = api.resume(session.cluster, operations, watch=watch)
    return Shown(ended[0] if len(ended) == 1 else ended, rows=ended)


@NOUN.verb("undo", columns.OPERATIONS)
def undo(ctx: typer.Context, operation: OperationRef, quiet: Quiet = False) -> Any:
    """Take an operation over and undo what it has done.

    novactl operation undo 3f2a
    """
    from novactl.api import operations as api

    session = session_of(ctx)
    with watching(session, quiet=quiet) as watch:
        ended = api.undo(session.cluster, operation, watch=watch)
    return Shown(ended, rows=(ended,))
