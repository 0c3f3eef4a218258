"""Who may call what: each function of the api that changes something says so where it is defined.

    @needs(Role.OPERATOR)
    def create(cluster, …)

To read, any key of the cluster will do: that is asked once, when the database is opened. This keeps honest admins from what is not theirs.
Whoever can write the database's file could go round it; the agents, which hold a table of their own, could not be gone round so.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from novactl.cluster import Cluster
from novactl.db import admission
from novactl.db.crossing import uncrossed
from novactl.errors import Denied
from novactl.model.key import Role

P = ParamSpec("P")
R = TypeVar("R")

__all__ = ["Role", "allow", "needs"]


def needs(role: Role) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """The function's first argument is the cluster; whoever asks without the role gets Denied before anything is looked at.

    It is begun anew where the database ends its first transaction for another's (novactl.db.crossing).
    """

    def guarding(function: Callable[P, R]) -> Callable[P, R]:
        act = f"{function.__module__.rpartition('.')[2]}.{function.__name__.rstrip('_')}"

        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            allow(args[0] if args else kwargs["cluster"], role, act)  # type: ignore[arg-type]
            return uncrossed(lambda: function(*args, **kwargs))

        guarded.needs = role  # type: ignore[attr-defined]
        return guarded

    return guarding


def allow(cluster: Cluster, role: Role, act: str) -> None:
    """Raises Denied."""
    known = cluster.key
    try:
        with cluster.db.read() as tx:
            admission.check(tx, known, role, act)
    except Denied:
        cluster.forget_key()                                  # another process of this admin may have changed it
        if cluster.key == known:
            raise
        with cluster.db.read() as tx:
            admission.check(tx, cluster.key, role, act)
