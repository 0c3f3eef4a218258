"""`init`, `doctor`, `version`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from novactl.cli import columns
from novactl.cli.options import DryRun
from novactl.cli.render import Shown
from novactl.cli.session import cluster_of, session_of
from novactl.cli.tree import Noun
from novactl.errors import ExitStatus

NOUN = Noun()


@NOUN.verb("init", columns.RECORD, changes=True)
def init(
    ctx: typer.Context,
    upgrade: Annotated[bool, typer.Option("--upgrade", help="Bring an older database to this version's schema.")] = False,
    key: Annotated[Path | None, typer.Option(
        "--key", metavar="FILE", show_default=False, help="Use this key, which an admin made with `novactl key create`.")] = None,
    dry_run: DryRun = False,
) -> Any:
    """Make a cluster: its database and this admin's key; or join one, where database.url names it. Safe to repeat.

    novactl init
    novactl init --key bob.secret
    """
    from novactl.api import cluster as api

    session = session_of(ctx)
    made = api.init(session.cluster, upgrade=upgrade, key=key, dry_run=dry_run)
    if made.admin_key and not made.role:
        session.note(
            "this key may do nothing in the cluster yet; one of its admins can let it in:\n"
            f"  novactl key create NAME --role operator --public-key '{made.admin_key}'")
    return made


@NOUN.verb("doctor", columns.FINDINGS)
def doctor(ctx: typer.Context) -> Any:
    """Check database, key, operations and agents; exit 1 if anything fails.

    novactl doctor
    novactl doctor -o json
    """
    from novactl.api import cluster as api

    return checked(api.doctor(cluster_of(ctx)))


def checked(findings: Any) -> Shown:
    """Findings, and exit 1 if one of them is a failure."""
    failed = any(finding.verdict == "fail" for finding in findings)
    return Shown(tuple(findings), status=ExitStatus.FAILED if failed else ExitStatus.OK)


@NOUN.verb("version", columns.RECORD)
def version(ctx: typer.Context) -> Any:
    """The versions of novactl and what it runs on.

    novactl version
    novactl version -o json
    """
    import platform
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    from novactl import __version__

    found = {"novactl": __version__, "python": platform.python_version()}
    for package in ("typer", "sqlalchemy", "alembic", "pyzmq", "paramiko"):
        try:
            found[package] = installed(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
