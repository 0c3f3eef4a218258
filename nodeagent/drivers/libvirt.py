"""The libvirt driver. The one file that imports libvirt; storage.py, network.py and the others work through its Link.

libvirt is called from worker threads; one more thread runs libvirt's event loop: keepalive needs it, events and
consoles come through it.
"""

import os
import threading
from dataclasses import replace
from typing import Callable, Dict, List, Mapping, MutableMapping, NamedTuple, Optional, Set, Tuple

import libvirt

from nodeagent import domainxml
from nodeagent.config import Config
from nodeagent.domains import WILD_AT_MOST, printable
from nodeagent.drivers.base import Console, Found, Host, Mark, Sink
from nodeagent.drivers.consolelog import ConsoleLogs
from nodeagent.drivers.facts import Facts
from nodeagent.drivers.link import LACKING, Link
from nodeagent.drivers.network import Networks
from nodeagent.drivers.storage import Storage
from nodeagent.drivers.stream import StreamConsole
from nodeagent.journal import log
from nodeagent.refusal import Refused, not_pinned
from nodeagent.wire import Code, DiskSpec, DomainSpec, DomainState, ImageOffer, WildDomain

START_TRIES, START_WAIT_S = 5, 0.1
NO_AFFINITY = "cpu affinity is not supported"

_POWER = {
    libvirt.VIR_DOMAIN_NOSTATE: "NOSTATE",
    libvirt.VIR_DOMAIN_RUNNING: "RUNNING",
    libvirt.VIR_DOMAIN_BLOCKED: "RUNNING",
    libvirt.VIR_DOMAIN_PAUSED: "PAUSED",
    libvirt.VIR_DOMAIN_SHUTDOWN: "RUNNING",
    libvirt.VIR_DOMAIN_SHUTOFF: "SHUTDOWN",
    libvirt.VIR_DOMAIN_CRASHED: "CRASHED",
    libvirt.VIR_DOMAIN_PMSUSPENDED: "SUSPENDED",
}
"""VIR_DOMAIN_SHUTDOWN means on its way down: QEMU still has the disk open."""
_REASONS = {
    libvirt.VIR_DOMAIN_SHUTOFF: {
        libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN: "shutdown",
        libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED: "destroyed",
        libvirt.VIR_DOMAIN_SHUTOFF_CRASHED: "crashed",
        libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED: "migrated",
        libvirt.VIR_DOMAIN_SHUTOFF_SAVED: "saved",
        libvirt.VIR_DOMAIN_SHUTOFF_FAILED: "failed",
        libvirt.VIR_DOMAIN_SHUTOFF_FROM_SNAPSHOT: "from_snapshot",
        libvirt.VIR_DOMAIN_SHUTOFF_DAEMON: "daemon",
    },
    libvirt.VIR_DOMAIN_PAUSED: {
        libvirt.VIR_DOMAIN_PAUSED_USER: "user",
        libvirt.VIR_DOMAIN_PAUSED_MIGRATION: "migration",
        libvirt.VIR_DOMAIN_PAUSED_IOERROR: "ioerror",
        libvirt.VIR_DOMAIN_PAUSED_WATCHDOG: "watchdog",
        libvirt.VIR_DOMAIN_PAUSED_CRASHED: "crashed",
    },
    libvirt.VIR_DOMAIN_CRASHED: {libvirt.VIR_DOMAIN_CRASHED_PANICKED: "panicked"},
}
_DIED = (libvirt.VIR_DOMAIN_SHUTOFF_CRASHED, libvirt.VIR_DOMAIN_SHUTOFF_FAILED, libvirt.VIR_DOMAIN_SHUTOFF_DAEMON)


class LibvirtDriver:
    """See drivers/base.py."""

    name = "libvirt"

    def __init__(self, config: Config) -> None:
        self._config = config
        self.link = Link(libvirt, config.libvirt_uri)
        self._storage = Storage(self.link, config.pool_name, config.pool_dir)
        self._networks = Networks(self.link)
        self._logs = ConsoleLogs(self.link, f"{config.pool_name}-log")
        self._changed: Callable[[], None] = lambda: None
        self._validated: Set[str] = set()
        """Shapes of domains that libvirt has held against its schema: that takes it longer than all the rest of defining."""
        self._specs: Dict[str, Tuple[DomainSpec, Mark]] = {}
        self._strange: Set[str] = set()
        """UUIDs of domains that were looked at and are not ours."""
        self._facts: Optional[Facts] = None
        self._network = ""
        self._wait = threading.Event().wait

    def start(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        _run_events()
        self.link.start(self._opened, self._settled)

    def close(self) -> None:
        self.link.close()

    def _opened(self, conn: libvirt.virConnect) -> None:
        self._specs.clear()
        self._strange.clear()
        self._validated.clear()
        self._storage.forget()
        self._facts = Facts.read(libvirt, conn, self._config)
        conn.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_lifecycle, None)

    def _on_lifecycle(self, conn, domain, event: int, detail: int, opaque) -> None:
        if event in (libvirt.VIR_DOMAIN_EVENT_DEFINED, libvirt.VIR_DOMAIN_EVENT_UNDEFINED):
            self._specs.pop(domain.UUIDString(), None)
            self._strange.discard(domain.UUIDString())
        self._changed()

    # ------------------------------------------------------------ the node

    def host(self) -> Host:
        with self.link.acting("read the host") as conn:
            self._facts.refresh(libvirt, conn)
            return self._facts.host(self._config.pool_dir)

    def prepare(self, network: str, made: MutableMapping[str, str]) -> None:
        self._storage.prepare(made)
        self._networks.prepare(network, made)
        self._network = network

    def activate(self, network: str) -> None:
        self._network = network

    def _settled(self) -> None:
        self._changed()
        network = self._network
        if not network:
            return
        for part, act in (("storage pool", self._storage.activate), ("network", lambda: self._networks.activate(network))):
            try:
                act()
            except Refused as refused:
                log(f"{part}: {refused.failure.message}")

    def unprepare(self, network: str, made: Mapping[str, str]) -> None:
        self._network = ""
        self._storage.unprepare(made)
        self._networks.unprepare(network, made)
        self._logs.forget()

    # ------------------------------------------------------------ images and disks

    def add_image(self, offer: ImageOffer) -> None:
        self._storage.add_image(offer)

    def image_users(self, sha256: str) -> List[str]:
        return self._storage.image_users(sha256)

    def remove_image(self, sha256: str, disk_format: str) -> None:
        self._storage.remove_image(sha256, disk_format)

    def create_disk(self, spec: DiskSpec, disk_format: str) -> None:
        with self.link.acting(f"look for server {spec.server}") as conn:
            domain = self._domain(conn, spec.server)
            known = self._known_of(domain) if domain is not None else None
            is_its = known is not None and known[0].epoch == spec.epoch
            if is_its and os.path.exists(self._disk_path(spec.server)):
                return
        if domain is not None and not is_its:
            self.undefine(spec.server)
        self._storage.create_disk(spec, disk_format)

    def delete_disk(self, server: str) -> None:
        self._storage.delete_disk(server)

    # ------------------------------------------------------------ domains

    def define(self, spec: DomainSpec, disk_format: str, mark: Mark) -> None:
        with self.link.acting(f"define server {spec.name}") as conn:
            if spec.adopted:
                self._mark(conn, spec, mark)
                return
            platform, alike = self._facts.platform, domainxml.shape_of(spec)
            shape = domainxml.build(alike, disk_format, Mark("", ""), platform) if alike else ""
            flags = 0 if shape in self._validated else libvirt.VIR_DOMAIN_DEFINE_VALIDATE
            conn.defineXMLFlags(domainxml.build(spec, disk_format, mark, platform), flags)
            if shape:
                self._validated.add(shape)
            self._specs[spec.server] = (spec, mark)

    def wild(self, domain: str) -> Optional[DomainSpec]:
        with self.link.acting(f"look at domain {domain}") as conn:
            found = self.link.found(conn.lookupByUUIDString, domain)
            if found is None or self._known_of(found) is not None:
                return None
            xml = found.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
            spec = domainxml.parse_wild(xml)
            size = sum(_capacity(found, disk) for disk in domainxml.disks_of(xml))
        return spec and replace(spec, disk_gb=-(-size >> 30))

    def adopt(self, spec: DomainSpec, mark: Mark) -> None:
        with self.link.acting(f"adopt domain {spec.server}") as conn:
            self._mark(conn, spec, mark)

    def _mark(self, conn, spec: DomainSpec, mark: Mark) -> None:
        """Our metadata in a domain that we did not make, and nothing else."""
        domain = conn.lookupByUUIDString(spec.server)
        if domain.name() == domainxml.domain_name(spec.server):
            raise Refused(Code.CONFLICT, f"server {spec.server} was made here, not adopted")
        if not domain.isPersistent():
            raise Refused(
                Code.CONFLICT, f"domain {domain.name()} is transient: it would be gone when it is off", hint="virsh define it first")
        spec = replace(spec, adopted=domainxml.printable(domain.name()))
        domain.setMetadata(
            libvirt.VIR_DOMAIN_METADATA_ELEMENT, domainxml.metadata_text(spec, mark), "novactl", domainxml.NAMESPACE, _affected(domain))
        self._specs[spec.server] = (spec, mark)
        self._strange.discard(spec.server)

    def release(self, server: str) -> None:
        with self.link.acting(f"release domain {server}") as conn:
            domain = self.link.found(conn.lookupByUUIDString, server)
            known = self._known_of(domain) if domain is not None else None
            if known is None:
                return
            if not known[0].adopted:
                raise Refused(Code.CONFLICT, f"server {server} was made here, not adopted")
            domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, None, None, domainxml.NAMESPACE, _affected(domain))
            self._specs.pop(server, None)

    def spec(self, server: str) -> Optional[DomainSpec]:
        with self.link.acting(f"look for server {server}") as conn:
            known = self._known(server, lambda: self._domain(conn, server))
        return known[0] if known else None

    def specs(self) -> Tuple[DomainSpec, ...]:
        with self.link.acting("list servers") as conn:
            found = [self._known_of(domain) for domain in conn.listAllDomains(0)]
        return tuple(known[0] for known in found if known)

    def undefine(self, server: str) -> None:
        with self.link.acting(f"undefine server {server}") as conn:
            domain = self._domain(conn, server)
            if domain is not None:
                if domain.isActive():
                    raise Refused(Code.CONFLICT, f"server {server} runs", hint="stop it first")
                self._undefine(domain, keep_files=domain.name() != domainxml.domain_name(server))
        self._specs.pop(server, None)
        self._logs.delete(server)

    @staticmethod
    def _undefine(domain, keep_files: bool) -> None:
        """With all libvirt keeps for it; a driver that keeps less (the test driver) knows fewer flags."""
        flags = libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        try:
            nvram = libvirt.VIR_DOMAIN_UNDEFINE_KEEP_NVRAM if keep_files else libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
            domain.undefineFlags(flags | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA | nvram)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_INVALID_ARG:
                raise
            domain.undefineFlags(flags)

    def start_domain(self, server: str) -> None:
        with self.link.acting(f"start server {server}") as conn:
            domain = conn.lookupByUUIDString(server)
            for left in reversed(range(START_TRIES)):
                try:
                    domain.create()
                    return
                except libvirt.libvirtError as error:
                    if domain.isActive():
                        break
                    if NO_AFFINITY in str(error):
                        raise not_pinned(server, self._facts.platform.virt_type, str(error)) from None
                    if not left or LACKING not in str(error):
                        raise
                self._wait(START_WAIT_S)
            if domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
                domain.resume()

    def shut_down(self, server: str) -> None:
        """In a thread of its own: a QEMU that hangs keeps the question waiting until it is killed."""
        threading.Thread(target=self._ask_down, args=(server,), name="shut-down", daemon=True).start()

    def _ask_down(self, server: str) -> None:
        try:
            with self.link.acting(f"shut down server {server}") as conn:
                domain = self._domain(conn, server)
                if domain is not None and domain.isActive():
                    domain.shutdown()
        except Refused as refused:
            log(refused.failure.message)

    def destroy(self, server: str) -> None:
        with self.link.acting(f"power off server {server}") as conn:
            domain = self._domain(conn, server)
            if domain is None or not domain.isActive():
                return
            try:
                domain.destroy()
            except libvirt.libvirtError:
                if domain.isActive():
                    raise

    def run_id(self, server: str) -> str:
        with self.link.acting(f"look for server {server}") as conn:
            domain = self._domain(conn, server)
            return str(domain.ID()) if domain is not None and domain.isActive() else ""

    def state(self, server: str) -> DomainState:
        with self.link.acting(f"read the state of server {server}") as conn:
            domain = self._domain(conn, server)
            known = self._known(server, lambda: domain)
            if domain is None or known is None:
                return DomainState(server, "", "ABSENT", 0, 0, 0)
            seen = _seen(domain, *domain.state())
        leases = self._networks.addresses(known[0].network) if seen.power == "RUNNING" else {}
        return _state_of(known, seen, leases)

    def states(self) -> Found:
        with self.link.acting("read the state of all servers") as conn:
            flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
            stats = conn.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE, flags)
            found = [(self._known_of(domain), domain, values) for domain, values in stats]
            wild = sorted((domain for known, domain, _ in found if known is None), key=lambda domain: domain.name())
            told = tuple(_wild(domain) for domain in wild[:WILD_AT_MOST])
        ours = [(known, _seen(domain, values.get("state.state", 0), values.get("state.reason", 0)))
                for known, domain, values in found if known]
        networks = {known[0].network for known, seen in ours if seen.power == "RUNNING"}
        leases: Dict[str, Tuple[str, ...]] = {}
        for network in networks:
            leases.update(self._networks.addresses(network))
        states = sorted((_state_of(known, seen, leases) for known, seen in ours), key=lambda state: state.server)
        return Found(tuple(states), told, len(wild))

    # ------------------------------------------------------------ consoles

    def console_log(self, server: str, offset: int, max_bytes: int) -> Tuple[int, int, bytes]:
        return self._logs.read(server, offset, max_bytes)

    def open_console(self, server: str, sink: Sink) -> Console:
        what = f"open the console of server {server}"
        with self.link.acting(what) as conn:
            domain = self._domain(conn, server)
            if domain is None or not domain.isActive():
                raise Refused(Code.CONFLICT, f"server {server} does not run", hint="start it first")
        return StreamConsole.open(self.link, self.link.take(what), server, sink)

    # ------------------------------------------------------------ parts

    def _disk_path(self, server: str) -> str:
        return os.path.join(self._config.pool_dir, domainxml.disk_name(server))

    def _domain(self, conn, server: str):
        """Our domain of that server, or None."""
        domain = self.link.found(conn.lookupByUUIDString, server)
        if domain is None or domain.name() == domainxml.domain_name(server):
            return domain
        return domain if self._known_of(domain) is not None else None

    def _known_of(self, domain) -> Optional[Tuple[DomainSpec, Mark]]:
        """What one of our domains was defined from: one with our name, or one that was adopted. None for others'."""
        server = domain.UUIDString()
        if server in self._strange:
            return None
        known = self._known(server, lambda: domain)
        if known is not None and (known[0].adopted or domain.name() == domainxml.domain_name(server)):
            return known
        self._specs.pop(server, None)
        self._strange.add(server)
        return None

    def _known(self, server: str, domain_of: Callable) -> Optional[Tuple[DomainSpec, Mark]]:
        """What the server was defined from, read from the domain's metadata the first time."""
        known = self._specs.get(server)
        if known is None and server:
            domain = domain_of()
            known = domainxml.parse_metadata(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)) if domain is not None else None
            if known:
                self._specs[server] = known
        return known


def _affected(domain) -> int:
    return libvirt.VIR_DOMAIN_AFFECT_CONFIG | (libvirt.VIR_DOMAIN_AFFECT_LIVE if domain.isActive() else 0)


def _capacity(domain, target: str) -> int:
    """Bytes of a disk as the guest sees it; 0 where libvirt cannot tell."""
    try:
        return domain.blockInfo(target)[0]
    except libvirt.libvirtError:
        return 0


class _Seen(NamedTuple):
    power: str
    reason: str
    run: str


def _seen(domain, state: int, reason: int) -> _Seen:
    run = str(domain.ID()) if domain.ID() >= 0 else ""
    return _Seen(_power(state, reason), _REASONS.get(state, {}).get(reason, ""), run)


def _power(state: int, reason: int) -> str:
    if state == libvirt.VIR_DOMAIN_SHUTOFF and reason in _DIED:
        return "CRASHED"
    return _POWER.get(state, "NOSTATE")


def _state_of(known: Tuple[DomainSpec, Mark], seen: _Seen, leases: Mapping[str, Tuple[str, ...]]) -> DomainState:
    spec, mark = known
    addresses = leases.get(spec.mac, ()) if seen.power == "RUNNING" else ()
    return DomainState(
        spec.server, spec.name, seen.power, spec.epoch, spec.vcpus, spec.memory_mb, addresses, mark.operation, seen.reason, seen.run)


def _wild(domain) -> WildDomain:
    """A domain that may go away while it is looked at."""
    try:
        state, memory_kib, _, vcpus, _ = domain.info()
    except libvirt.libvirtError:
        state, memory_kib, vcpus = libvirt.VIR_DOMAIN_NOSTATE, 0, 0
    return WildDomain(printable(domain.name()), domain.UUIDString(), _power(state, 0), vcpus, memory_kib >> 10)


_EVENTS = threading.Lock()
_EVENTS_RUN: List[threading.Thread] = []


def _run_events() -> None:
    """libvirt's default event loop, once in this process."""

    def run() -> None:
        while True:
            if libvirt.virEventRunDefaultImpl() < 0:
                log("libvirt's event loop failed once")

    with _EVENTS:
        if not _EVENTS_RUN:
            libvirt.registerErrorHandler(lambda *_: None, None)
            libvirt.virEventRegisterDefaultImpl()
            thread = threading.Thread(target=run, name="libvirt-events", daemon=True)
            _EVENTS_RUN.append(thread)
            thread.start()
