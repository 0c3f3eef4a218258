"""`novactl resource-class`: what nodes have an amount of."""

from typing import Any

import typer

from novactl.cli import columns
from novactl.cli.session import cluster_of
from novactl.cli.tree import Noun

NOUN = Noun("resource-class")


@NOUN.verb("list", columns.RESOURCE_CLASSES)
def list_(ctx: typer.Context) -> Any:
    """List the resource classes, and what all nodes have of each. A custom one is made by `node set --inventory CUSTOM_X=N`.

    novactl resource-class list
    novactl resource-class list -o json
    """
    from novactl.api import traits as api

    return api.list_classes(cluster_of(ctx))
