"""A bounded pool of threads in which calls with one key run one after the other, and no caller takes all of it.

A waiting call takes no thread: it stays behind the one of its key, so that many calls for one slow server
leave the other threads to other servers. Callers take turns, and each is held to a share: what one of them asks
too much is its own to wait for. The pool's owner (caller '') is held to nothing.
"""

import sys
import threading
import traceback
from collections import deque
from typing import Callable, Deque, Dict, NamedTuple, Optional

IDLE_S = 60.0
"""A thread that had nothing to do for so long ends."""

Job = Callable[[], None]


class _Waiting(NamedTuple):
    key: str
    job: Job
    size: int
    caller: str


class _Share:
    """What one caller has of the pool."""

    __slots__ = ("running", "waiting", "size")

    def __init__(self) -> None:
        self.running = self.waiting = self.size = 0


class Pool:
    """At most `threads` threads (made when needed) and `bound` waiting jobs of `bound_bytes` in sum.

    Of waiting jobs and bytes one caller has half at most; of the threads three in four.
    """

    def __init__(self, name: str, threads: int, bound: int, bound_bytes: int) -> None:
        self._name, self._threads, self._bound, self._bound_bytes = name, threads, bound, bound_bytes
        self._threads_each = max(1, threads * 3 // 4)
        self._condition = threading.Condition(threading.Lock())
        self._ready: Dict[str, Deque[_Waiting]] = {}
        self._behind: Dict[str, Deque[_Waiting]] = {}
        self._shares: Dict[str, _Share] = {}
        self._waiting = self._bytes = self._started = self._idle = 0
        self._closed = False

    def submit(self, key: str, job: Job, size: int = 0, caller: str = "") -> bool:
        """Run `job` after the jobs of the same non-empty `key`; False when the queue, or the caller's share of it, is full."""
        with self._condition:
            if self._closed or (caller and self._is_full(caller, size)):
                return False
            share = self._shares.setdefault(caller, _Share())
            share.waiting += 1
            share.size += size
            self._waiting += 1
            self._bytes += size
            waiting = _Waiting(key, job, size, caller)
            if key and key in self._behind:
                self._behind[key].append(waiting)
                return True
            if key:
                self._behind[key] = deque()
            self._ready.setdefault(caller, deque()).append(waiting)
            self._staff()
            return True

    def close(self) -> None:
        """Take no more jobs and let idle threads end. Does not wait: what runs, runs to its end."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def _is_full(self, caller: str, size: int) -> bool:
        if self._waiting >= self._bound or self._bytes + size > self._bound_bytes:
            return True
        share = self._shares.get(caller)
        return share is not None and (share.waiting * 2 >= self._bound or (share.size + size) * 2 > self._bound_bytes)

    def _may_run(self, caller: str) -> bool:
        return not caller or self._shares[caller].running < self._threads_each

    def _staff(self) -> None:
        """See that a thread comes for what is ready. Each thread that takes a job does the same for the next one."""
        if not any(self._may_run(caller) for caller in self._ready):
            return
        if self._idle:
            self._condition.notify()
        elif self._started < self._threads:
            self._started += 1
            threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def _take(self) -> Optional[_Waiting]:
        """The next job, of the caller whose turn it is; None where none may run now."""
        caller = next((caller for caller in self._ready if self._may_run(caller)), None)
        if caller is None:
            return None
        ready = self._ready.pop(caller)
        taken = ready.popleft()
        if ready:
            self._ready[caller] = ready
        share = self._shares[caller]
        share.running += 1
        share.waiting -= 1
        share.size -= taken.size
        self._waiting -= 1
        self._bytes -= taken.size
        return taken

    def _work(self) -> None:
        while True:
            with self._condition:
                taken = self._take()
                if taken is None:
                    self._idle += 1
                    self._condition.wait_for(lambda: self._closed or any(map(self._may_run, self._ready)), IDLE_S)
                    self._idle -= 1
                    taken = self._take()
                if taken is None:
                    self._started -= 1
                    return
                self._staff()
            try:
                taken.job()
            except Exception:  # noqa: BLE001 - a job answers for itself; one that does not must not cost the pool a thread
                traceback.print_exc(file=sys.stderr)
            finally:
                key, caller = taken.key, taken.caller
                del taken
                self._done(key, caller)

    def _done(self, key: str, caller: str) -> None:
        with self._condition:
            share = self._shares[caller]
            share.running -= 1
            if not share.running and not share.waiting:
                del self._shares[caller]
            if not key:
                return
            behind = self._behind[key]
            if behind:
                following = behind.popleft()
                self._ready.setdefault(following.caller, deque()).append(following)
            else:
                del self._behind[key]
