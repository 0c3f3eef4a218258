"""A bounded pool of threads in which calls with one key run one after the other.

A waiting call takes no thread: it stays behind the one of its key, so that many calls for one slow server
leave the other threads to other servers.
"""

import sys
import threading
import traceback
from collections import deque
from typing import Callable, Deque, Dict, Tuple

IDLE_S = 60.0
"""A thread that had nothing to do for so long ends."""

Job = Callable[[], None]


class Pool:
    """At most `threads` threads (made when needed) and `bound` waiting jobs of `bound_bytes` in sum."""

    def __init__(self, name: str, threads: int, bound: int, bound_bytes: int) -> None:
        self._name, self._threads, self._bound, self._bound_bytes = name, threads, bound, bound_bytes
        self._condition = threading.Condition(threading.Lock())
        self._ready: Deque[Tuple[str, Job, int]] = deque()
        self._behind: Dict[str, Deque[Tuple[Job, int]]] = {}
        self._waiting = self._bytes = self._started = self._idle = 0
        self._closed = False

    def submit(self, key: str, job: Job, size: int = 0) -> bool:
        """Run `job` after the jobs of the same non-empty `key`; False when the queue is full."""
        with self._condition:
            if self._closed or self._waiting >= self._bound or self._bytes + size > self._bound_bytes:
                return False
            self._waiting += 1
            self._bytes += size
            if key and key in self._behind:
                self._behind[key].append((job, size))
                return True
            if key:
                self._behind[key] = deque()
            self._make_ready(key, job, size)
            return True

    def close(self) -> None:
        """Take no more jobs and let idle threads end. Does not wait: what runs, runs to its end."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def _make_ready(self, key: str, job: Job, size: int) -> None:
        self._ready.append((key, job, size))
        if self._idle >= len(self._ready):
            self._condition.notify()
        elif self._started < self._threads:
            self._started += 1
            threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._condition:
                self._idle += 1
                self._condition.wait_for(lambda: self._ready or self._closed, IDLE_S)
                self._idle -= 1
                if not self._ready:
                    self._started -= 1
                    return
                key, job, size = self._ready.popleft()
                self._waiting -= 1
                self._bytes -= size
            try:
                job()
            except Exception:  # noqa: BLE001 - a job answers for itself; one that does not must not cost the pool a thread
                traceback.print_exc(file=sys.stderr)
            finally:
                del job
                self._done(key)

    def _done(self, key: str) -> None:
        if not key:
            return
        with self._condition:
            behind = self._behind[key]
            if behind:
                self._ready.append((key, *behind.popleft()))
            else:
                del self._behind[key]
