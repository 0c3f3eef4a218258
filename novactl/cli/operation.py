"""`novactl operation`: changes under way, and what became of them."""

from typing import Annotated, Any

import typer

from novactl.cli import columns
from novactl.cli.options import Async, DryRun, OfNode, OfServer, OperationRef, OperationRefs, Quiet, Timeout, duration
from novactl.cli.progress import watching
from novactl.cli.render import Shown
from novactl.cli.server import begun
from novactl.cli.session import Session, cluster_of, session_of
from novactl.cli.tree import Noun

NOUN = Noun("operation", settles=False)


@NOUN.verb("list", columns.OPERATIONS)
def list_(
    ctx: typer.Context,
    all_: Annotated[bool, typer.Option("--all", "-a", help="Those that have ended, too.")] = False,
    kind: Annotated[str, typer.Option(metavar="KIND", show_default=False, help="Only these: server.create, node.enroll, ...")] = "",
    server: OfServer = "", node: OfNode = "",
    state: Annotated[str, typer.Option(
        metavar="STATE", show_default=False, help="Only these: running, unwinding, stuck, ok, failed.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, metavar="N", help="At most so many, the newest.")] = 1000,
) -> Any:
    """List the operations under way or stuck; with --all the ended, too.

    novactl operation list
    novactl operation list --all --server web1 -o json
    novactl operation list --state failed --limit 20
    """
    from novactl.api import operations as api

    cluster = cluster_of(ctx)
    found = api.list_operations(cluster, all=all_, kind=kind, server=server, node=node, state=state.lower(), limit=limit)
    return api.views(cluster, found)


@NOUN.verb("show", columns.OPERATIONS)
def show(ctx: typer.Context, operation: OperationRef) -> Any:
    """Show one operation: who, when, why, its steps and what came of it. Where an error came from is shown by --debug and -o json.

    novactl operation show 3f2a
    novactl operation show 3f2a -o json
    """
    from novactl.api import operations as api
    from novactl.cli.plain import fields_of

    session = session_of(ctx)
    fields = fields_of(api.shown(session.cluster, operation)) or {}
    if not session.debug and not session.wants_json:
        del fields["trace"]
    return Shown(fields)


@NOUN.verb("watch", columns.OPERATIONS)
def watch(ctx: typer.Context, operations: OperationRefs, timeout: Timeout = "") -> Any:
    """Follow operations, wherever they run, until they end; exits as they do. What a dead process left is ended.

    novactl operation watch 3f2a
    """
    return _followed(ctx, operations, timeout, quiet=False)


@NOUN.verb("wait", columns.OPERATIONS)
def wait(ctx: typer.Context, operations: OperationRefs, timeout: Timeout = "") -> Any:
    """As `watch`, saying nothing meanwhile.

    novactl operation wait 3f2a 77c1 --timeout 10m
    """
    return _followed(ctx, operations, timeout, quiet=True)


def _followed(ctx: typer.Context, operations: list[str], timeout: str, *, quiet: bool) -> Shown:
    from novactl.api import operations as api

    session, timeout_s = session_of(ctx), duration(timeout)
    with watching(session, quiet=quiet) as watch:
        return _shown(session, api.watch(session.cluster, operations, watch=watch, timeout_s=timeout_s))


@NOUN.verb("resume", columns.OPERATIONS, changes=True)
def resume(
    ctx: typer.Context, operations: OperationRefs, async_: Async = False, timeout: Timeout = "", quiet: Quiet = False,
    dry_run: DryRun = False,
) -> Any:
    """Take operations over whose owner died, or that are stuck, and drive them to their ends, side by side.

    novactl operation resume 3f2a
    """
    from novactl.api import operations as api

    return _ended(session_of(ctx), api.resume, operations, quiet, async_, timeout, dry_run)


@NOUN.verb("undo", columns.OPERATIONS, changes=True)
def undo(
    ctx: typer.Context, operations: OperationRefs, async_: Async = False, timeout: Timeout = "", quiet: Quiet = False,
    dry_run: DryRun = False,
) -> Any:
    """Take operations over whose owner died, or that are stuck, and undo what they have done, side by side.

    novactl operation undo 3f2a
    """
    from novactl.api import operations as api

    return _ended(session_of(ctx), api.undo, operations, quiet, async_, timeout, dry_run)


@NOUN.verb("cancel", columns.OPERATIONS, changes=True)
def cancel(
    ctx: typer.Context, operations: OperationRefs, async_: Async = False, timeout: Timeout = "", quiet: Quiet = False,
    dry_run: DryRun = False,
) -> Any:
    """Take operations over, also from a process that drives them, and undo what they have done.

    novactl operation cancel 3f2a --reason "wrong image"
    """
    from novactl.api import operations as api

    return _ended(session_of(ctx), api.cancel, operations, quiet, async_, timeout, dry_run)


def _ended(session: Session, act: Any, operations: list[str], quiet: bool, async_: bool, timeout: str, dry_run: bool) -> Shown:
    timeout_s = duration(timeout)
    with watching(session, quiet=quiet) as watch:
        ended = act(session.cluster, operations, watch=watch, wait=not async_, timeout_s=timeout_s, dry_run=dry_run)
    return begun(operation.id for operation in ended) if async_ and not dry_run else _shown(session, ended)


def _shown(session: Session, ended: Any) -> Shown:
    from novactl.api import operations as api

    views = api.views(session.cluster, ended)
    return Shown(views[0] if len(views) == 1 else views, rows=views)
