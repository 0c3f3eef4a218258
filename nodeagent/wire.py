"""THE protocol between novactl and nodeagent: the METHODS table, the envelopes, encode and decode.

What travels inside is in messages.py and is named from here, too; codec.py turns it into JSON and back. Standard
library only, Python 3.9 and later; no socket is opened here. Frames of one message (behind the
routing id that a ROUTER adds):

    PROTOCOL | header (JSON object) | payload (bytes, optional)

A request's header is a `Request`; a reply's is a `Reply`. A request is answered by zero or more replies of
kind `progress` and then exactly one of kind `result` or `error`. Unknown fields are ignored, an unknown method
is an error, and version N talks to N-1 (`SPEAKS`).

Adding a method adds its messages, one row to METHODS, one function in `handlers/` and one round trip in the contract suite.
"""

from dataclasses import dataclass, field
from typing import Any, Mapping, Optional, Tuple, Type

from nodeagent.codec import FAR_COUNT, FAR_EPOCH, MAX_COUNT, MAX_INT, BadMessage, T, dumps, from_plain, loads, shown, to_plain
from nodeagent.domains import Page, WildDomain, fitting
from nodeagent.keytable import ADMIN, OPERATOR, READER, ROLES, AdminKey, KeysTable, NodeKey
from nodeagent.messages import (
    CHUNK_BYTES,
    DISK_FORMATS,
    ID_CHARS,
    NO_IMAGE,
    POWER_STATES,
    CachedImage,
    CachedImages,
    ConsoleClosed,
    ConsoleLog,
    ConsoleLogRead,
    ConsoleRef,
    DiskSpec,
    DomainRef,
    DomainSpec,
    DomainSpecs,
    DomainState,
    DomainStates,
    Hello,
    ImageChunk,
    ImageOffer,
    ImageProgress,
    ImageRef,
    InventoryRead,
    Nothing,
    Prepare,
    Reboot,
    Renewal,
    Report,
    Stop,
    check_id,
    check_key,
    check_name,
    check_sha256,
    check_uuid,
)
from nodeagent.pieces import DomainCell, NumaCell, PciDevice

__all__ = [
    "ADMIN", "AdminKey", "BadMessage", "CHUNK_BYTES", "CONSOLE_WINDOW_BYTES", "CachedImage", "CachedImages", "Code", "ConsoleClosed",
    "ConsoleLog", "ConsoleLogRead", "ConsoleRef", "DISK_FORMATS", "DiskSpec", "DomainCell", "DomainRef", "DomainSpec", "DomainState",
    "DomainStates", "ERROR", "FAR_COUNT", "FAR_EPOCH", "Failure", "Hello", "ID_CHARS", "IMAGE_WINDOW", "ImageChunk", "ImageOffer",
    "ImageProgress", "ImageRef", "InventoryRead", "KeysTable", "MAX_COUNT", "MAX_HEADER_BYTES", "MAX_INT", "MAX_MESSAGE_BYTES", "METHODS",
    "Method", "NodeKey", "Nothing", "NumaCell", "OPERATOR", "PORT", "POWER_STATES", "PROGRESS", "PciDevice", "PROTOCOL", "Prepare",
    "READER", "RESULT", "ROLES", "Reboot", "Renewal", "Reply", "Report", "Request", "SPEAKS", "Stop", "TEXT_CHARS", "ZAP_DOMAIN",
    "check_id", "check_key", "check_name", "check_sha256", "check_uuid", "decode", "encode", "from_plain", "shown", "to_plain",
    "DomainSpecs", "NO_IMAGE", "Page", "WildDomain", "fitting",
]

PROTOCOL = b"NV1"
SPEAKS = (b"NV1",)
PORT = 7766

ZAP_DOMAIN = "novactl"
MAX_HEADER_BYTES = 256 << 10
MAX_BODY_BYTES = MAX_HEADER_BYTES - 2048
"""What a reply's body may be long beside its envelope."""
MAX_MESSAGE_BYTES = CHUNK_BYTES + MAX_HEADER_BYTES
"""A frame larger than this closes the sender's connection (ZMQ_MAXMSGSIZE)."""
IMAGE_WINDOW = 8
"""Chunks of one image in flight at most: the sender's credit."""
CONSOLE_WINDOW_BYTES = 256 << 10
"""Console output the agent may send before `console.credit` gives more."""

TEXT_CHARS = 2000
"""An error's message and hint are cut there."""


# ---------------------------------------------------------------- the table

@dataclass(frozen=True)
class Method:
    """One row of METHODS.

    `role`: the weakest that may call it. `mutates`: carries an epoch, expires, and is answered from the ledger
    when repeated (`once=False`: safe to repeat by content, so the ledger is spared). `timeout_s`: the caller's
    default. `inline`: answered in the loop, because it never waits. `streams`: sends `progress` replies
    until it ends. `runs`: its answer says that something runs, which another boot, or a node that fenced itself, makes untrue: asked
    again after that, it is done again. `key`: the argument whose value orders calls (a lock per server, per image).
    """

    args: type
    result: type
    role: str
    mutates: bool
    timeout_s: float
    once: bool = True
    inline: bool = False
    streams: bool = False
    runs: bool = False
    key: str = ""


METHODS: Mapping[str, Method] = {
    "agent.ping":      Method(Nothing,        Nothing,       READER,   False, 2, inline=True),
    "agent.hello":     Method(Nothing,        Hello,         READER,   False, 5, inline=True),
    "lease.renew":     Method(Renewal,        Nothing,       ADMIN,    False, 5, inline=True),
    "keys.write":      Method(KeysTable,      Nothing,       ADMIN,    True,  10, once=False, key="version"),
    "keys.next":       Method(Nothing,        NodeKey,       ADMIN,    True,  10, once=False),
    "keys.serve":      Method(NodeKey,        Nothing,       ADMIN,    True,  20, once=False),
    "keys.commit":     Method(NodeKey,        Nothing,       ADMIN,    True,  20, once=False),
    "keys.drop":       Method(Nothing,        Nothing,       ADMIN,    True,  20, once=False),
    "node.prepare":    Method(Prepare,        Nothing,       ADMIN,    True,  60, once=False),
    "node.unprepare":  Method(Nothing,        Nothing,       ADMIN,    True,  60, once=False),
    "node.adopt":      Method(Nothing,        Nothing,       ADMIN,    True,  10, once=False),
    "inventory.read":  Method(InventoryRead,  Report,        READER,   False, 5),
    "inventory.watch": Method(Nothing,        Nothing,       READER,   False, 3600, streams=True),
    "image.begin":     Method(ImageOffer,     ImageProgress, OPERATOR, True,  30, once=False, key="sha256"),
    "image.chunk":     Method(ImageChunk,     ImageProgress, OPERATOR, True,  60, once=False, key="sha256"),
    "image.finish":    Method(ImageRef,       ImageProgress, OPERATOR, True,  600, once=False, key="sha256"),
    "image.delete":    Method(ImageRef,       Nothing,       OPERATOR, True,  60, once=False, key="sha256"),
    "image.list":      Method(Nothing,        CachedImages,  READER,   False, 10),
    "disk.create":     Method(DiskSpec,       Nothing,       OPERATOR, True,  120, key="server"),
    "disk.delete":     Method(DomainRef,      Nothing,       OPERATOR, True,  60, key="server"),
    "seed.write":      Method(DomainRef,      Nothing,       OPERATOR, True,  30, key="server"),
    "seed.delete":     Method(DomainRef,      Nothing,       OPERATOR, True,  30, key="server"),
    "domain.define":   Method(DomainSpec,     Nothing,       OPERATOR, True,  30, key="server"),
    "domain.undefine": Method(DomainRef,      Nothing,       OPERATOR, True,  30, key="server"),
    "domain.start":    Method(DomainRef,      DomainState,   OPERATOR, True,  120, runs=True, key="server"),
    "domain.stop":     Method(Stop,           DomainState,   OPERATOR, True,  180, key="server"),
    "domain.destroy":  Method(DomainRef,      DomainState,   OPERATOR, True,  60, key="server"),
    "domain.reboot":   Method(Reboot,         DomainState,   OPERATOR, True,  180, runs=True, key="server"),
    "domain.state":    Method(DomainRef,      DomainState,   READER,   False, 5),
    "domain.list":     Method(Page,           DomainStates,  READER,   False, 10),
    "domain.wild":     Method(DomainRef,      DomainSpec,    READER,   False, 10),
    "domain.adopt":    Method(DomainSpec,     Nothing,       ADMIN,    True,  30, key="server"),
    "domain.release":  Method(DomainRef,      Nothing,       ADMIN,    True,  30, key="server"),
    "domain.specs":    Method(Page,           DomainSpecs,   READER,   False, 10),
    "console.log":     Method(ConsoleLogRead, ConsoleLog,    READER,   False, 10),
    "console.open":    Method(DomainRef,      ConsoleClosed, OPERATOR, False, 86400, streams=True),
    "console.input":   Method(ConsoleRef,     Nothing,       OPERATOR, False, 10, key="console"),
    "console.credit":  Method(ConsoleRef,     Nothing,       OPERATOR, False, 10, key="console"),
    "console.close":   Method(ConsoleRef,     Nothing,       OPERATOR, False, 10, key="console"),
}
"""The whole of what a node can be asked. What an agent does not list, it cannot do."""


# ---------------------------------------------------------------- envelopes

@dataclass(frozen=True)
class Request:
    """`id` is `operation:step:attempt:do|undo:method` for a mutation (any unique text for a read).

    `epoch` is the *operation's*: an agent refuses one older than the newest it has seen for that operation.
    `boot_id` and `valid_until_s` (the agent's CLOCK_BOOTTIME) bound a mutation's life: late, it does nothing.
    `seq` is the operation's number in its database (0: none is told): one that another operation has had is refused, for
    then two copies of the database are at work. An agent whose table of admins' keys is older than `admins_version`
    refuses until it has been given the newer one.
    """

    id: str
    method: str
    args: Mapping[str, Any]
    timeout_s: float = 0.0
    actor: str = ""
    operation: str = ""
    epoch: int = 0
    boot_id: str = ""
    valid_until_s: float = 0.0
    seq: int = 0
    admins_version: int = 0


PROGRESS, RESULT, ERROR = "progress", "result", "error"


@dataclass(frozen=True)
class Reply:
    id: str
    kind: str
    body: Mapping[str, Any] = field(default_factory=dict)


class Code:
    """The `code` of an error reply. The text after it says when."""

    BAD_REQUEST = "bad_request"      # the arguments are not what the method takes
    UNKNOWN_METHOD = "unknown_method"
    DENIED = "denied"                # the key's role does not allow the method
    STALE = "stale"                  # expired, another boot, or an older epoch than the agent has seen
    CONFLICT = "conflict"            # the same request id with other arguments; the object is in another state
    NOT_FOUND = "not_found"          # no such server, image, console
    NO_SPACE = "no_space"            # the pool is full
    NO_FIT = "no_fit"                # the agent's own sum says it does not fit
    BAD_IMAGE = "bad_image"          # what was sent does not have the promised SHA-256
    DIVERGED = "diverged"            # another copy of the database has given this operation's number to another operation
    OLD_KEYS = "old_keys"            # the agent's table of admins' keys is older than the request's: keys.write first
    BUSY = "busy"                    # queues are full: ask again later
    DRIVER = "driver"                # libvirt or QEMU refused; the message is theirs
    INTERNAL = "internal"            # a fault of the agent; its log has the trace


@dataclass(frozen=True)
class Failure:
    """The body of an error reply. `retryable`: the same may succeed here later. `elsewhere`: another node may do it.

    Whatever its texts are made of, the reply can be sent: too long ones are cut, what UTF-8 cannot hold becomes '?'.
    """

    code: str
    message: str
    hint: str = ""
    retryable: bool = False
    elsewhere: bool = False

    def __post_init__(self) -> None:
        for name in ("message", "hint"):
            object.__setattr__(self, name, _sendable(getattr(self, name)))


def _sendable(text: str) -> str:
    text = text if len(text) <= TEXT_CHARS else f"{text[:TEXT_CHARS]}..."
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def encode(message: Any, payload: Optional[bytes] = None) -> list:
    """A Request or Reply -> frames. Raises BadMessage when the message is too large to send."""
    header = dumps(to_plain(message)).encode()
    if len(header) > MAX_HEADER_BYTES:
        raise BadMessage(f"a header of {len(header)} bytes is over {MAX_HEADER_BYTES}")
    if payload is None:
        return [PROTOCOL, header]
    if len(payload) > CHUNK_BYTES:
        raise BadMessage(f"a payload of {len(payload)} bytes is over {CHUNK_BYTES}")
    return [PROTOCOL, header, payload]


def decode(cls: Type[T], frames: Any) -> Tuple[T, Optional[bytes]]:
    """Frames -> (message, payload). Whatever came, the answer is a message or BadMessage."""
    if not 2 <= len(frames) <= 3:
        raise BadMessage(f"{len(frames)} frames where 2 or 3 are due")
    if bytes(frames[0]) not in SPEAKS:
        raise BadMessage(f"protocol {bytes(frames[0])[:16]!r} is not one of {', '.join(p.decode() for p in SPEAKS)}")
    if len(frames[1]) > MAX_HEADER_BYTES:
        raise BadMessage(f"a header of {len(frames[1])} bytes is over {MAX_HEADER_BYTES}")
    try:
        text = bytes(frames[1]).decode("utf-8")
        plain = loads(text)
        if "\\u" in text:
            dumps(plain).encode()
    except BadMessage:
        raise
    except UnicodeEncodeError:
        raise BadMessage("the header holds half a surrogate pair") from None
    except (ValueError, RecursionError) as bad:
        raise BadMessage(f"the header is not JSON: {bad}") from None
    message = from_plain(cls, plain)
    payload = frames[2] if len(frames) == 3 else None
    return message, payload if payload is None or isinstance(payload, memoryview) else bytes(payload)
