"""How a benchmark joins: put a file in tests/bench/ with functions like this one; nothing else is needed.

    from tests.bench.registry import Figure, at_most, bench, median_s, over

    @bench("startup.help")
    def help_page() -> Figure:
        ours = median_s([novactl, "--help"], runs=15)
        typer = median_s([python, "one_command.py", "--help"], runs=15)
        return over("startup.help", ours * 1000, "ms", against="a one-command typer program's --help", reference=typer * 1000, limit=1.3)

`python -m tests.bench [PREFIX]` imports every file here, runs the benchmarks whose name begins with PREFIX, and prints one
JSON object a line for each figure: name, value, unit, against, ratio, limit, holds. A benchmark returns one Figure or a list,
or yields them. It sets up and cleans what it needs by itself; it is never part of pytest.
"""

import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number and the bound it must keep.

    `against` says what it was compared with, with that thing's own value, measured in the same run; None where the bound is
    absolute. `ratio` is value / reference (an allowance taken off the value first, and named in `against`). `limit` bounds
    the ratio where there is one, else the value.
    """

    name: str
    value: float
    unit: str
    against: str | None
    ratio: float | None
    limit: float
    holds: bool


def at_most(name: str, value: float, unit: str, *, limit: float) -> Figure:
    return Figure(name=name, value=value, unit=unit, against=None, ratio=None, limit=limit, holds=value <= limit)


def at_least(name: str, value: float, unit: str, *, limit: float) -> Figure:
    return Figure(name=name, value=value, unit=unit, against=None, ratio=None, limit=limit, holds=value >= limit)


def over(name: str, value: float, unit: str, *, against: str, reference: float, limit: float, plus: float = 0.0) -> Figure:
    """`value` may be at most `limit` times `reference`, plus `plus` (in `unit`)."""
    told = f"{against}: {reference:.4g} {unit}" + (f", and {plus:g} {unit} allowed" if plus else "")
    ratio = (value - plus) / reference
    return Figure(name=name, value=value, unit=unit, against=told, ratio=ratio, limit=limit, holds=ratio <= limit)


def share(name: str, value: float, unit: str, *, against: str, reference: float, limit: float) -> Figure:
    """`value` must be at least `limit` times `reference`."""
    told, ratio = f"{against}: {reference:.4g} {unit}", value / reference
    return Figure(name=name, value=value, unit=unit, against=told, ratio=ratio, limit=limit, holds=ratio >= limit)


Benchmark = Callable[[], Figure | Iterable[Figure]]
BENCHMARKS: dict[str, Benchmark] = {}


def bench(name: str) -> Callable[[Benchmark], Benchmark]:
    """Register a benchmark under `name` (`noun.what`). A name is used once."""

    def register(function: Benchmark) -> Benchmark:
        if name in BENCHMARKS:
            raise ValueError(f"two benchmarks are called {name}")
        BENCHMARKS[name] = function
        return function

    return register


def median_s(command: Sequence[str], *, runs: int = 11, env: dict[str, str] | None = None) -> float:
    """The median wall time of `command` in seconds, after one run that warms the caches. It must succeed."""
    return statistics.median(times_s([command], runs=runs, env=env)[0])


def times_s(commands: Sequence[Sequence[str]], *, runs: int = 11, env: dict[str, str] | None = None) -> list[list[float]]:
    """Wall times of several commands, run in turn so that all see the same machine: one list of `runs` times for each."""
    found: list[list[float]] = [[] for _ in commands]
    for turn in range(runs + 1):
        for times, command in zip(found, commands, strict=True):
            began = time.perf_counter()
            subprocess.run(command, check=True, env=env, stdin=subprocess.DEVNULL, capture_output=True)
            if turn:
                times.append(time.perf_counter() - began)
    return found
