"""One line on stderr for each thing worth keeping: the service manager keeps it."""

import sys
import time

SELDOM_S = 60.0


def log(text: str) -> None:
    sys.stderr.write(text.replace("\n", " ") + "\n")
    sys.stderr.flush()


class Seldom:
    """What a peer can cause is counted each time and logged once in SELDOM_S: a peer must not be able to fill the log."""

    def __init__(self, what: str) -> None:
        self._what, self._count, self._said_s = what, 0, float("-inf")

    def count(self, detail: str = "") -> None:
        self._count += 1
        now = time.monotonic()
        if now - self._said_s >= SELDOM_S:
            self._said_s = now
            log(f"{self._what}{': ' if detail else ''}{detail} ({self._count} so far)")
