"""`novactl db`: the database itself."""

from pathlib import Path
from typing import Annotated, Any

import typer

from novactl.cli import ask, columns
from novactl.cli.options import DryRun, Yes
from novactl.cli.session import cluster_of, session_of
from novactl.cli.setup import checked
from novactl.cli.tree import Noun
from novactl.errors import UsageError

NOUN = Noun("db", settles=False)

BackupFile = Annotated[Path, typer.Argument(metavar="FILE", show_default=False, help="The backup.")]


@NOUN.verb("upgrade", columns.RECORD, changes=True)
def upgrade(
    ctx: typer.Context,
    rewrite: Annotated[bool, typer.Option(
        "--rewrite", help="Write the sums and limits anew that follow from other rows, also where there is nothing to upgrade.")] = False,
    dry_run: DryRun = False,
) -> Any:
    """Bring the database to this version's schema. Safe to repeat; keep a backup of it first.

    novactl db upgrade --dry-run
    novactl db upgrade
    """
    from novactl.api import database as api

    return api.upgrade(cluster_of(ctx), rewrite=rewrite, dry_run=dry_run)


@NOUN.verb("check", columns.FINDINGS)
def check(ctx: typer.Context) -> Any:
    """Check the database: its file, its sums, and whether its rows agree; exit 1 if anything fails. Asks no agent.

    novactl db check
    novactl db check -o json
    """
    from novactl.api import database as api

    return checked(api.check(cluster_of(ctx)))


@NOUN.verb("backup", columns.RECORD)
def backup(
    ctx: typer.Context, file: BackupFile,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    dry_run: DryRun = False,
) -> Any:
    """Write all of the database into a file that any kind of database can be restored from. Others go on meanwhile.

    novactl db backup /var/backups/novactl.nova
    novactl db backup /var/backups/novactl.nova --force -o json
    """
    from novactl.api import database as api

    if str(file) == "-":
        raise UsageError("a backup is written into a file, not a stream: it would not be there whole or not at all", hint="name a file")
    return api.backup(cluster_of(ctx), file, force=force, dry_run=dry_run)


@NOUN.verb("restore", columns.RECORD, changes=True)
def restore(
    ctx: typer.Context, file: BackupFile,
    force: Annotated[bool, typer.Option("--force", help="Also into a database that has nodes or servers: they are replaced.")] = False,
    yes: Yes = False, dry_run: DryRun = False,
) -> Any:
    """Replace what is in the database by a backup, whichever kind of database it came from. A damaged file changes nothing.
    With --force it asks first.

    novactl db restore /var/backups/novactl.nova
    novactl db restore /var/backups/novactl.nova --force --dry-run
    novactl db restore /var/backups/novactl.nova --force --yes
    """
    from novactl.api import database as api

    session = session_of(ctx)
    if force and not dry_run:
        would = api.restore(session.cluster, file, force=True, dry_run=True)
        ask.confirm(session, f"replace all that is in {would.database} by {file}, a backup of {would.nodes} nodes", yes=yes)
    done = api.restore(session.cluster, file, force=force, dry_run=dry_run)
    if not dry_run:
        if done.nodes:
            session.note("nothing is begun on its nodes before it has heard from them what was done since: novactl cluster adopt")
        if done.missing_keys:
            session.note(f"this data directory's key is not in it: put back those of {', '.join(done.missing_keys)},"
                         " or have one of them make yours known")
        session.note("what became of servers since is not in it: novactl db check, then novactl doctor")
    return done


@NOUN.verb("rebuild", columns.RECORD, changes=True)
def rebuild(
    ctx: typer.Context,
    node: Annotated[list[str], typer.Option(
        "--node", metavar="NAME=tcp://HOST:PORT,KEY", show_default=False,
        help="A node that is not in the file beside the key, with its agent's public key; may be repeated.")] = [],  # noqa: B006
    dry_run: DryRun = False,
) -> Any:
    """Add what the nodes have and the database lacks: after `novactl init` in place of a database that is lost. Safe to repeat.

    novactl db rebuild --dry-run
    novactl db rebuild --node n1=tcp://10.0.0.14:7766,rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7
    """
    from novactl.api import rebuild as api

    session = session_of(ctx)
    done = api.rebuild(session.cluster, extra=node, dry_run=dry_run)
    if done.silent:
        session.note(f"not asked, for they do not answer: {', '.join(done.silent)}. Run it again when they do")
    if done.without_file:
        session.note(f"images whose file is not here, so that no other node can have them: {', '.join(done.without_file)}")
    for line in done.unclear:
        session.note(line)
    return done
