"""`python -m tests.bench [--strict] [PREFIX …]`: run benchmarks, print a JSON object a line.

Exit 1 when a benchmark fails to run, and with --strict also when a figure does not hold. How to add one: registry.py.
"""

import dataclasses
import importlib
import json
import pkgutil
import sys
import time
import traceback
from collections.abc import Iterable

import tests.bench
from tests.bench.registry import BENCHMARKS, Figure


def main(words: list[str]) -> int:
    strict = "--strict" in words
    prefixes = tuple(word for word in words if not word.startswith("-")) or ("",)
    for module in pkgutil.iter_modules(tests.bench.__path__):
        if module.name not in ("__main__", "registry"):
            importlib.import_module(f"tests.bench.{module.name}")
    chosen = [name for name in sorted(BENCHMARKS) if name.startswith(prefixes)]
    if not chosen:
        print(f"no benchmark begins with {' or '.join(prefixes)}; there are: {', '.join(sorted(BENCHMARKS)) or 'none'}", file=sys.stderr)
        return 2
    failed = missed = 0
    for name in chosen:
        began = time.monotonic()
        try:
            for figure in _figures(name):
                print(json.dumps(_rounded(figure)), flush=True)
                missed += not figure.holds
        except Exception:  # noqa: BLE001 - one benchmark that cannot run must not hide the others
            traceback.print_exc()
            failed += 1
        print(f"bench: {name} took {time.monotonic() - began:.1f} s", file=sys.stderr)
    return 1 if failed or (strict and missed) else 0


def _figures(name: str) -> Iterable[Figure]:
    found = BENCHMARKS[name]()
    return (found,) if isinstance(found, Figure) else found


def _rounded(figure: Figure) -> dict[str, object]:
    return {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in dataclasses.asdict(figure).items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
