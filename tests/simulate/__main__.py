"""tests/run simulate [--seeds N] [--first SEED] [--mutants] [--print]

Runs N histories (2,000), from SEED (0) on, on all processors; with `--mutants` also each protection's absence, until a
history shows it (within 500). One that fails is printed, with the command that plays it again. Exit 1 when an invariant
was violated or a mutant survived.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator

from tests.simulate.mutants import MUTANTS
from tests.simulate.play import Outcome, hunt, outcome_of, play

MUTANT_SEEDS = 500
CHUNK = 10
SHOWN = 400
"""Lines of a history that failed; --print shows all."""


def _clean(pool: multiprocessing.pool.Pool, first: int, count: int) -> Iterator[Outcome]:
    yield from pool.imap(outcome_of, range(first, first + count), CHUNK)


def _mutants(pool: multiprocessing.pool.Pool, names: list[str], first: int, count: int) -> int:
    """Prints a line for each; how many were killed."""
    killed = 0
    for name, outcome, played in pool.imap(hunt, [(name, first, count) for name in names]):
        if outcome is None:
            print(f"mutant {name}: SURVIVED {played} seeds", flush=True)
            continue
        killed += 1
        print(f"mutant {name}: killed by seed {outcome.seed} ({outcome.mix}): {outcome.violations[0]}", flush=True)
    return killed


def _show(seed: int, mutant: str, whole: bool) -> int:
    """One history, line by line."""
    found = [one for one in MUTANTS if one.name == mutant]
    with found[0].installed() if found else contextlib.nullcontext():
        history = play(seed)
    lines = history.lines
    print("\n".join(lines if whole else lines[-SHOWN:]))
    for violation in history.oracle.violations:
        print(f"violation: {violation}")
    return 1 if history.oracle.violations else 0


def main() -> int:
    names = [mutant.name for mutant in MUTANTS]
    parser = argparse.ArgumentParser(prog="tests/run simulate", description=__doc__.partition("\n\n")[2])
    parser.add_argument("--seeds", type=int, default=2000, help="histories to play (2000)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--mutants", action="store_true", help="and each mutant, until it is killed")
    parser.add_argument("--mutant", choices=names, default="", help="with --print: the history of this mutant")
    parser.add_argument("--print", action="store_true", help="print the history of the first seed, and nothing else")
    asked = parser.parse_args()
    if asked.print:
        return _show(asked.first, asked.mutant, True)
    began = time.monotonic()
    recoveries = effects = 0
    broken: list[Outcome] = []
    killed, tried = 0, 0
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        for outcome in _clean(pool, asked.first, asked.seeds):
            recoveries += outcome.recoveries
            effects += outcome.effects
            if outcome.violations:
                broken.append(outcome)
                print(f"seed {outcome.seed} ({outcome.mix}): {'; '.join(outcome.violations[:3])}", flush=True)
        if asked.mutants:
            tried = len(names)
            killed = _mutants(pool, names, asked.first, MUTANT_SEEDS)
        pool.close()
        pool.join()
    if broken:
        first = broken[0]
        print(f"\nthe end of the history of seed {first.seed}:")
        _show(first.seed, "", False)
        print(f"\nplay it again: tests/run simulate --print --first {first.seed}")
    took = time.monotonic() - began
    print(f"{asked.seeds} seeds, {recoveries} recoveries, {effects} effects on nodes, {len(broken)} violations"
          + (f", {killed} of {tried} mutants killed" if asked.mutants else "") + f"; {took:.0f} s")
    return 1 if broken or killed < tried else 0


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":               # the order of a set is a part of a history
        os.execve(sys.executable, [sys.executable, "-m", "tests.simulate", *sys.argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"})
    sys.exit(main())
