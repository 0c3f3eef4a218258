"""What reports give cause to do, beside taking them in: it asks agents, and those who listen must not wait for it."""

from __future__ import annotations

import threading

from novactl.agents import wire
from novactl.conductor import keyring
from novactl.conductor.journal import Journal
from novactl.conductor.leader import Leadership
from novactl.conductor.reconcile import settle
from novactl.db import keys, nodes

AT_ONCE = 64
LOOK_S, KEYS_S, KEYS_AGAIN_S = 0.2, 5.0, 60.0
"""The table of keys is offered to some nodes every KEYS_S, and to one that does not take it again after KEYS_AGAIN_S."""


class Aftermath:
    """`heard` is called by whoever takes reports in; `run` is the thread that acts on it."""

    def __init__(self, leadership: Leadership, journal: Journal) -> None:
        self._leadership, self._cluster, self._journal = leadership, leadership.cluster, journal
        self._lock, self._called = threading.Lock(), threading.Event()
        self._odd: dict[str, None] = {}
        self._tables: dict[str, int] = {}
        self._keys_s = 0.0
        self._offered_s: dict[str, float] = {}

    def heard(self, node_id: str, report: wire.Report, odd: bool) -> None:
        """`odd`: the rows of its servers say otherwise than the report; then it is to be asked again, and believed."""
        with self._lock:
            self._tables[node_id] = report.admins_version
            if odd:
                self._odd[node_id] = None
                self._called.set()

    def run(self, stop: threading.Event) -> None:
        """Until `stop`, or until the lease is lost."""
        try:
            while not stop.is_set() and self._leadership.held:
                try:
                    if self._called.wait(LOOK_S):
                        self._settle()
                    self._hand_on_keys()
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

    def _hand_on_keys(self) -> None:
        """The table of admins' keys, to those whose reports told of an older one."""
        now_s = self._cluster.clock.monotonic()
        if now_s - self._keys_s < KEYS_S:
            return
        self._keys_s = now_s
        with self._lock:
            tables, self._tables = self._tables, {}
        with self._cluster.db.read() as tx:
            current = keys.version(tx)
            recent = {id_ for id_, offered_s in self._offered_s.items() if now_s - offered_s < KEYS_AGAIN_S}
            behind = {id_ for id_, version in tables.items() if version < current} - recent
            there = [row for row in nodes.agent_rows(tx) if row.id in behind and row.address][:AT_ONCE] if behind else []
        if there:
            self._offered_s |= dict.fromkeys((row.id for row in there), now_s)
            keyring.hand_on(self._cluster, there, tables)
