"""Open consoles: each with its caller, its credit and the driver's end."""

import threading
from typing import Callable, Dict, Optional

from nodeagent import wire
from nodeagent.drivers.base import Console
from nodeagent.refusal import Refused, not_found
from nodeagent.wire import Code

OPEN_AT_MOST = 32


class Session:
    """One open console, and the Sink its driver writes to. `id` is the request's that opened it.

    `emit(data)` sends output, `end(reason)` the final result; both may be called from any thread. It has no credit, and so no
    output, before `opened`.
    """

    def __init__(self, console_id: str, server: str, caller: str, emit: Callable[[bytes], None], end: Callable[[str], None]):
        self.id, self.server, self.caller = console_id, server, caller
        self._emit, self._end = emit, end
        self._credit = 0
        self._lock = threading.Lock()
        self._ended = False
        self.console: Optional[Console] = None

    def room(self) -> int:
        with self._lock:
            return 0 if self._ended else self._credit

    def data(self, data: bytes) -> None:
        with self._lock:
            self._credit -= len(data)
            if not self._ended:
                self._emit(data)

    def closed(self, reason: str) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = True
        self._end(reason)

    def opened(self) -> None:
        """Its caller knows."""
        self.add_credit(wire.CONSOLE_WINDOW_BYTES)

    def add_credit(self, count: int) -> None:
        """What the caller has taken in. Never more than a full window is out."""
        with self._lock:
            self._credit = min(wire.CONSOLE_WINDOW_BYTES, self._credit + max(0, count))
        if self.console:
            self.console.resume()


class Consoles:
    """All open consoles of the agent; one for a server at a time, the newest."""

    def __init__(self) -> None:
        self._sessions: Dict[str, Session] = {}
        self._lock = threading.Lock()

    def add(self, session: Session) -> None:
        """Before the driver opens it. Another console of the same server is closed: the newest wins."""
        with self._lock:
            older = [other for other in self._sessions.values() if other.server == session.server]
            if len(self._sessions) - len(older) >= OPEN_AT_MOST:
                raise Refused(Code.BUSY, f"{OPEN_AT_MOST} consoles are open already")
            if session.id in self._sessions:
                raise Refused(Code.CONFLICT, f"console {session.id} is open already")
            self._sessions[session.id] = session
        for other in older:
            self.close(other, "taken over by another console")

    def get(self, console_id: str, caller: str) -> Session:
        """The caller's own console. Raises Refused(NOT_FOUND), also where it is someone else's."""
        with self._lock:
            session = self._sessions.get(console_id)
        if session is None or session.caller != caller:
            raise not_found("open console", console_id)
        return session

    def close(self, session: Session, reason: str) -> None:
        """Safe to repeat."""
        self.forget(session)
        if session.console:
            session.console.close()
        session.closed(reason)

    def forget(self, session: Session) -> None:
        with self._lock:
            self._sessions.pop(session.id, None)

    def close_all(self, reason: str) -> None:
        with self._lock:
            sessions = list(self._sessions.values())
        for session in sessions:
            self.close(session, reason)

    def drop(self, console_id: str) -> None:
        """Its caller is gone: close it without a word."""
        with self._lock:
            session = self._sessions.get(console_id)
        if session:
            self.close(session, "the caller went away")
