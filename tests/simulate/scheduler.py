"""Who goes next: processes made of greenlets, one virtual clock, and `threading` as they see it.

Only one task runs at a time, until it pauses, waits or ends; a seeded `Random` picks the next. Time stands still while
anything can run and jumps to the next timer when all wait.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from greenlet import getcurrent, greenlet


class Killed(BaseException):
    """The process is dead: nothing of it runs any more, also not its `finally` blocks' effects."""


class Stalled(RuntimeError):
    """Nobody can go on and no timer is left, or the history does not come to an end."""


class Process:
    """What is killed and stopped as one. `dies_at` and `stops_at` are steps: it is killed, or stopped for `stops_for_s`, there."""

    def __init__(self, name: str, host: str = "") -> None:
        self.name, self.host = name, host
        self.alive, self.stopped = True, False
        self.tasks: list[Task] = []
        self.steps = 0
        self.dies_at = self.stops_at = 0
        self.stops_for_s = 0.0
        self.parked: list[Task] = []
        self.own: dict[Any, Any] = {}
        """What is the process's own though the module that holds it is shared: locks of modules."""
        self.at_end: list[Callable[[], None]] = []


class Task(greenlet):
    """A thread of a process."""

    def __init__(self, scheduler: Scheduler, process: Process, act: Callable[[], Any], name: str) -> None:
        super().__init__(self._run, scheduler.hub)
        self.process, self.act, self.name = process, act, name
        self.done = False
        self.error: BaseException | None = None
        self.locals: dict[Any, dict[str, Any]] = {}
        self.waiting_on = 0
        self.call: Any = None
        """What it does for whom, where an oracle wants to know."""

    def _run(self) -> None:
        try:
            self.act()
        except Killed:
            pass
        except Exception as error:  # noqa: BLE001 - the scheduler reports it as what it is: a thread that broke
            self.error = error
        finally:
            self.done = True


class Scheduler:
    """`log` gets (now, process, what) for each step."""

    def __init__(self, chance: Random, log: Callable[[float, str, str], None]) -> None:
        self.hub = getcurrent()
        self.now = 0.0
        self._chance, self._log = chance, log
        self._ready: list[Task] = []
        self._doomed: list[Task] = []
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self.turns = 0
        self.guards: list[Callable[[], None]] = []
        """Asked at each step: what must not be held there."""

    # ---- tasks

    @property
    def current(self) -> Task | None:
        found = getcurrent()
        return found if isinstance(found, Task) else None

    def spawn(self, process: Process, act: Callable[[], Any], name: str) -> Task:
        task = Task(self, process, act, name)
        process.tasks.append(task)
        self._ready.append(task)
        return task

    def living(self) -> Task:
        """The running task. Raises Killed when its process is dead by now."""
        task = self.current
        assert task is not None, "only a process of the simulation may wait"
        if not task.process.alive:
            raise Killed
        return task

    def step(self, what: str, at_most_s: float = 0.0) -> None:
        """A boundary: anyone may go next, and the process may be killed or stopped here. It takes up to `at_most_s`."""
        task = self.living()
        for guard in self.guards:
            guard()
        process = task.process
        process.steps += 1
        self._log(self.now, process.name, what)
        if process.steps == process.dies_at:
            self._log(self.now, process.name, "KILLED")
            self.kill(process)
            raise Killed
        if process.steps == process.stops_at:
            self._log(self.now, process.name, f"STOPPED for {process.stops_for_s:.1f} s")
            self.stop(process)
            self.after(process.stops_for_s, lambda: self.go_on(process))
        if at_most_s:
            self.wait(self._chance.random() * at_most_s)
        else:
            self._ready.append(task)
            self._switch(task)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Until `wake` (True), or `timeout_s` have passed (False)."""
        task = self.living()
        task.waiting_on = number = next(self._numbers) + 1
        woken = True

        def late() -> None:
            nonlocal woken
            if task.waiting_on == number:
                woken = False
                self._resume(task)

        if timeout_s is not None:
            self.after(max(0.0, timeout_s), late)
        self._switch(task)
        return woken

    def wake(self, task: Task) -> None:
        if task.waiting_on and not task.done:
            self._resume(task)

    def _resume(self, task: Task) -> None:
        task.waiting_on = 0
        self._ready.append(task)

    def _switch(self, task: Task) -> None:
        self.hub.switch()
        if not task.process.alive:
            raise Killed

    def sleep(self, seconds: float) -> None:
        self.wait(seconds)

    # ---- processes

    def stop(self, process: Process) -> None:
        process.stopped = True

    def go_on(self, process: Process) -> None:
        if process.stopped and process.alive:
            self._log(self.now, process.name, "GOES ON")
        process.stopped = False
        self._ready += process.parked
        process.parked = []

    def kill(self, process: Process) -> None:
        """It is dead at once; its tasks unwind before the next turn, and whatever they try is refused."""
        if not process.alive:
            return
        process.alive = process.stopped = False
        self._doomed += [task for task in process.tasks if not task.done]
        process.parked = []
        for act in process.at_end:
            act()

    # ---- time

    def after(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (self.now + seconds, next(self._numbers), act))

    def run(self, until: Callable[[], bool], at_most: int = 400_000) -> None:
        """Until the condition holds between two turns. Raises Stalled, and what a task raised that is no one's to catch."""
        while not until():
            self.turns += 1
            if self.turns > at_most:
                raise Stalled(f"no end after {at_most} turns, {self.now:.0f} s")
            self._bury()
            if self._ready:
                task = self._ready.pop(self._chance.randrange(len(self._ready)))
                if task.process.stopped:
                    task.process.parked.append(task)
                elif task.process.alive:
                    self._turn(task)
            elif self._timers:
                when, _, act = heapq.heappop(self._timers)
                self.now = max(self.now, when)
                act()
            else:
                raise Stalled(f"everybody waits for ever at {self.now:.0f} s")
        self._bury()

    def _turn(self, task: Task) -> None:
        task.switch()
        if task.done:
            task.process.tasks.remove(task)
            if task.error is not None:
                raise task.error

    def _bury(self) -> None:
        while self._doomed:
            task = self._doomed.pop()
            if not task.done and task is not getcurrent():
                if task:                                      # has started
                    task.throw(Killed)
                task.done = True

    def close(self, processes: Iterable[Process]) -> None:
        for process in processes:
            self.kill(process)
        self._bury()


# ---------------------------------------------------------------- threading, as the simulated see it

class Threading:
    """Stands where a module has `threading`. Outside any task (building, timers) its locks are free."""

    def __init__(self, scheduler: Callable[[], Scheduler]) -> None:
        self._scheduler = scheduler
        threads = self

        class Lock:
            reentrant = False

            def __init__(self) -> None:
                self._owner: Any = None
                self._depth = 0
                self._waiting: deque[Task] = deque()

            def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
                scheduler = threads._scheduler()
                me = scheduler.current or "outside"
                if self._owner is me and self.reentrant:
                    self._depth += 1
                    return True
                while self._owner is not None:
                    if not blocking:
                        return False
                    task = scheduler.living()
                    self._waiting.append(task)
                    if not scheduler.wait(None if timeout < 0 else timeout):
                        self._waiting.remove(task)
                        return False
                self._owner, self._depth = me, 1
                return True

            def release(self) -> None:
                self._depth -= 1
                if self._depth <= 0:
                    self._owner = None
                    if self._waiting:
                        threads._scheduler().wake(self._waiting.popleft())

            def locked(self) -> bool:
                return self._owner is not None

            def __enter__(self) -> bool:
                return self.acquire()

            def __exit__(self, *_: object) -> None:
                self.release()

        class RLock(Lock):
            reentrant = True

        class Condition:
            def __init__(self, lock: Any = None) -> None:
                self._lock = lock or RLock()
                self._sleepers: deque[Task] = deque()
                self.acquire, self.release = self._lock.acquire, self._lock.release

            def __enter__(self) -> Any:
                return self._lock.__enter__()

            def __exit__(self, *_: object) -> None:
                self._lock.release()

            def wait(self, timeout: float | None = None) -> bool:
                scheduler = threads._scheduler()
                task = scheduler.living()
                self._sleepers.append(task)
                self._lock.release()
                woken = scheduler.wait(timeout)
                if not woken and task in self._sleepers:
                    self._sleepers.remove(task)
                self._lock.acquire()
                return woken

            def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
                scheduler = threads._scheduler()
                until = None if timeout is None else scheduler.now + timeout
                while not (result := predicate()):
                    left = None if until is None else until - scheduler.now
                    if left is not None and left <= 0:
                        break
                    self.wait(left)
                return result

            def notify(self, n: int = 1) -> None:
                for _ in range(min(n, len(self._sleepers))):
                    threads._scheduler().wake(self._sleepers.popleft())

            def notify_all(self) -> None:
                self.notify(len(self._sleepers))

        class Event:
            def __init__(self) -> None:
                self._set, self._condition = False, Condition()

            def is_set(self) -> bool:
                return self._set

            def set(self) -> None:
                self._set = True
                self._condition.notify_all()

            def clear(self) -> None:
                self._set = False

            def wait(self, timeout: float | None = None) -> bool:
                with self._condition:
                    self._condition.wait_for(lambda: self._set, timeout)
                return self._set

        class Thread:
            def __init__(self, group: None = None, target: Callable[..., Any] | None = None, name: str = "thread",
                         args: tuple = (), kwargs: dict | None = None, daemon: bool | None = None) -> None:
                self.name, self.daemon = name, daemon
                self._act = lambda: target(*args, **(kwargs or {})) if target else None
                self._task: Task | None = None
                self._ended = Event()

            def start(self) -> None:
                scheduler = threads._scheduler()
                self._task = scheduler.spawn(scheduler.living().process, self._run, self.name)

            def _run(self) -> None:
                try:
                    self._act()
                finally:
                    self._ended.set()

            def join(self, timeout: float | None = None) -> None:
                self._ended.wait(timeout)

            def is_alive(self) -> bool:
                return self._task is not None and not self._ended.is_set()

        class Local:
            def __getattribute__(self, name: str) -> Any:
                try:
                    return _mine(self)[name]
                except KeyError:
                    raise AttributeError(name) from None

            def __setattr__(self, name: str, value: Any) -> None:
                _mine(self)[name] = value

            def __delattr__(self, name: str) -> None:
                del _mine(self)[name]

        outside: dict[Any, dict[str, Any]] = {}

        def _mine(local: Any) -> dict[str, Any]:
            task = threads._scheduler().current
            return (outside if task is None else task.locals).setdefault(local, {})

        self.Lock, self.RLock, self.Condition, self.Event, self.Thread, self.local = Lock, RLock, Condition, Event, Thread, Local


class ProcessLock:
    """A lock that a module holds for its process: in one interpreter with many processes, each has its own."""

    def __init__(self, scheduler: Callable[[], Scheduler], make: Callable[[], Any]) -> None:
        self._scheduler, self._make = scheduler, make

    def _mine(self) -> Any:
        own = self._scheduler().living().process.own
        if self not in own:
            own[self] = self._make()
        return own[self]

    def __enter__(self) -> Any:
        return self._mine().__enter__()

    def __exit__(self, *what: Any) -> None:
        self._mine().__exit__(*what)
