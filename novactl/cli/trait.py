"""`novactl trait`: what nodes can do, as words that flavors and images ask for."""

from typing import Any

import typer

from novactl.cli import columns
from novactl.cli.session import cluster_of
from novactl.cli.tree import Noun

NOUN = Noun("trait")


@NOUN.verb("list", columns.TRAITS)
def list_(ctx: typer.Context) -> Any:
    """List the traits that nodes report or were given, and how many nodes have each.

    novactl trait list
    novactl trait list --sort -nodes
    """
    from novactl.api import traits as api

    return api.list_traits(cluster_of(ctx))
