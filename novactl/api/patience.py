"""Looking again and again at a database that may be gone for a while, because its server starts anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from novactl.cluster import Cluster
from novactl.conductor.faults import OUTAGE_S
from novactl.errors import DatabaseLost

Seen = TypeVar("Seen")


class Patience:
    """For one loop of looks. Not for several threads."""

    def __init__(self, cluster: Cluster) -> None:
        self._clock = cluster.clock
        self._lost_at: float | None = None

    def look(self, at: Callable[[], Seen], unseen: Seen) -> Seen:
        """What `at` returns, or `unseen` while the database is gone. Raises DatabaseLost where that lasts as long as no operation waits."""
        try:
            seen = at()
        except DatabaseLost:
            now_s = self._clock.monotonic()
            self._lost_at = now_s if self._lost_at is None else self._lost_at
            if now_s - self._lost_at >= OUTAGE_S:
                raise
            return unseen
        self._lost_at = None
        return seen
