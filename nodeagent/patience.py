"""Questions to a file system that may hang, as one on a network does when its server is away: who asks cannot take them back."""

import threading
import time
from typing import Any, Callable, List, Optional, TypeVar

from nodeagent.refusal import Refused
from nodeagent.wire import Code

WAIT_S = 1.0
"""Well less than a controller waits for a report: it is told why there is none."""

T = TypeVar("T")


class _Question:
    """Asked in a thread of its own."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        self.asked_s, self.done = time.monotonic(), threading.Event()
        self._ask = ask
        self.answers: List[Any] = []
        self.fault: Optional[Exception] = None

    def run(self) -> None:
        try:
            self.answers.append(self._ask())
        except Exception as fault:  # noqa: BLE001 - raised again where it was asked for
            self.fault = fault
        self.done.set()


class Patience:
    """Waits WAIT_S for an answer of `what`. Until a question that took longer has come to its end, others are refused at once:
    it costs one thread, however often it is asked."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._late: Optional[_Question] = None

    def ask(self, ask: Callable[[], T]) -> T:
        """What `ask` returns or raises. Raises Refused(DRIVER) where it hangs."""
        late = self._late
        if late is None or late.done.is_set():
            question = _Question(ask)
            threading.Thread(target=question.run, name="ask", daemon=True).start()
            if question.done.wait(WAIT_S):
                self._late = None
                if question.fault is not None:
                    raise question.fault
                return question.answers[0]
            late = self._late = question
        raise Refused(
            Code.DRIVER, f"{self._what} has not answered for {time.monotonic() - late.asked_s:.0f} s: its storage hangs",
            hint="on the node, df of it hangs too", retryable=True, elsewhere=True)
