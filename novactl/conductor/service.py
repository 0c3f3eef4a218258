"""The conductor as a process: it waits until nobody leads, and then does in a loop what commands do on demand.

The leader takes in all agents' reports (watcher.py), ends what dead processes left (recover.py), compares nodes with the database,
tells of events (notify.py) and forgets what ended long ago. Each of these has a thread. An error ends none of them; losing the
lease ends all, and the process waits again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from novactl.cluster import Cluster
from novactl.conductor import background, ha, owner, recover
from novactl.conductor.aftermath import Aftermath
from novactl.conductor.drift import Drift
from novactl.conductor.journal import Journal
from novactl.conductor.leader import Leadership, present
from novactl.conductor.notify import Hooks, Telling, check_endpoint
from novactl.conductor.supervision import Supervisor
from novactl.conductor.survey import survey
from novactl.conductor.watcher import Watcher
from novactl.config import Config
from novactl.db import admission, events, meta, operations, retention
from novactl.db.leases import Lease
from novactl.db.statements import Tx
from novactl.errors import DatabaseFailed, Denied, NovaError, SchemaNewer, SchemaOlder, Superseded
from novactl.model.key import Role
from novactl.model.operation import EventRecord, OperationState

STATUS = "conductor"
"""The key of `meta` under which the leader says about itself what its lease does not: JSON of `Status`."""
LOOK_S = 0.2
KEY_S, SCHEMA_S, RECOVERY_S = 5.0, 30.0, 30.0
LAST_WORDS_S = 3.0
"""What the leader's threads get to end."""


@dataclasses.dataclass(frozen=True)
class Status:
    """`publish` is the endpoint subscribers connect to, "" while nothing is bound, and `key` the one they must find there (Z85)."""

    since: float
    actor: str
    publish: str
    key: str


class Job(NamedTuple):
    """What the leader does every so often. A new duty of the conductor is a new row in JOBS."""

    name: str
    every_s: Callable[[Config], float]
    act: Callable[[Leadership, Journal], None]


def _recover(leadership: Leadership, journal: Journal) -> None:
    """End what nobody drives any more. Each operation's own epoch lets only one process do it."""
    for operation, error in recover.recover(leadership.cluster, budget_s=RECOVERY_S):
        facts = {"operation": operation.id[:8], "kind": operation.kind, "object": operation.object_name}
        if error is None:
            journal.say("ended", **facts, state=operation.state.value)
        else:
            journal.failed(f"recovery of {operation.id[:8]}", error, **facts)


def _forget(leadership: Leadership, journal: Journal) -> None:
    """Rows older than their retention, a few hundred at a time. Raises NovaError where the clock may have jumped ahead."""
    config = leadership.cluster.config
    for name, forget in (("operations", retention.operations), ("events", retention.events), ("deleted_servers", retention.servers)):
        days = config[f"retention.{name}_days"]
        gone = more = 0
        while days and (not gone or more == retention.AT_ONCE):
            with leadership.write() as tx:
                now = leadership.cluster.clock.now()
                vouched = retention.is_vouched(tx, now)
                more = forget(tx, now - days * retention.DAY_S)
                if more and not vouched:
                    raise _out_of_time(now)                   # and nothing of it is written
            gone += more
            if not more:
                break
        if gone:
            journal.say("forgot", **{name: gone}, older_than_days=days)


def _out_of_time(now: float) -> NovaError:
    youngest, oldest = retention.VOUCHES_DAYS
    date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    return NovaError(
        f"nothing is forgotten: it is {date} here, but no event is {youngest} to {oldest} days old: the clock may have jumped ahead",
        hint=f"where it is right, what is old is forgotten from {youngest} day after the next event on", command="date -u")


class _Verifying:
    """Agents and database are compared in full; what was not found the last time is told, in the log and as an event."""

    def __init__(self) -> None:
        self._known: frozenset[Drift] = frozenset()

    def __call__(self, leadership: Leadership, journal: Journal) -> None:
        cluster = leadership.cluster
        found = frozenset(drift for drift in survey(cluster) if drift.is_fault)
        new = sorted(found - self._known)
        if new:
            with leadership.write() as tx:
                for drift in new:
                    events.record(tx, EventRecord(
                        at=cluster.clock.now(), object_kind="node" if drift.node_id else "cluster", object_id=drift.node_id,
                        object_name=drift.node or drift.object, operation_id="", event="drift", actor=cluster.actor,
                        detail=f"{drift.kind} {drift.object}: {drift.what}"))
        for drift in new:
            journal.say("drift", kind=drift.kind.value, object=drift.object, node=drift.node, what=drift.what)
        self._known = found


def _look_after(leadership: Leadership, journal: Journal) -> None:
    """Servers that asked for high availability."""
    begun, said = ha.look_after(leadership.cluster, leadership.write)
    for sentence in said:
        journal.failed(f"ha {sentence[:40]}", NovaError(sentence))
    if begun:
        journal.say("ha", begun=len(begun))
        background.hand_over(leadership.cluster, begun)


JOBS: tuple[Job, ...] = (
    Job("recover", lambda config: 3.0, _recover),
    Job("ha", lambda config: 3.0, _look_after),
    Job("verify", lambda config: config["conductor.verify_s"], _Verifying()),
    Job("forget", lambda config: 3600.0, _forget),
)


class Conductor:
    """`run` is the process's life, `once` one round of it. `publish` overrides the setting. Raises UsageError for a hook, or an endpoint,
    that cannot be."""

    def __init__(self, cluster: Cluster, journal: Journal, *, publish: str = "", supervisor: Supervisor | None = None) -> None:
        self.cluster, self.journal = cluster, journal
        self.publish = publish or cluster.config["conductor.publish"]
        if self.publish:
            check_endpoint(self.publish)
        self.supervisor = supervisor or Supervisor("")
        self.leadership = Leadership(cluster, on_taken=self._taken)
        self._hooks: Hooks | None = None
        if cluster.config["conductor.hook"]:
            Hooks(self.leadership, journal)

    def run(self, stop: threading.Event) -> None:
        """Until `stop`. Raises SchemaNewer when the database was upgraded: then another novactl is needed; Denied when this admin's
        key may not lead any more."""
        self.cluster.db.check_schema()
        wait_s = min(1.0, self.leadership.lease_s / 5)
        with present(self.cluster):
            self.supervisor.ready()
            self.journal.say("runs", process=owner.shown(owner.this_process()), database=self.cluster.db.where)
            while not stop.is_set():
                try:
                    if self.leadership.take():
                        self._lead(stop)
                        continue
                except (SchemaNewer, SchemaOlder):
                    raise
                except Denied:
                    if not self._has_another_key():
                        raise
                    continue
                except Exception as error:  # noqa: BLE001 - the database may be gone for a while
                    self.journal.failed("take the lease", error)
                self.supervisor.alive()
                stop.wait(wait_s)
        self.journal.say("ends")

    def once(self) -> tuple[NovaError, ...]:
        """Refresh every report and do each job once; what failed. Where another conductor leads, that one does it."""
        from novactl.conductor.fleet import refresh

        if not self.leadership.take():
            self.journal.say("another conductor leads")
            return ()
        failed = list[NovaError]()
        with self.leadership.holding():
            failed += refresh(self.cluster, max_age_s=0.0, fenced=True).values()
            for job in JOBS:
                try:
                    job.act(self.leadership, self.journal)
                except NovaError as error:
                    failed.append(error)
        return tuple(failed)

    def end_hooks(self) -> None:
        """Hooks under way are killed."""
        if self._hooks is not None:
            self._hooks.hook.end()

    # ---- leading

    def _taken(self, tx: Tx, lease: Lease) -> None:
        now = self.cluster.clock.now()
        self._check_key(tx)
        self._status = Status(now, self.cluster.actor, "", self.cluster.key)
        meta.put(tx, STATUS, json.dumps(dataclasses.asdict(self._status)))
        events.record(tx, EventRecord(
            at=now, object_kind="conductor", object_id="", object_name=owner.shown(lease.owner), operation_id="", event="leads",
            actor=self.cluster.actor, detail=f"epoch {lease.epoch}", reason=""))

    def _bound(self, endpoint: str) -> None:
        """Said by the leader alone: it may be overtaken meanwhile."""
        with self.leadership.write() as tx:
            meta.put(tx, STATUS, json.dumps(dataclasses.asdict(dataclasses.replace(self._status, publish=endpoint))))

    def _lead(self, stop: threading.Event) -> None:
        """Until `stop`, or until the lease is lost."""
        lease = self.leadership.lease
        self.journal.say("leads", epoch=lease.epoch if lease else 0)
        aftermath = Aftermath(self.leadership, self.journal)
        ending, watcher = threading.Event(), Watcher(self.leadership, self.journal, aftermath.heard)
        threads = [self._thread(name, target, ending) for name, target in self._duties(watcher, aftermath)]
        try:
            with self.leadership.holding():
                try:
                    self._attend(stop, watcher)
                finally:
                    ending.set()
                    self._end(threads)
                if stop.is_set():
                    self._let_go()
        finally:
            ending.set()
        self.journal.say("leads no more", reports=watcher.reports)

    def _duties(self, watcher: Watcher, aftermath: Aftermath) -> list[tuple[str, Callable[[threading.Event], None]]]:
        found = [("watch", watcher.run), ("follow", aftermath.run)]
        if self.cluster.config["conductor.hook"]:
            self._hooks = Hooks(self.leadership, self.journal)
            found.append(("hooks", self._hooks.run))
        if self.publish:
            found.append(("publish", Telling(self.leadership, self.journal, self.publish, self._bound).run))
        return [*found, *((job.name, lambda ending, job=job: self._work(job, ending)) for job in JOBS)]

    def _thread(self, name: str, target: Callable[[threading.Event], None], ending: threading.Event) -> threading.Thread:
        """`target` in a thread, begun anew should it fail as a whole."""
        def run() -> None:
            while not ending.is_set() and self.leadership.held:
                try:
                    target(ending)
                except Exception as error:  # noqa: BLE001 - a duty that breaks must not stay undone
                    self.journal.failed(name, error)
                ending.wait(LOOK_S)

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread

    def _attend(self, stop: threading.Event, watcher: Watcher) -> None:
        """Say that we live while reports are taken in; see whether the database is still of our schema, and our key in its books.
        With another key all is begun anew. Raises SchemaNewer, SchemaOlder, Denied."""
        monotonic, key = self.cluster.clock.monotonic, self.cluster.key
        key_s = schema_s = monotonic()
        while not stop.wait(LOOK_S) and self.leadership.held:
            if monotonic() - watcher.round_s < self.supervisor.patience_s:
                self.supervisor.alive()
            if monotonic() - schema_s >= SCHEMA_S:
                schema_s = monotonic()
                with contextlib.suppress(DatabaseFailed):
                    self.cluster.db.check_schema()
            if monotonic() - key_s >= KEY_S:
                key_s = monotonic()
                with contextlib.suppress(DatabaseFailed), self.cluster.db.read() as tx:
                    self._check_key(tx)
                if self.cluster.key != key:
                    return

    def _check_key(self, tx: Tx) -> None:
        admission.check(tx, self.cluster.key, Role.ADMIN, "leading the conductors")

    def _has_another_key(self) -> bool:
        """Whether this admin's key was rotated, by another process: then that one is used from now on."""
        known = self.cluster.key
        self.cluster.forget_key()
        self.cluster.agents.rekey()
        return self.cluster.key != known

    def _end(self, threads: list[threading.Thread]) -> None:
        until_s = self.cluster.clock.monotonic() + LAST_WORDS_S
        for thread in threads:
            thread.join(max(0.0, until_s - self.cluster.clock.monotonic()))

    def _let_go(self) -> None:
        """Operations that this process drives: given up with a new epoch, so that others go on with them at once."""
        me = owner.this_process()
        with contextlib.suppress(NovaError), self.cluster.db.write() as tx:
            for operation in operations.under_way(tx):
                if operation.owner == me and operation.state is not OperationState.STUCK:
                    operations.take(tx, operation, state=operation.state, owner="", lease_until=0.0)

    def _work(self, job: Job, ending: threading.Event) -> None:
        try:
            while not ending.is_set() and self.leadership.held:
                try:
                    job.act(self.leadership, self.journal)
                except Superseded:
                    pass                                      # an operation's, or the lease itself: `held` knows
                except Exception as error:  # noqa: BLE001 - whatever one round meets, the next one is tried
                    self.journal.failed(job.name, error)
                finally:
                    self.cluster.db.close()
                ending.wait(job.every_s(self.cluster.config))
        finally:
            self.cluster.db.close()


def status(tx: Tx) -> Status | None:
    """What the last leader said of itself; None when there has been none."""
    found: dict[str, Any] | None = json.loads(meta.get(tx, STATUS) or "null")
    return None if found is None else Status(**found)
