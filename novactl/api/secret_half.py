"""A file with the secret half of a key pair, beside the row with the public half: both are there in the end, or neither."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from novactl.cluster import Cluster
from novactl.db.statements import Tx
from novactl.errors import NovaError, Uncertain

WAITS_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Between looks, while a database server starts again."""


@contextlib.contextmanager
def kept_if_recorded(cluster: Cluster, path: Path, recorded: Callable[[Tx], bool]) -> Iterator[None]:
    """Where what is done inside fails, the file goes.

    Where the database was lost while it was to make it lasting, or the command was interrupted, `recorded` says (once it has locked what
    the transaction had locked) whether the row is there. It is: the file stays, and an Uncertain is none. Nobody can say: the file stays.
    """
    try:
        yield
    except NovaError as error:
        if not isinstance(error, Uncertain):
            path.unlink(missing_ok=True)
            raise
        there = _looked(cluster, recorded)
        if there:
            return
        if there is None:
            error.reasons = (*error.reasons, f"the secret half stays in {path}, for it may be in use: if it is not, remove that file")
        else:
            path.unlink(missing_ok=True)
        raise
    except BaseException:
        if _looked(cluster, recorded) is False:
            path.unlink(missing_ok=True)
        raise


def _looked(cluster: Cluster, recorded: Callable[[Tx], bool]) -> bool | None:
    """None where it cannot be said: the database stays away."""
    for wait_s in (*WAITS_S, None):
        try:
            with cluster.db.write() as tx:                    # one that writes sees what others have written while it waited
                return recorded(tx)
        except NovaError:
            if wait_s is not None:
                cluster.clock.sleep(wait_s)
    return None
