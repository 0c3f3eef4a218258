"""A full second implementation without libvirt: for tests, trials and fleets of a thousand nodes in one process.

Domains live in `state_dir`/fake.json and so survive the agent; disks are small files in the pool. Configuration
`fake` may give: vcpus, memory_mb, disk_gb, architecture (what the node has), cpu_features, virt_types, machines; cells
and pci (lists of what wire.NumaCell and wire.PciDevice hold); wild (what wire.WildDomain holds: others' domains);
start_delay_s; ignore_acpi (guests that do not go down by themselves); fail ({"start_domain": "message"}: that verb is
refused with it).
"""

import json
import os
import threading
from dataclasses import replace
from typing import Any, Callable, Dict, List, Mapping, MutableMapping, Optional, Tuple

from nodeagent import domainxml, wire
from nodeagent.config import Config
from nodeagent.domains import WILD_AT_MOST, server_name
from nodeagent.drivers.base import Console, Found, Host, Mark, Sink, window
from nodeagent.images import base_name
from nodeagent.refusal import Refused
from nodeagent.wire import Code, DiskSpec, DomainSpec, DomainState, ImageOffer, NumaCell, PciDevice, WildDomain

_LOG_BYTES = 64 << 10


class _Guest:
    """One domain. `runs` counts its starts; `log` is what its console said in this run; `reason` is why it is off."""

    def __init__(self, spec: DomainSpec, mark: Mark, power: str = "SHUTDOWN", runs: int = 0, log: str = "", reason: str = "") -> None:
        self.spec, self.mark, self.power, self.runs, self.log = spec, mark, power, runs, bytearray(log.encode())
        self.reason = reason
        self.consoles: List["FakeConsole"] = []

    def plain(self) -> Dict[str, Any]:
        return {
            "spec": wire.to_plain(self.spec),
            "operation": self.mark.operation,
            "request": self.mark.request,
            "power": self.power,
            "reason": self.reason,
            "runs": self.runs,
            "log": self.log.decode(errors="replace"),
        }


class FakeDriver:
    """See drivers/base.py."""

    name = "fake"

    def __init__(self, config: Config) -> None:
        self._config, self._fake = config, config.fake
        self._path = os.path.join(config.state_dir, "fake.json")
        self._lock = threading.RLock()
        self._changed: Callable[[], None] = lambda: None
        self._closing = threading.Event()
        self._guests: Dict[str, _Guest] = {}
        self._wild: Dict[str, Dict[str, Any]] = {one["uuid"]: dict(one) for one in config.fake.get("wild", ())}
        self._load()

    def start(self, changed: Callable[[], None]) -> None:
        self._changed = changed

    def close(self) -> None:
        self._closing.set()

    # ------------------------------------------------------------ the node

    def host(self) -> Host:
        fake = self._fake
        running = [guest.spec for guest in self._guests.values() if guest.power == "RUNNING"]
        return Host(
            hostname=self._config.name,
            architecture=fake.get("architecture", "x86_64"),
            cpu_model="fake",
            cpu_features=tuple(fake.get("cpu_features", ("fake",))),
            virt_types=tuple(fake.get("virt_types", ("qemu",))),
            virt_type="qemu",
            vcpus=fake.get("vcpus", 8),
            memory_mb=fake.get("memory_mb", 16384),
            memory_used_mb=sum(spec.memory_mb for spec in running),
            disk_gb=fake.get("disk_gb", 100),
            disk_used_gb=sum(guest.spec.disk_gb for guest in self._guests.values()),
            load_1m=float(len(running)),
            versions={"hypervisor": "fake"},
            cells=tuple(wire.from_plain(NumaCell, cell) for cell in fake.get("cells", ())),
            pci=tuple(wire.from_plain(PciDevice, device) for device in fake.get("pci", ())),
            machines=tuple(fake.get("machines", ("pc", "q35"))),
        )

    def prepare(self, network: str, made: MutableMapping[str, str]) -> None:
        made["pool"] = self._config.pool_name
        self._may("prepare")
        made["network"] = network

    def activate(self, network: str) -> None:
        pass

    def unprepare(self, network: str, made: Mapping[str, str]) -> None:
        self._may("unprepare")

    # ------------------------------------------------------------ images and disks

    def add_image(self, offer: ImageOffer) -> None:
        self._may("add_image")

    def image_users(self, sha256: str) -> List[str]:
        users = []
        for name in os.listdir(self._config.pool_dir) if os.path.isdir(self._config.pool_dir) else ():
            server = domainxml.server_of_disk(name)
            if server and self._disk(server).get("image_sha256") == sha256:
                users.append(server)
        return users

    def remove_image(self, sha256: str, disk_format: str) -> None:
        _unlink(os.path.join(self._config.pool_dir, base_name(sha256, disk_format)))

    def create_disk(self, spec: DiskSpec, disk_format: str) -> None:
        self._may("create_disk")
        guest = self._guests.get(spec.server)
        if guest is not None and guest.spec.epoch == spec.epoch and os.path.exists(self._disk_path(spec.server)):
            return
        if guest is not None and guest.spec.epoch != spec.epoch:
            self.undefine(spec.server)
        path = self._disk_path(spec.server)
        with open(path + ".part", "w", encoding="utf-8") as file:
            json.dump(wire.to_plain(spec), file)
        os.rename(path + ".part", path)

    def delete_disk(self, server: str) -> None:
        self._may("delete_disk")
        for path in (self._disk_path(server), self._disk_path(server) + ".part"):
            _unlink(path)

    # ------------------------------------------------------------ domains

    def define(self, spec: DomainSpec, disk_format: str, mark: Mark) -> None:
        self._may("define")
        with self._lock:
            guest = self._guests.get(spec.server)
            if guest:
                guest.spec, guest.mark = replace(spec, adopted=guest.spec.adopted), mark
            else:
                self._guests[spec.server] = _Guest(spec, mark)
            self._save()

    def wild(self, domain: str) -> Optional[DomainSpec]:
        one = self._wild.get(domain)
        if one is None:
            return None
        return DomainSpec(
            domain, 0, server_name(one["name"], domain), one["vcpus"], one["memory_mb"], 1, wire.NO_IMAGE, "52:54:00:00:00:0a",
            adopted=one["name"])

    def adopt(self, spec: DomainSpec, mark: Mark) -> None:
        self._may("adopt")
        with self._lock:
            one = self._wild.pop(spec.server, None)
            if one is not None:
                spec = replace(spec, adopted=one["name"])
                self._guests[spec.server] = _Guest(spec, mark, one["power_state"], int(one["power_state"] == "RUNNING"))
            elif spec.server not in self._guests:
                raise Refused(Code.NOT_FOUND, f"no domain {spec.server}", retryable=False)
            self._save()

    def release(self, server: str) -> None:
        self._may("release")
        with self._lock:
            guest = self._guests.get(server)
            if guest is None:
                return
            spec = guest.spec
            if not spec.adopted:
                raise Refused(Code.CONFLICT, f"server {server} was made here, not adopted")
            del self._guests[server]
            self._wild[server] = {
                "name": spec.adopted, "uuid": server, "power_state": guest.power, "vcpus": spec.vcpus, "memory_mb": spec.memory_mb}
            self._save()

    def spec(self, server: str) -> Optional[DomainSpec]:
        guest = self._guests.get(server)
        return guest.spec if guest else None

    def specs(self) -> Tuple[DomainSpec, ...]:
        with self._lock:
            return tuple(guest.spec for guest in self._guests.values())

    def undefine(self, server: str) -> None:
        self._may("undefine")
        with self._lock:
            guest = self._guests.get(server)
            if guest and guest.power == "RUNNING":
                raise Refused(Code.CONFLICT, f"server {server} runs", hint="stop it first")
            if self._guests.pop(server, None):
                self._save()

    def start_domain(self, server: str) -> None:
        self._may("start_domain")
        guest = self._needed(server)
        if guest.power == "RUNNING":
            return
        if not guest.spec.adopted and not os.path.exists(self._disk_path(server)):
            raise Refused(Code.DRIVER, f"start server {server}: its disk is missing", retryable=False, elsewhere=True)
        delay_s = self._fake.get("start_delay_s", 0)
        if delay_s:
            self._closing.wait(delay_s)
        with self._lock:
            guest.power, guest.runs, guest.reason = "RUNNING", guest.runs + 1, ""
            guest.log[:] = f"fake guest {guest.spec.name} ready\n".encode()
            self._save()
        self._changed()

    def shut_down(self, server: str) -> None:
        if not self._fake.get("ignore_acpi"):
            self._off(server, "SHUTDOWN", "shutdown")

    def destroy(self, server: str) -> None:
        self._may("destroy")
        self._off(server, "SHUTDOWN", "destroyed")

    def crash(self, server: str) -> None:
        """For tests: the guest dies as a killed QEMU does."""
        self._off(server, "CRASHED", "crashed")

    def lose_power(self) -> None:
        """For tests: the host goes off and comes back; nothing runs, and nobody knows why."""
        for server in list(self._guests):
            self._off(server, "SHUTDOWN", "")
        for guest in self._guests.values():
            guest.power, guest.reason = "SHUTDOWN", ""
        self._save()

    def run_id(self, server: str) -> str:
        guest = self._guests.get(server)
        return str(guest.runs) if guest and guest.power == "RUNNING" else ""

    def state(self, server: str) -> DomainState:
        guest = self._guests.get(server)
        if guest is None:
            return DomainState(server, "", "ABSENT", 0, 0, 0)
        return _state_of(guest)

    def states(self) -> Found:
        with self._lock:
            wild = sorted(self._wild.values(), key=lambda one: one["name"])
            states = tuple(_state_of(guest) for _, guest in sorted(self._guests.items()))
        return Found(states, tuple(wire.from_plain(WildDomain, one) for one in wild[:WILD_AT_MOST]), len(wild))

    # ------------------------------------------------------------ consoles

    def console_log(self, server: str, offset: int, max_bytes: int) -> Tuple[int, int, bytes]:
        log = bytes(self._needed(server).log)
        start, count = window(len(log), offset, max_bytes)
        return start, len(log), log[start : start + count]

    def open_console(self, server: str, sink: Sink) -> Console:
        guest = self._needed(server)
        if guest.power != "RUNNING":
            raise Refused(Code.CONFLICT, f"server {server} does not run", hint="start it first")
        console = FakeConsole(guest, sink)
        guest.consoles.append(console)
        return console

    # ------------------------------------------------------------ parts

    def _may(self, verb: str) -> None:
        message = self._fake.get("fail", {}).get(verb)
        if message:
            raise Refused(Code.DRIVER, f"{verb}: {message}", retryable=False, elsewhere=True)

    def _needed(self, server: str) -> _Guest:
        guest = self._guests.get(server)
        if guest is None:
            raise Refused(Code.DRIVER, f"no domain of server {server}", retryable=False, elsewhere=True)
        return guest

    def _off(self, server: str, power: str, reason: str) -> None:
        with self._lock:
            guest = self._guests.get(server)
            if guest is None or guest.power != "RUNNING":
                return
            guest.power, guest.reason = power, reason
            consoles, guest.consoles = guest.consoles, []
            self._save()
        for console in consoles:
            console.end("the guest was powered off")
        self._changed()

    def _disk_path(self, server: str) -> str:
        return os.path.join(self._config.pool_dir, domainxml.disk_name(server))

    def _disk(self, server: str) -> Mapping[str, Any]:
        try:
            with open(self._disk_path(server), encoding="utf-8") as file:
                return json.load(file)
        except FileNotFoundError:
            return {}

    def _load(self) -> None:
        try:
            with open(self._path, encoding="utf-8") as file:
                plain = json.load(file)
        except FileNotFoundError:
            return
        self._wild = plain.pop("wild", self._wild)
        for server, one in plain.items():
            mark = Mark(one["operation"], one["request"])
            spec = wire.from_plain(DomainSpec, one["spec"])
            self._guests[server] = _Guest(spec, mark, one["power"], one["runs"], one["log"], one["reason"])

    def _save(self) -> None:
        with self._lock, open(self._path + ".part", "w", encoding="utf-8") as file:
            json.dump({**{server: guest.plain() for server, guest in self._guests.items()}, "wild": self._wild}, file)
            file.flush()
            os.rename(self._path + ".part", self._path)


class FakeConsole:
    """Echoes what is typed, as far as the sink has room; the rest waits."""

    def __init__(self, guest: _Guest, sink: Sink) -> None:
        self._guest, self._sink = guest, sink
        self._lock = threading.RLock()
        self._waiting = bytearray()
        self._open = True

    def write(self, data: bytes) -> None:
        with self._lock:
            if len(self._waiting) + len(data) > _LOG_BYTES * 16:
                raise Refused(Code.BUSY, "the guest does not take its input")
            self._guest.log += data
            del self._guest.log[: max(0, len(self._guest.log) - _LOG_BYTES)]
            self._waiting += data
            self.resume()

    def resume(self) -> None:
        with self._lock:
            while self._open and self._waiting:
                count = min(self._sink.room(), len(self._waiting), 32 << 10)
                if count <= 0:
                    return
                data = bytes(self._waiting[:count])
                del self._waiting[:count]
                self._sink.data(data)

    def close(self) -> None:
        with self._lock:
            self._open = False

    def end(self, reason: str) -> None:
        """The guest went off."""
        with self._lock:
            if not self._open:
                return
            self._open = False
        self._sink.closed(reason)


def _state_of(guest: _Guest) -> DomainState:
    spec, operation = guest.spec, guest.mark.operation
    addresses = (f"192.168.122.{2 + int(spec.mac[-2:], 16) % 253}",) if guest.power == "RUNNING" else ()
    return DomainState(
        spec.server, spec.name, guest.power, spec.epoch, spec.vcpus, spec.memory_mb, addresses, operation, guest.reason,
        str(guest.runs) if guest.power == "RUNNING" else "")


def _unlink(path: str) -> None:
    if os.path.lexists(path):
        os.unlink(path)
