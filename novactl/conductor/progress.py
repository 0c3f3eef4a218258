"""What a saga tells whoever watches it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


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


Watch = Callable[[Progress], None]


def unwatched(progress: Progress) -> None:
    """Nobody looks."""
