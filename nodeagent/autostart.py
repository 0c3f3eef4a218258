"""Which servers run after the host has started anew: remembered as they start and stop, and, where so configured, started at once.

`confirmed` leaves the starting to a conductor, which knows whether they are still this node's. `local` trusts what was so
before the host went down: for hosts that must come up by themselves, and whose servers are never started elsewhere.
"""

import os
import threading
from typing import Dict, List, Set

from nodeagent.journal import log

LOCAL = "local"
TRIES, EVERY_S = 30, 2.0
NOLOGIN = "/run/nologin"
"""Made by systemd-user-sessions(8) when the host begins to go down, which stops guests: they are to run again."""
RUNS, STOPPED = ("RUNNING", "PAUSED", "SUSPENDED"), ("shutdown", "destroyed")


def going_down() -> bool:
    return os.path.exists(NOLOGIN)


class Autostart:
    """`begin`, then `due` about once a second and `start` of what it names, in the order of calls for that server."""

    def __init__(self, agent) -> None:
        self._agent = agent
        self._lock = threading.Lock()
        self._left: Dict[str, int] = {}
        self._under_way: Set[str] = set()
        self._next_s = 0.0
        self._has_begun = False
        self._is_noted = False

    def begin(self) -> None:
        """Look whether this is another boot than the last time."""
        ledger, boot_id = self._agent.ledger, self._agent.clock.boot_id
        before = ledger.boot()
        alone = self._agent.config.autostart == LOCAL and not self._agent.self_fence.self_fence_s
        if alone and before not in ("", boot_id):             # one that fences itself waits: its servers may be elsewhere by now
            self._left = {server: TRIES for server, wanted in ledger.wanted().items() if wanted.runs}
            log(f"the host has started anew: {len(self._left)} servers ran before")
        self._has_begun, self._is_noted = True, False
        self._end()

    def due(self, now_s: float) -> List[str]:
        """Servers to start now."""
        with self._lock:
            if now_s < self._next_s or not self._left:
                return []
            self._next_s = now_s + EVERY_S
            found = [server for server in self._left if server not in self._under_way]
            self._under_way.update(found)
            return found

    def start(self, server: str) -> None:
        """Start it, unless it is gone, or newer than what is here: then it is another node's by now."""
        agent, done = self._agent, False
        try:
            spec, epoch = agent.driver.spec(server), agent.ledger.epochs("", server)[1] or 0
            if spec is not None and spec.epoch >= epoch:
                agent.driver.start_domain(server)
                agent.has_started(server)
                log(f"server {server} ({spec.name}) was started: it ran before the host went down")
            done = True
        except Exception as fault:  # noqa: BLE001 - a full ledger, too: what is not tried again here keeps `follow` waiting
            log(f"server {server} ran before the host went down: {fault}")
        with self._lock:
            self._under_way.discard(server)
            tries = 0 if done else self._left.get(server, 0) - 1
            self._left[server] = tries
            if tries <= 0:
                del self._left[server]
        self._end()

    def _end(self) -> None:
        if not self._left and not self._is_noted:
            self._agent.ledger.set_boot(self._agent.clock.boot_id)
            self._is_noted = True

    def follow(self) -> None:
        """Remember what runs now. A guest that went down with its host, or died, is one that should run."""
        if not self._has_begun or self._left or going_down():
            return
        self._end()
        ledger = self._agent.ledger
        known, seen = ledger.wanted(), self._agent.driver.states().domains
        for state in seen:
            runs = known[state.server].runs if state.server in known else False
            if state.power_state in RUNS and not runs:
                ledger.should_run(state.server, True)
            elif state.reason in STOPPED and runs:
                ledger.should_run(state.server, False)
        gone = known.keys() - {state.server for state in seen}
        if gone:
            ledger.forget_runs(gone)
