"""What travels: the arguments and results of every method, each checking its own values.

Names and ids are checked here because they go into XML, paths and screens at the other end.
"""

import re
from dataclasses import dataclass, field
from typing import Mapping, Tuple

from nodeagent.codec import MAX_INT, BadMessage, shown
from nodeagent.domains import WildDomain
from nodeagent.pieces import DomainCell, NumaCell, PciDevice, check_pieces

CHUNK_BYTES = 1 << 20
"""Bulk data travels in payloads of at most this size."""
ID_CHARS = 200

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")
_KEY = re.compile(r"[\x21-\x7e]{40}\Z")


def check_name(value: str, what: str = "name") -> str:
    """A name that is safe in XML, in paths and on a screen. Raises BadMessage."""
    if not _NAME.match(value) or ".." in value:
        raise BadMessage(f"{what} {shown(value)}: letters, digits, '_', '.', '-', at most 63, starting with a letter or digit")
    return value


def check_uuid(value: str, what: str = "server") -> str:
    if not _UUID.match(value):
        raise BadMessage(f"{what} {shown(value)} is not a lower-case UUID")
    return value


def check_sha256(value: str) -> str:
    if not _SHA256.match(value):
        raise BadMessage(f"sha256 {shown(value)} is not 64 lower-case hexadecimal digits")
    return value


def check_key(value: str) -> str:
    """A CURVE public key in Z85 (40 printable characters, https://rfc.zeromq.org/spec/32/)."""
    if not _KEY.match(value):
        raise BadMessage("a CURVE key is 40 characters of Z85")
    return value


def check_id(value: str, what: str = "id") -> str:
    """A request's id, or another text that callers choose: printable, ID_CHARS at most. Raises BadMessage."""
    if len(value) > ID_CHARS or not value.isprintable():
        raise BadMessage(f"{what} {shown(value)} is not {ID_CHARS} printable characters at most")
    return value


def _positive(value: int, what: str) -> None:
    if not 0 < value <= MAX_INT:
        raise BadMessage(f"{what} must be a positive integer, not {value}")


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
    seq: int = 0
    seq_operation: str = ""
    """The highest number of an operation that it has seen, and that operation."""
    admins_version: int = 0
    """Of its table of the admins' keys."""


@dataclass(frozen=True)
class Renewal:
    """Until `until_s` (the agent's CLOCK_BOOTTIME in the boot `boot_id`) the node may run its servers without hearing from a
    conductor; `self_fence_s` after that it stops them. 0: it never does so any more."""

    boot_id: str
    until_s: float
    self_fence_s: float

    def __post_init__(self) -> None:
        if not 0 <= self.self_fence_s <= 3600:
            raise BadMessage(f"self_fence_s must be 0 to 3600, not {self.self_fence_s}")


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


NO_IMAGE = "0" * 64
"""The checksum of the image of a server that was not made from one."""


@dataclass(frozen=True)
class DomainSpec:
    """All an agent needs to define a domain; never XML, never a path.

    `memory_mb` and `vcpus` are the guest's; `mac` is the interface's on `network`. `has_seed` attaches the
    NoCloud seed written before. `machine` and `cpu_model` empty mean the node's best for its virt type.
    `cpuset` are the host CPUs ('0-3,8') that floating vcpus may use, '' all; `pins` one host CPU for each vcpu, () where
    they float; `cells` the guest's NUMA cells, () for none; `pci` the addresses of host devices it is given. `adopted` is the
    name of a domain that was somebody else's and was taken in: it is left as it was made, and `image_sha256` is NO_IMAGE.
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
    cpuset: str = ""
    pins: Tuple[int, ...] = ()
    cells: Tuple[DomainCell, ...] = ()
    pci: Tuple[str, ...] = ()
    adopted: str = ""

    def __post_init__(self) -> None:
        check_uuid(self.server)
        check_name(self.name, "server name")
        check_id(self.adopted, "adopted")
        if "/" in self.adopted:
            raise BadMessage(f"adopted: {shown(self.adopted)} is not the name of a domain: libvirt's have no '/'")
        check_name(self.network, "network")
        check_name(self.architecture, "architecture")
        check_sha256(self.image_sha256)
        for what in ("machine", "cpu_model", "flavor", "image"):
            if getattr(self, what):
                check_name(getattr(self, what), what)
        if not _MAC.match(self.mac):
            raise BadMessage(f"mac {shown(self.mac)} is not six pairs of lower-case hexadecimal digits")
        _positive(self.vcpus, "vcpus")
        _positive(self.memory_mb, "memory_mb")
        if not 0 <= self.disk_gb <= MAX_INT:
            raise BadMessage(f"disk_gb must be 0 or more, not {self.disk_gb}")
        check_pieces(self)


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
    reason: str = ""
    """Why it is off or paused, in libvirt's words ('shutdown' the guest did it itself, 'destroyed', 'crashed', 'failed',
    'ioerror' …); '' where it runs, or has not run since its host or libvirt started."""
    run: str = ""
    """Names the present run of the guest, '' while it is off."""
    started_by_us: bool = False
    """The agent started this run, not somebody else or the guest's own reboot by hand."""


POWER_STATES = ("NOSTATE", "RUNNING", "PAUSED", "SHUTDOWN", "CRASHED", "SUSPENDED", "ABSENT")
"""Nova's names (nova/compute/power_state.py), and ABSENT where the node has no such domain."""


@dataclass(frozen=True)
class DomainStates:
    """`next` is what to ask for the page after this one with, '' when there is none."""

    domains: Tuple[DomainState, ...]
    next: str = ""


@dataclass(frozen=True)
class DomainSpecs:
    """What servers were defined from; `next` as in DomainStates. `ahead` are those of them that are obeyed only at a newer epoch
    than they were defined at: something was begun on them, and not ended."""

    specs: Tuple[DomainSpec, ...]
    next: str = ""
    ahead: Tuple[DomainRef, ...] = ()


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
            raise BadMessage(f"disk_format {shown(self.disk_format)} is not one of {', '.join(DISK_FORMATS)}")


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
    disk_format: str = ""
    virtual_size_bytes: int = 0
    """The disk's that a guest sees. An older agent tells neither."""


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
    cells: Tuple[NumaCell, ...] = ()
    pci: Tuple[PciDevice, ...] = ()
    machines: Tuple[str, ...] = ()
    """Machine types that `virt_type` offers for the host's architecture."""
    domains_left: int = 0
    """So many more domains did not go into the message: domain.list, after the last one, has them."""
    wild: Tuple[WildDomain, ...] = ()
    """The first of `foreign_domains` by name, with their particulars."""
    files: Tuple[str, ...] = ()
    """Servers whose disk, seed or log lies in the pool without a domain here."""
    going_down: bool = False
    """The host is shutting down: guests that go off now do so with it."""
    seq: int = 0
    seq_operation: str = ""
    fencings: int = 0
    """How often, in this boot, it has stopped all servers because nobody renewed its lease."""
    lacks_lease: bool = False
    """It fences itself, nobody has renewed its lease for too long, and it starts no server before it has one."""
    self_fence_s: float = 0.0
    """So long after its lease it stops all servers; 0: never. Who has forgotten that it does so hears of it here."""
    admins_version: int = 0
    pool_id: str = ""
    """Two nodes that tell the same have one pool, two that tell different ones do not; '' is not known."""


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

    def __post_init__(self) -> None:
        check_id(self.console, "console")


@dataclass(frozen=True)
class ConsoleClosed:
    reason: str
