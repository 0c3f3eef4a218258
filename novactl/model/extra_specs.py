"""What a flavor's extra specs and an image's properties may be: one table each, and the check of a key and its value.

Nova ignores a key that nothing reads, and two of its filters read a key without a scope in opposite ways. Here a key is
known or refused, so that a typing error does not become a wish that nobody hears.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from novactl.errors import UsageError
from novactl.model.aggregate import REQUIRED, TRAIT
from novactl.model.resources import MAX_INT
from novactl.model.topology import cpu_list
from novactl.model.topology_specs import (
    MAX_GUEST_CELLS,
    PCI_ALIAS,
    POLICIES,
    THREADS,
    guest_topology,
    is_topology_spec,
    page_kib,
    pci_request,
)
from novactl.model.traits import STANDARD_TRAITS
from novactl.model.units import whole
from novactl.model.versions import comparisons
from novactl.model.wants import AGGREGATE_SCOPE, CAPABILITY_SCOPE

MAX_ENTRIES, MAX_CHARS = 128, 255
CUSTOM = "CUSTOM_"
RESOURCES, FORBIDDEN = "resources:", "forbidden"
_WORD = re.compile(r"[A-Z][A-Z0-9_]{0,254}\Z")


class BadSpec(UsageError):
    code = "spec"


class Entry(NamedTuple):
    """A key as help shows it, what it takes, what it does, how it is recognised, and the check of a value: "" or what is accepted.

    `operated`: the value is in the operator grammar, which the scheduler knows.
    """

    key: str
    takes: str
    help: str
    pattern: re.Pattern[str]
    accepts: Callable[[str], str]
    operated: bool = False


def is_custom(text: str) -> bool:
    """The name of a trait or a resource class that an administrator made up."""
    return text.startswith(CUSTOM) and len(text) > len(CUSTOM) and bool(_WORD.match(text))


def _one_of(*words: str) -> Callable[[str], str]:
    accepted = ", ".join(words[:-1]) + f" or {words[-1]}"
    return lambda value: "" if value in words else accepted


def _matching(pattern: str, accepted: str) -> Callable[[str], str]:
    compiled = re.compile(pattern + r"\Z", re.ASCII)
    return lambda value: "" if compiled.match(value) else accepted


def _whole(low: int, high: int) -> Callable[[str], str]:
    def accepts(value: str) -> str:
        found = whole(value, high)
        return "" if found is not None and low <= found else f"a whole number from {low} to {high}"

    return accepts


def _anything(value: str) -> str:
    return ""


def _cpus(value: str) -> str:
    try:
        return "" if cpu_list(value) else "at least one CPU"
    except UsageError:
        return "CPU numbers such as 0-3,6"


def _pages(value: str) -> str:
    try:
        page_kib(value)
    except UsageError:
        return "small, large, any or a page size such as 2M, 1G or 2048 (KiB)"
    return ""


def _versions(value: str) -> str:
    return "" if comparisons(value) else "comparisons such as >=7.2 or >=7,<9 (operators < <= == != >= >)"


_POLICIES, _THREADS = _one_of(*POLICIES), _one_of(*THREADS)
_CELLS, _CELL_MB = _whole(1, MAX_GUEST_CELLS), _whole(1, MAX_INT)
_NAME = _matching(r"[A-Za-z0-9][A-Za-z0-9_.+ -]*", "letters, digits, '_', '.', '+' and '-'")


def _key(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern + r"\Z", re.ASCII)


_TRAIT_ENTRY = Entry(
    "trait:TRAIT", "required or forbidden", "nodes with, or without, a trait (novactl trait list)", _key(r"trait:.+"),
    _one_of(REQUIRED, FORBIDDEN))

FLAVOR_SPECS: tuple[Entry, ...] = (
    Entry("resources:CUSTOM_X", "N", "N units of a custom resource class", _key(r"resources:.+"), _whole(1, MAX_INT)),
    _TRAIT_ENTRY,
    Entry("capabilities:NAME", "[OP] VALUE", "what a node reports of itself", _key(r"capabilities:[^:]+(:[^:]+)*"), _anything, True),
    Entry("aggregate_instance_extra_specs:KEY", "[OP] VALUE", "what the metadata of a node's aggregates says",
          _key(r"aggregate_instance_extra_specs:.+"), _anything, True),
    Entry("hw:cpu_policy", "shared or dedicated", "dedicated: each vCPU has a host CPU of its own", _key("hw:cpu_policy"), _anything),
    Entry("hw:cpu_thread_policy", "prefer, isolate or require", "how dedicated CPUs use the threads of one core",
          _key("hw:cpu_thread_policy"), _anything),
    Entry("hw:mem_page_size", "small, large, any or a size", "the pages that the guest's memory is made of", _key("hw:mem_page_size"),
          _anything),
    Entry("hw:numa_nodes", "N", "NUMA cells of the guest", _key("hw:numa_nodes"), _anything),
    Entry("hw:numa_cpus.N", "CPUS", "vCPUs of the guest's cell N", _key(r"hw:numa_cpus\.\d{1,2}"), _anything),
    Entry("hw:numa_mem.N", "MiB", "memory of the guest's cell N", _key(r"hw:numa_mem\.\d{1,2}"), _anything),
    Entry(PCI_ALIAS, "ALIAS:COUNT[,...]", "PCI devices handed to the guest", _key(PCI_ALIAS), _anything),
)

IMAGE_PROPERTIES: tuple[Entry, ...] = (
    Entry("hw_architecture", "ARCH", "the processor it runs on; the image's own says so already", _key("hw_architecture"), _NAME),
    Entry("img_hv_type", "kvm or qemu", "the kind of hypervisor", _key("img_hv_type"), _one_of("kvm", "qemu")),
    Entry("hw_vm_mode", "hvm", "the kind of machine", _key("hw_vm_mode"), _matching("hvm", "hvm")),
    Entry("img_hv_requested_version", "OP VERSION[,...]", "the hypervisor's version, such as >=7.2", _key("img_hv_requested_version"),
          _versions),
    Entry("hw_machine_type", "MACHINE", "the machine QEMU shows: q35, pc, virt ...", _key("hw_machine_type"), _NAME),
    _TRAIT_ENTRY,
    Entry("hw_cpu_policy", "shared or dedicated", "as the flavor's hw:cpu_policy", _key("hw_cpu_policy"), _POLICIES),
    Entry("hw_cpu_thread_policy", "prefer, isolate or require", "as the flavor's", _key("hw_cpu_thread_policy"), _THREADS),
    Entry("hw_mem_page_size", "small, large, any or a size", "as the flavor's", _key("hw_mem_page_size"), _pages),
    Entry("hw_numa_nodes", "N", "as the flavor's", _key("hw_numa_nodes"), _CELLS),
    Entry("hw_numa_cpus.N", "CPUS", "as the flavor's", _key(r"hw_numa_cpus\.\d{1,2}"), _cpus),
    Entry("hw_numa_mem.N", "MiB", "as the flavor's", _key(r"hw_numa_mem\.\d{1,2}"), _CELL_MB),
    Entry("os_type", "WORD", "linux, windows ...: for aggregates that take some images only", _key("os_type"), _NAME),
    Entry("os_distro", "WORD", "debian, windows ...: likewise", _key("os_distro"), _NAME),
    Entry("os_version", "WORD", "12, 2022 ...: likewise", _key("os_version"), _NAME),
    Entry("custom_WORD", "TEXT", "your own, for aggregates that take some images only", _key(r"custom_[a-z0-9_]+"), _anything),
)


def check_flavor_specs(specs: Mapping[str, str], vcpus: int, memory_mb: int, *, operators: Callable[[str, str], object]) -> None:
    """Every key is known and has a value it takes, and those about the host's topology agree with a flavor of this size.

    `operators` is given a key and its value, and raises UsageError where the value is not in the operator grammar, or the key
    names what no node has. Raises UsageError.
    """
    _check(specs, FLAVOR_SPECS, "extra spec", operators, _flavor_way_out)
    guest_topology(specs, vcpus, memory_mb)
    pci_request(specs)


def topology_specs(specs: Mapping[str, str], properties: Mapping[str, str]) -> dict[str, str]:
    """What a flavor's specs and an image's properties ask together of the host's topology, in the words of specs.

    Raises BadSpec where they contradict each other. (Nova lets the flavor win in some cases and refuses others.)
    """
    found = {key: value for key, value in specs.items() if is_topology_spec(key)}
    for key, value in properties.items():
        spec = key.replace("hw_", "hw:", 1)
        if not is_topology_spec(spec):
            continue
        if found.setdefault(spec, value) != value:
            raise BadSpec(
                f"the image asks {key}={value}, the flavor {spec}={found[spec]}", hint="choose another flavor, or set one of them alike")
    return found


def check_image_properties(properties: Mapping[str, str]) -> None:
    """Every property is known, or begins with custom_, and has a value it takes. Raises BadSpec."""
    _check(properties, IMAGE_PROPERTIES, "image property", lambda key, value: None, _image_way_out)


def traits_of(entries: Mapping[str, str], how: str) -> frozenset[str]:
    """The traits that are `how` (REQUIRED or FORBIDDEN) by the `trait:` entries of a flavor or an image."""
    return frozenset(key[len(TRAIT):] for key, value in entries.items() if key.startswith(TRAIT) and value == how)


def _check(
    entries: Mapping[str, str], known: Iterable[Entry], what: str, operators: Callable[[str, str], object],
    way_out: Callable[[str], str],
) -> None:
    if len(entries) > MAX_ENTRIES:
        raise BadSpec(f"{len(entries)} {what} entries are too many: at most {MAX_ENTRIES}", hint="take away what is not needed")
    for key, value in entries.items():
        if len(key) > MAX_CHARS or len(value) > MAX_CHARS or not value.strip() or not (key + value).isprintable():
            raise BadSpec(f"{what} {key[:MAX_CHARS]!r}: key and value are printable text of 1 to {MAX_CHARS} characters")
        entry = next((entry for entry in known if entry.pattern.match(key)), None)
        if entry is None:
            raise BadSpec(f"there is no {what} {key!r}", hint=way_out(key), command="novactl help placement")
        _check_name(key, what)
        accepted = entry.accepts(value)
        if accepted:
            raise BadSpec(f"{what} {key} takes {accepted}, not {value!r}")
        if entry.operated:
            operators(key, value)


def _check_name(key: str, what: str) -> None:
    """The class or the trait that a key names."""
    if key.startswith(RESOURCES):
        named = key[len(RESOURCES):]
        if named in ("VCPU", "MEMORY_MB", "DISK_GB"):
            raise BadSpec(f"{key}: how much {named} a server claims is the flavor's own --vcpus, --ram and --disk", hint="use those")
        if named == "PCPU":
            raise BadSpec(f"{key}: CPUs of its own are asked for by policy", hint="hw:cpu_policy=dedicated")
        if not is_custom(named):
            raise BadSpec(f"{what} {key}: there is no resource class {named!r}", hint="a custom class: CUSTOM_ and A-Z, 0-9, _",
                          command="novactl resource-class list")
    if key.startswith(TRAIT):
        check_trait(key[len(TRAIT):])


def check_trait(name: str) -> None:
    """Raises BadSpec for what neither a node can report nor is an administrator's own."""
    if name not in STANDARD_TRAITS and not is_custom(name):
        import difflib

        known = sorted(STANDARD_TRAITS)
        close = [trait for trait in known if trait.endswith(f"_{name.upper()}")] or difflib.get_close_matches(name.upper(), known, 3)
        raise BadSpec(
            f"there is no trait {name!r}: no node can report it, and one of your own begins with {CUSTOM}",
            hint=f"did you mean {', '.join(close)}?" if close else "A-Z, 0-9 and _", command="novactl trait list")


def _names(known: Iterable[Entry]) -> str:
    return ", ".join(entry.key for entry in known)


def _similar(key: str, known: Iterable[Entry]) -> str:
    import difflib

    close = difflib.get_close_matches(key, [entry.key for entry in known], 1)
    return f"did you mean {close[0]}? " if close else ""


def _flavor_way_out(key: str) -> str:
    if key == "group_policy" or re.match(r"(resources|trait)_?\w+:", key):
        return "there are no numbered groups of resources here: one node gives everything"
    if ":" not in key and not _similar(key.replace("_", ":", 1), FLAVOR_SPECS):
        return (f"a key needs a scope: {CAPABILITY_SCOPE}{key} asks what a node reports, {AGGREGATE_SCOPE}{key} what the metadata of its"
                " aggregates says")
    return _similar(key.replace("hw_", "hw:", 1), FLAVOR_SPECS) + f"known: {_names(FLAVOR_SPECS)}"


def _image_way_out(key: str) -> str:
    return (_similar(key.replace("hw:", "hw_", 1), IMAGE_PROPERTIES)
            + f"known: {_names(IMAGE_PROPERTIES)}; a property of your own begins with custom_")
