"""Bytes between this terminal and a guest's serial console."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from novactl.cli.session import Session, is_terminal

if TYPE_CHECKING:
    from novactl.api.servers import Console

LEAVE = b"\x1d"
"""Ctrl-]"""
_WAIT_S = 0.02
"""How long a read may wait before the keyboard is looked at again: below what a typist notices."""


def pour(session: Session, chunks: Iterable[bytes]) -> None:
    """Write bytes to standard output as they come, while somebody reads; in a batch, keep them as text."""
    if session.captured is not None:
        session.captured.append({"schema_version": 1, "text": b"".join(chunks).decode("utf-8", "replace")})
        return
    session.stdout.flush()
    for chunk in chunks:
        session.stdout.send(chunk)
        if not session.stdout.is_read():
            return


def attach(session: Session, console: Console, *, linger_s: float) -> None:
    """Copy both ways until Ctrl-], until the console or the screen closes, or, with piped input, until `linger_s` of
    silence after its end.

    The terminal is in raw mode meanwhile and is restored whatever happens.
    """
    keyboard, screen = session.stdin.fileno(), session.stdout
    session.stdout.flush()
    with _raw(keyboard) if is_terminal(session.stdin) else _as_it_is():
        ended_at: float | None = None
        while not screen.lost and (ended_at is None or time.monotonic() - ended_at < linger_s):
            if ended_at is None and select.select([keyboard], [], [], 0)[0]:
                typed = os.read(keyboard, 4096)
                before, leave, _ = typed.partition(LEAVE) if is_terminal(session.stdin) else (typed, b"", b"")
                if before:
                    console.write(before)
                if leave:
                    return
                ended_at = None if typed else time.monotonic()
            heard = console.read(_WAIT_S)
            if heard is None:
                return
            if heard:
                screen.send(heard)
                ended_at = None if ended_at is None else time.monotonic()


@contextmanager
def _raw(keyboard: int) -> Iterator[None]:
    """Raw mode, undone on leaving: also by SIGTERM and SIGHUP, which become SystemExit here."""
    import termios
    import tty

    before = termios.tcgetattr(keyboard)
    handlers: dict[signal.Signals, Any] = {}
    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            handlers[number] = signal.signal(number, _leave)
        handlers[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, signal.SIG_IGN)
        tty.setraw(keyboard, termios.TCSANOW)                 # what was typed already goes to the guest
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _leave(number: int, frame: Any) -> None:
    raise SystemExit(128 + number)


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield
