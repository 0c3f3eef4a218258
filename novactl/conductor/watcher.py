"""Taking in all agents' reports as they come: one thread, one write transaction for what comes together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from novactl.agents import wire
from novactl.cluster import Cluster
from novactl.conductor import fleet
from novactl.conductor.history import note_on
from novactl.conductor.journal import Journal
from novactl.conductor.leader import Leadership
from novactl.db import nodes
from novactl.db.nodes import AgentRow
from novactl.db.statements import Tx
from novactl.errors import DatabaseUnavailable, NovaError, Superseded, Unreachable

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


class _Said(NamedTuple):
    """A report, and when it came by the stop watch."""

    report: wire.Report
    at_s: float


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
        self._pending: dict[str, _Said] = {}
        self._silent: dict[str, float] = {}                   # since when, by the stop watch: after what is pending of the node

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
                watching.follow(self.follow(nodes.agent_rows(tx)))
        heard = watching.read(WINDOW_S)
        self.connected = watching.connected
        while watching.faults:
            id_, fault = watching.faults.popitem()
            self.journal.failed(f"reports of {self._name(id_)}", NovaError(fault))
        self.take(heard, watching.silent())

    def follow(self, rows: Iterable[AgentRow]) -> list[AgentRow]:
        """Those of the rows that are listened to."""
        self._rows = {row.id: row for row in rows if row.address}
        return list(self._rows.values())

    def take(self, heard: Iterable[Heard], silent: Mapping[str, float]) -> None:
        """Write what came, and who is silent since (seconds ago), and what could not be written before.

        Of those whose rows say so already nothing is written. Another process may have heard of one since: it is silent since then.
        """
        now_s = self.cluster.clock.monotonic()
        for one in heard:                                     # of one node only the newest counts
            self._pending[one.peer] = _Said(one.report, now_s - one.age_s)
            self._silent.pop(one.peer, None)
        for id_, ago_s in silent.items():
            row = self._rows.get(id_)
            if row is not None and row.silent_since is None:
                self._silent[id_] = now_s - ago_s
        self._write()

    @property
    def waits(self) -> bool:
        """Whether there is something that could not be written yet."""
        return bool(self._pending or self._silent)

    def _write(self) -> None:
        """In the order in which rows are locked everywhere. What the database does not take now stays pending."""
        while self._pending:
            ids = sorted(self._pending)[:AT_ONCE]
            self._each(ids, "report", self._take)
            self.reports += len(ids)
            self.late_s = self.cluster.clock.monotonic() - min(self._pending[id_].at_s for id_ in ids)
            for id_ in ids:                                   # what no attempt can write goes, too: the next one is newer
                del self._pending[id_]
        silent = sorted(self._silent)
        for first in range(0, len(silent), AT_ONCE):
            for id_ in self._each(silent[first:first + AT_ONCE], "silence", self._note_silent):
                del self._silent[id_]

    def _each(self, ids: Sequence[str], what: str, act: Callable[[Tx, str], None]) -> Sequence[str]:
        """In one transaction; where that fails, each in its own: one node's nonsense must not cost the others their reports.

        Returns those that were written. Raises DatabaseUnavailable, Superseded.
        """
        rows = dict(self._rows)
        try:
            with self.leadership.write() as tx:
                for id_ in ids:
                    act(tx, id_)
            return ids
        except (DatabaseUnavailable, Superseded):
            self._rows = rows
            raise
        except Exception as error:  # noqa: BLE001 - see above
            self._rows = rows
            if len(ids) == 1:
                self.journal.failed(f"{what} of {self._name(ids[0])}", error)
                return ()
            return [id_ for one in ids for id_ in self._each([one], what, act)]

    def _name(self, node_id: str) -> str:
        return self._rows[node_id].name if node_id in self._rows else node_id

    def _ago(self, at_s: float) -> float:
        """A moment of the stop watch, in the cluster's time."""
        return self.cluster.clock.now() - (self.cluster.clock.monotonic() - at_s)

    def _take(self, tx: Tx, node_id: str) -> None:
        row, said = self._rows.get(node_id), self._pending[node_id]
        try:
            self._heard(node_id, said.report, fleet.take_report(tx, node_id, said.report, self._ago(said.at_s)))
        except Unreachable as wrong:                          # said before anything is written
            self.journal.failed(f"report of {self._name(node_id)}", wrong)
            return
        if row is not None and row.silent_since is not None:
            self._note(tx, row, "answers", f"after {max(0.0, self.cluster.clock.now() - row.silent_since):.0f} s")
            self._rows[row.id] = row._replace(silent_since=None)

    def _note_silent(self, tx: Tx, node_id: str) -> None:
        row = self._rows.get(node_id)
        if row is None:
            return
        since = max(self._ago(self._silent[node_id]), row.reported_at or 0.0)
        if nodes.silent(tx, node_id, since):
            self._note(tx, row, "silent")
        self._rows[node_id] = row._replace(silent_since=since)

    def _note(self, tx: Tx, row: AgentRow, event: str, detail: str = "") -> None:
        node = nodes.by_id(tx, row.id)
        if node is not None:
            note_on(self.cluster, tx, node, event, detail)
            self.journal.say(f"node {event}", node=row.name, **({"detail": detail} if detail else {}))
