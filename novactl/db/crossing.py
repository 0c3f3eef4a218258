"""Two transactions that wait for each other, or write the same: the database ends one, and that one is begun anew.

SQLite's writers queue, so that it happens on PostgreSQL and MariaDB alone.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from novactl.db.refusals import Crossed

P = ParamSpec("P")
R = TypeVar("R")
TRIES = 10

_mine = threading.local()


def _written() -> int:
    """How many transactions that may write this thread has committed."""
    return getattr(_mine, "written", 0)


def has_written() -> None:
    """Told by the database after each such commit."""
    _mine.written = _written() + 1


def uncrossed(act: Callable[[], R], *, anyway: bool = False) -> R:
    """What `act` returns: begun anew when the database ended its transaction for another's, while nothing of it has been written
    yet in this thread; `anyway` for what may be done twice whatever it has written. Raises Crossed in the end."""
    for _ in range(TRIES - 1):
        before = _written()
        try:
            return act()
        except Crossed:
            if _written() != before and not anyway:
                raise
    return act()


def begun_anew(function: Callable[P, R]) -> Callable[P, R]:
    """The function, with `uncrossed`."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        return uncrossed(lambda: function(*args, **kwargs))

    return called
