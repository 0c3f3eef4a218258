"""`novactl zone`: availability zones."""

from typing import Any

import typer

from novactl.cli import columns
from novactl.cli.session import cluster_of
from novactl.cli.tree import Noun

NOUN = Noun("zone")


@NOUN.verb("list", columns.ZONES)
def list_(ctx: typer.Context) -> Any:
    """List the availability zones with their nodes and servers. A zone is made by `aggregate create --zone` or `node set --zone`.

    novactl zone list
    novactl zone list -o json
    """
    from novactl.api import zones as api

    return api.list_zones(cluster_of(ctx))
