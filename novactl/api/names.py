"""Names that begin with a prefix, for shell completion: one query, and never an error."""

from __future__ import annotations

import importlib

from novactl.cluster import Cluster
from novactl.errors import NovaError


def names(cluster: Cluster, noun: str, prefix: str) -> list[str]:
    """At most 200 names of `noun` (a file `<noun>s` of novactl.db has them); none where there is no cluster."""
    home = importlib.import_module(f"novactl.db.{noun}s")
    try:
        with cluster.db.read() as tx:
            return home.names(tx, prefix)
    except NovaError:
        return []
