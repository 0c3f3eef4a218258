"""Telling of events: a hook command, and a PUB socket.

Events are read from the database by their numbers, so that whoever writes them need not know who listens. The hook is given
each at least once: how far it has come is kept in the database, and the next leader goes on from there. The socket tells those
who listen now; each message has a number, by which a subscriber sees that it lost some. Neither waits for the other.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import re
import select
import shlex
import signal
import subprocess
import tempfile
import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from novactl.cluster import Clock, Cluster
from novactl.conductor.journal import Journal
from novactl.conductor.leader import Leadership
from novactl.db import keys, meta, notices
from novactl.errors import NovaError, Superseded, UsageError
from novactl.model.operation import EventRecord

if TYPE_CHECKING:
    from novactl.agents.publishing import Publisher

TOLD = "conductor.told"
"""The key of `meta` under which stands the number of the last event that the hook was given."""
LOOK_S = 0.25
BATCH = 200
PARALLEL = 4
"""Hooks that run at a time."""
LAST_WORDS_S = 1.0
"""What hooks under way get to end when the conductor does."""
LATECOMER_S = 5.0
"""A number that is missing is waited for so long: its transaction may not have committed yet, or never will."""
BEAT_S = 5.0
ROUND_S = 0.02
"""How often it is looked whether a hook that says nothing has ended."""
SAID_BYTES, KEPT_BYTES = 1 << 20, 1024
"""What a hook may say before it is killed, and what is kept of it for the log."""
PIPE_BYTES = 1 << 16
"""All that a pipe holds (pipe(7))."""


def as_plain(id_: int, event: EventRecord) -> dict[str, Any]:
    """What a hook reads and a subscriber gets: all that the row has, and its number."""
    return {"id": id_, **dataclasses.asdict(event)}


class Events:
    """Events in the order of their numbers, from the one after `at` on."""

    def __init__(self, cluster: Cluster, at: int) -> None:
        self._cluster, self.at = cluster, at
        self._seen: deque[tuple[int, float]] = deque()        # the newest number, and when that was first so by the stop watch
        self._settled = at

    def more(self) -> list[tuple[int, EventRecord]]:
        """Those that came since it was asked last, a batch at most, but for what comes after a number that may yet appear."""
        with self._cluster.db.read() as tx:
            rows = notices.after(tx, self.at, BATCH)
            newest = notices.newest(tx) if rows else self.at
        self._settle(newest)
        for count, (id_, _) in enumerate(rows):
            if id_ != self.at + 1 and id_ > self._settled:
                return rows[:count]
            self.at = id_
        return rows

    def _settle(self, newest: int) -> None:
        """Numbers are drawn in their order: when one is seen, the transactions that drew the smaller ones are under way or over."""
        now_s = self._cluster.clock.monotonic()
        if newest > (self._seen[-1][0] if self._seen else self._settled):
            self._seen.append((newest, now_s))
        while self._seen and now_s - self._seen[0][1] >= LATECOMER_S:
            self._settled = self._seen.popleft()[0]


class Hook:
    """A command run for one event at a time, without a shell. Raises UsageError where it cannot be read."""

    def __init__(self, command: str, timeout_s: float, journal: Journal, clock: Clock) -> None:
        try:
            self.argv = shlex.split(command)
        except ValueError as bad:
            raise UsageError(f"conductor.hook: {command!r}: {bad}", hint="a command and its arguments, as a shell quotes them") from None
        if not self.argv:
            raise UsageError(f"conductor.hook: {command!r} names no command", hint="empty, there is no hook")
        self._timeout_s, self._journal, self._clock = timeout_s, journal, clock
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._is_over = False

    def __call__(self, id_: int, event: EventRecord) -> None:
        """Whatever becomes of it, it does not raise: an event that a hook cannot take must not stop the ones behind it."""
        try:
            self._run(json.dumps(as_plain(id_, event)))
        except Exception as error:  # noqa: BLE001 - the command is anybody's
            self._journal.failed("hook", error, event=id_, command=self.argv[0])

    def end(self) -> None:
        """Kill those under way; none is begun any more."""
        with self._lock:
            self._is_over = True
            for process in self._running:
                _kill(process)

    def _run(self, text: str) -> None:
        """Raises NovaError, OSError."""
        with tempfile.TemporaryFile() as given:
            given.write(text.encode())
            given.seek(0)
            with subprocess.Popen(
                    self.argv, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True) as process:
                with self._lock:
                    self._running.add(process)
                    if self._is_over:
                        _kill(process)
                said, why = self._attend(process)
        if self._is_over and process.returncode == -signal.SIGKILL:
            raise NovaError("it was killed, as the conductor leads no more; the next one runs it again")
        if why:
            raise NovaError(f"it was killed {why}")
        if process.returncode:
            raise NovaError(f"exit status {process.returncode}: {said[:200].decode(errors='replace').strip()}")

    def _attend(self, process: subprocess.Popen[bytes]) -> tuple[bytes, str]:
        """Until it has ended: (the beginning of what it said, why it was killed). What it leaves behind may hold its pipe open, and
        is not waited for."""
        assert process.stdout is not None
        pipe, said, count, why = process.stdout.fileno(), b"", 0, ""
        os.set_blocking(pipe, False)
        poller = select.poll()
        poller.register(pipe, select.POLLIN)
        until_s = self._clock.monotonic() + self._timeout_s
        while True:
            has_ended = self._has_ended(process)
            with contextlib.suppress(BlockingIOError):
                chunk = os.read(pipe, PIPE_BYTES)
                count += len(chunk)
                said += chunk[:KEPT_BYTES - len(said)]
                if not chunk and not has_ended:
                    poller = select.poll()                    # it has closed the pipe, which would be ready for ever
            if has_ended:
                return said, why
            if not why and (self._clock.monotonic() >= until_s or count > SAID_BYTES):
                why = f"after {self._timeout_s:g} s" if count <= SAID_BYTES else f"as it said more than {SAID_BYTES >> 20} MiB"
                _kill(process)
            poller.poll(int(ROUND_S * 1000))

    def _has_ended(self, process: subprocess.Popen[bytes]) -> bool:
        """Whoever kills it knows by the lock that its number is still its own."""
        with self._lock:
            if process.poll() is None:
                return False
            self._running.discard(process)
            return True


def _kill(process: subprocess.Popen[bytes]) -> None:
    """With all that it started, but for what has left its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class Hooks:
    """`run` is a thread."""

    def __init__(self, leadership: Leadership, journal: Journal) -> None:
        config = leadership.cluster.config
        self._leadership, self._cluster, self._journal = leadership, leadership.cluster, journal
        self.hook = Hook(config["conductor.hook"], config["conductor.hook_timeout_s"], journal, self._cluster.clock)
        self._pool = concurrent.futures.ThreadPoolExecutor(PARALLEL, "hook")
        self._under_way: dict[int, concurrent.futures.Future[None]] = {}

    def run(self, stop: threading.Event) -> None:
        """Until `stop`, or until the lease is lost."""
        events: Events | None = None
        try:
            while not stop.is_set() and self._leadership.held:
                try:
                    events = events or Events(self._cluster, self._begin())
                    self._round(events)
                except Superseded:
                    return
                except Exception as error:  # noqa: BLE001 - whatever one round meets, the next one is tried
                    self._journal.failed("hooks", error)
                stop.wait(LOOK_S)
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)
            concurrent.futures.wait([future for future in self._under_way.values() if not future.cancelled()], LAST_WORDS_S)
            if events is not None:
                with contextlib.suppress(NovaError):
                    self._settle(events)
            self.hook.end()                                   # after it: the next leader's hook is given their events again
            self._cluster.db.close()

    def _begin(self) -> int:
        """Where the last leader's hooks had come to; at first, at the newest event."""
        with self._cluster.db.read() as tx:
            told, newest = meta.get(tx, TOLD), notices.newest(tx)
        if told is not None:
            return min(int(told), newest)
        self._keep(newest)
        return newest

    def _round(self, events: Events) -> None:
        if len(self._under_way) < BATCH:
            for id_, event in events.more():
                self._under_way[id_] = self._pool.submit(self.hook, id_, event)
        self._settle(events)

    def _settle(self, events: Events) -> None:
        """Write down how far hooks are through: not past one that has not run to its end."""
        done = [id_ for id_, future in self._under_way.items() if future.done() and not future.cancelled()]
        for id_ in done:
            del self._under_way[id_]
        if done:
            self._keep(min(self._under_way, default=events.at + 1) - 1)

    def _keep(self, told: int) -> None:
        with self._leadership.write() as tx:
            meta.put(tx, TOLD, str(told))


_ENDPOINT = re.compile(r"tcp://(?:[^\[\]:/\s]+|\[[0-9A-Fa-f:.%\w]+\]):(?P<port>\d{1,5}|\*)")


def check_endpoint(endpoint: str) -> str:
    """As it is. Whether this machine has the address is known only when it is bound. Raises UsageError."""
    found = _ENDPOINT.fullmatch(endpoint)
    if not found or found["port"] != "*" and int(found["port"]) > 65535:
        raise UsageError(
            f"cannot publish at {endpoint!r}", hint="tcp://ADDRESS:PORT, an address of this machine (* for each) and a port up to 65535",
            command="novactl conductor run --publish tcp://127.0.0.1:7767")
    return endpoint


class Telling:
    """`run` is a thread. The socket is bound by `open`, or by `run`; `endpoint` says where. `on_bound` is told that, and "" when it is
    bound no more."""

    def __init__(
            self, leadership: Leadership, journal: Journal, endpoint: str, on_bound: Callable[[str], object] = lambda _: None) -> None:
        self._leadership, self._cluster, self._journal, self.endpoint = leadership, leadership.cluster, journal, endpoint
        self._on_bound, self._shown = on_bound, ""
        self._publisher: Publisher | None = None
        self._seq: Counter[str] = Counter()
        self._beat_s = float("-inf")

    def run(self, stop: threading.Event) -> None:
        """Until `stop`, or until the lease is lost."""
        events: Events | None = None
        try:
            while not stop.is_set() and self._leadership.held:
                try:
                    publisher = self._publisher or self.open()
                    if events is None:
                        with self._cluster.db.read() as tx:
                            events = Events(self._cluster, notices.newest(tx))
                    self._beat(publisher)
                    for id_, event in events.more():
                        self._tell(publisher, f"{event.object_kind}.{event.event}", event.object_kind, as_plain(id_, event))
                except Exception as error:  # noqa: BLE001 - whatever one round meets, the next one is tried
                    self._journal.failed("publish", error)
                    if isinstance(error, UsageError):
                        with contextlib.suppress(NovaError):
                            self._show("")
                stop.wait(LOOK_S)
        finally:
            if self._publisher is not None:
                self._publisher.close()
            self._cluster.db.close()

    def open(self) -> Publisher:
        """Raises UsageError where the address cannot be had."""
        from novactl.agents.publishing import Publisher

        made = self._publisher = Publisher(self._cluster.agents.keys(), self.endpoint, self._admitted())
        self.endpoint = made.endpoint
        self._journal.say("publishes", endpoint=self.endpoint, key=self._cluster.key)
        return made

    def _tell(self, publisher: Publisher, topic: str, stream: str, body: dict[str, Any]) -> None:
        """Numbered within what it speaks of, for those who subscribe to that alone."""
        self._seq[stream] += 1
        lease = self._leadership.lease
        publisher.send(topic, json.dumps({"seq": self._seq[stream], "epoch": lease.epoch if lease else 0, **body}).encode())

    def _beat(self, publisher: Publisher) -> None:
        """Now and then: that it is there, with the last number of everything, and who may listen from now on."""
        now_s = self._cluster.clock.monotonic()
        if now_s - self._beat_s >= BEAT_S:
            self._beat_s = now_s
            publisher.admit(self._admitted())
            self._tell(publisher, "conductor.beat", "beat", {"at": self._cluster.clock.now(), "last": dict(self._seq)})
            self._show(self.endpoint)

    def _show(self, endpoint: str) -> None:
        if endpoint != self._shown:
            self._on_bound(endpoint)
            self._shown = endpoint

    def _admitted(self) -> frozenset[str]:
        """Whoever may read; before the first key is in the books, this admin alone."""
        with self._cluster.db.read() as tx:
            return frozenset(key.public_key for key in keys.active(tx)) or frozenset({self._cluster.key})
