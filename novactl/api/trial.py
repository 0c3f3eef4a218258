"""A change that may only be tried."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from novactl.cluster import Cluster
from novactl.db.statements import Tx


class _Undone(Exception):
    """Ends a transaction that was only a trial."""


@contextlib.contextmanager
def changing(cluster: Cluster, *, dry_run: bool) -> Iterator[Tx]:
    """A transaction for writing; in a dry run all is done and checked in it, and then taken back."""
    with contextlib.suppress(_Undone), cluster.db.write() as tx:
        yield tx
        if dry_run:
            raise _Undone
