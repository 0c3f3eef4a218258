"""The pool: order by key, bounds, and threads that come and go."""

import threading

import pytest

from nodeagent import workers
from nodeagent.workers import Pool
from tests.contract.kit import until

WAIT_S = 60.0


def test_one_key_runs_in_order_and_alone() -> None:
    """Jobs of one key never overlap and keep their order, whatever else runs."""
    pool, seen, inside, overlaps = Pool("t", 8, 1000, 1 << 20), [], set(), []

    def job(key: str, number: int) -> None:
        if key in inside:
            overlaps.append(key)
        inside.add(key)
        seen.append((key, number))
        inside.discard(key)

    for number in range(200):
        for key in ("a", "b", "c"):
            assert pool.submit(key, lambda k=key, n=number: job(k, n))
    until(lambda: len(seen) == 600)
    assert not overlaps
    for key in ("a", "b", "c"):
        assert [number for k, number in seen if k == key] == list(range(200))


def test_a_waiting_key_takes_no_thread() -> None:
    """With one job of a key stuck and many behind it, all other threads serve other keys."""
    pool, stuck, done = Pool("t", 2, 100, 1 << 20), threading.Event(), threading.Event()
    for _ in range(50):
        pool.submit("slow", lambda: stuck.wait(WAIT_S))
    pool.submit("other", done.set)
    assert done.wait(WAIT_S)
    stuck.set()


@pytest.mark.parametrize(("bound", "bound_bytes"), [(3, 1 << 20), (100, 30)])
def test_the_queue_is_bounded(bound: int, bound_bytes: int) -> None:
    """More jobs or more bytes than the bound are not taken; when it has drained, they are again."""
    pool, stuck, ran = Pool("t", 1, bound, bound_bytes), threading.Event(), threading.Semaphore(0)
    started = threading.Event()
    pool.submit("", lambda: (started.set(), stuck.wait(WAIT_S)))
    assert started.wait(WAIT_S)
    assert [pool.submit("", ran.release, 10, f"caller {n}") for n in range(5)] == [True] * 3 + [False] * 2
    stuck.set()
    for _ in range(3):
        assert ran.acquire(timeout=WAIT_S)
    until(lambda: pool.submit("", ran.release, 10, "caller 4"))


@pytest.mark.parametrize("sizes", [(1, 1 << 20), (10, 100)])
def test_one_caller_takes_half_of_the_queue(sizes: tuple[int, int]) -> None:
    """What one caller has waiting is bounded by half, in number and in bytes; another's jobs and the owner's are still taken."""
    size, bound_bytes = sizes
    pool, stuck, started = Pool("t", 1, 10, bound_bytes), threading.Event(), threading.Event()
    pool.submit("", lambda: (started.set(), stuck.wait(WAIT_S)))
    assert started.wait(WAIT_S)
    assert [pool.submit("", stuck.wait, size, "a") for _ in range(7)] == [True] * 5 + [False] * 2
    assert [pool.submit("", stuck.wait, size, "b") for _ in range(6)] == [True] * 5 + [False]
    assert pool.submit("", stuck.wait, size)
    stuck.set()


def test_one_caller_leaves_threads_to_others() -> None:
    """However much one caller asks, a thread in four is left; and where all are asked for, callers take turns."""
    pool, stuck, done = Pool("t", 4, 1000, 1 << 20), threading.Event(), threading.Event()
    for _ in range(100):
        pool.submit("", lambda: stuck.wait(WAIT_S), 0, "a")
    pool.submit("", done.set, 0, "b")
    assert done.wait(WAIT_S)
    order, last = [], threading.Event()
    for caller in ("c", "d"):
        for _ in range(3):
            pool.submit("one thread", lambda: None, 0, caller)
    for _ in range(20):
        pool.submit("", lambda: order.append("c"), 0, "c")
    pool.submit("", lambda: (order.append("d"), last.set()), 0, "d")
    assert last.wait(WAIT_S)
    stuck.set()


def test_each_job_finds_a_thread() -> None:
    """Jobs that wait for each other, behind keys and held to a share, all run: no free thread sleeps while one may."""
    ran, gate = threading.Semaphore(0), threading.Barrier(6)

    def meet() -> None:
        gate.wait(WAIT_S)
        ran.release()

    for _ in range(50):
        pool = Pool("t", 8, 1000, 1 << 20)
        pool.submit("k", lambda: None, 0, "a")
        for caller in ("a", "b"):
            for _ in range(3):
                pool.submit("", meet, 0, caller)
            pool.submit("k", ran.release, 0, caller)
        for _ in range(8):
            assert ran.acquire(timeout=WAIT_S)
        pool.close()


def test_a_job_that_fails_costs_no_thread(capfd: pytest.CaptureFixture[str]) -> None:
    """An exception in a job is logged, and the next one of its key runs."""
    pool, done = Pool("t", 1, 10, 1 << 20), threading.Event()
    pool.submit("a", lambda: 1 / 0)
    pool.submit("a", done.set)
    assert done.wait(WAIT_S)
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_idle_threads_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a burst the threads go, and come back when there is work."""
    monkeypatch.setattr(workers, "IDLE_S", 0.05)
    pool, gate = Pool("burst", 8, 100, 1 << 20), threading.Barrier(9)
    for _ in range(8):
        pool.submit("", lambda: gate.wait(WAIT_S))
    gate.wait(WAIT_S)
    until(lambda: not any(thread.name == "burst" for thread in threading.enumerate()))
    done = threading.Event()
    pool.submit("", done.set)
    assert done.wait(WAIT_S)


def test_a_closed_pool_takes_nothing() -> None:
    """After close, submit says no."""
    pool = Pool("t", 1, 10, 1 << 20)
    pool.close()
    assert not pool.submit("", lambda: None)
