"""`init`, `doctor`, `version`."""

from typing import Annotated, Any

import typer

from novactl.cli import columns
from novactl.cli.options import DryRun
from novactl.cli.render import Shown
from novactl.cli.session import cluster_of
from novactl.cli.tree import Noun
from novactl.errors import ExitStatus

NOUN = Noun()


@NOUN.verb("init", columns.RECORD)
def init(
    ctx: typer.Context,
    upgrade: Annotated[bool, typer.Option("--upgrade", help="Bring an older database to this version's schema.")] = False,
    dry_run: DryRun = False,
) -> Any:
    """Make a cluster: its database and this admin's key. Safe to repeat.

    novactl init
    novactl init --upgrade
    """
    from novactl.api import cluster as api

    return api.init(cluster_of(ctx), upgrade=upgrade, dry_run=dry_run)


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
