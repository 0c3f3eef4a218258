"""Connections to libvirt, each used by one thread at a time. The libvirt module is an argument: see drivers/libvirt.py.

libvirt's client library up to 10.3 can crash when two threads wait for answers on one connection (CVE-2024-4418), so
each act borrows a connection of its own. One more, which nobody calls on, brings the events. All are opened in one
thread, because opening hangs for as long as a daemon does; keepalive ends calls that wait for a daemon that hangs.
"""

import threading
from contextlib import contextmanager
from typing import Any, Callable, List, Optional

from nodeagent.journal import log
from nodeagent.refusal import Refused
from nodeagent.wire import Code

KEEPALIVE_S, KEEPALIVE_COUNT = 5, 5
CONNECT_WAIT_S = 4.0
BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)
IDLE_AT_MOST = 6
LACKING = "Resource temporarily unavailable"


class Link:
    """`lib` is the libvirt module."""

    def __init__(self, lib: Any, uri: str) -> None:
        self.lib, self._uri = lib, uri
        self._absent = {lib.VIR_ERR_NO_DOMAIN, lib.VIR_ERR_NO_NETWORK, lib.VIR_ERR_NO_STORAGE_POOL, lib.VIR_ERR_NO_STORAGE_VOL}
        self._passing = {lib.VIR_ERR_RPC, lib.VIR_ERR_NO_CONNECT, lib.VIR_ERR_INVALID_CONN, lib.VIR_ERR_OPERATION_TIMEOUT}
        self._state = threading.Condition()
        self._main: Any = None
        self._idle: List[Any] = []
        self._done_with: List[Any] = []
        self._wanted = 0
        self._broken = self._closed = False
        self._why = "not connected yet"
        self._thread: Optional[threading.Thread] = None

    def start(self, opened: Callable[[Any], None], settled: Callable[[], None]) -> None:
        """Connect, and again whenever the daemon went away: `opened` is called with the connection that brings events
        before anyone gets another, and `settled` after, both in the thread that opens."""
        self._thread = threading.Thread(target=self._keep, args=(opened, settled), name="libvirt-open", daemon=True)
        self._thread.start()

    def close(self) -> None:
        with self._state:
            self._closed = True
            self._state.notify_all()
        if self._thread:
            self._thread.join(1.0)

    # ------------------------------------------------------------ for those who act

    @contextmanager
    def acting(self, what: str):
        """A connection for one act; libvirt's errors become Refused(DRIVER) that say `what` failed."""
        conn = self.take(what)
        try:
            yield conn
        except self.lib.libvirtError as error:
            alive = _alive(conn)
            passing = not alive or error.get_error_code() in self._passing or LACKING in str(error)
            raise Refused(Code.DRIVER, f"{what}: {error}", retryable=passing, elsewhere=True) from None
        finally:
            self._give_back(conn)

    def take(self, what: str) -> Any:
        """A connection to keep, until `discard`. Raises Refused where none comes in CONNECT_WAIT_S."""
        with self._state:
            self._wanted += 1
            self._state.notify_all()
            try:
                ready = self._state.wait_for(lambda: self._idle or self._closed, CONNECT_WAIT_S)
            finally:
                self._wanted -= 1
            if not ready or self._closed:
                raise Refused(Code.DRIVER, f"{what}: libvirt at {self._uri} does not answer: {self._why}", elsewhere=True)
            return self._idle.pop()

    def discard(self, conn: Any) -> None:
        """Close it, in the thread that opens: callable from libvirt's own callbacks."""
        with self._state:
            self._done_with.append(conn)
            self._state.notify_all()

    def found(self, look_up: Callable, name: object) -> Any:
        """What `look_up(name)` finds, or None where libvirt has no such thing."""
        try:
            return look_up(name)
        except self.lib.libvirtError as error:
            if error.get_error_code() in self._absent:
                return None
            raise

    def _give_back(self, conn: Any) -> None:
        with self._state:
            if self._closed or self._broken or len(self._idle) >= IDLE_AT_MOST or not _alive(conn):
                self._done_with.append(conn)
            else:
                self._idle.append(conn)
            self._state.notify_all()

    # ------------------------------------------------------------ the thread that opens

    def _keep(self, opened: Callable[[Any], None], settled: Callable[[], None]) -> None:
        tries = 0
        while True:
            with self._state:
                if tries:
                    self._state.wait_for(lambda: self._closed, BACKOFF_S[min(tries, len(BACKOFF_S)) - 1])
                self._state.wait_for(self._has_to_act)
                if self._broken or self._closed:
                    self._done_with += [self._main, *self._idle] if self._main else self._idle
                    self._idle, self._main, self._broken = [], None, False
                done_with, self._done_with = self._done_with, []
            self._shut(done_with)
            if self._closed:
                return
            fresh = self._main is None
            try:
                if fresh:
                    self._open_main(opened)
                if self._wanted > len(self._idle):
                    self._add(self._open())
            except self.lib.libvirtError as error:
                tries += 1
                self._say(f"libvirt at {self._uri}: {error}")
                continue
            tries = 0
            if fresh:
                self._why = ""
                self._add(self._open_or_none())
                settled()

    def _has_to_act(self) -> bool:
        if self._closed or self._broken or self._main is None or self._done_with:
            return True
        return self._wanted > len(self._idle)

    def _open_main(self, opened: Callable[[Any], None]) -> None:
        main = self._open()
        if self._uri.startswith("qemu"):
            main.registerCloseCallback(lambda conn, reason, _: self._on_close(reason), None)
        opened(main)
        self._main = main

    def _open(self) -> Any:
        conn = self.lib.open(self._uri)
        if self._uri.startswith("qemu"):
            conn.setKeepAlive(KEEPALIVE_S, KEEPALIVE_COUNT)
        return conn

    def _open_or_none(self) -> Any:
        try:
            return self._open()
        except self.lib.libvirtError:
            return None

    def _add(self, conn: Any) -> None:
        with self._state:
            if conn is not None:
                self._idle.append(conn)
            self._state.notify_all()

    def _on_close(self, reason: int) -> None:
        with self._state:
            self._why = f"the connection was closed ({reason})"
            self._broken = True
            self._state.notify_all()
        log(f"libvirt at {self._uri} went away ({reason})")

    def _say(self, why: str) -> None:
        if why != self._why:
            self._why = why
            log(why)

    def _shut(self, conns: List[Any]) -> None:
        for conn in conns:
            try:
                conn.close()
            except self.lib.libvirtError:
                pass


def _alive(conn: Any) -> bool:
    try:
        return bool(conn.isAlive())
    except Exception:  # noqa: BLE001 - libvirtError by another name: whatever it is, the connection is not alive
        return False
