"""What reports give cause to do, beside taking them in: it asks agents, and those who listen must not wait for it."""

from __future__ import annotations

import threading

from novactl.conductor.journal import Journal
from novactl.conductor.leader import Leadership
from novactl.conductor.reconcile import settle

AT_ONCE = 64


class Aftermath:
    """`odd` is called by whoever takes reports in; `run` is the thread that acts on it."""

    def __init__(self, leadership: Leadership, journal: Journal) -> None:
        self._leadership, self._cluster, self._journal = leadership, leadership.cluster, journal
        self._lock, self._called = threading.Lock(), threading.Event()
        self._odd: dict[str, None] = {}

    def odd(self, node_id: str) -> None:
        """The rows of its servers say otherwise than its report: it is to be asked again, and believed."""
        with self._lock:
            self._odd[node_id] = None
        self._called.set()

    def run(self, stop: threading.Event) -> None:
        """Until `stop`, or until the lease is lost."""
        try:
            while not stop.is_set() and self._leadership.held:
                if not self._called.wait(0.2):
                    continue
                try:
                    self._settle()
                except Exception as error:  # noqa: BLE001 - the next report asks for it again
                    self._journal.failed("follow", error)
        finally:
            self._cluster.db.close()

    def _settle(self) -> None:
        with self._lock:
            self._called.clear()
            some = list(self._odd)[:AT_ONCE]
            for node_id in some:
                del self._odd[node_id]
            if self._odd:
                self._called.set()
        settle(self._cluster, some)
