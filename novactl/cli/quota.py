"""`novactl quota`: how much a project may have."""

from typing import Annotated, Any

import typer

from novactl.cli import columns
from novactl.cli.options import DryRun, Force, live_names, pairs
from novactl.cli.session import cluster_of
from novactl.cli.tree import Noun
from novactl.errors import UsageError

NOUN = Noun("quota")


def _limits(ctx: typer.Context, incomplete: str) -> list[str]:
    """A project first, then resources."""
    if not ctx.params.get("words") and not ctx.params.get("default"):
        return live_names("project")(ctx, incomplete)
    from novactl.api.quotas import spoken_names

    return [f"{name}=" for name in spoken_names() if name.startswith(incomplete)]


@NOUN.verb("show", columns.QUOTAS)
def show(
    ctx: typer.Context,
    project: Annotated[str, typer.Argument(
        metavar="[PROJECT]", show_default=False, autocompletion=live_names("project"),
        help="Its name or id (default: the project `default`).")] = "default",
) -> Any:
    """Show what a project uses and may have.

    novactl quota show
    novactl quota show shop -o json
    """
    from novactl.api import quotas as api

    return api.show(cluster_of(ctx), project)


@NOUN.verb("list", columns.QUOTAS_OF_ALL)
def list_(ctx: typer.Context) -> Any:
    """List what every project uses and may have.

    novactl quota list
    novactl quota list --sort -used -o json
    """
    from novactl.api import quotas as api

    return api.list_quotas(cluster_of(ctx))


@NOUN.verb("set", columns.QUOTAS, changes=True)
def set_(
    ctx: typer.Context,
    words: Annotated[list[str], typer.Argument(
        metavar="[PROJECT] RESOURCE=LIMIT...", show_default=False, autocompletion=_limits,
        help="servers, cores, ram, disk, volumes, networks, keypairs, groups; a number, a size such as 64G, unlimited, or default.")],
    default: Annotated[bool, typer.Option(
        "--default", help="The limits of every project that has none of its own.")] = False,
    force: Force = False, dry_run: DryRun = False,
) -> Any:
    """Set limits of a project, or the default ones. A limit below what is used is refused; with --force what is there stays, and nothing
    more is given.

    novactl quota set shop servers=10 cores=20 ram=64G disk=1T
    novactl quota set shop cores=unlimited servers=default
    novactl quota set --default servers=50 ram=unlimited
    """
    from novactl.api import quotas as api

    project = None if default else words[0]
    texts = words if default else words[1:]
    if project is not None and "=" in project:
        raise UsageError("name a project first, or --default for all that have no limits of their own", command="novactl quota set --help")
    if not texts:
        raise UsageError("no limit is given", hint="RESOURCE=LIMIT, such as servers=10 or ram=64G", command="novactl quota set --help")
    return api.set_(cluster_of(ctx), project, pairs(texts), force=force, dry_run=dry_run)
