"""The pool: order by key, bounds, and threads that come and go."""

import threading

import pytest

from nodeagent import workers
from nodeagent.workers import Pool
from tests.contract.kit import until

WAIT_S = 10.0


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
    assert [pool.submit("", ran.release, 10) for _ in range(5)] == [True] * 3 + [False] * 2
    stuck.set()
    for _ in range(3):
        assert ran.acquire(timeout=WAIT_S)
    until(lambda: pool.submit("", ran.release, 10))


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
