"""Preflight: every finding at once, each with its fix. Pure: adding a check is adding a function and its row in CHECKS."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from novactl.enroll import paths
from novactl.enroll.distro import MACHINES, SUPPORTED, Family, family_of, missing, packages
from novactl.enroll.facts import Facts
from novactl.enroll.goal import Goal, Others, admins_version, kvm_closed, nft_rule, read_config
from novactl.model.finding import Finding

OK, WARN, FAIL = "ok", "warn", "fail"
MIN_PYTHON = (3, 9)
MIN_LIBZMQ = (4, 3, 3)
MAX_SKEW_S = 30.0
MIN_FREE_MB: Mapping[str, int] = {paths.POOL_PARENT: 1024, "/opt": 200, "/etc": 200, "/var/lib": 200}
PACKAGES_FREE_MB = 1024
"""Needed in /usr when packages are to be installed."""


def find(facts: Facts, goal: Goal, now: float, others: Others = Others()) -> tuple[Finding, ...]:
    if facts.hangs:                                           # what is known of the rest may be half of it
        return hanging(facts)
    found = [check(facts, goal) for check in CHECKS]
    return (
        *found, _cluster(facts, goal, others), _admins(facts, goal), *_space(facts, goal), _clock(facts, now),
        *_twins(facts, goal, others))


def hanging(facts: Facts) -> tuple[Finding, ...]:
    return tuple(
        Finding("storage", FAIL, f"{path}: nothing came back from there within seconds: its storage hangs",
                f"on the machine: findmnt -T {path} and dmesg; once it is back, again") for path in facts.hangs)


def _os(facts: Facts, goal: Goal) -> Finding:
    lacking = missing(facts.machine, facts.programs, facts.modules)
    if family_of(facts.os_ids, facts.programs):
        return Finding("system", OK, facts.os_name)
    name = facts.os_name or "a system without /etc/os-release"
    if lacking:
        return Finding("system", FAIL, f"{name} is not supported: it has none of apt-get, dnf and zypper that we know",
                       f"supported: {SUPPORTED}; elsewhere install {', '.join(n.name for n in lacking)} and enrol again")
    return Finding("system", WARN, f"{name} is not one of those we know, but has all that is needed", f"supported: {SUPPORTED}")


def _architecture(facts: Facts, goal: Goal) -> Finding:
    if facts.machine in MACHINES:
        return Finding("architecture", OK, facts.machine)
    return Finding("architecture", FAIL, f"{facts.machine or 'unknown'} is not supported", f"supported: {', '.join(MACHINES)}")


def _python(facts: Facts, goal: Goal) -> Finding:
    text = ".".join(map(str, facts.python))
    if not facts.python:
        verdict = OK if _can_install(facts, goal) else FAIL
        return Finding("python", verdict, f"no {paths.PYTHON}" + (": to be installed" if verdict == OK else ""), "install python3")
    if facts.python < MIN_PYTHON:
        return Finding("python", FAIL, f"{paths.PYTHON} is {text}", f"the agent needs Python {'.'.join(map(str, MIN_PYTHON))} or later")
    return Finding("python", OK, text)


def _packages(facts: Facts, goal: Goal) -> Finding:
    lacking = missing(facts.machine, facts.programs, facts.modules)
    family = family_of(facts.os_ids, facts.programs)
    names = ", ".join(need.name for need in lacking)
    if not lacking:
        libvirt = _libvirt_version(facts.modules.get("libvirt", ""))
        return Finding("packages", OK, f"all present (libvirt {libvirt}, zmq {facts.modules.get('libzmq', '?')})")
    if not goal.packages:
        return Finding("packages", FAIL, f"missing: {names}, and --no-packages was said", _by_hand(facts, family))
    if family is None:
        return Finding("packages", FAIL, f"missing: {names}; no package manager we know", f"supported: {SUPPORTED}")
    return Finding("packages", OK, f"{family.name} will install {len(packages(lacking, family, facts.machine))}: for {names}", family.note)


def _by_hand(facts: Facts, family: Family | None) -> str:
    if family is None:
        return "install them by hand"
    lacking = missing(facts.machine, facts.programs, facts.modules)
    return "install them: " + " ".join((*family.install, *packages(lacking, family, facts.machine)))


def _libvirt_version(number: str) -> str:
    """libvirt's own number, 1000000 × major + 1000 × minor + release."""
    n = int(number) if number.isdecimal() else 0
    return f"{n // 1000000}.{n // 1000 % 1000}.{n % 1000}"


def _can_install(facts: Facts, goal: Goal) -> bool:
    return goal.packages and family_of(facts.os_ids, facts.programs) is not None


def _libzmq(facts: Facts, goal: Goal) -> Finding:
    version = facts.modules.get("libzmq", "")
    if not version:
        return Finding("zeromq", OK, "to be installed")
    if tuple(int(n) for n in version.split(".") if n.isdecimal()) < MIN_LIBZMQ:
        return Finding("zeromq", FAIL, f"libzmq {version} has known holes", f"libzmq {'.'.join(map(str, MIN_LIBZMQ))} or later is needed")
    if facts.modules.get("curve") != "True":
        return Finding("zeromq", FAIL, f"libzmq {version} is built without CURVE", "a libzmq with libsodium is needed")
    return Finding("zeromq", OK, f"libzmq {version} with CURVE")


def _kvm(facts: Facts, goal: Goal) -> Finding:
    if not facts.kvm_device:
        return Finding("kvm", WARN, "there is no /dev/kvm: guests will be emulated, slowly",
                       "switch on virtualisation in the firmware, or allow nested guests")
    if not facts.kvm_flag:
        return Finding("kvm", WARN, "the processor flags show neither vmx nor svm: guests will be emulated, slowly",
                       "switch on virtualisation in the firmware, or allow nested guests")
    return Finding("kvm", OK, facts.kvm_flag)


def _kvm_mode(facts: Facts, goal: Goal) -> Finding:
    if kvm_closed(facts):
        return Finding("/dev/kvm", WARN, f"mode, owner and group are {facts.kvm_device}: QEMU cannot open it, and every start of a guest"
                       " takes a minute", "chgrp kvm /dev/kvm && chmod 660 /dev/kvm, then restart libvirtd (enrolment does it)")
    return Finding("/dev/kvm", OK, facts.kvm_device or "none")


def _libvirt(facts: Facts, goal: Goal) -> Finding:
    if missing(facts.machine, facts.programs, {"libvirt": "", "zmq": ""}):
        return Finding("libvirt", OK, "to be installed")
    flavour = "virtqemud" if facts.daemons & {"virtqemud"} or "virtqemud.socket" in facts.active_units else "libvirtd"
    return Finding("libvirt", OK, f"{flavour} runs" if facts.libvirt_running else f"{flavour} will be started")


def _port(facts: Facts, goal: Goal) -> Finding:
    ours = facts.installed.running and read_config(facts).get("listen", "").endswith(f":{goal.port}")
    if goal.port in facts.listening and not ours:
        return Finding("port", FAIL, f"something else listens on port {goal.port}", "stop it, or choose another with --agent-port")
    return Finding("port", OK, f"{goal.port} is " + ("the agent's" if goal.port in facts.listening else "free"))


def _cluster(facts: Facts, goal: Goal, others: Others) -> Finding:
    config = read_config(facts)
    known_as = others.ids.get(config.get("node_id", ""), "")
    if facts.installed.config and config.get("cluster_id") != goal.cluster_id:
        return Finding(
            "cluster", FAIL, f"the machine is a node of another cluster ({config.get('cluster_id', 'unreadable config.json')})",
            f"remove it there (novactl node remove {config.get('name', 'NAME')}), or if that cluster is gone, delete {paths.CONFIG_DIR}")
    if known_as and config.get("node_id") != goal.node_id:
        return Finding("cluster", FAIL, f"the machine is a node of this cluster already, as {known_as}",
                       f"say --name {known_as}, or first: novactl node remove {known_as}")
    return Finding("cluster", OK, "ours already" if config else "none yet")


def _admins(facts: Facts, goal: Goal) -> Finding:
    """Of another cluster's table nothing is said: that it is one is a finding of its own."""
    there = admins_version(facts) if read_config(facts).get("cluster_id") == goal.cluster_id else 0
    if there > goal.admins_version:
        return Finding("admins' keys", FAIL, f"the node has version {there} of their table, the database {goal.admins_version}",
                       "was the database restored from an old copy, or are two in use? novactl cluster adopt")
    return Finding("admins' keys", OK, f"version {there}" if there == goal.admins_version else f"to be version {goal.admins_version}")


def _guests(facts: Facts, goal: Goal) -> Finding:
    foreign = [name for name in facts.domains if not name.startswith("novactl-")]
    if foreign:
        shown = ", ".join(foreign[:5]) + (", …" if len(foreign) > 5 else "")
        return Finding("guests", WARN, f"{len(foreign)} guests that are not novactl's: {shown}",
                       "they are left alone; the memory and cores they use are not accounted for")
    return Finding("guests", OK, "none of others")


def _firewall(facts: Facts, goal: Goal) -> Finding:
    if not facts.firewall:
        return Finding("firewall", OK, "none active")
    if facts.firewall == "nft":
        return Finding(
            "firewall", WARN, "the nftables chain inet filter input drops what it does not know; the rule added lasts until a reload",
            f"add to /etc/nftables.conf: {' '.join(nft_rule(goal))}")
    return Finding("firewall", OK, f"{facts.firewall} is active: a rule for port {goal.port}")


def _boot(facts: Facts, goal: Goal) -> Finding:
    if facts.systemd:
        return Finding("init", OK, "systemd")
    return Finding("init", WARN, "no systemd: a supervisor script keeps the agent running, started from /etc/rc.local",
                   f"see that the machine runs /etc/rc.local at boot, and libvirtd; else start {paths.SUPERVISOR} yourself")


CHECKS: tuple[Callable[[Facts, Goal], Finding], ...] = (
    _os, _architecture, _python, _packages, _libzmq, _kvm, _kvm_mode, _libvirt, _port, _guests, _firewall, _boot,
)


def _space(facts: Facts, goal: Goal) -> list[Finding]:
    wanted = dict(MIN_FREE_MB)
    if missing(facts.machine, facts.programs, facts.modules) and goal.packages:
        wanted["/usr"] = PACKAGES_FREE_MB
    short = [
        f"{path} has {facts.free_kib[path] // 1024} MiB free, {needed} MiB are needed"
        for path, needed in wanted.items() if path in facts.free_kib and facts.free_kib[path] < needed * 1024
    ]
    if short:
        return [Finding("space", FAIL, text, "make room there, or mount a larger file system") for text in short]
    return [Finding("space", OK, f"{facts.free_kib.get(paths.POOL_PARENT, 0) // 1048576} GiB free for disks")]


def _clock(facts: Facts, now: float) -> Finding:
    skew = facts.clock_s - now
    if abs(skew) > MAX_SKEW_S:
        return Finding("clock", WARN, f"{abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'} of this machine's",
                       "let both follow a time server (chrony); nothing is decided by it, but logs will not agree")
    return Finding("clock", OK, f"within {MAX_SKEW_S:.0f} s")


def _twins(facts: Facts, goal: Goal, others: Others) -> list[Finding]:
    found = []
    for what, value, known, fix in (
        ("machine id", facts.machine_id, others.machine_ids, "a clone? rm /etc/machine-id && systemd-machine-id-setup"),
        ("host name", facts.hostname, others.hostnames, "give it a name of its own"),
    ):
        other = known.get(value, "")
        if value and other and other != goal.name:
            found.append(Finding(what, WARN, f"{value} is also that of node {other}", fix))
        else:
            found.append(Finding(what, OK, value or "none"))
    return found
