"""Names that begin with a prefix, for shell completion: one query or two, and never an error."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from novactl.cluster import Cluster
from novactl.errors import NovaError

_HOMES: Mapping[str, str] = {
    "server-group": "novactl.db.groups", "zone": "novactl.api.zones", "trait": "novactl.api.traits",
}
"""Where the names of a noun are, if not in a file of novactl.db called after it."""


def names(cluster: Cluster, noun: str, prefix: str) -> list[str]:
    """At most 200 names of `noun`; none where there is no cluster."""
    home = importlib.import_module(_HOMES.get(noun, f"novactl.db.{noun}s"))
    try:
        with cluster.db.read() as tx:
            return home.names(tx, prefix)
    except NovaError:
        return []
