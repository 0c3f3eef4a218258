"""Protections switched off, one at a time: the matrix must find what follows, or its silence means nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Mutant(NamedTuple):
    """`apply` breaks the program in this process. `saga` and `kind` are where that is found soonest."""

    apply: Callable[[], None]
    saga: str
    kind: str


def _no_fence_in_the_database() -> None:
    """Whoever was overtaken still writes."""
    from novactl.db import operations

    operations.fence = lambda tx, operation: None  # type: ignore[assignment]
    operations.write = _unfenced(operations.write)  # type: ignore[assignment]


def _unfenced(write: Callable[..., None]) -> Callable[..., None]:
    from novactl.errors import Superseded

    def anyway(tx: Any, operation: Any) -> None:
        try:
            write(tx, operation)
        except Superseded:
            pass

    return anyway


def _no_fence_at_the_agents() -> None:
    """Agents obey whoever was overtaken."""
    from nodeagent.dispatch import Dispatcher

    Dispatcher._fence = lambda self, request, args: None  # type: ignore[method-assign]


def _no_intent() -> None:
    """A step's effect comes before anything says that it was begun: who cleans up does not know of it."""
    from novactl.conductor.driver import Driver
    from novactl.model.operation import StepState

    mark = Driver._mark

    def late(self: Any, tx: Any, position: int, state: StepState, *rest: Any) -> None:
        if state is not StepState.STARTED:
            mark(self, tx, position, state, *rest)

    Driver._mark = late  # type: ignore[method-assign]


def _no_undo() -> None:
    """Disks stay where a creation is undone."""
    from novactl.conductor import create_server

    steps = tuple(
        dataclasses.replace(step, undo=lambda run, record: None) if step.name == "disk" else step for step in create_server.CREATE.steps)
    object.__setattr__(create_server.CREATE, "steps", steps)


def _no_mark() -> None:
    """Agents forget what they have done: a reboot that is asked for twice is done twice."""
    from nodeagent.ledger import Ledger

    Ledger.answer = lambda self, request_id: None  # type: ignore[method-assign]
    Ledger.note = lambda self, request_id, text, at_s: text  # type: ignore[method-assign]


MUTANTS: Mapping[str, Mutant] = {
    "no-fence-in-the-database": Mutant(_no_fence_in_the_database, "server.create", "paused"),
    "no-fence-at-the-agents": Mutant(_no_fence_at_the_agents, "server.reboot", "paused"),
    "no-intent": Mutant(_no_intent, "server.create", "killed"),
    "no-undo": Mutant(_no_undo, "server.create", "killed"),
    "no-mark": Mutant(_no_mark, "server.reboot", "agent"),
}
