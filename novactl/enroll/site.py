"""What the steps work on: a root shell, the goal, and what the machine was before."""

from __future__ import annotations

from dataclasses import dataclass, replace

from novactl.enroll import paths
from novactl.enroll.facts import Facts
from novactl.enroll.goal import Goal, kvm_closed
from novactl.enroll.shell import Shell


@dataclass(frozen=True, kw_only=True)
class Before:
    """What was there before enrolment: what its undo puts back, and `node remove` later. JSON-able; stored with the node.

    Texts are whole files ("" where there was none); `kvm_device`, `pool` and `state_dir` are mode, owner and group.
    """

    systemd: bool = False
    packages: tuple[str, ...] = ()
    """What had to be installed: it stays when the rest goes."""
    kvm_closed: bool = False
    kvm_device: str = ""
    user_groups: tuple[str, ...] = ()
    state_dir: str = ""
    pool: str = ""
    libvirt_running: bool = False
    daemons: tuple[str, ...] = ()
    current: str = ""
    config: str = ""
    admins: str = ""
    public_key: str = ""
    unit: str = ""
    supervisor: str = ""
    running: bool = False
    firewall: str = ""
    firewall_peer: str = ""
    firewall_port: int = 0

    @property
    def run_user(self) -> str:
        return paths.USER if self.systemd else "root"


@dataclass(frozen=True)
class Site:
    """One machine being changed. `admins` is the text to write, `packages` what `family`'s package manager is to install."""

    shell: Shell
    goal: Goal
    before: Before
    admins: str = ""
    family: str = ""
    packages: tuple[str, ...] = ()


def before_of(facts: Facts, goal: Goal) -> Before:
    """The part of the facts that undoing needs."""
    installed = facts.installed
    return Before(
        systemd=facts.systemd, kvm_closed=kvm_closed(facts), kvm_device=facts.kvm_device, user_groups=installed.user_groups,
        state_dir=installed.state_dir, pool=installed.pool, libvirt_running=facts.libvirt_running, daemons=tuple(sorted(facts.daemons)),
        current=installed.current, config=installed.config, admins=installed.admins, public_key=installed.public_key,
        unit=installed.unit, supervisor=installed.supervisor, running=installed.running,
        firewall=facts.firewall, firewall_peer=goal.peer, firewall_port=goal.port,
    )


def origin_of(before: Before) -> Before:
    """The same without anything of novactl's: what the machine is to be after `node remove`. What lies at our own paths is ours,
    left perhaps by an enrolment that the database has forgotten."""
    if before.config:
        before = replace(before, user_groups=(), state_dir="", pool="")
    return replace(before, current="", config="", admins="", public_key="", unit="", supervisor="", running=False)


def earliest(first: Before, second: Before) -> Before:
    """Of two origins the first, with what the second added; a machine that lost the first's traces (`second.config` is
    empty: it was installed anew) starts anew."""
    if not second.config:
        return origin_of(second)
    firewall = first if first.firewall else second
    return replace(
        first, packages=tuple(dict.fromkeys((*first.packages, *second.packages))), firewall=firewall.firewall,
        firewall_peer=firewall.firewall_peer, firewall_port=firewall.firewall_port,
        kvm_closed=first.kvm_closed or second.kvm_closed, kvm_device=(first if first.kvm_closed else second).kvm_device,
    )
