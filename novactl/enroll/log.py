"""One log a node: what was run there, how long it took, how it ended. No input of a command, so no secret."""

from __future__ import annotations

import os
import time
from pathlib import Path


class EnrolLog:
    """Appends to `<folder>/enrol-<name>.log` (0600). Until the name is known, lines wait in memory."""

    def __init__(self, folder: Path, name: str = "") -> None:
        self._folder, self._name = folder, name
        self._waiting: list[str] = []

    def write(self, line: str) -> None:
        self._waiting.append(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {line}\n")
        if self._name:
            self._flush()

    def named(self, name: str) -> None:
        self._name = name
        self._flush()

    def _flush(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"enrol-{self._name}.log"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8") as out:
            out.writelines(self._waiting)
        self._waiting.clear()
