"""THE protocol between novactl and nodeagent: the METHODS table, the messages, encode and decode.

Standard library only, Python 3.9 and later; no socket is opened here. Frames of one message (behind the
routing id that a ROUTER adds):

    PROTOCOL | header (JSON object) | payload (bytes, optional)

A request's header is a `Request`; a reply's is a `Reply`. A request is answered by zero or more replies of
kind `progress` and then exactly one of kind `result` or `error`. Unknown fields are ignored, an unknown method
is an error, and version N talks to N-1 (`SPEAKS`).

Adding a method adds one row to METHODS, one function in `handlers/` and one round trip in the contract suite.
"""

import dataclasses
import json
import re
import typing
from dataclasses import dataclass, field
from typing import Any, Dict, Mapping, Optional, Tuple, Type, TypeVar

PROTOCOL = b"NV1"
SPEAKS = (b"NV1",)
PORT = 7766

ZAP_DOMAIN = "novactl"
CHUNK_BYTES = 1 << 20
"""Bulk data travels in payloads of at most this size."""
MAX_HEADER_BYTES = 256 << 10
MAX_MESSAGE_BYTES = CHUNK_BYTES + MAX_HEADER_BYTES
"""A frame larger than this closes the sender's connection (ZMQ_MAXMSGSIZE)."""
MAX_INT = (1 << 63) - 1
IMAGE_WINDOW = 8
"""Chunks of one image in flight at most: the sender's credit."""
CONSOLE_WINDOW_BYTES = 256 << 10
"""Console output the agent may send before `console.credit` gives more."""

READER, OPERATOR, ADMIN = "reader", "operator", "admin"
ROLES = (READER, OPERATOR, ADMIN)
"""Weakest first: a role may do what the ones before it may."""

T = TypeVar("T")


class BadMessage(ValueError):
    """What came is not a message of this protocol; the text says why."""


# ---------------------------------------------------------------- value checks

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")
_KEY = re.compile(r"[\x21-\x7e]{40}\Z")


def check_name(value: str, what: str = "name") -> str:
    """A name that is safe in XML, in paths and on a screen. Raises BadMessage."""
    if not _NAME.match(value) or ".." in value:
        raise BadMessage(f"{what} {value!r}: letters, digits, '_', '.', '-', at most 63, starting with a letter or digit")
    return value


def check_uuid(value: str, what: str = "server") -> str:
    if not _UUID.match(value):
        raise BadMessage(f"{what} {value!r} is not a lower-case UUID")
    return value


def check_sha256(value: str) -> str:
    if not _SHA256.match(value):
        raise BadMessage(f"sha256 {value!r} is not 64 lower-case hexadecimal digits")
    return value


def check_key(value: str) -> str:
    """A CURVE public key in Z85 (40 printable characters, https://rfc.zeromq.org/spec/32/)."""
    if not _KEY.match(value):
        raise BadMessage("a CURVE key is 40 characters of Z85")
    return value


def _positive(value: int, what: str) -> None:
    if not 0 < value <= MAX_INT:
        raise BadMessage(f"{what} must be a positive integer, not {value}")


# ---------------------------------------------------------------- arguments and results

@dataclass(frozen=True)
class Nothing:
    """No arguments, or no result beyond success."""


@dataclass(frozen=True)
class Hello:
    """Who answers. `boottime_s` is the agent's CLOCK_BOOTTIME, in which commands expire (with `boot_id`)."""

    agent_version: str
    speaks: Tuple[str, ...]
    node_id: str
    cluster_id: str
    boot_id: str
    boottime_s: float
    role: str
    python_version: str
    zmq_version: str
    driver: str


@dataclass(frozen=True)
class DomainRef:
    """A server on this node. `epoch` is the server's; 0 for reads that need none."""

    server: str
    epoch: int = 0

    def __post_init__(self) -> None:
        check_uuid(self.server)


@dataclass(frozen=True)
class Stop:
    server: str
    epoch: int
    grace_s: float = 30.0
    """Seconds the guest gets to shut down by itself (ACPI) before it is powered off; 0 powers off at once."""

    def __post_init__(self) -> None:
        check_uuid(self.server)


@dataclass(frozen=True)
class Reboot:
    server: str
    epoch: int
    hard: bool = False
    grace_s: float = 30.0
    """Soft: seconds for the guest to go down by itself; then it is reset. Hard: redefined and started anew."""

    def __post_init__(self) -> None:
        check_uuid(self.server)


@dataclass(frozen=True)
class DomainSpec:
    """All an agent needs to define a domain; never XML, never a path.

    `memory_mb` and `vcpus` are the guest's; `mac` is the interface's on `network`. `has_seed` attaches the
    NoCloud seed written before. `machine` and `cpu_model` empty mean the node's best for its virt type.
    """

    server: str
    epoch: int
    name: str
    vcpus: int
    memory_mb: int
    disk_gb: int
    image_sha256: str
    mac: str
    network: str = "default"
    architecture: str = "x86_64"
    machine: str = ""
    cpu_model: str = ""
    has_seed: bool = True
    flavor: str = ""
    image: str = ""

    def __post_init__(self) -> None:
        check_uuid(self.server)
        check_name(self.name, "server name")
        check_name(self.network, "network")
        check_name(self.architecture, "architecture")
        check_sha256(self.image_sha256)
        for what in ("machine", "cpu_model", "flavor", "image"):
            if getattr(self, what):
                check_name(getattr(self, what), what)
        if not _MAC.match(self.mac):
            raise BadMessage(f"mac {self.mac!r} is not six pairs of lower-case hexadecimal digits")
        _positive(self.vcpus, "vcpus")
        _positive(self.memory_mb, "memory_mb")
        if not 0 <= self.disk_gb <= MAX_INT:
            raise BadMessage(f"disk_gb must be 0 or more, not {self.disk_gb}")


@dataclass(frozen=True)
class DomainState:
    """What libvirt says of a server's domain. `power_state` is one of POWER_STATES; `addresses` are the guest's."""

    server: str
    name: str
    power_state: str
    epoch: int
    vcpus: int
    memory_mb: int
    addresses: Tuple[str, ...] = ()
    operation: str = ""


POWER_STATES = ("NOSTATE", "RUNNING", "PAUSED", "SHUTDOWN", "CRASHED", "SUSPENDED", "ABSENT")
"""Nova's names (nova/compute/power_state.py), and ABSENT where the node has no such domain."""


@dataclass(frozen=True)
class DomainStates:
    domains: Tuple[DomainState, ...]


@dataclass(frozen=True)
class DiskSpec:
    """A root disk: an overlay on the base image, `disk_gb` large, or as large as the image where that is more (or 0)."""

    server: str
    epoch: int
    image_sha256: str
    disk_gb: int

    def __post_init__(self) -> None:
        check_uuid(self.server)
        check_sha256(self.image_sha256)
        if not 0 <= self.disk_gb <= MAX_INT:
            raise BadMessage(f"disk_gb must be 0 or more, not {self.disk_gb}")


@dataclass(frozen=True)
class ImageRef:
    sha256: str

    def __post_init__(self) -> None:
        check_sha256(self.sha256)


@dataclass(frozen=True)
class ImageOffer:
    """An image the node is to cache: `size_bytes` is the file's, `virtual_size_bytes` the disk's."""

    sha256: str
    size_bytes: int
    virtual_size_bytes: int
    disk_format: str

    def __post_init__(self) -> None:
        check_sha256(self.sha256)
        _positive(self.size_bytes, "size_bytes")
        _positive(self.virtual_size_bytes, "virtual_size_bytes")
        if self.disk_format not in DISK_FORMATS:
            raise BadMessage(f"disk_format {self.disk_format!r} is not one of {', '.join(DISK_FORMATS)}")


DISK_FORMATS = ("qcow2", "raw")


@dataclass(frozen=True)
class ImageProgress:
    """`present`: the node has the whole, checked image. Otherwise bytes from `offset` on are wanted."""

    present: bool
    offset: int


@dataclass(frozen=True)
class ImageChunk:
    sha256: str
    offset: int

    def __post_init__(self) -> None:
        check_sha256(self.sha256)
        if not 0 <= self.offset <= MAX_INT:
            raise BadMessage(f"offset must be 0 or more, not {self.offset}")


@dataclass(frozen=True)
class CachedImage:
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class CachedImages:
    images: Tuple[CachedImage, ...]


@dataclass(frozen=True)
class Prepare:
    """What a node must have before servers come: the storage pool, `network`, and the sums it may not pass.

    `limits` maps a resource class to the capacity the agent guards on its own (empty: no guard).
    """

    network: str = "default"
    limits: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.network, "network")


@dataclass(frozen=True)
class InventoryRead:
    """A report at most `max_age_s` old; an older one is taken anew first."""

    max_age_s: float = 10.0


@dataclass(frozen=True)
class Report:
    """What an agent says about its node at one moment.

    `vcpus` are host CPUs, memory in MiB (from /proc/meminfo), disk of the storage pool in GiB. `*_used` is what
    the host really uses. `taken_s` is the agent's CLOCK_BOOTTIME; `age_s` is filled in when the report is sent.
    """

    node_id: str
    agent_version: str
    boot_id: str
    taken_s: float
    age_s: float
    hostname: str
    architecture: str
    cpu_model: str
    cpu_features: Tuple[str, ...]
    virt_types: Tuple[str, ...]
    virt_type: str
    vcpus: int
    memory_mb: int
    memory_used_mb: int
    disk_gb: int
    disk_used_gb: int
    load_1m: float
    versions: Mapping[str, str]
    domains: Tuple[DomainState, ...]
    images: Tuple[CachedImage, ...]
    foreign_domains: int = 0
    """Domains on this host that are not novactl's: counted, never touched."""


@dataclass(frozen=True)
class ConsoleLogRead:
    """The log's bytes from `offset` (negative: that many from the end), at most `max_bytes`."""

    server: str
    offset: int = 0
    max_bytes: int = CHUNK_BYTES

    def __post_init__(self) -> None:
        check_uuid(self.server)
        if not 0 < self.max_bytes <= CHUNK_BYTES:
            raise BadMessage(f"max_bytes must be 1 to {CHUNK_BYTES}")


@dataclass(frozen=True)
class ConsoleLog:
    """The payload is the log from `offset`; the log ends at `size_bytes` now."""

    offset: int
    size_bytes: int


@dataclass(frozen=True)
class ConsoleRef:
    """An open console: the id of the `console.open` request."""

    console: str
    credit_bytes: int = 0


@dataclass(frozen=True)
class ConsoleClosed:
    reason: str


# ---------------------------------------------------------------- the table

@dataclass(frozen=True)
class Method:
    """One row of METHODS.

    `role`: the weakest that may call it. `mutates`: carries an epoch, expires, and is answered from the ledger
    when repeated (`once=False`: safe to repeat by content, so the ledger is spared). `timeout_s`: the caller's
    default. `inline`: answered in the loop, because it never waits. `streams`: sends `progress` replies, a
    payload in each. `key`: the argument whose value orders calls (a lock per server, per image).
    """

    args: type
    result: type
    role: str
    mutates: bool
    timeout_s: float
    once: bool = True
    inline: bool = False
    streams: bool = False
    key: str = ""


METHODS: Mapping[str, Method] = {
    "agent.ping":      Method(Nothing,        Nothing,       READER,   False, 2, inline=True),
    "agent.hello":     Method(Nothing,        Hello,         READER,   False, 5, inline=True),
    "node.prepare":    Method(Prepare,        Nothing,       ADMIN,    True,  60, once=False),
    "node.unprepare":  Method(Nothing,        Nothing,       ADMIN,    True,  60, once=False),
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
    "domain.start":    Method(DomainRef,      DomainState,   OPERATOR, True,  120, key="server"),
    "domain.stop":     Method(Stop,           DomainState,   OPERATOR, True,  180, key="server"),
    "domain.destroy":  Method(DomainRef,      DomainState,   OPERATOR, True,  60, key="server"),
    "domain.reboot":   Method(Reboot,         DomainState,   OPERATOR, True,  180, key="server"),
    "domain.state":    Method(DomainRef,      DomainState,   READER,   False, 5),
    "domain.list":     Method(Nothing,        DomainStates,  READER,   False, 10),
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
    """`id` is `operation:step:attempt:do|undo` for a mutation (any unique text for a read).

    `epoch` is the *operation's*: an agent refuses one older than the newest it has seen for that operation.
    `boot_id` and `valid_until_s` (the agent's CLOCK_BOOTTIME) bound a mutation's life: late, it does nothing.
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
    BUSY = "busy"                    # queues are full: ask again later
    DRIVER = "driver"                # libvirt or QEMU refused; the message is theirs
    INTERNAL = "internal"            # a fault of the agent; its log has the trace


@dataclass(frozen=True)
class Failure:
    """The body of an error reply. `retryable`: the same may succeed here later. `elsewhere`: another node may do it."""

    code: str
    message: str
    hint: str = ""
    retryable: bool = False
    elsewhere: bool = False


# ---------------------------------------------------------------- encode and decode


def to_plain(value: Any) -> Any:
    """A message dataclass -> what JSON can hold. Tuples become lists."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if dataclasses.is_dataclass(kind):
        return {name: to_plain(getattr(value, name)) for name, _, _ in _fields(kind)}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    return value


_PLAIN = frozenset({str, int, float, bool, type(None)})
_FIELDS: Dict[type, Tuple[Tuple[str, Any, bool], ...]] = {}


def _fields(cls: type) -> Tuple[Tuple[str, Any, bool], ...]:
    found = _FIELDS.get(cls)
    if found is None:
        hints = typing.get_type_hints(cls)
        found = tuple(
            (f.name, hints[f.name], f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING)
            for f in dataclasses.fields(cls)
        )
        _FIELDS[cls] = found
    return found


def from_plain(cls: Type[T], value: Any) -> T:
    """What JSON gave -> a message dataclass, every field's type checked. Raises BadMessage.

    Unknown fields are ignored, so that a newer peer can say more; a missing field without a default is an error.
    """
    if not isinstance(value, dict):
        raise BadMessage(f"{cls.__name__} must be an object, not {type(value).__name__}")
    given = {}
    for name, kind, needed in _fields(cls):
        if name in value:
            given[name] = _checked(kind, value[name], f"{cls.__name__}.{name}")
        elif needed:
            raise BadMessage(f"{cls.__name__}.{name} is missing")
    return cls(**given)


def _checked(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    if kind is str or kind is bool:
        if type(value) is kind:
            return value
    elif kind is int:
        if type(value) is int and -MAX_INT <= value <= MAX_INT:
            return value
    elif kind is float:
        if type(value) in (int, float) and abs(value) <= 1e300:
            return float(value)
    elif dataclasses.is_dataclass(kind):
        return from_plain(kind, value)
    else:
        return _checked_generic(kind, value, where)
    raise BadMessage(f"{where} must be {kind.__name__}, not {str(value)[:60]!r}")


def _checked_generic(kind: Any, value: Any, where: str) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_checked(inner[0], item, where) for item in value)
    if origin in (dict, getattr(typing.Mapping, "__origin__", None)) and isinstance(value, dict):
        return {k: _checked(inner[1], v, f"{where}[{k!r}]") for k, v in value.items()}
    if origin is typing.Union and type(None) in inner:
        return None if value is None else _checked(inner[0], value, where)
    raise BadMessage(f"{where} must be {kind}, not {str(value)[:60]!r}")


def _pairs(pairs: Any) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadMessage("an object names a key twice")
    return found


def _no_constant(text: str) -> Any:
    raise BadMessage(f"{text} is not JSON")


def _bounded_int(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > MAX_INT:
        raise BadMessage("an integer is out of range")
    return int(text)


_loads = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_no_constant, parse_int=_bounded_int).decode
_dumps = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode


def encode(message: Any, payload: Optional[bytes] = None) -> list:
    """A Request or Reply -> frames. Raises BadMessage when the message is too large to send."""
    header = _dumps(to_plain(message)).encode()
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
        plain = _loads(bytes(frames[1]).decode("utf-8"))
    except BadMessage:
        raise
    except (ValueError, RecursionError) as bad:
        raise BadMessage(f"the header is not JSON: {bad}") from None
    message = from_plain(cls, plain)
    return message, bytes(frames[2]) if len(frames) == 3 else None
