"""A change that may only be tried."""

from __future__ import annotations

from contextlib import AbstractContextManager

from novactl.cluster import Cluster
from novactl.conductor.change import Change, changing

__all__ = ["Change", "changing", "tried"]


def tried(cluster: Cluster) -> AbstractContextManager[Change]:
    """A transaction that is taken back whatever becomes of it."""
    return changing(cluster, dry_run=True)
