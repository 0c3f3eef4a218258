"""From frames to a handler and back: who may, is it still wanted, was it done already.

No socket here: `Dispatcher.receive` takes what came and returns what goes back at once, if anything; what workers
and streams say later goes through `send`. So the same code serves the loop, tests and simulations.
"""

import dataclasses
import hashlib
import json
import sys
import threading
import time
import traceback
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from nodeagent import wire
from nodeagent.agent import Agent
from nodeagent.handlers import HANDLERS
from nodeagent.journal import log
from nodeagent.ledger import Given, Numbered
from nodeagent.refusal import Refused, of_the_disk
from nodeagent.wire import METHODS, Code, Failure, Method, Reply, Request
from nodeagent.workers import Pool

READ_THREADS, WRITE_THREADS = 4, 32
WAITING_AT_MOST = 512
READ_BYTES, WRITE_BYTES = 8 << 20, 64 << 20
"""Of these one key has half: a window of each image that may arrive at once."""
STREAMS_AT_MOST, STREAMS_EACH = 256, 64
"""Of all, and of one key: a reader's watches leave room for others' consoles."""
STREAM_PROBE_S = 15.0
AHEAD = 1 << 20
"""Epochs at once: one is used up by each process that takes an operation over, and by each node that a server moves to."""
PRUNE_EVERY_S = 3600.0
FOLLOW_EVERY_S = 5.0
"""So often at most all guests are looked at for what runs: many may change in a second."""

_ALLOWED = {role: wire.ROLES[: n + 1] for n, role in enumerate(wire.ROLES)}
Send = Callable[[bytes, List[bytes]], None]


class Call:
    """One request under way: what a handler may ask about it."""

    __slots__ = ("agent", "request", "role", "caller", "peer")

    def __init__(self, agent: Agent, request: Request, role: str, caller: str, peer: bytes) -> None:
        self.agent, self.request, self.role, self.caller, self.peer = agent, request, role, caller, peer


class StreamCall(Call):
    """A call whose answer goes on: `emit` and `finish` may come from any thread. `on_drop` is called when nobody listens."""

    __slots__ = ("_send", "_lock", "is_open", "ends_s", "probed_s", "on_drop")

    def __init__(self, agent: Agent, request: Request, role: str, caller: str, peer: bytes) -> None:
        super().__init__(agent, request, role, caller, peer)
        self._lock, self.is_open = threading.Lock(), True
        self._send: Send = lambda peer, frames: None
        self.ends_s, self.probed_s = float("inf"), 0.0
        self.on_drop: Callable[[], None] = lambda: None

    def opened(self, send: Send, lasts_s: float) -> None:
        """From now on, for `lasts_s` at most, what it says goes out through `send`."""
        self._send, self.probed_s = send, time.monotonic()
        self.ends_s = self.probed_s + lasts_s

    def may(self) -> bool:
        """Whether its key still has the role that it was opened with, or one that allows as much."""
        return METHODS[self.request.method].role in _ALLOWED.get(self.agent.admins.role(self.caller), ())

    def emit(self, body: Any, payload: Optional[bytes] = None) -> None:
        """One `progress` reply; nothing after the end, nor to a key that may no longer hear it."""
        with self._lock:
            if self.is_open and self.may():
                self._send(self.peer, wire.encode(Reply(self.request.id, wire.PROGRESS, wire.to_plain(body)), payload))

    def finish(self, kind: str, body: Any) -> None:
        """The one `result` or `error` it ends with. Only the first counts."""
        with self._lock:
            if self.is_open:
                self.is_open = False
                self._send(self.peer, wire.encode(Reply(self.request.id, kind, wire.to_plain(body))))

    def silence(self) -> None:
        """The peer is gone: say nothing more."""
        with self._lock:
            self.is_open = False


class Dispatcher:
    """Serves one agent. `receive` and `tick` belong to one thread; `send` is called from any."""

    def __init__(self, agent: Agent, send: Send) -> None:
        self.agent, self._send = agent, send
        self._reads = Pool("read", READ_THREADS, WAITING_AT_MOST, READ_BYTES)
        self._writes = Pool("write", WRITE_THREADS, WAITING_AT_MOST, WRITE_BYTES)
        self._streams: Dict[Tuple[bytes, str], StreamCall] = {}
        self._streams_lock = threading.Lock()
        self._reporting = threading.Lock()
        self._under_way: Dict[str, float] = {}
        self._next_report_s = self._next_prune_s = self._next_follow_s = 0.0
        self._changed = True
        agent.changes.hook = self._on_change

    def close(self) -> None:
        self._reads.close()
        self._writes.close()

    # ------------------------------------------------------------ requests

    def receive(self, peer: bytes, key: str, frames: Sequence[bytes]) -> Optional[List[bytes]]:
        """What `peer`, authenticated as `key` (Z85), sent -> the reply, or None where it comes later.

        A key that is not enrolled (any more) is denied whatever it sends.
        """
        request_id = ""
        try:
            role = self.agent.admins.role(key)
            if not role:
                return _failed(_id_of(frames), Failure(Code.DENIED, "this key is not enrolled here"))
            request, payload = wire.decode(Request, frames)
            request_id = request.id
            method = METHODS.get(request.method)
            if method is None or request.method not in HANDLERS:
                raise Refused(Code.UNKNOWN_METHOD, f"{wire.shown(request.method)} is not a method of this agent")
            if method.role not in _ALLOWED[role]:
                raise Refused(Code.DENIED, f"{request.method} needs the role {method.role}, this key has {role}")
            for text in (request_id, request.operation, request.actor, request.boot_id):
                if len(text) > wire.ID_CHARS or not text.isprintable():
                    wire.check_id(text, "id, operation, actor or boot_id")
            args = wire.from_plain(method.args, request.args)
            known = getattr(self.agent.admins, "version", 0)
            if request.admins_version > known and not (method.inline or request.method == "keys.write"):
                raise Refused(
                    Code.OLD_KEYS, f"this agent's table of admins' keys is version {known}, the request's is {request.admins_version}",
                    hint="keys.write first", retryable=True)
            if method.inline:
                return self._answer(Call(self.agent, request, role, key, peer), method, args, payload)
            kept = dataclasses.replace(request, args={})
            call = (StreamCall if method.streams else Call)(self.agent, kept, role, key, peer)
            self._submit(call, method, args, payload)
            return None
        except wire.BadMessage as bad:
            return _failed(request_id, Failure(Code.BAD_REQUEST, str(bad)))
        except Refused as refused:
            return _failed(request_id, refused.failure)
        except Exception as fault:  # noqa: BLE001 - nothing that a peer sends may end the loop
            traceback.print_exc(file=sys.stderr)
            return _failed("", Failure(Code.INTERNAL, type(fault).__name__))

    def _submit(self, call: Call, method: Method, args: Any, payload: Optional[bytes]) -> None:
        pool, key = (self._writes if method.mutates else self._reads), ""
        if method.key:
            key = f"{method.key}:{getattr(args, method.key)}"
        elif method.mutates:
            key = "node"
        size = len(payload) if payload else 0
        if isinstance(call, StreamCall):
            self._add_stream(call, method.timeout_s)
        began = self._under_way.get(call.request.id) if method.mutates else None
        if began is not None:                                 # it waits for the first to end, and gets what that was answered
            told = {"under_way_s": round(time.monotonic() - began, 1)}
            self._send(call.peer, wire.encode(Reply(call.request.id, wire.PROGRESS, told)))
        if not pool.submit(key, lambda: self._work(call, method, args, payload), size, call.caller):
            self._forget(call)
            raise Refused(Code.BUSY, "the agent has as many calls waiting as it takes, of all or of this key", hint="try again in a second")

    def _work(self, call: Call, method: Method, args: Any, payload: Optional[bytes]) -> None:
        reply = self._answer(call, method, args, payload)
        if reply is not None:
            self._send(call.peer, reply)

    def _answer(self, call: Call, method: Method, args: Any, payload: Optional[bytes]) -> Optional[List[bytes]]:
        """Run the handler and encode its answer. The one place where any exception is caught."""
        began = time.monotonic()
        try:
            if method.mutates:
                self._under_way.setdefault(call.request.id, began)
                kind, body, answered = self._mutate(call, method, args, payload)
            else:
                result, answered = HANDLERS[call.request.method](call, args, payload)
                if method.streams:
                    return None
                kind, body = wire.RESULT, wire.to_plain(result)
            reply = wire.encode(Reply(call.request.id, kind, body), answered)
        except Refused as refused:
            kind, body = wire.ERROR, wire.to_plain(refused.failure)
            reply = wire.encode(Reply(call.request.id, kind, body))
        except Exception as fault:  # noqa: BLE001 - whatever a handler does, its caller gets an answer
            refused = of_the_disk(fault)
            if refused is None:
                traceback.print_exc(file=sys.stderr)
                refused = Refused(Code.INTERNAL, f"{call.request.method}: {type(fault).__name__}: {fault}"[:500])
            kind, body = wire.ERROR, wire.to_plain(refused.failure)
            reply = wire.encode(Reply(call.request.id, kind, body))
        if method.mutates:
            self._under_way.pop(call.request.id, None)
        if method.mutates and call.request.method != "image.chunk":
            _log_mutation(call, args, kind, body, time.monotonic() - began)
        if method.streams:
            self._forget(call)
        return reply

    def _mutate(self, call: Call, method: Method, args: Any, payload: Optional[bytes]) -> Tuple[str, Any, Optional[bytes]]:
        """Fence, ledger, effect, mark: under the key's order, so that nothing comes between them."""
        request, ledger = call.request, self.agent.ledger
        self._fence(call, args)
        args_hash, life = "", f"{self.agent.clock.boot_id}+{self.agent.self_fence.count}" if method.runs else ""
        if method.once:
            args_hash = _hash(request.method, args, payload)
            given = ledger.answer(request.id)
            if given:
                answer, _, given_in = given.args_hash.partition("#")
                known, _, refused_at = answer.partition("@")
                if known != args_hash:
                    raise Refused(Code.CONFLICT, f"request {request.id} came before with other arguments")
                if given_in not in ("", life):
                    ledger.note(request.id, given_in, time.time())             # whatever runs by now is another run
                elif request.epoch <= int(refused_at or request.epoch):
                    return given.kind, given.body, None
        try:
            result, answered = HANDLERS[request.method](call, args, payload)
            kind, body = wire.RESULT, wire.to_plain(result)
        except Refused as refused:
            if refused.failure.retryable or not method.once:
                raise
            kind, body, answered = wire.ERROR, wire.to_plain(refused.failure), None
            args_hash = f"{args_hash}@{request.epoch}"        # whoever takes the operation over may ask again
        if method.once:
            ledger.record(request.id, Given(f"{args_hash}#{life}" if life else args_hash, kind, body), time.time())
        return kind, body, answered

    def _fence(self, call: Call, args: Any) -> None:
        """Raises Refused: STALE for what is late, of another boot, or overtaken; DIVERGED for a number that is not the operation's;
        DENIED for an epoch that would leave none to those who come after."""
        request = call.request
        if not request.id or not request.operation or request.epoch < 1:
            raise Refused(Code.BAD_REQUEST, "a mutation carries an id, its operation and that operation's epoch (1 or more)")
        clock, ledger = self.agent.clock, self.agent.ledger
        if request.boot_id != clock.boot_id:
            raise Refused(Code.STALE, "the request is for another boot of this node", hint="ask agent.hello again")
        late_s = clock.boottime_s() - request.valid_until_s
        if late_s >= 0:
            raise Refused(Code.STALE, f"the request expired {late_s:.1f} s ago")
        server, server_epoch = getattr(args, "server", ""), getattr(args, "epoch", 0)
        if not (0 <= request.seq <= wire.MAX_COUNT and request.epoch <= wire.MAX_COUNT and server_epoch <= wire.MAX_COUNT):
            raise Refused(Code.BAD_REQUEST, f"numbers and epochs are {wire.MAX_COUNT} at most")
        if request.method == "node.adopt":
            ledger.forget_far(request.seq, {spec.server: spec.epoch for spec in self.agent.driver.specs()})
        seen, stored = ledger.epochs(request.operation, server)
        if request.epoch < seen:
            raise Refused(Code.STALE, f"operation {request.operation} is at epoch {seen}, the request at {request.epoch}")
        known = stored
        if server and stored is None:
            spec = self.agent.driver.spec(server)
            known = spec.epoch if spec else 0
        if server and server_epoch < (known or 0):
            raise Refused(Code.STALE, f"server {server} is at epoch {known}, the request at {server_epoch}")
        if call.role != wire.ADMIN and max(request.epoch - seen, server_epoch - (known or 0)) > AHEAD:
            raise Refused(
                Code.DENIED, f"operation {request.operation} at epoch {request.epoch} (here {seen}), server at {server_epoch} (here"
                f" {known or 0}): more than {AHEAD} at once needs the role {wire.ADMIN}")
        if request.epoch > seen or (server and (stored is None or server_epoch > stored)):
            try:
                ledger.raise_epochs(request.operation, request.epoch, server, server_epoch, time.time(), request.seq)
            except Numbered as taken:
                raise _diverged(request, taken.other) from None

    # ------------------------------------------------------------ streams

    def _add_stream(self, call: StreamCall, lasts_s: float) -> None:
        with self._streams_lock:
            if len(self._streams) >= STREAMS_AT_MOST:
                raise Refused(Code.BUSY, f"{STREAMS_AT_MOST} streams are open already")
            if sum(other.caller == call.caller for other in self._streams.values()) >= STREAMS_EACH:
                raise Refused(Code.BUSY, f"{STREAMS_EACH} streams of this key are open already")
            if (call.peer, call.request.id) in self._streams:
                raise Refused(Code.CONFLICT, f"request {call.request.id} is under way")
            call.opened(self._send, lasts_s)
            self._streams[(call.peer, call.request.id)] = call

    def _forget(self, call: Call) -> None:
        with self._streams_lock:
            self._streams.pop((call.peer, call.request.id), None)

    def peer_gone(self, peer: bytes) -> None:
        """Nothing can be sent to `peer` any more: its streams end."""
        with self._streams_lock:
            gone = [call for call in self._streams.values() if call.peer == peer]
        for call in gone:
            call.silence()
            self._drop(call)

    def _drop(self, call: StreamCall) -> None:
        self._forget(call)
        self._reads.submit("drop", call.on_drop)

    def tick(self) -> None:
        """About once a second: reports that are due, streams that ended, old rows."""
        now = time.monotonic()
        with self._streams_lock:
            streams = list(self._streams.values())
        for call in streams:
            self._check_stream(call, now)
        self.agent.self_fence.tick(self.agent.driver)
        for server in self.agent.autostart.due(now):
            self._writes.submit(f"server:{server}", lambda server=server: self.agent.autostart.start(server))
        if self._changed and now >= self._next_follow_s and self._reads.submit("follow", self._follow):
            self._changed, self._next_follow_s = False, now + FOLLOW_EVERY_S
        if now >= self._next_report_s:
            self._next_report_s = now + self.agent.config.report_interval_s
            self._report_soon()
        if now >= self._next_prune_s:
            if self._next_prune_s:
                self._writes.submit("prune", lambda: self.agent.ledger.prune(time.time()))
            self._next_prune_s = now + PRUNE_EVERY_S

    def _check_stream(self, call: StreamCall, now: float) -> None:
        if not call.is_open:
            self._forget(call)
        elif not call.may():
            call.finish(wire.ERROR, Failure(Code.DENIED, "this key is no longer enrolled here, or no longer as what it was"))
            self._drop(call)
        elif now >= call.ends_s:
            call.finish(wire.ERROR, Failure(Code.STALE, "the stream reached its time limit", retryable=True))
            self._drop(call)
        elif now - call.probed_s >= STREAM_PROBE_S and call.request.method == "console.open":
            call.probed_s = now
            call.emit({}, b"")

    def _on_change(self) -> None:
        self._changed = True
        self._report_soon()

    def _follow(self) -> None:
        try:
            self.agent.autostart.follow()
        except Exception as fault:  # noqa: BLE001 - whatever it met, it is tried again
            self._changed = True
            log(f"what runs is not known: {fault}")

    def _report_soon(self) -> None:
        """Send a fresh report to all who watch; one at a time."""
        with self._streams_lock:
            watched = any(call.request.method == "inventory.watch" for call in self._streams.values())
        if watched and self._reporting.acquire(blocking=False) and not self._reads.submit("report", self._report):
            self._reporting.release()

    def _report(self) -> None:
        self._reporting.release()
        with self._streams_lock:
            watchers = [call for call in self._streams.values() if call.request.method == "inventory.watch"]
        try:
            body = wire.to_plain(self.agent.report(0.0))
        except Refused as refused:
            log(f"no report: {refused.failure.message}")
            return
        for call in watchers:
            call.emit(body)


def _diverged(request: Request, other: str) -> Refused:
    had = f"was operation {other}'s here" if other else "is older than all that this agent remembers"
    return Refused(
        Code.DIVERGED, f"number {request.seq} of operation {request.operation} {had}: two copies of the database are at work, or an old"
        " one was restored", hint="see to it that one of them is used no more; then, with the other: novactl cluster adopt")


def _failed(request_id: str, failure: Failure) -> List[bytes]:
    return wire.encode(Reply(request_id[:wire.ID_CHARS], wire.ERROR, wire.to_plain(failure)))


def _id_of(frames: Sequence[bytes]) -> str:
    """The id of a request that is not served, or '' where it is none."""
    try:
        return wire.decode(Request, frames)[0].id
    except wire.BadMessage:
        return ""


def _hash(method: str, args: Any, payload: Optional[bytes]) -> str:
    text = json.dumps([method, wire.to_plain(args)], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode() + b"\0" + (payload or b"")).hexdigest()


def _log_mutation(call: Call, args: Any, kind: str, body: Any, took_s: float) -> None:
    what = getattr(args, "server", "") or getattr(args, "sha256", "")
    said = "ok" if kind == wire.RESULT else f"{body.get('code')}: {body.get('message')}"
    who = call.request.actor or call.agent.admins.name(call.caller)
    log(f"{call.request.method} {what} by {who!r} request {call.request.id!r}: {said} ({took_s:.3f} s)")
