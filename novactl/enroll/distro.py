"""What a node needs beside the agent, and which package of which distribution has it.

A need is checked by what it gives (a program, a Python module), not by a package's name: so a machine set up by hand
needs no package at all. Adding a distribution is adding a column.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

APT, DNF, ZYPPER = "apt", "dnf", "zypper"


@dataclass(frozen=True)
class Need:
    """`programs`: any one of them on the PATH; `module`: a module of /usr/bin/python3; `packages`: family -> package."""

    name: str
    packages: Mapping[str, str]
    programs: tuple[str, ...] = ()
    module: str = ""


NEEDS: tuple[Need, ...] = (
    Need("qemu", {APT: "qemu-system-{arch}", DNF: "qemu-kvm", ZYPPER: "qemu-{arch}"}, ("qemu-system-{machine}", "qemu-kvm")),
    Need("qemu-img", {APT: "qemu-utils", DNF: "qemu-img", ZYPPER: "qemu-tools"}, ("qemu-img",)),
    Need("libvirt", {APT: "libvirt-daemon-system", DNF: "libvirt-daemon-kvm", ZYPPER: "libvirt-daemon-qemu"}, ("libvirtd", "virtqemud")),
    Need("virtlogd", {APT: "libvirt-daemon-system", DNF: "libvirt-daemon-kvm", ZYPPER: "libvirt-daemon-qemu"}, ("virtlogd",)),
    Need("virsh", {APT: "libvirt-clients", DNF: "libvirt-client", ZYPPER: "libvirt-client"}, ("virsh",)),
    Need("dnsmasq", {APT: "dnsmasq-base", DNF: "dnsmasq", ZYPPER: "dnsmasq"}, ("dnsmasq",)),
    Need("iptables", {APT: "iptables", DNF: "iptables-nft", ZYPPER: "iptables"}, ("iptables", "nft")),
    Need("python3", {APT: "python3", DNF: "python3", ZYPPER: "python3"}, ("python3",)),
    Need("python3 libvirt", {APT: "python3-libvirt", DNF: "python3-libvirt", ZYPPER: "python3-libvirt-python"}, module="libvirt"),
    Need("python3 zmq", {APT: "python3-zmq", DNF: "python3-zmq", ZYPPER: "python3-pyzmq"}, module="zmq"),
)

PROGRAMS = tuple(sorted({p for need in NEEDS for p in need.programs} | {
    "apt-get", "dnf", "zypper", "systemctl", "ufw", "firewall-cmd", "nft", "setsid", "useradd", "timeout"}))
MACHINES = {
    "x86_64": {APT: "x86", DNF: "x86_64", ZYPPER: "x86"},
    "aarch64": {APT: "arm", DNF: "aarch64", ZYPPER: "arm"},
}
"""Architectures a node may have, and what the families call them in QEMU's package name."""


@dataclass(frozen=True)
class Family:
    """A package manager: the program that tells it is here, and the commands, run in turn, that install packages.

    The commands ask nothing and wait for whoever holds the lock.
    """

    name: str
    program: str
    ids: tuple[str, ...]
    environment: tuple[str, ...]
    refresh: tuple[str, ...]
    install: tuple[str, ...]
    note: str = ""


FAMILIES: tuple[Family, ...] = (
    Family(
        APT, "apt-get", ("debian", "ubuntu"), ("DEBIAN_FRONTEND=noninteractive", "NEEDRESTART_SUSPEND=1"),
        ("apt-get", "-q", "-o", "DPkg::Lock::Timeout=300", "update"),
        ("apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Options::=--force-confold", "install",
         "--no-install-recommends"),
    ),
    Family(
        DNF, "dnf", ("fedora", "rhel", "centos"), (), (), ("dnf", "-q", "-y", "--setopt=install_weak_deps=False", "install"),
        note="on EL python3-zmq is in EPEL: dnf install epel-release",
    ),
    Family(
        ZYPPER, "zypper", ("suse", "opensuse"), ("ZYPP_LOCK_TIMEOUT=300",), (),
        ("zypper", "--non-interactive", "--quiet", "install", "--no-recommends"),
    ),
)
SUPPORTED = "Debian 12, Ubuntu 22.04, EL 9, openSUSE Leap 15.5, or later"


def family_of(os_ids: tuple[str, ...], programs: frozenset[str]) -> Family | None:
    """The family of a machine whose os-release says `os_ids` (ID, then ID_LIKE) and that has these programs."""
    for os_id in os_ids:
        for family in FAMILIES:
            if family.program in programs and any(os_id == known or os_id.startswith(known + "-") for known in family.ids):
                return family
    return None


def missing(machine: str, programs: frozenset[str], modules: Mapping[str, str]) -> tuple[Need, ...]:
    """The needs that a machine does not meet."""
    def met(need: Need) -> bool:
        if need.module:
            return need.module in modules
        return any(program.format(machine=machine) in programs for program in need.programs)

    return tuple(need for need in NEEDS if not met(need))


def packages(needs: tuple[Need, ...], family: Family, machine: str) -> tuple[str, ...]:
    """The packages of `family` that meet `needs`, each once, in order."""
    arch = MACHINES.get(machine, {}).get(family.name, machine)
    return tuple(dict.fromkeys(need.packages[family.name].format(arch=arch) for need in needs))
