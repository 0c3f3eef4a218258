"""Playing histories in processes of their own."""

from __future__ import annotations

import multiprocessing.util
from typing import NamedTuple

from tests.simulate.histories import History
from tests.simulate.mutants import MUTANTS
from tests.simulate.world import Template


class Outcome(NamedTuple):
    seed: int
    mix: str
    violations: tuple[str, ...]
    recoveries: int
    effects: int


_template: Template | None = None


def play(seed: int) -> History:
    """The history of `seed`. What all of a process share is made with the first one, and removed when the process ends."""
    global _template
    if _template is None:
        _template = Template()
        multiprocessing.util.Finalize(None, _template.close, exitpriority=1)
    return History(seed).run(_template)


def outcome_of(seed: int) -> Outcome:
    history = play(seed)
    oracle = history.oracle
    return Outcome(seed, history.mix.name, tuple(oracle.violations), oracle.recoveries, oracle.effects)


def hunt(asked: tuple[str, int, int]) -> tuple[str, Outcome | None, int]:
    """The first history that shows the mutant, among `count` from `first` on, and how many were played."""
    name, first, count = asked
    mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
    with mutant.installed():
        for seed in range(first, first + count):
            outcome = outcome_of(seed)
            if outcome.violations:
                return name, outcome, seed - first + 1
    return name, None, count
