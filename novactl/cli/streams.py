"""Standard output and standard error as a command needs them: writing never ends what the command is doing."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import Any


class Output:
    """A text stream whose reader may leave, and whose disk may be full, while a command acts.

    Nothing it does raises. The first failure is kept in `lost`, and from then on what is written goes nowhere. Everything
    else is the stream's own.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.lost: Exception | None = None

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"text is written here, not {type(text).__name__}")      # how typer tells text from bytes
        self._attempt(lambda: self._stream.write(text))
        return len(text)

    def send(self, data: bytes) -> None:
        """Bytes, written and flushed."""
        self._attempt(lambda: self._stream.buffer.write(data))
        self._attempt(lambda: self._stream.buffer.flush())

    def is_read(self) -> bool:
        """False once nobody can read what would be written: the reader of the pipe has gone, the terminal is closed."""
        if self.lost is None:
            try:
                asked = select.poll()
                asked.register(self._stream.fileno(), 0)
                return not asked.poll(0)
            except (OSError, ValueError, AttributeError):
                pass
        return self.lost is None

    def flush(self) -> None:
        self._attempt(lambda: self._stream.flush())

    def _attempt(self, act: Callable[[], Any]) -> None:
        if self.lost is None:
            try:
                act()
            except (OSError, ValueError) as error:
                self.lost = error
                self._drain()

    def _drain(self) -> None:
        """Send what is still buffered to /dev/null: else the interpreter fails on it at its end, with a status of its own."""
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            self._stream.flush()
        except (OSError, ValueError, AttributeError):
            pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
