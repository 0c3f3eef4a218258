"""Docs that could drift: the tables of ARCHITECTURE.md are those of the code. `--regen` writes them anew."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from nodeagent.wire import METHODS
from novactl.conductor.sagas import SAGAS
from novactl.scheduler.filters import FILTERS
from novactl.scheduler.profiles import PROFILES
from novactl.scheduler.weighers import WEIGHERS
from novactl.states import TRANSITIONS, TaskState, VmState

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURE = ROOT / "novactl" / "ARCHITECTURE.md"
PLACEMENT = ROOT / "novactl" / "scheduler" / "README.md"


def sagas() -> str:
    return "\n".join(
        f"| `{kind}` | {', '.join(step.name for step in saga.steps)} | {saga.point_of_no_return or '–'} |"
        f" {'goes on' if saga.resumes else 'undoes it'} | `{saga.timeout}` |"
        for kind, saga in SAGAS.items())


def methods() -> str:
    return "\n".join(
        f"| `{name}` | {row.role} | {'yes' if row.mutates else ''} | {'yes' if row.mutates and row.once else ''} |"
        for name, row in METHODS.items())


def states() -> str:
    def shown(states: frozenset, everything: int) -> str:
        return "any" if len(states) >= everything else ", ".join(sorted(s or "idle" for s in states))

    rows = []
    for event, rule in TRANSITIONS.items():
        after = [rule.to_vm or "as it was", (rule.to_task or "idle") if rule.to_task is not None else ""]
        before = [shown(rule.vm, len(VmState) - 1), shown(rule.task, len(TaskState))]
        rows.append(f"| {event} | {' / '.join(before)} | {' / '.join(filter(None, after))} |")
    return "\n".join(rows)


def meaning(part: object) -> str:
    """The first paragraph of its docstring, on one line."""
    text = " ".join(inspect.cleandoc(type(part).__doc__ or "").partition("\n\n")[0].split()).replace("|", "\\|")
    assert text, f"{part} does not say what it does"
    return text


def filters() -> str:
    return "\n".join(f"| `{name}` | {meaning(check)} |" for name, check in FILTERS.items())


def weighers() -> str:
    return "\n".join(
        f"| `{name}` | {meaning(weigher)} | {f'`{key}`' if (key := getattr(weigher, 'multiplier_key', '')) else '–'} |"
        for name, weigher in WEIGHERS.items())


def profiles() -> str:
    return "\n".join(
        f"| `{name}` | {', '.join(f'{weigher.name} {multiplier:g}' for weigher, multiplier in profile.weighers)} |"
        for name, profile in PROFILES.items())


def test_the_map_of_placement_is_whole() -> None:
    """Every file of the scheduler has its place in ARCHITECTURE.md."""
    text = ARCHITECTURE.read_text()
    assert not [file.name for file in (ROOT / "novactl" / "scheduler").glob("[a-z]*.py") if f"`{file.name}`" not in text]


@pytest.mark.parametrize(("document", "tables"), [
    (ARCHITECTURE, {"| operation | steps |": sagas, "| method | role |": methods, "| event | while |": states}),
    (PLACEMENT, {"| filter | a node": filters, "| weigher | values |": weighers, "| profile | weighers": profiles}),
], ids=["architecture", "placement"])
def test_tables_are_the_codes(request: pytest.FixtureRequest, document: Path, tables: dict[str, Callable[[], str]]) -> None:
    """Sagas, methods, transitions, filters, weighers and profiles in our documents are exactly those that run."""
    text = document.read_text()
    for heading, table in tables.items():
        pattern = re.compile(rf"({re.escape(heading)}[^\n]*\n\|[-|]+\n)((?:\|[^\n]*\n)*)")
        assert pattern.search(text), heading
        text = pattern.sub(lambda found, table=table: found.group(1) + table() + "\n", text)
    if request.config.getoption("--regen", default=False):
        document.write_text(text)
    assert document.read_text() == text


def test_documents_name_files_that_exist() -> None:
    """Every path in backquotes in our documents is there."""
    for document in (ROOT / "README.md", ARCHITECTURE, PLACEMENT, ROOT / "novactl" / "DECISIONS.md"):
        for path in re.findall(r"`((?:novactl|nodeagent|tests|examples)/[\w./-]*\w)`", document.read_text()):
            assert (ROOT / path).exists(), f"{document.name} names {path}"
