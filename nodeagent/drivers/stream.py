"""A guest's live console over a libvirt stream, driven by libvirt's event loop. `link` is drivers/link.py's."""

import threading

from nodeagent.drivers.base import Sink
from nodeagent.refusal import Refused
from nodeagent.wire import Code

PIECE_BYTES = 32 << 10
UNSENT_BYTES = 256 << 10


class StreamConsole:
    """Has a connection of its own. Reads only as far as the sink has room, so that a slow caller slows the guest and
    fills no memory."""

    def __init__(self, link, conn, stream, sink: Sink) -> None:
        self._link, self._lib, self._conn, self._stream, self._sink = link, link.lib, conn, stream, sink
        self._lock = threading.RLock()
        self._unsent = bytearray()
        self._open = True
        with self._lock:
            self._watched = self._wanted()
            stream.eventAddCallback(self._watched, self._on_event, None)

    @classmethod
    def open(cls, link, conn, server: str, sink: Sink) -> "StreamConsole":
        """Takes `conn` over. Another user of the console is cut off. Raises Refused."""
        try:
            stream = conn.newStream(link.lib.VIR_STREAM_NONBLOCK)
            conn.lookupByUUIDString(server).openConsole(None, stream, link.lib.VIR_DOMAIN_CONSOLE_FORCE)
            return cls(link, conn, stream, sink)
        except link.lib.libvirtError as error:
            link.discard(conn)
            raise Refused(Code.DRIVER, f"open the console of server {server}: {error}", elsewhere=False) from None

    def write(self, data: bytes) -> None:
        with self._lock:
            if not self._open:
                return
            if len(self._unsent) + len(data) > UNSENT_BYTES:
                raise Refused(Code.BUSY, "the guest does not take its input")
            self._unsent += data
            self._watch()

    def resume(self) -> None:
        with self._lock:
            self._watch()

    def close(self) -> None:
        self._end(None)

    def _wanted(self) -> int:
        wanted = self._lib.VIR_STREAM_EVENT_HANGUP | self._lib.VIR_STREAM_EVENT_ERROR
        if self._sink.room() > 0:
            wanted |= self._lib.VIR_STREAM_EVENT_READABLE
        if self._unsent:
            wanted |= self._lib.VIR_STREAM_EVENT_WRITABLE
        return wanted

    def _watch(self) -> None:
        wanted = self._wanted()
        if self._open and wanted != self._watched:
            self._watched = wanted
            self._stream.eventUpdateCallback(wanted)

    def _on_event(self, stream, events: int, opaque) -> None:
        reason = None
        with self._lock:
            if not self._open:
                return
            try:
                if events & self._lib.VIR_STREAM_EVENT_WRITABLE and self._unsent:
                    sent = stream.send(bytes(self._unsent[:PIECE_BYTES]))
                    if sent > 0:
                        del self._unsent[:sent]
                if events & self._lib.VIR_STREAM_EVENT_READABLE:
                    reason = self._read(stream)
                elif events & (self._lib.VIR_STREAM_EVENT_HANGUP | self._lib.VIR_STREAM_EVENT_ERROR):
                    reason = "the console went away"
                if reason is None:
                    self._watch()
            except self._lib.libvirtError as error:
                reason = str(error)
        if reason is not None:
            self._end(reason)

    def _read(self, stream):
        room = self._sink.room()
        if room <= 0:
            return None
        data = stream.recv(min(room, PIECE_BYTES))
        if isinstance(data, int):
            return None
        if not data:
            return "the guest was powered off"
        self._sink.data(data)
        return None

    def _end(self, reason) -> None:
        with self._lock:
            if not self._open:
                return
            self._open = False
            try:
                self._stream.eventRemoveCallback()
                self._stream.abort()
            except self._lib.libvirtError:
                pass
        self._link.discard(self._conn)
        if reason is not None:
            self._sink.closed(reason)
