"""Fencing by the node itself: an agent that no conductor has renewed the lease of stops every server, so that they may run elsewhere.

Once given a lease, it stays armed across restarts until it is told otherwise (`self_fence_s` 0), and one that is started anew has no longer
than the one before had. All of it is in the agent's own CLOCK_BOOTTIME. Servers are stopped in threads of their own, side by side:
neither other calls, nor a guest that does not end, nor a disk that hangs keeps the others running.
"""

import contextlib
import json
import os
import threading
from typing import Any, Dict, Optional, Set

from nodeagent.clock import Clock
from nodeagent.drivers.base import Driver
from nodeagent.journal import log
from nodeagent.messages import Renewal
from nodeagent.refusal import Refused
from nodeagent.wire import Code

LEASE_AT_MOST_S = 300.0
AGAIN_S = 5.0
"""As long as there is no lease it is looked so often whether something runs: what was started just then, or by hand."""
AT_ONCE = 64
"""So many servers are stopped side by side; libvirt gives a guest that hangs a quarter of a minute."""
COUNT_S = 1.0
"""So long the servers' stopping waits for its count to be on disk."""


class SelfFence:
    """`count` is how often it has stopped its servers in this boot, or may have: it is on disk before, or, where the disk hangs, the
    next agent counts once more. Without it they would be taken for stopped by their owner.

    `path` says whether it is armed, and is synced. Beside it, in `path`.end, is the lease's end, which is of this boot alone: it is written
    by the way, and what is not yet there can only make a later agent's shorter.
    """

    def __init__(self, path: str, clock: Clock) -> None:
        self._path, self._end_path, self._clock = path, path + ".end", clock
        self._lock, self._disk = threading.Lock(), threading.Lock()
        said = _read(path)
        self.self_fence_s = self._kept_s = float(said.get("self_fence_s", 0.0))
        self.count = int(said.get("count", 0)) if said.get("boot_id") == clock.boot_id else 0
        self._ended_s = _read_end(self._end_path, clock)
        self.until_s = clock.boottime_s() if self._ended_s is None else self._ended_s
        self._stopping: Set[str] = set()
        self._looking = self._writing = self._counted = False
        self._none_ran_s = float("-inf")
        self._kept_count, self._keeping = self.count, threading.Thread()
        if self._ended_s is not None and self.lacks_lease():
            self.count += 1
            self._keep_count()

    def renew(self, renewal: Renewal) -> None:
        """Raises Refused(STALE) for another boot's, and for one that a later one has overtaken: that one stays in force."""
        if renewal.boot_id != self._clock.boot_id:
            raise Refused(Code.STALE, "the lease is for another boot of this node", hint="ask agent.hello again")
        with self._lock:
            if renewal.until_s < self.until_s and self.self_fence_s != renewal.self_fence_s:
                raise Refused(Code.STALE, "a later lease, or the end of all, came before this one", hint="ask agent.hello again")
            self.until_s = max(self.until_s, min(renewal.until_s, self._clock.boottime_s() + LEASE_AT_MOST_S))
            self.self_fence_s = renewal.self_fence_s
            self._counted, self._none_ran_s = False, float("-inf")
        if self.self_fence_s != self._kept_s:                 # whoever is told that it is armed relies on that across restarts
            self._write_end()
            self._keep()

    def tick(self, driver: Driver) -> None:
        """About once a second, by the thread that serves all: it waits for no disk and no guest."""
        with self._lock:
            writes = self.self_fence_s and self._ended_s != self.until_s and not self._writing
            self._writing = self._writing or bool(writes)
        if writes:
            threading.Thread(target=self._write_end, name="lease", daemon=True).start()
        if self.is_due():
            self._looking = True
            threading.Thread(target=self.look, args=(driver,), name="self-fence", daemon=True).start()

    def is_due(self) -> bool:
        """Whether it is to be looked now for servers to stop."""
        return self._without_s() is not None and not self._looking and self._clock.boottime_s() - self._none_ran_s >= AGAIN_S

    def check_lease(self) -> None:
        """Before a server is started. Raises Refused where it would be stopped at once."""
        without_s = self._without_s()
        if without_s is not None:
            raise Refused(
                Code.CONFLICT, f"this node fences itself, has had no lease for {without_s:.0f} s, and runs no servers",
                hint="leases come from the conductor service: novactl conductor run", retryable=True, elsewhere=True)

    def lacks_lease(self) -> bool:
        """Whether it starts no server."""
        return self._without_s() is not None

    def _without_s(self) -> Optional[float]:
        """Seconds since its lease ended, where they are too many; else None."""
        with self._lock:
            without_s = self._clock.boottime_s() - self.until_s
            return without_s if self.self_fence_s and without_s >= self.self_fence_s else None

    # ------------------------------------------------------------ stopping

    def look(self, driver: Driver) -> None:
        """Have every server stopped that runs and is not being stopped; the next tick looks again."""
        try:
            running = [state.server for state in driver.states()[0] if driver.run_id(state.server)]
            without_s = self._without_s()
            if without_s is None:
                return
            with self._lock:
                mine = [server for server in running if server not in self._stopping][: AT_ONCE - len(self._stopping)]
                self._stopping.update(mine)
                counts, self._counted = bool(mine) and not self._counted, self._counted or bool(mine)
                self.count += counts
                self._none_ran_s = float("-inf") if running else self._clock.boottime_s()
            if self._kept_count != self.count and not self._keeping.is_alive():
                self._keeping = threading.Thread(target=self._keep_count, name="self-fence", daemon=True)
                self._keeping.start()
            if counts:
                log(f"no lease for {without_s:.0f} s: stopping {len(running)} servers, which may be started elsewhere from now on")
                self._keeping.join(COUNT_S)
            for server in mine:
                threading.Thread(target=self.fire, args=(driver, server), name="self-fence", daemon=True).start()
        except Refused as refused:
            log(f"cannot stop the servers yet: {refused.failure.message}")
        finally:
            self._looking = False

    def fire(self, driver: Driver, server: str) -> None:
        """Stop one server; where it could not be, the next look finds it again."""
        try:
            driver.destroy(server)
        except Refused as refused:
            log(f"server {server} cannot be stopped yet: {refused.failure.message}")
        finally:
            with self._lock:
                self._stopping.discard(server)

    # ------------------------------------------------------------ on disk

    def _keep(self) -> None:
        with self._disk:
            kept_s, count = self.self_fence_s, self.count
            _write(self._path, {"self_fence_s": kept_s, "boot_id": self._clock.boot_id, "count": count}, sync=True)
            self._kept_s, self._kept_count = kept_s, count

    def _keep_count(self) -> None:
        """Where it cannot be, the next look tries again."""
        try:
            self._keep()
        except OSError as error:
            log(f"{self._path}: that servers are stopped cannot be noted yet: {error}")

    def _write_end(self) -> None:
        """A disk that is full keeps an older end, which is sooner."""
        until_s = self.until_s
        try:
            with self._disk, contextlib.suppress(OSError):
                _write(self._end_path, {"boot_id": self._clock.boot_id, "until_s": until_s}, sync=False)
        finally:
            self._ended_s, self._writing = until_s, False


def _write(path: str, plain: Dict[str, Any], *, sync: bool) -> None:
    part = path + ".part"
    with open(part, "w", encoding="utf-8", opener=_private) as file:
        json.dump(plain, file)
        file.flush()
        if sync:
            os.fsync(file.fileno())
    os.rename(part, path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _read(path: str) -> Dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            plain = json.load(file)
        return {"self_fence_s": float(plain["self_fence_s"]), "boot_id": str(plain["boot_id"]), "count": int(plain["count"])}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError) as bad:
        raise ValueError(f"{path}: {bad}") from None


def _read_end(path: str, clock: Clock) -> Optional[float]:
    """None where none of this boot is known: what a host that lost power left there is another's, and may be anything."""
    try:
        with open(path, encoding="utf-8") as file:
            plain = json.load(file)
        until_s = float(plain["until_s"])
        return until_s if plain["boot_id"] == clock.boot_id and until_s <= clock.boottime_s() + LEASE_AT_MOST_S else None
    except (OSError, ValueError, TypeError, KeyError):
        return None
