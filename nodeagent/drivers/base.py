"""What a driver must do. Both drivers pass one suite: tests/contract.

Every verb is an `ensure`: asked again it succeeds and changes nothing, and what is absent counts as deleted.
A driver raises `Refused` and nothing else; it may be called from several threads, one at a time per server.
"""

from dataclasses import dataclass
from typing import Callable, List, Mapping, MutableMapping, NamedTuple, Optional, Protocol, Tuple

from nodeagent.wire import DiskSpec, DomainSpec, DomainState, ImageOffer, NumaCell, PciDevice, WildDomain


@dataclass(frozen=True)
class Host:
    """What the node is and what it really uses now (as wire.Report has it)."""

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
    cells: Tuple[NumaCell, ...] = ()
    pci: Tuple[PciDevice, ...] = ()
    machines: Tuple[str, ...] = ()


class Found(NamedTuple):
    """All servers of this node in the order of ids; the first of the domains that are not ours by name; how many these are."""

    domains: Tuple[DomainState, ...]
    wild: Tuple[WildDomain, ...]
    foreign: int


@dataclass(frozen=True)
class Mark:
    """Whose doing a definition is: kept in the domain itself, so that the effect and its mark are one thing."""

    operation: str
    request: str


class Sink(Protocol):
    """Where an open console's output goes. Called from a driver's thread."""

    def room(self) -> int:
        """Bytes that may be given to `data` now; 0: wait until `Console.resume`."""

    def data(self, data: bytes) -> None: ...

    def closed(self, reason: str) -> None: ...


class Console(Protocol):
    """An open console."""

    def write(self, data: bytes) -> None:
        """Type into the guest. Raises Refused(BUSY) where the guest takes nothing and the buffer is full."""

    def resume(self) -> None:
        """There is room again."""

    def close(self) -> None:
        """End it; `Sink.closed` is not called then. Safe to repeat."""


class Driver(Protocol):
    name: str

    def start(self, changed: Callable[[], None]) -> None:
        """Connect, and call `changed` whenever a domain changed state. Does not wait for the connection."""

    def close(self) -> None: ...

    def host(self) -> Host: ...

    def prepare(self, network: str, made: MutableMapping[str, str]) -> None:
        """The storage pool and `network` exist, are active and start with the host.

        `made` is what earlier calls made; what is made now is added as soon as it is there, also when the rest then
        fails. Given to `unprepare`, only that is taken away again.
        """

    def activate(self, network: str) -> None:
        """Before `start`: at each connection, make active again what `prepare` made. Faults are logged, not raised."""

    def unprepare(self, network: str, made: Mapping[str, str]) -> None:
        """What `prepare` made is gone, but a network that other domains are on stays."""

    def add_image(self, offer: ImageOffer) -> None:
        """The base image's file is in the pool; make it usable. Raises Refused(BAD_IMAGE) where it is not as offered."""

    def image_users(self, sha256: str) -> List[str]:
        """Servers whose disk is an overlay on the image."""

    def remove_image(self, sha256: str, disk_format: str) -> None:
        """Delete the image's file and forget it."""

    def create_disk(self, spec: DiskSpec, disk_format: str) -> None:
        """A fresh overlay on the base image (whose format is `disk_format`), unless the server's domain is defined at the same epoch:
        then its disk is in use and stays. A disk without a domain was never acknowledged and is made anew; with a domain of another
        epoch it is a copy from before the server was elsewhere: both go. Raises Refused(CONFLICT) where that runs."""

    def delete_disk(self, server: str) -> None: ...

    def define(self, spec: DomainSpec, disk_format: str, mark: Mark) -> None:
        """The domain as `spec` says, replacing an older definition; a running guest goes on as it is. Of one that was adopted
        our metadata alone are replaced."""

    def spec(self, server: str) -> Optional[DomainSpec]:
        """What the server's domain was defined from, or None."""

    def specs(self) -> Tuple[DomainSpec, ...]: ...

    def undefine(self, server: str) -> None:
        """The domain is gone, its console log too; files of one that was adopted stay. Raises Refused(CONFLICT) where it runs."""

    def wild(self, domain: str) -> Optional[DomainSpec]:
        """What a domain that is not ours, of that UUID, would be as a server; None where there is none. Nothing is changed."""

    def adopt(self, spec: DomainSpec, mark: Mark) -> None:
        """The domain of the server's UUID carries our metadata, and is as it was otherwise. Raises Refused."""

    def release(self, server: str) -> None:
        """Take our metadata out of a domain that was adopted. Raises Refused(CONFLICT) where we made it."""

    def start_domain(self, server: str) -> None:
        """Running, from whatever state. Raises Refused."""

    def shut_down(self, server: str) -> None:
        """Ask the guest to go down (ACPI), and do not wait. It may ignore it. Off already is success."""

    def destroy(self, server: str) -> None:
        """Power it off. Absent or off is success."""

    def run_id(self, server: str) -> str:
        """Names the present run of the guest: another after each start; '' while it is off."""

    def state(self, server: str) -> DomainState:
        """ABSENT as power_state where there is none. Never waits for a guest."""

    def states(self) -> Found:
        """Never waits for a guest."""

    def console_log(self, server: str, offset: int, max_bytes: int) -> Tuple[int, int, bytes]:
        """(offset, size, bytes from offset): see wire.ConsoleLogRead. No log yet: (0, 0, b'')."""

    def open_console(self, server: str, sink: Sink) -> Console: ...


def window(size: int, offset: int, max_bytes: int) -> Tuple[int, int]:
    """Where to read a log of `size` bytes and how much: (start, count). A negative offset counts from the end."""
    start = max(0, size + offset) if offset < 0 else min(offset, size)
    return start, min(max_bytes, size - start)


def disk_bytes(disk_gb: int, virtual_size_bytes: int) -> int:
    """The disk's size: the flavor's, or the image's where that is larger."""
    return max(disk_gb << 30, virtual_size_bytes)
