"""Taking in all agents' reports as they come: one thread, one write transaction for what comes together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from novactl.agents import wire
from novactl.cluster import Cluster
from novactl.conductor import fleet
from novactl.conductor.history import note_on
from novactl.conductor.journal import Journal
from novactl.conductor.leader import Leadership
from novactl.db import nodes
from novactl.db.nodes import AgentRow
from novactl.db.statements import Tx
from novactl.errors import NovaError, Superseded, Unreachable

if TYPE_CHECKING:
    from novactl.agents.watching import Heard, Watching

WINDOW_S = 0.2
"""What comes within it is written together."""
ROWS_S = 5.0
"""How often new, removed and changed nodes are looked for."""
AT_ONCE = 200
"""Reports in one transaction: others want to write, too."""


def _nothing(node_id: str, report: wire.Report, odd: bool) -> None:
    """Nobody acts on reports."""


class Watcher:
    """`run` is the thread. `reports` counts those taken in, `late_s` is how long the slowest of the last batch waited for it,
    `round_s` when (by the stop watch) the thread last began anew. `heard` is told of each report, and
    whether the rows of the node's servers say otherwise."""

    def __init__(self, leadership: Leadership, journal: Journal, heard: Callable[[str, wire.Report, bool], None] = _nothing) -> None:
        self._heard = heard
        self.cluster: Cluster = leadership.cluster
        self.leadership, self.journal = leadership, journal
        self.reports, self.late_s, self.connected = 0, 0.0, 0
        self.round_s = self.cluster.clock.monotonic()
        self._rows: dict[str, AgentRow] = {}
        self._rows_s = float("-inf")
        self._pending: dict[str, Heard] = {}
        self._silent: dict[str, float] = {}

    def run(self, stop: threading.Event) -> None:
        """Until `stop`, or until the lease is lost. Errors of the database end nothing: reports are newer the next time."""
        from novactl.agents.watching import Watching

        watching = Watching(self.cluster.agents, self.cluster.config["agent.report_interval_s"])
        try:
            while not stop.is_set() and self.leadership.held:
                try:
                    self._round(watching)
                except Superseded:
                    return
                except Exception as error:  # noqa: BLE001 - whatever one round meets, the next one is tried
                    self.journal.failed("watch", error)
                    stop.wait(WINDOW_S)
        finally:
            watching.close()
            self.cluster.db.close()

    def _round(self, watching: Watching) -> None:
        now_s = self.round_s = self.cluster.clock.monotonic()
        if now_s - self._rows_s >= ROWS_S:
            self._rows_s = now_s
            with self.cluster.db.read() as tx:
                self._rows = {row.id: row for row in nodes.agent_rows(tx) if row.address}
            watching.follow(self._rows.values())
        for one in watching.read(WINDOW_S):
            self._pending[one.peer] = one                     # of one node only the newest counts
        self._silent |= watching.silent()
        self.connected = watching.connected
        while watching.faults:
            id_, fault = watching.faults.popitem()
            self.journal.failed(f"reports of {self._rows[id_].name if id_ in self._rows else id_}", NovaError(fault))
        self._write()

    def _write(self) -> None:
        """What is pending, in the order in which rows are locked everywhere. What fails stays pending."""
        while self._pending or self._silent:
            ids = sorted(self._pending)[:AT_ONCE]
            silent = {id_: since_s for id_, since_s in self._silent.items() if id_ not in self._pending}
            try:
                with self.leadership.write() as tx:
                    now = self.cluster.clock.now()
                    for id_ in ids:
                        self._take(tx, self._pending[id_], now)
                    for id_ in sorted(silent):
                        self._note_silent(tx, id_, now - silent[id_])
            except NovaError:
                raise
            except Exception as error:  # noqa: BLE001 - one node's nonsense must not cost the others their reports
                self.journal.failed("report", error)
                self._one_by_one(ids)
            self.reports += len(ids)
            self.late_s = max((self._pending[id_].age_s for id_ in ids if id_ in self._pending), default=0.0)
            for id_ in ids:
                self._pending.pop(id_, None)
            self._silent.clear()

    def _one_by_one(self, ids: list[str]) -> None:
        for id_ in ids:
            try:
                with self.leadership.write() as tx:
                    self._take(tx, self._pending[id_], self.cluster.clock.now())
            except Superseded:
                raise
            except Exception as error:  # noqa: BLE001 - see above
                self.journal.failed(f"report of {self._rows[id_].name if id_ in self._rows else id_}", error)

    def _take(self, tx: Tx, heard: Heard, now: float) -> None:
        row = self._rows.get(heard.peer)
        try:
            self._heard(heard.peer, heard.report, fleet.take_report(tx, heard.peer, heard.report, now - heard.age_s))
        except Unreachable as wrong:                          # said before anything is written
            self.journal.failed(f"report of {row.name if row else heard.peer}", wrong)
            return
        if row is not None and row.silent_since is not None:
            self._note(tx, row, "answers", f"after {max(0.0, now - row.silent_since):.0f} s")
            self._rows[row.id] = row._replace(silent_since=None)

    def _note_silent(self, tx: Tx, node_id: str, since: float) -> None:
        row = self._rows.get(node_id)
        if row is not None and nodes.silent(tx, node_id, since):
            self._note(tx, row, "silent")
            self._rows[node_id] = row._replace(silent_since=since)

    def _note(self, tx: Tx, row: AgentRow, event: str, detail: str = "") -> None:
        node = nodes.by_id(tx, row.id)
        if node is not None:
            note_on(self.cluster, tx, node, event, detail)
            self.journal.say(f"node {event}", node=row.name, **({"detail": detail} if detail else {}))
