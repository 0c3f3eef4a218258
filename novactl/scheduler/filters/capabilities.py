"""What a node says of itself, by name: one table, for extra specs (`capabilities:NAME`) and for the `$NAME` of JSON queries.

Nova's names (HostState's attributes) stand beside plainer ones. Memory and disk are physical as in Nova: no ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from novactl.errors import UsageError
from novactl.model.facts import Facts
from novactl.model.node import METRICS
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU
from novactl.model.wants import CAPABILITY_SCOPE
from novactl.scheduler import specs
from novactl.scheduler.filters.kinds import OfFacts
from novactl.scheduler.physical import free, total
from novactl.scheduler.request import NodeView, Reject, Request

NUMBER, TEXT, TEXTS = "number", "text", "texts"
LABELS = "labels"


class Capability(NamedTuple):
    """`kind` is NUMBER, TEXT or TEXTS; `read` gives None where the node does not say."""

    kind: str
    help: str
    read: Callable[[NodeView], specs.Value]


class Standing(NamedTuple):
    """A capability that is the same for all nodes of a kind."""

    kind: str
    help: str
    of: Callable[[Facts], specs.Value]

    def read(self, node: NodeView) -> specs.Value:
        return self.of(node.facts)


def _total(name: str) -> Callable[[NodeView], specs.Value]:
    return lambda node: total(node, name)


def _free(name: str, units: int = 1) -> Callable[[NodeView], specs.Value]:
    return lambda node: free(node, name) * units


def _used(name: str, units: int = 1) -> Callable[[NodeView], specs.Value]:
    return lambda node: node.used.get(name, 0) * units


_ARCHITECTURE = Standing(TEXT, "x86_64, aarch64 ...", lambda facts: facts.architecture or None)
_VERSION = Standing(NUMBER, "1000000*major + 1000*minor + release: 7.2.0 is 7002000", lambda facts: facts.hypervisor_version or None)
_NAME = Capability(TEXT, "the node's name", lambda node: node.name)
_FREE_RAM = Capability(NUMBER, "MiB neither reserved nor claimed", _free(MEMORY_MB))
_RAM = Capability(NUMBER, "MiB in all", _total(MEMORY_MB))
_DISK = Capability(NUMBER, "GiB in all", _total(DISK_GB))
_SERVERS = Capability(NUMBER, "servers on it", lambda node: node.servers)
_BUILDING = Capability(NUMBER, "operations under way on it", lambda node: node.building)

CAPABILITIES: Mapping[str, Capability | Standing] = {
    "architecture": _ARCHITECTURE, "cpu_arch": _ARCHITECTURE,
    "cpu_model": Standing(TEXT, "the host's processor, as libvirt names it", lambda facts: facts.cpu_model or None),
    "virt_type": Standing(TEXT, "what new servers get: kvm or qemu", lambda facts: facts.virt_type or None),
    "virt_types": Standing(TEXTS, "all the host offers", lambda facts: facts.virt_types),
    "hypervisor_type": Standing(TEXT, "QEMU, as Nova says it", lambda facts: "QEMU"),
    "hypervisor_version": _VERSION,
    "machines": Standing(TEXTS, "machine types: q35, pc ...", lambda facts: facts.machines),
    "traits": Standing(TEXTS, "reported and custom traits", lambda facts: tuple(sorted(facts.traits))),
    "zone": Standing(TEXT, "its availability zone", lambda facts: facts.zone or None),
    "aggregates": Standing(TEXTS, "the names of its aggregates", lambda facts: tuple(a.name for a in facts.aggregates)),
    "name": _NAME, "host": _NAME, "hypervisor_hostname": _NAME,
    "vcpus_total": Capability(NUMBER, "host CPUs for shared use", _total(VCPU)),
    "vcpus_used": Capability(NUMBER, "VCPU claimed", _used(VCPU)),
    "total_memory_mb": _RAM, "total_usable_ram_mb": _RAM, "free_memory_mb": _FREE_RAM, "free_ram_mb": _FREE_RAM,
    "total_disk_gb": _DISK, "total_usable_disk_gb": _DISK,
    "free_disk_gb": Capability(NUMBER, "GiB neither reserved, cached nor claimed", _free(DISK_GB)),
    "free_disk_mb": Capability(NUMBER, "the same in MiB", _free(DISK_GB, 1024)),
    "disk_mb_used": Capability(NUMBER, "MiB of disk claimed", _used(DISK_GB, 1024)),
    "servers": _SERVERS, "num_instances": _SERVERS, "building": _BUILDING, "num_io_ops": _BUILDING,
    "failed_builds": Capability(
        NUMBER, "creations that failed there since the last that did not", lambda node: node.failed_builds),
    **{name: Capability(NUMBER, "measured by its last report", lambda node, name=name: node.metrics.get(name)) for name in METRICS},
}


def capability(name: str) -> Capability | Standing | None:
    """The capability of that name, 'labels:KEY' and 'labels.KEY' among them; None where there is none."""
    if name.startswith(LABELS) and name[len(LABELS):len(LABELS) + 1] in (":", ".") and (key := name[len(LABELS) + 1:]):
        return Standing(TEXT, "one of its labels", lambda facts: facts.labels.get(key))
    return CAPABILITIES.get(name)


def known() -> str:
    return ", ".join((*sorted(CAPABILITIES), f"{LABELS}:KEY"))


def check(key: str, text: str) -> None:
    """`key` is 'capabilities:NAME'. Raises UsageError where there is no such capability, or `text` is not in the operator grammar."""
    name = key.removeprefix(CAPABILITY_SCOPE)
    if capability(name) is None:
        raise UsageError(f"extra spec {key!r}: there is no capability {name!r}", hint=f"one of {known()}")
    specs.check(text)


class Capabilities(OfFacts):
    """Each `capabilities:NAME` of the flavor that is about a node's kind holds: hardware, zone, labels (ComputeCapabilitiesFilter).

    Keys without a scope never come here: Nova reads those that happen to be attributes of its own, and ignores the others.
    """

    name = "capabilities"

    def applies(self, request: Request) -> bool:
        return any(not isinstance(found, Capability) for _, found, _ in _asked(request))

    def why(self, request: Request, facts: Facts) -> str:
        return _told((name, None if found is None else found.of(facts), text)
                     for name, found, text in _asked(request) if not isinstance(found, Capability))


class Measures:
    """Each `capabilities:NAME` of the flavor that is about the one node holds: its name, what it has, what is used of it."""

    name = "measures"
    steady = True

    def applies(self, request: Request) -> bool:
        return any(isinstance(found, Capability) for _, found, _ in _asked(request))

    def __call__(self, request: Request, node: NodeView) -> Reject | None:
        why = _told((name, found.read(node), text) for name, found, text in _asked(request) if isinstance(found, Capability))
        return Reject(self.name, why) if why else None


def _asked(request: Request) -> list[tuple[str, Capability | Standing | None, str]]:
    return [(name, capability(name), text) for key, text in request.wants.specs.items()
            if key.startswith(CAPABILITY_SCOPE) and (name := key[len(CAPABILITY_SCOPE):])]


def _told(asked: Iterable[tuple[str, specs.Value, str]]) -> str:
    parts = [f"needs {name} {text}, {_spoken(value)}" for name, value, text in asked if not specs.matches(value, text)]
    return f"capabilities: {'; '.join(parts)}" if parts else ""


def _spoken(value: specs.Value) -> str:
    if isinstance(value, tuple):
        return f"has {', '.join(value)}" if value else "has none"
    return "the node does not say" if value is None else f"is {value}"


capabilities, measures = Capabilities(), Measures()
