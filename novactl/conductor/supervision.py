"""systemd's notification protocol (sd_notify(3)), and ending in time when asked to."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

END_S = 4.5
"""A process that was asked to end, and hangs, is gone after so long."""


class Supervisor:
    """`address` is NOTIFY_SOCKET, "" for none; then nothing is said. `patience_s`: without a word for so long we are stuck."""

    patience_s = 90.0

    def __init__(self, address: str) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def ready(self) -> None:
        self._say("READY=1")

    def alive(self) -> None:
        self._say("WATCHDOG=1")

    def stopping(self) -> None:
        self._say("STOPPING=1")

    def _say(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as there:
                there.sendto(text.encode(), self._address)
        except OSError:
            pass                                              # nobody listens: we go on all the same


@contextmanager
def until_told(supervisor: Supervisor, at_last: Callable[[], object]) -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set. What is not over END_S later is ended by force, after `at_last`. For the main thread."""
    stop = threading.Event()

    def end() -> None:
        try:
            at_last()
        finally:
            os._exit(0)

    def told(number: int, frame: object) -> None:
        if not stop.is_set():
            supervisor.stopping()
            timer = threading.Timer(END_S, end)
            timer.daemon = True
            timer.start()
        stop.set()

    before = {number: signal.signal(number, told) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
