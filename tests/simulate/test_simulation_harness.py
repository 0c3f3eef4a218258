"""The simulation itself: what it shows must be repeatable, and what it looks for must be found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.simulate.histories import COMMANDS, FAULTS, MIXES, History
from tests.simulate.mutants import MUTANTS
from tests.simulate.play import hunt, play
from tests.simulate.scheduler import Killed, Process, Scheduler, Stalled, Threading
from tests.simulate.world import scheduler as running

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(1200)


def new_scheduler(seed: int = 0) -> tuple[Scheduler, list[str]]:
    lines: list[str] = []
    return Scheduler(Random(seed), lambda now, who, what: lines.append(f"{now:.1f} {who} {what}")), lines


def printed(*args: str) -> str:
    found = subprocess.run(
        [sys.executable, "-m", "tests.simulate", *args], cwd=ROOT, capture_output=True, text=True, timeout=1100,
        env={**os.environ, "PYTHONPATH": str(ROOT)})
    return found.stdout


def test_a_seed_is_a_history() -> None:
    """The same seed gives the same lines: again in this process, after others, and in a process of its own."""
    first = printed("--print", "--first", "7")
    assert first.count("\n") > 100
    assert printed("--print", "--first", "7") == first
    once = play(7).lines
    play(8)
    assert play(7).lines == once


def test_seeds_differ() -> None:
    assert play(7).lines != play(9).lines


@pytest.mark.parametrize("name", ["dedupe", "database-fence"])
def test_a_mutant_is_shown_by_a_history_that_plays_again(name: str) -> None:
    """The harness sees a protection that is not there, says which invariant broke, and shows the history under the seed it names."""
    _, outcome, _ = hunt((name, 0, 60))
    assert outcome is not None and outcome.violations[0].startswith("I")
    shown = printed("--print", "--first", str(outcome.seed), "--mutant", name)
    assert f"VIOLATION {outcome.violations[0]}" in shown


def test_every_mutant_is_undone() -> None:
    """After a hunt the code is what it was."""
    for mutant in MUTANTS:
        holder, name, _ = mutant.change()
        before = getattr(holder, name)
        with mutant.installed():
            assert getattr(holder, name) is not before
        assert getattr(holder, name) is before


def test_the_tables_fit_together() -> None:
    """Every fault of a mix has its row, every row is in a mix, and commands given often are commands."""
    named = {fault for _, mix in MIXES for fault in mix.faults}
    assert named == set(FAULTS)
    assert {name for _, mix in MIXES for name in mix.often} <= {command.name for command in COMMANDS}


def test_a_killed_process_does_nothing_more() -> None:
    """Its `finally` blocks run and find every door closed."""
    scheduler, lines = new_scheduler()
    process, seen = Process("p"), []

    def act() -> None:
        try:
            scheduler.step("one")
            scheduler.step("two")
        finally:
            seen.append("finally")
            scheduler.step("three")
            seen.append("never")

    process.dies_at = 2
    scheduler.spawn(process, act, "main")
    scheduler.run(lambda: not process.alive)
    assert seen == ["finally"] and "three" not in "".join(lines)


def test_a_stopped_process_goes_on_where_it_was() -> None:
    scheduler, lines = new_scheduler()
    process, other = Process("p"), Process("q")
    process.stops_at, process.stops_for_s = 2, 50.0
    scheduler.spawn(process, lambda: [scheduler.step(str(n)) for n in range(3)], "main")
    scheduler.spawn(other, lambda: scheduler.sleep(10), "main")
    scheduler.run(lambda: not process.tasks)
    assert lines[-1] == "50.0 p 2" and scheduler.now == 50.0


def test_waiting_for_ever_is_told() -> None:
    scheduler, _ = new_scheduler()
    process = Process("p")
    scheduler.spawn(process, scheduler.wait, "main")
    with pytest.raises(Stalled, match="waits for ever"):
        scheduler.run(lambda: False)
    scheduler.close([process])


def test_threading_keeps_its_promises() -> None:
    """Locks exclude, conditions wake in order, threads are joined, what is local stays so: in virtual time."""
    scheduler, _ = new_scheduler(3)
    threading, process, seen = Threading(lambda: scheduler), Process("p"), []
    lock, condition, local = threading.Lock(), threading.Condition(), threading.local()

    def work(number: int) -> None:
        local.number = number
        with lock:
            seen.append(("in", number))
            scheduler.sleep(1)
            seen.append(("out", local.number))
        with condition:
            condition.notify_all()

    def main() -> None:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        with condition:
            assert condition.wait_for(lambda: len(seen) == 6, 10)
        for thread in threads:
            thread.join()
        assert not condition.wait_for(lambda: False, 5) and scheduler.now >= 8.0

    scheduler.spawn(process, main, "main")
    scheduler.run(lambda: not process.tasks)
    assert [what for what, _ in seen] == ["in", "out"] * 3
    assert all(seen[n][1] == seen[n + 1][1] for n in (0, 2, 4))


def test_nothing_is_simulated_afterwards() -> None:
    """A history gives production modules their interpreter back."""
    import threading
    import time

    from nodeagent import workers
    from novactl.agents import client

    play(1)
    assert workers.threading is threading and client.time is time
    with pytest.raises(AssertionError):
        running()


def test_a_process_that_was_killed_is_known_as_dead() -> None:
    """Whoever is killed while others wait for its lock does not keep them: they are its own."""
    scheduler, _ = new_scheduler()
    process = Process("p")

    def act() -> None:
        scheduler.kill(process)
        with pytest.raises(Killed):
            scheduler.step("more")

    scheduler.spawn(process, act, "main")
    scheduler.run(lambda: not process.tasks)
    assert not process.alive


def test_a_broken_history_says_so() -> None:
    """What no one catches ends a history as a violation, with what it was."""
    history = History(0)
    history.mix = MIXES[0][1]
    history._shell = lambda number, chance: 1 / 0             # type: ignore[assignment, return-value]
    from tests.simulate.play import _template

    assert _template is not None
    assert history.run(_template).oracle.violations == ["ZeroDivisionError: division by zero"]
