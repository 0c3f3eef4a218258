"""What a host says of itself, read from texts. Pure."""

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Mapping, Sequence, Tuple


def parse_meminfo(text: str) -> Tuple[int, int]:
    """/proc/meminfo -> (MemTotal, MemAvailable) in MiB. Raises ValueError where they are missing."""
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if name in ("MemTotal", "MemAvailable", "MemFree"):
            found[name] = int(rest.split()[0]) >> 10
    if "MemTotal" not in found:
        raise ValueError("no MemTotal in meminfo")
    return found["MemTotal"], found.get("MemAvailable", found.get("MemFree", 0))


@dataclass(frozen=True)
class CpuInfo:
    count: int
    model: str
    flags: Tuple[str, ...]


def parse_cpuinfo(text: str) -> CpuInfo:
    """/proc/cpuinfo -> CPUs that are online, the model's name, the flags of the first (x86 'flags', ARM 'Features')."""
    count, model, flags = 0, "", ()
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        name, rest = name.strip(), rest.strip()
        if name == "processor":
            count += 1
        elif name == "model name" and not model:
            model = rest
        elif name in ("flags", "Features") and not flags:
            flags = tuple(sorted(rest.split()))
    return CpuInfo(max(1, count), model, flags)


@dataclass(frozen=True)
class Capabilities:
    """`guests`: for each domain type of the host's own architecture, its machine types."""

    architecture: str
    cpu_model: str
    guests: Mapping[str, Tuple[str, ...]]


def parse_capabilities(xml: str) -> Capabilities:
    """libvirt's capabilities XML."""
    root = ET.fromstring(xml)
    architecture = root.findtext("host/cpu/arch") or ""
    guests = {}
    for guest in root.findall("guest"):
        arch = guest.find("arch")
        if arch is None or guest.findtext("os_type") != "hvm" or arch.get("name") != architecture:
            continue
        common = [machine.text or "" for machine in arch.findall("machine")]
        for domain in arch.findall("domain"):
            own = [machine.text or "" for machine in domain.findall("machine")]
            guests[domain.get("type", "")] = tuple(own or common)
    return Capabilities(architecture, root.findtext("host/cpu/model") or "", guests)


def choose_virt_type(wanted: str, flags: Sequence[str], kvm_opens: bool, offered: Sequence[str]) -> str:
    """'kvm' or 'qemu'. `wanted` 'auto': KVM when the processor shows vmx or svm, /dev/kvm opens for this user (the
    service is in group kvm) and libvirt offers it; a device without the flags runs paravirtual guests at best."""
    if wanted != "auto":
        return wanted
    by_flags = "vmx" in flags or "svm" in flags
    return "kvm" if by_flags and kvm_opens and "kvm" in offered else "qemu"


def choose_machine(machines: Sequence[str]) -> str:
    """The chipset: q35 where it is offered, else pc, virt (ARM), else whatever comes first."""
    for wanted in ("q35", "pc", "virt"):
        if wanted in machines:
            return wanted
    return machines[0] if machines else ""


def choose_cpu_mode(virt_type: str, domain_capabilities: str) -> str:
    """A CPU mode that libvirt's domain capabilities call supported, the best first; '' where it names none."""
    root = ET.fromstring(domain_capabilities)
    offered = {mode.get("name") for mode in root.findall("cpu/mode") if mode.get("supported") == "yes"}
    order = ("host-model", "host-passthrough", "maximum") if virt_type == "kvm" else ("maximum",)
    return next((mode for mode in order if mode in offered), "")


def version_text(number: int) -> str:
    """libvirt's 9000000 -> '9.0.0'."""
    return f"{number // 1000000}.{number // 1000 % 1000}.{number % 1000}"
