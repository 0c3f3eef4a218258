"""`novactl cluster`: what it has as a whole, and what holds for all of it."""

from typing import Annotated, Any

import typer

from novactl.cli import columns
from novactl.cli.ask import confirm_by_name
from novactl.cli.options import DryRun, Quiet, Yes, live_names, n_plus_1
from novactl.cli.progress import watching
from novactl.cli.render import Shown
from novactl.cli.session import cluster_of, session_of
from novactl.cli.tree import Noun
from novactl.errors import ExitStatus

NOUN = Noun("cluster")


@NOUN.verb("show", columns.RECORD)
def show(ctx: typer.Context) -> Any:
    """Show the cluster: its nodes, what they have together, what is free, and the default quotas.

    novactl cluster show
    novactl cluster show -o json
    """
    from novactl.api import cluster as api

    return api.show(cluster_of(ctx))


@NOUN.verb("set", columns.RECORD, changes=True)
def set_(
    ctx: typer.Context,
    n_plus_1: n_plus_1("Refuse a placement that would leave the loss of one node without room for its servers.") = None,
    dry_run: DryRun = False,
) -> Any:
    """Change what holds for the whole cluster.

    novactl cluster set --n-plus-1
    novactl cluster set --no-n-plus-1
    """
    from novactl.api import cluster as api

    return api.set_(cluster_of(ctx), n_plus_1=n_plus_1, dry_run=dry_run)


@NOUN.verb("verify", columns.DRIFTS)
def verify(ctx: typer.Context) -> Any:
    """Compare what all nodes run with what the database says; exit 1 if anything is wrong. Changes nothing.

    novactl cluster verify
    novactl cluster verify -o json
    """
    from novactl.api import verify as api

    found = api.verify(cluster_of(ctx))
    faults = sum(drift.is_fault for drift in found)
    return Shown(found, footer=(_verdict(faults, sum(bool(drift.repair) for drift in found)),),
                 status=ExitStatus.FAILED if faults else ExitStatus.OK)


def _verdict(faults: int, mendable: int) -> str:
    if not faults:
        return "what runs is what the database says"
    told = f"{faults} fault{'s' if faults > 1 else ''}"
    return f"{told}; {mendable} can be mended: novactl cluster repair" if mendable else told


@NOUN.verb("repair", columns.MENDED, changes=True)
def repair(
    ctx: typer.Context,
    server: Annotated[str, typer.Option(
        metavar="SERVER", show_default=False, autocompletion=live_names("server"), help="Only what concerns this server.")] = "",
    node: Annotated[str, typer.Option(
        metavar="NODE", show_default=False, autocompletion=live_names("node"), help="Only what is on this node.")] = "",
    quiet: Quiet = False, dry_run: DryRun = False,
) -> Any:
    """Mend what `cluster verify` finds; exit 1 if something stays. Domains that are not novactl's are never touched.

    There is no --async: what is mended first decides what there is to mend next. Interrupted, run it again.

    novactl cluster repair --dry-run
    novactl cluster repair
    novactl cluster repair --node node1
    """
    from novactl.api import verify as api

    session = session_of(ctx)
    with watching(session, quiet=quiet) as watch:
        found = api.repair(session.cluster, server=server, node=node, dry_run=dry_run, watch=watch)
    stays = any(drift.result != "mended" for drift in found) and not dry_run
    return Shown(found, status=ExitStatus.FAILED if stays else ExitStatus.OK)


@NOUN.verb("adopt", columns.RECORD, changes=True)
def adopt(
    ctx: typer.Context,
    without: Annotated[list[str], typer.Option(
        "--without", metavar="NODE", show_default=False, autocompletion=live_names("node"),
        help="A silent node that is off, and does not come back with what it ran; may be repeated.")] = [],  # noqa: B006 - typer copies it
    yes: Yes = False, dry_run: DryRun = False,
) -> Any:
    """Make this database the one that agents obey, after a backup was restored or a copy was used. Other copies are refused from then on.

    After a restore nothing is begun on nodes until each has been heard, or is named with --without: what a silent one runs is not known.

    novactl cluster adopt --dry-run
    novactl cluster adopt
    novactl cluster adopt --without node7
    """
    from novactl.api import rebuild as api

    session = session_of(ctx)
    if not dry_run:
        confirm_by_name(session, "make this database the cluster's, and every copy of it useless", "adopt", yes=yes)
    done = api.adopt(session.cluster, without=without, dry_run=dry_run)
    if done.silent:
        session.note("not asked, or not told; run it again when they are mended: " + "; ".join(done.why))
    if done.waits:
        session.note(
            "nothing is begun on nodes yet: novactl cluster adopt again when they answer, or, for one that is off for good, with"
            " --without NODE")
    if done.beyond:
        session.note(
            "numbers or epochs that nobody can have counted were on " + ", ".join(done.beyond) + ": they are forgotten there; who has an"
            " operator's key: novactl key list")
    if not dry_run:
        session.note("what still does not agree: novactl cluster verify")
    return done
