"""Docs that could drift: the tables of ARCHITECTURE.md are those of the code. `--regen` writes them anew."""

from __future__ import annotations

import re
from pathlib import Path

from nodeagent.wire import METHODS
from novactl.conductor.sagas import SAGAS
from novactl.states import TRANSITIONS, TaskState, VmState

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURE = ROOT / "novactl" / "ARCHITECTURE.md"


def sagas() -> str:
    return "\n".join(
        f"| `{kind}` | {', '.join(step.name for step in saga.steps)} | {saga.point_of_no_return or '–'} |"
        f" {'goes on' if saga.resumes else 'undoes it'} |"
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


def test_architecture_tables_are_the_codes(request) -> None:
    """Sagas, methods and transitions in ARCHITECTURE.md are exactly those that run."""
    text = ARCHITECTURE.read_text()
    for heading, table in (("| operation | steps |", sagas()), ("| method | role |", methods()), ("| event | while |", states())):
        pattern = re.compile(rf"({re.escape(heading)}[^\n]*\n\|[-|]+\n)((?:\|[^\n]*\n)*)")
        text = pattern.sub(lambda found, table=table: found.group(1) + table + "\n", text)
    if request.config.getoption("--regen", default=False):
        ARCHITECTURE.write_text(text)
    assert ARCHITECTURE.read_text() == text


def test_documents_name_files_that_exist() -> None:
    """Every path in backquotes in our documents is there."""
    for document in (ROOT / "README.md", ARCHITECTURE, ROOT / "novactl" / "DECISIONS.md"):
        for path in re.findall(r"`((?:novactl|nodeagent|tests|examples)/[\w./-]*\w)`", document.read_text()):
            assert (ROOT / path).exists(), f"{document.name} names {path}"
