"""Points: the places where a process may die, counted, and the wrapping of the boundaries that they lie at."""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
import os
import signal
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any


class Act(IntEnum):
    """What a process does when it comes to the point it was told."""

    COUNT = 0
    KILL = 1
    STOP = 2
    KILL_BOTH = 3


class Switch:
    """Shared with the process under test (forked after it was made): what to do where, how far it has come."""

    _FIELDS = ("armed", "act", "target", "count", "ready", "other", "reached")

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, mmap.PAGESIZE)

    def __getattr__(self, name: str) -> int:
        return struct.unpack_from("q", self._map, 8 * self._FIELDS.index(name))[0]

    def __setattr__(self, name: str, value: int) -> None:
        if name in self._FIELDS:
            struct.pack_into("q", self._map, 8 * self._FIELDS.index(name), value)
        else:
            super().__setattr__(name, value)

    def arm(self, act: Act = Act.COUNT, target: int = 0, *, other: int = 0) -> None:
        """Count from one; at `target` (0: never) do `act`. `other` is who dies with it."""
        self.act, self.target, self.count, self.other, self.reached = act, target, 0, other, 0
        self.armed = 1

    def disarm(self) -> None:
        self.armed = 0


class Points:
    """In the process under test: each call of `at` is a point. Its names go to `trace`, a line each."""

    def __init__(self, switch: Switch, trace: Path) -> None:
        self._switch = switch
        self._lock = threading.Lock()
        self._trace = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def at(self, name: str) -> None:
        switch = self._switch
        if not switch.armed or threading.current_thread().name == "every":     # leases are renewed by the clock, not by progress
            return
        with self._lock:
            switch.count += 1
            os.write(self._trace, f"{switch.count} {name}\n".encode())
            if switch.count != switch.target:
                return
            switch.reached = 1
            if switch.act == Act.KILL_BOTH and switch.other:
                os.kill(switch.other, signal.SIGKILL)
            if switch.act in (Act.KILL, Act.KILL_BOTH):
                os.kill(os.getpid(), signal.SIGKILL)
            elif switch.act == Act.STOP:
                os.kill(os.getpid(), signal.SIGSTOP)


def _around(owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    setattr(owner, name, wrap(getattr(owner, name)))


# ---------------------------------------------------------------- the command

def wrap_command(points: Points) -> None:
    """Transactions that write, messages to agents, what steps do and undo, and the hand-over to a process of their own."""
    from novactl.agents.client import Agents
    from novactl.agents.link import Link
    from novactl.conductor import background
    from novactl.conductor.driver import Driver
    from novactl.db.core import CoreDatabase
    from novactl.db.engine import SqliteDatabase

    for database in (SqliteDatabase, CoreDatabase):
        _around(database, "write", lambda write: _writing(points, write))
    _around(Link, "send", lambda send: _sending(points, send))
    _around(Link, "receive", lambda receive: _receiving(points, receive))
    _around(Agents, "fan_out", lambda act: _between(points, act, lambda _self, _peers, method, *_: f"all {method}"))
    _around(Driver, "__init__", lambda init: _stepping(points, init))
    background.subprocess = _Spawning(points, background.subprocess)  # type: ignore[assignment]


def _between(points: Points, act: Callable[..., Any], name: Callable[..., str]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        named = name(*args)
        points.at(f"{named}: before")
        found = act(*args, **kwargs)
        points.at(f"{named}: after")
        return found

    return call


def _writing(points: Points, write: Callable[..., Any]) -> Callable[..., Any]:
    @contextlib.contextmanager
    def transaction(self: Any) -> Iterator[Any]:
        who = _caller()
        if who in BY_THE_CLOCK:
            with write(self) as tx:
                yield tx
            return
        points.at(f"{who}: before BEGIN")
        with write(self) as tx:
            yield tx
            points.at(f"{who}: before COMMIT")
        points.at(f"{who}: after COMMIT")

    return transaction


BY_THE_CLOCK = ("saga._keep",)
"""Who writes as time passes: no points, because there would be more of them on a slow machine."""


def _caller() -> str:
    """Who writes: the nearest function that is neither the database nor a `with` statement's."""
    frame = sys._getframe(2)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("novactl.") and not module.startswith("novactl.db.") and frame.f_code.co_name != "tx":
            return f"{module.rpartition('.')[2]}.{frame.f_code.co_name}"
        frame = frame.f_back
    return "?"


def _sending(points: Points, send: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Any, request: Any, *rest: Any) -> None:
        points.at(f"{request.method} to {self.peer.name}: before sending")
        send(self, request, *rest)
        points.at(f"{request.method} to {self.peer.name}: sent, not answered")

    return call


def _receiving(points: Points, receive: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Any, request: Any, *rest: Any) -> Any:
        found = receive(self, request, *rest)
        points.at(f"{request.method} to {self.peer.name}: answered")
        return found

    return call


def _stepping(points: Points, init: Callable[..., Any]) -> Callable[..., Any]:
    def made(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        steps = tuple(
            dataclasses.replace(step, **{
                way: _between(points, getattr(step, way), lambda *_, named=f"{step.name} {way}": named) for way in ("do", "undo")})
            for step in self.saga.steps)
        self.saga = dataclasses.replace(self.saga, steps=steps)

    return made


class _Spawning:
    """The module `subprocess`, whose Popen has a point before and after."""

    def __init__(self, points: Points, module: Any) -> None:
        self._module = module
        self.Popen = _between(points, module.Popen, lambda *_: "hand over")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


# ---------------------------------------------------------------- the agent

def wrap_agent(points: Points) -> None:
    """From the fence to the reply of each call: epochs raised, files renamed and unlinked, the mark recorded."""
    from nodeagent import dispatch
    from nodeagent.ledger import Ledger
    from nodeagent.loop import Loop
    from nodeagent.wire import METHODS

    here = threading.local()                                  # .method: of the call that this thread works on

    def working(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Any, call: Any, *rest: Any) -> None:
            here.method = call.request.method
            try:
                work(self, call, *rest)
            finally:
                here.method = ""

        return call

    def named(act: Callable[..., Any], what: str, *, before: bool = True, after: bool = True) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            method = getattr(here, "method", "")
            if before and method:
                points.at(f"{method}: before {what}")
            found = act(*args, **kwargs)
            if after and method:
                points.at(f"{method}: after {what}")
            return found

        return call

    _around(dispatch.Dispatcher, "_work", working)
    _around(dispatch.Dispatcher, "_fence", lambda act: named(act, "the fence", after=False))
    _around(Ledger, "raise_epochs", lambda act: named(act, "the epochs", before=False))
    _around(Ledger, "note", lambda act: named(act, "the note", before=False))
    _around(Ledger, "record", lambda act: named(act, "the mark"))
    _around(Loop, "post", lambda act: named(act, "the reply"))
    for method, handler in list(dispatch.HANDLERS.items()):
        if METHODS[method].mutates:
            dispatch.HANDLERS[method] = named(handler, "the effect")  # type: ignore[index]
    for name in ("rename", "replace", "link", "unlink"):
        _around(os, name, lambda act, name=name: named(act, name))
