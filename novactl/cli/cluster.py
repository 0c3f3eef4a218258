"""`novactl cluster`: what it has as a whole, and what holds for all of it."""

from typing import Any

import typer

from novactl.cli import columns
from novactl.cli.options import DryRun, n_plus_1
from novactl.cli.session import cluster_of
from novactl.cli.tree import Noun

NOUN = Noun("cluster")


@NOUN.verb("show", columns.RECORD)
def show(ctx: typer.Context) -> Any:
    """Show the cluster: its nodes, what they have together, what is free, and the default quotas.

    novactl cluster show
    novactl cluster show -o json
    """
    from novactl.api import cluster as api

    return api.show(cluster_of(ctx))


@NOUN.verb("set", columns.RECORD)
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
