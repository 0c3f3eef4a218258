"""What a machine is, before anything is changed: one read-only script, and pure parsers of what it printed.

Adding a fact is adding a row to SECTIONS and a field to Facts. On storage that hangs a program does not come back and may not even be
killed: each section runs in the background, and what reads its output gives up after a while and says where.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from novactl.enroll import paths
from novactl.enroll.distro import MACHINES, PROGRAMS
from novactl.enroll.shell import Shell

_MARK = "@@novactl-section@@ "
_HANGS = "@@novactl-hangs@@ "
SECTION_S, PATH_S, AT_MOST = 5, 3, 3
"""Seconds for a section, and for each path whose free space is asked for; after so many sections that hang no other is tried."""
LONGER_S: Mapping[str, int] = {"python": 10, "units": 10, "firewall": 10, "domains": 15}
DAEMONS = ("libvirtd", "virtqemud", "virtlogd")
UNITS = ("libvirtd.service", "libvirtd.socket", "virtqemud.service", "virtqemud.socket", "virtlogd.socket", paths.UNIT)
SPACE = (paths.POOL_PARENT, "/opt", "/etc", "/var/lib", "/usr")
_PROGRAMS = " ".join(sorted({p.format(machine=machine) for p in PROGRAMS for machine in MACHINES}))

SECTIONS: Mapping[str, str] = {
    "uname": "uname -m; uname -n",
    "os": "cat /etc/os-release || cat /usr/lib/os-release",
    "machine_id": "cat /etc/machine-id",
    "clock": "date +%s",
    "programs": f'for p in {_PROGRAMS}; do command -v "$p" >/dev/null && echo "$p"; done; [ -x /usr/libexec/qemu-kvm ] && echo qemu-kvm',
    "python": f"""{paths.PYTHON} -c 'import sys; print("python", "%d.%d.%d" % sys.version_info[:3])
try:
    import libvirt; print("libvirt", libvirt.getVersion())
except ImportError: pass
try:
    import zmq; print("zmq", zmq.__version__); print("libzmq", zmq.zmq_version()); print("curve", zmq.has("curve"))
except ImportError: pass'""",
    "systemd": "[ -d /run/systemd/system ] && echo yes",
    "units": f"[ -d /run/systemd/system ] && systemctl show -p Id,ActiveState,UnitFileState {' '.join(UNITS)}",
    "daemons": "cat /proc/[0-9]*/comm",
    "kvm": "grep -m1 -owE 'vmx|svm' /proc/cpuinfo; stat -c 'device %a %U %G' /dev/kvm",
    "groups": f"getent group libvirt kvm {paths.USER}",
    "user": f"id -nG {paths.USER}",
    "space": f"""free() {{ n=$1; while [ ! -e "$n" ]; do n=$(dirname "$n"); done; echo "$1 $(df -Pk "$n" | tail -n 1)"; }}
for d in {' '.join(SPACE)}; do bounded {PATH_S} "$d" free "$d"; done""",
    "ports": "cat /proc/net/tcp /proc/net/tcp6 | grep ' 0A '",
    "firewall": """command -v ufw >/dev/null && ufw status | grep '^Status: active'
command -v firewall-cmd >/dev/null && echo "firewalld $(firewall-cmd --state)"
command -v nft >/dev/null && nft list chain inet filter input""",
    "domains": "for d in libvirtd virtqemud; do pid=$(cat /run/$d.pid) && kill -0 $pid &&"
               " timeout 10 virsh -q -c qemu:///system list --all --name && break; done",
    "config": f"cat {paths.CONFIG_FILE}",
    "admins": f"cat {paths.ADMINS_FILE} || cat {paths.FORMER_ADMINS_FILE}",
    "public_key": f"cat {paths.PUBLIC_KEY_FILE}",
    "agent": f"readlink {paths.CURRENT}; sha256sum {paths.CURRENT_ZIPAPP}",
    "unit": f"cat {paths.UNIT_FILE}",
    "supervisor": f"cat {paths.SUPERVISOR}",
    "supervised": f"[ -x {paths.SUPERVISOR} ] && {paths.SUPERVISOR} status",
    "pool": f"stat -c '%a %U %G' {paths.POOL_DIR}",
    "state_dir": f"stat -c '%a %U %G' {paths.STATE_DIR}",
}
_WHERE: Mapping[str, str] = {
    "os": "/etc", "machine_id": "/etc", "user": "/etc", "groups": "/etc", "config": paths.CONFIG_DIR, "admins": paths.CONFIG_DIR,
    "public_key": paths.CONFIG_DIR, "agent": paths.AGENT_HOME, "supervisor": paths.AGENT_HOME, "supervised": paths.AGENT_HOME,
    "unit": paths.UNIT_FILE, "pool": paths.POOL_DIR, "state_dir": paths.STATE_DIR}
"""What a section looks at, where that is one place."""
_SLOW = len(SPACE) * PATH_S + SECTION_S
_PROLOGUE = f"""command -v timeout >/dev/null || timeout() {{ shift; "$@"; }}
hung=0
bounded() {{ # SECONDS WHERE COMMAND…: what it prints; then that it hangs, where it has not ended by then
    [ "$hung" -lt {AT_MOST} ] || return 0
    seconds=$1 where=$2; shift 2
    {{ {{ "$@"; }} 2>/dev/null & }} | timeout "$seconds" cat
    [ $? != 124 ] || {{ hung=$((hung + 1)); printf '\\n%s\\n' "{_HANGS}$where"; }}
}}
"""
SCRIPT = _PROLOGUE + "\n".join(
    f"section_{name}() {{ {command}\n}}\nprintf '\\n%s\\n' '{_MARK}{name}'\n"
    f"bounded {_SLOW if name == 'space' else LONGER_S.get(name, SECTION_S)} '{_WHERE.get(name, name)}' section_{name}"
    for name, command in SECTIONS.items()) + "\nexit 0\n"


@dataclass(frozen=True, kw_only=True)
class Installed:
    """What an earlier enrolment left: the texts of its files ("" where there is none)."""

    config: str = ""
    admins: str = ""
    public_key: str = ""
    current: str = ""
    """The folder `current` points at, by its last name."""
    sha256: str = ""
    unit: str = ""
    supervisor: str = ""
    running: bool = False
    at_boot: bool = False
    pool: str = ""
    state_dir: str = ""
    user_groups: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Facts:
    """`os_ids`: ID, then ID_LIKE. `modules`: what /usr/bin/python3 imports, with versions. `kvm_device`: mode, owner and
    group of /dev/kvm, "" without one. `free_kib`: path -> KiB free there. `firewall`: "", ufw, firewalld or nft. `hangs`: where nothing
    came back in time; facts of what is there are missing then."""

    machine: str
    hostname: str
    os_ids: tuple[str, ...]
    os_name: str
    machine_id: str
    clock_s: float
    programs: frozenset[str]
    python: tuple[int, ...]
    modules: Mapping[str, str]
    systemd: bool
    active_units: frozenset[str]
    daemons: frozenset[str]
    kvm_flag: str
    kvm_device: str
    groups: frozenset[str]
    free_kib: Mapping[str, int]
    listening: frozenset[int]
    firewall: str
    domains: tuple[str, ...]
    hangs: tuple[str, ...] = ()
    installed: Installed = field(default_factory=Installed)

    @property
    def libvirt_running(self) -> bool:
        return bool(self.daemons & {"libvirtd", "virtqemud"} or self.active_units & {"libvirtd.socket", "virtqemud.socket"})


def gather(shell: Shell) -> Facts:
    """One round trip; changes nothing. Raises Unreachable."""
    return parse(shell.run(SCRIPT, timeout_s=60, act="gathering facts").stdout)


def parse(text: str) -> Facts:
    """What SCRIPT printed -> Facts. A section that is missing or empty is a fact that is not so."""
    found: dict[str, list[str]] = {}
    hangs: dict[str, None] = {}
    for line in text.splitlines():
        if line.startswith(_HANGS):
            hangs[line[len(_HANGS):]] = None
        elif line.startswith(_MARK):
            lines = found[line[len(_MARK):]] = []
        elif found:
            lines.append(line)

    def section(name: str) -> list[str]:
        return [line.strip() for line in found.get(name, ()) if line.strip()]

    def whole(name: str) -> str:
        lines = found.get(name, [])
        lines = lines[:-1] if lines and not lines[-1] else lines  # the empty line before the next mark
        return "\n".join(lines) + "\n" if lines else ""

    machine, hostname = (section("uname") + ["", ""])[:2]
    os_ids, os_name = _os_release(section("os"))
    modules = dict(line.split(None, 1) for line in section("python") if " " in line)
    active, boot = _units(section("units"))
    kvm = section("kvm")
    systemd = bool(section("systemd"))
    return Facts(
        machine=machine, hostname=hostname.split(".")[0], os_ids=os_ids, os_name=os_name,
        machine_id=_first(section("machine_id")), clock_s=float(_first(section("clock")) or 0),
        programs=frozenset(section("programs")), python=tuple(int(n) for n in modules.pop("python", "").split(".") if n.isdecimal()),
        modules=modules, systemd=systemd, active_units=active,
        daemons=frozenset(DAEMONS) & frozenset(section("daemons")),
        kvm_flag=next((line for line in kvm if line in ("vmx", "svm")), ""),
        kvm_device=next((line[7:] for line in kvm if line.startswith("device ")), ""),
        groups=frozenset(line.split(":")[0] for line in section("groups")), free_kib=_space(section("space")),
        listening=_ports(section("ports")), firewall=_firewall(section("firewall")),
        domains=tuple(section("domains")), hangs=tuple(hangs),
        installed=Installed(
            config=whole("config"), admins=whole("admins"), public_key=_first(section("public_key")),
            current=_current(section("agent")), sha256=_sha256(section("agent")), unit=whole("unit"), supervisor=whole("supervisor"),
            running=paths.UNIT in active if systemd else _first(section("supervised")).startswith("running"),
            at_boot=paths.UNIT in boot, pool=_first(section("pool")), state_dir=_first(section("state_dir")),
            user_groups=tuple(_first(section("user")).split()),
        ),
    )


def _first(lines: list[str]) -> str:
    return lines[0] if lines else ""


def _os_release(lines: list[str]) -> tuple[tuple[str, ...], str]:
    """https://www.freedesktop.org/software/systemd/man/os-release.html: NAME=value, perhaps in quotes."""
    values = {name: value.strip("\"'") for name, _, value in (line.partition("=") for line in lines)}
    ids = [values.get("ID", ""), *values.get("ID_LIKE", "").split()]
    return tuple(i for i in ids if i), values.get("PRETTY_NAME", values.get("ID", ""))


def _units(lines: list[str]) -> tuple[frozenset[str], frozenset[str]]:
    """`systemctl show` -> the units that are active, and those that start at boot."""
    active, boot = set(), set()
    unit: dict[str, str] = {}
    for name, _, value in (line.partition("=") for line in lines):
        unit[name] = value
        if {"Id", "ActiveState", "UnitFileState"} <= set(unit):
            if unit["ActiveState"] in ("active", "reloading", "activating"):
                active.add(unit["Id"])
            if unit["UnitFileState"] == "enabled":
                boot.add(unit["Id"])
            unit = {}
    return frozenset(active), frozenset(boot)


def _space(lines: list[str]) -> dict[str, int]:
    """`path` and `df -Pk`'s line -> path -> KiB available (its fourth column)."""
    free = {}
    for line in lines:
        words = line.split()
        numbers = [w for w in words[2:] if w.isdecimal()]
        if len(numbers) >= 3:
            free[words[0]] = int(numbers[2])
    return free


def _ports(lines: list[str]) -> frozenset[int]:
    """/proc/net/tcp: the second column is the local address, `HEX:PORT`."""
    return frozenset(int(match[1], 16) for line in lines if (match := re.match(r"\d+: [0-9A-F]+:([0-9A-F]{4}) ", line)))


def _firewall(lines: list[str]) -> str:
    if "Status: active" in lines:
        return "ufw"
    if "firewalld running" in lines:
        return "firewalld"
    closed = any("policy drop" in line for line in lines) or any(line in ("drop", "reject") or line.startswith("reject ") for line in lines)
    return "nft" if any("hook input" in line for line in lines) and closed else ""


def _sha256(lines: list[str]) -> str:
    return next((line.split()[0] for line in lines if re.match(r"[0-9a-f]{64}\s", line)), "")


def _current(lines: list[str]) -> str:
    return next((line.rsplit("/", 1)[-1] for line in lines if not re.match(r"[0-9a-f]{64}\s", line)), "")
