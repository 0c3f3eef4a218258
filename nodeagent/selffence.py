"""Fencing by the node itself: an agent that no conductor has renewed the lease of stops every server, so that they may run elsewhere.

Once given a lease, it stays armed across restarts until it is told otherwise (`self_fence_s` 0). After a restart the time without a
lease is counted from the start. All of it is in the agent's own CLOCK_BOOTTIME.
"""

import json
import os
import threading
from typing import Optional, Tuple

from nodeagent.clock import Clock
from nodeagent.drivers.base import Driver
from nodeagent.journal import log
from nodeagent.messages import Renewal
from nodeagent.refusal import Refused
from nodeagent.wire import Code

LEASE_AT_MOST_S = 300.0
AGAIN_S = 5.0
"""As long as there is no lease it is looked so often whether something runs: what was started just then, or by hand."""


class SelfFence:
    """`count` is how often it has stopped its servers in this boot."""

    def __init__(self, path: str, clock: Clock) -> None:
        self._path, self._clock = path, clock
        self._lock = threading.Lock()
        self._stopping = False
        self.until_s = clock.boottime_s()
        self.self_fence_s, boot_id, count = _read(path)
        self.count = count if boot_id == clock.boot_id else 0
        self._fired_s = float("-inf")

    def renew(self, renewal: Renewal) -> None:
        """Raises Refused(STALE) for another boot's. A lease never gets shorter, and a late one is not longer than it was to be."""
        if renewal.boot_id != self._clock.boot_id:
            raise Refused(Code.STALE, "the lease is for another boot of this node", hint="ask agent.hello again")
        with self._lock:
            self.until_s = max(self.until_s, min(renewal.until_s, self._clock.boottime_s() + LEASE_AT_MOST_S))
            self._fired_s = float("-inf")
            if renewal.self_fence_s != self.self_fence_s:
                self.self_fence_s = renewal.self_fence_s
                self._save()

    def is_due(self) -> bool:
        """Whether the servers must be stopped now."""
        return self._without_s() is not None and self._clock.boottime_s() - self._fired_s >= AGAIN_S

    def check_lease(self) -> None:
        """Before a server is started. Raises Refused where it would be stopped at once."""
        without_s = self._without_s()
        if without_s is not None:
            raise Refused(
                Code.CONFLICT, f"this node fences itself, has had no lease for {without_s:.0f} s, and runs no servers",
                hint="leases come from the conductor service: novactl conductor run", retryable=True, elsewhere=True)

    def _without_s(self) -> Optional[float]:
        """Seconds since its lease ended, where they are too many; else None."""
        with self._lock:
            without_s = self._clock.boottime_s() - self.until_s
            return without_s if self.self_fence_s and without_s >= self.self_fence_s else None

    def fire(self, driver: Driver) -> None:
        """Stop every server; those that could not be stopped are tried again with the next tick."""
        with self._lock:
            if self._stopping:
                return
            self._stopping = True
        try:
            running = [state.server for state in driver.states()[0] if driver.run_id(state.server)]
            if running:
                without_s = self._clock.boottime_s() - self.until_s
                log(f"no lease for {without_s:.0f} s: stopping {len(running)} servers, which may be started elsewhere from now on")
                with self._lock:
                    self.count += 1
                    self._save()
            stopped = [_stopped(driver, server) for server in running]
            if all(stopped):
                with self._lock:
                    self._fired_s = self._clock.boottime_s()
        except Refused as refused:
            log(f"cannot stop the servers yet: {refused.failure.message}")
        finally:
            with self._lock:
                self._stopping = False

    def _save(self) -> None:
        part = self._path + ".part"
        with open(part, "w", encoding="utf-8", opener=_private) as file:
            json.dump({"self_fence_s": self.self_fence_s, "boot_id": self._clock.boot_id, "count": self.count}, file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(part, self._path)


def _stopped(driver: Driver, server: str) -> bool:
    try:
        driver.destroy(server)
        return True
    except Refused as refused:
        log(f"server {server} cannot be stopped yet: {refused.failure.message}")
        return False


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _read(path: str) -> Tuple[float, str, int]:
    try:
        with open(path, encoding="utf-8") as file:
            plain = json.load(file)
        return float(plain["self_fence_s"]), str(plain["boot_id"]), int(plain["count"])
    except FileNotFoundError:
        return 0.0, "", 0
    except (ValueError, TypeError, KeyError) as bad:
        raise ValueError(f"{path}: {bad}") from None


