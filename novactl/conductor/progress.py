"""What a saga tells whoever watches it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from novactl.db.statements import from_json, to_json


class Progress(NamedTuple):
    """One moment of one step. `done` and `total` are bytes where a transfer runs; `subject` is a server's or node's name."""

    operation: str
    subject: str
    step: str
    state: str
    """started, running, done, failed, undone"""
    done: int = 0
    total: int = 0
    detail: str = ""

    def to_text(self) -> str:
        """As the journal keeps it, for other processes."""
        return to_json({name: getattr(self, name) for name in _KEPT})

    @classmethod
    def from_text(cls, operation: str, subject: str, text: str) -> Progress | None:
        """None where nothing has been told yet."""
        return cls(operation, subject, **from_json(text)) if text else None


_KEPT = ("step", "state", "done", "total", "detail")

Watch = Callable[[Progress], None]


def unwatched(progress: Progress) -> None:
    """Nobody looks."""
