"""`novactl server`: virtual machines."""

from pathlib import Path
from typing import Annotated, Any

import typer

from novactl.cli import ask, columns
from novactl.cli.options import (
    Async,
    DryRun,
    Flavor,
    Image,
    Key,
    NewName,
    OnNode,
    OnZone,
    Quiet,
    ServerRef,
    ServerRefs,
    Timeout,
    Yes,
    duration,
    live_names,
    text_of,
    with_hints,
)
from novactl.cli.progress import watching
from novactl.cli.render import Shown
from novactl.cli.session import Session, cluster_of, session_of
from novactl.cli.targets import each
from novactl.cli.tree import Noun
from novactl.errors import UsageError

NOUN = Noun("server")

Count = Annotated[int, typer.Option(
    min=1, max=1000, metavar="N", help="How many; from 2 on they are called NAME-1, NAME-2, ... and have places all or none.")]
MinCount = Annotated[int | None, typer.Option(
    "--min-count", min=1, metavar="N", show_default=False, help="With --count: as many as fit, if at least so many do.")]
UserData = Annotated[Path | None, typer.Option(
    "--user-data", metavar="FILE", show_default=False, help="cloud-init user data ('-': from standard input).")]


@NOUN.verb("create", columns.SERVERS, changes=True)
@with_hints
def create(
    ctx: typer.Context,
    name: NewName,
    flavor: Flavor, image: Image, key: Key = None, count: Count = 1, min_count: MinCount = None, node: OnNode = None,
    zone: OnZone = None, user_data: UserData = None,
    async_: Async = False, timeout: Timeout = "", quiet: Quiet = False, dry_run: DryRun = False, *, hints: Any = None,
) -> Any:
    """Create servers and wait until they run. A node that fails is left for the next best one.

    novactl server create web1 --flavor m1.small --image debian-12 --key alice
    novactl server create db --count 3 --flavor m1.large --image debian-12 --group db --spread-by rack
    novactl server create web1 --flavor m1.small --image debian-12 --dry-run
    """
    from novactl.api import servers as api

    session = session_of(ctx)
    wanted = api.CreateServer(
        name=name, flavor=flavor, image=image, key=key, count=count, min_count=min_count, node=node, zone=zone,
        user_data=text_of(session, user_data, "the user data") or "", hints=hints,
    )
    timeout_s = duration(timeout)
    with watching(session, quiet=quiet) as watch:
        made = api.create(session.cluster, wanted, watch=watch, dry_run=dry_run, wait=not async_, timeout_s=timeout_s)
    if async_ and not dry_run:
        return begun(made.operations)
    document = {"items": made.servers, "operations": made.operations}
    if dry_run:
        document["decisions"] = tuple(decision.to_plain() for decision in made.decisions)
    return Shown(document, rows=made.servers)


def begun(operations: Any) -> Shown:
    """What --async prints: the ids of the operations, alone on their lines."""
    ids = (operations,) if isinstance(operations, str) else tuple(operations)
    return Shown({"operations": ids}, rows=tuple({"id": operation} for operation in ids), table=columns.BEGUN)


@NOUN.verb("list", columns.SERVERS)
def list_(
    ctx: typer.Context,
    limit: Annotated[int | None, typer.Option(
        min=1, max=1_000_000, metavar="N", show_default=False, help="At most so many.")] = None,
    status: Annotated[str | None, typer.Option(
        metavar="STATUS", show_default=False, help="Only these: ACTIVE, SHUTOFF, BUILD, ERROR.")] = None,
    node: OnNode = None,
) -> Any:
    """List the servers.

    novactl server list
    novactl server list --status ACTIVE --node n1 -o json
    novactl server list --limit 20 --no-headers -c name,addresses
    """
    from novactl.api import servers as api

    return api.list_servers(cluster_of(ctx), limit=limit, status=status.upper() if status else None, node=node)


@NOUN.verb("show", columns.SERVERS)
def show(
    ctx: typer.Context, server: ServerRef,
    cached: Annotated[bool, typer.Option("--cached", help="As it was last heard of; do not ask the agent.")] = False,
) -> Any:
    """Show one server.

    novactl server show web1
    novactl server show web1 -o json
    """
    from novactl.api import servers as api

    return api.show(cluster_of(ctx), server, refresh=not cached)


@NOUN.verb("start", columns.SERVERS, changes=True)
def start(
    ctx: typer.Context, servers: ServerRefs, async_: Async = False, timeout: Timeout = "", quiet: Quiet = False,
    dry_run: DryRun = False,
) -> Any:
    """Start servers that are shut off.

    novactl server start web1
    novactl server start web1 web2 web3
    """
    from novactl.api import servers as api

    return _change(session_of(ctx), servers, api.start, quiet, dry_run=dry_run, wait=not async_, timeout_s=duration(timeout))


@NOUN.verb("stop", columns.SERVERS, changes=True)
def stop(
    ctx: typer.Context, servers: ServerRefs,
    grace: Annotated[str, typer.Option(metavar="DURATION", show_default=False,
        help="How long a guest may take before it is cut off (default: the setting server.stop_grace_s).")] = "",
    async_: Async = False, timeout: Timeout = "", yes: Yes = False, quiet: Quiet = False, dry_run: DryRun = False,
) -> Any:
    """Shut servers down: ask the guest, then cut it off. Several at once are confirmed first.

    novactl server stop web1
    novactl server stop web1 web2 --grace 2m --yes
    """
    from novactl.api import servers as api

    session = session_of(ctx)
    grace_s = duration(grace)
    ask.confirm_act(session, "stop", "server", servers, yes=yes or dry_run)
    return _change(
        session, servers, api.stop, quiet, dry_run=dry_run, wait=not async_, timeout_s=duration(timeout), grace_s=grace_s)


@NOUN.verb("reboot", columns.SERVERS, changes=True)
def reboot(
    ctx: typer.Context, servers: ServerRefs,
    hard: Annotated[bool, typer.Option("--hard", help="Do not ask the guest: power off and on.")] = False,
    async_: Async = False, timeout: Timeout = "", yes: Yes = False, quiet: Quiet = False, dry_run: DryRun = False,
) -> Any:
    """Reboot servers. Several at once are confirmed first.

    novactl server reboot web1
    novactl server reboot web1 --hard
    """
    from novactl.api import servers as api

    session = session_of(ctx)
    ask.confirm_act(session, "reboot", "server", servers, yes=yes or dry_run)
    return _change(session, servers, api.reboot, quiet, dry_run=dry_run, wait=not async_, timeout_s=duration(timeout), hard=hard)


@NOUN.verb("delete", columns.SERVERS, changes=True)
def delete(
    ctx: typer.Context, servers: ServerRefs,
    lost: Annotated[bool, typer.Option("--lost", help="Their node is gone for good: forget them without reaching it.")] = False,
    async_: Async = False, timeout: Timeout = "", yes: Yes = False, quiet: Quiet = False, dry_run: DryRun = False,
) -> Any:
    """Delete servers and their disks. Asks first; where nobody can answer it needs --yes.

    novactl server delete web1
    novactl server delete web1 web2 --yes
    novactl server delete web1 --lost
    """
    from novactl.api import servers as api

    session = session_of(ctx)
    ask.confirm_act(session, "delete", "server", servers, yes=yes or dry_run, destroys=True)
    return _change(session, servers, api.delete, quiet, dry_run=dry_run, wait=not async_, timeout_s=duration(timeout), lost=lost)


@NOUN.verb("set", columns.SERVERS, changes=True)
def set_(
    ctx: typer.Context, servers: ServerRefs,
    ha: Annotated[bool | None, typer.Option(
        "--ha/--no-ha", show_default=False, help="Started on another node when its own has been fenced.")] = None,
    dry_run: DryRun = False,
) -> Any:
    """Change what is to become of servers.

    novactl server set web1 --ha
    novactl server set web1 web2 --no-ha
    """
    from novactl.api import ha as api

    session = session_of(ctx)

    def one(ref: str) -> Any:
        server = api.set_server(session.cluster, ref, wants_ha=ha, dry_run=dry_run)
        for warning in api.warnings_of(session.cluster, server):
            session.note(f"warning: {warning}")
        return server

    return each(session, servers, one)


@NOUN.verb("evacuate", columns.SERVERS, changes=True)
def evacuate(
    ctx: typer.Context, servers: ServerRefs, async_: Async = False, timeout: Timeout = "", yes: Yes = False, quiet: Quiet = False,
    dry_run: DryRun = False,
) -> Any:
    """Start servers of a fenced node on others. A disk that was the node's own is made anew from the image: asks first.

    novactl server evacuate web1
    novactl server evacuate web1 web2 --yes
    """
    from novactl.api import ha as api

    session = session_of(ctx)
    ask.confirm_act(session, "evacuate", "server", servers, yes=yes or dry_run, destroys=True)
    return _change(session, servers, api.evacuate, quiet, dry_run=dry_run, wait=not async_, timeout_s=duration(timeout))


def _change(session: Session, servers: list[str], act: Any, quiet: bool, **how: Any) -> Shown:
    """One api verb on each of the servers, with progress. With --async the operations' ids are the result."""
    with watching(session, quiet=quiet, kind=f"server.{act.__name__}") as watch:
        at_once = session.config["operation.parallel"]
        shown = each(session, servers, lambda ref: act(session.cluster, ref, watch=watch, **how), at_once=at_once)
    return begun(shown.value) if isinstance(shown.value, str) else shown


@NOUN.verb("console-log")
def console_log(
    ctx: typer.Context, server: ServerRef,
    lines: Annotated[int | None, typer.Option("--lines", "-n", min=0, metavar="N", show_default=False,
                                              help="Only the last so many lines.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing as the guest writes.")] = False,
) -> None:
    """Print what a server has written to its serial console.

    novactl server console-log web1 --lines 20
    novactl server console-log web1 --follow
    """
    from novactl.api import servers as api
    from novactl.cli.terminal import pour

    session = session_of(ctx)
    pour(session, api.console_log(session.cluster, server, lines=lines, follow=follow))


@NOUN.verb("console")
def console(
    ctx: typer.Context, server: ServerRef,
    linger: Annotated[str, typer.Option(
        metavar="DURATION", help="With piped input: leave when the guest has been silent so long after its end.")] = "2s",
) -> None:
    """Attach this terminal to a server's serial console. Ctrl-] leaves it.

    novactl server console web1
    printf 'root\\n' | novactl server console web1
    """
    from novactl.api import servers as api
    from novactl.cli.terminal import attach

    session = session_of(ctx)
    linger_s = duration(linger) or 0.0
    if session.captured is not None:
        raise UsageError("server console cannot run in a batch", hint="server console-log can")
    with api.console(session.cluster, server) as line:
        session.note(f"console of {server}: leave with Ctrl-]")
        attach(session, line, linger_s=linger_s)
        session.note(f"\nleft the console of {server}" + (f": {line.reason}" if line.reason else ""))


@NOUN.verb("events", columns.EVENTS)
def events(ctx: typer.Context, server: ServerRef) -> Any:
    """List what has happened to a server.

    novactl server events web1
    """
    from novactl.api import servers as api

    return api.events(cluster_of(ctx), server)


@NOUN.verb("why", columns.EXPLANATION)
def why(ctx: typer.Context, server: ServerRef) -> Any:
    """Say why a server is where it is: each node's verdict, reasons and weights when it was placed.

    novactl server why web1
    """
    from novactl.api import servers as api

    return Shown(api.why(cluster_of(ctx), server))


@NOUN.verb("adopt", columns.SERVERS, changes=True)
def adopt(
    ctx: typer.Context,
    node: Annotated[str, typer.Argument(metavar="NODE", show_default=False, autocompletion=live_names("node"), help="Where it is.")],
    domain: Annotated[str, typer.Argument(metavar="DOMAIN", show_default=False, help="Its name or UUID, as `cluster verify` lists it.")],
    name: Annotated[str, typer.Option(metavar="NAME", show_default=False, help="The server's name (default: like the domain's).")] = "",
    flavor: Annotated[str, typer.Option(
        metavar="FLAVOR", show_default=False, autocompletion=live_names("flavor"), help="A flavor of just its size (default: none).")] = "",
    force: Annotated[bool, typer.Option("--force", help="Claim what it has also where it does not fit: it is there already.")] = False,
    async_: Async = False, timeout: Timeout = "", quiet: Quiet = False, dry_run: DryRun = False,
) -> Any:
    """Take in a domain that novactl did not make. The guest is not touched; its disk stays, even when the server is deleted.

    novactl server adopt n1 legacy-db
    novactl server adopt n1 2f0a8a86-35a5-4a6a-9a52-8c6c6ff8b0aa --name db1 --force
    """
    from novactl.api import adoption as api

    session, timeout_s = session_of(ctx), duration(timeout)
    with watching(session, quiet=quiet, kind="server.adopt") as watch:
        adopted = api.adopt(
            session.cluster, node, domain, name=name, flavor=flavor, force=force, dry_run=dry_run, watch=watch, wait=not async_,
            timeout_s=timeout_s)
    return begun(adopted) if isinstance(adopted, str) else adopted
