"""What a conductor did, one line an act, for whoever reads its log."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from novactl.cluster import Clock
from novactl.errors import NovaError

QUIET_S = 60.0
KINDS = 1000
"""Kinds of failures remembered before those that are quiet are dropped."""


class Journal:
    """From any thread. `write` takes a whole line. `as_json`: one object a line, with `at` in seconds since the epoch and `act`."""

    def __init__(self, write: Callable[[str], object], clock: Clock, *, as_json: bool = False) -> None:
        self._write, self._clock, self._as_json = write, clock, as_json
        self._lock = threading.Lock()
        self._told: dict[str, tuple[float, int]] = {}

    def say(self, act: str, **facts: Any) -> None:
        at = self._clock.now()
        if self._as_json:
            line = json.dumps({"at": round(at, 3), "act": act, **facts}, default=str)
        else:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
            line = " ".join([stamp, act, *(f"{name}={_shown(value)}" for name, value in facts.items())])
        self._write(line + "\n")

    def failed(self, what: str, error: BaseException, **facts: Any) -> None:
        """Of one kind (`what`, and the error's type or code) once a minute; the next line says how many were not told."""
        kind = f"{what} {error.code if isinstance(error, NovaError) else type(error).__name__}"
        now_s = self._clock.monotonic()
        with self._lock:
            since_s, untold = self._told.get(kind, (-QUIET_S, 0))
            if now_s - since_s < QUIET_S:
                self._told[kind] = since_s, untold + 1
                return
            if len(self._told) >= KINDS:
                self._told = {kind: told for kind, told in self._told.items() if now_s - told[0] < QUIET_S}
            self._told[kind] = now_s, 0
        more = {"untold": untold} if untold else {}
        said = error.message if isinstance(error, NovaError) else f"{type(error).__name__}: {error}"
        self.say("failed", what=what, error=said, **facts, **more)


def _shown(value: Any) -> str:
    """A word as it is, anything else as JSON writes it: a line stays one line."""
    text = str(value)
    plain = isinstance(value, int | float) or (text.isprintable() and text and not set(text) & set(' "='))
    return text if plain else json.dumps(text, ensure_ascii=False)
