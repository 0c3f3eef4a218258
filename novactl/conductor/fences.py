"""Ways of making sure that a host runs nothing any more.

Each gets a node and its options (`node set --fence`), and ends with evidence, a sentence, or raises FencingFailed. Power switches are
worked by the fence agents that Pacemaker uses (package fence-agents; FenceAgentAPI: options as lines on standard input, status 0 is on
and 2 is off), so that every switch they know is known here. Secrets are read from files and never are arguments.
"""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from novactl.cluster import Cluster
from novactl.conductor import tool
from novactl.errors import AgentRefused, FencingFailed, NovaError, Unreachable, UsageError
from novactl.model.node import Node

TOOL_S = 120.0
"""How long a power switch may take."""
POLL_S = 2.0
SELF_FENCE_S, NODE_LEASE_S, MARGIN_S = 60.0, 30.0, 30.0
"""The margin is for an agent that looks once a second, and libvirt, which gives a guest that hangs a quarter of a minute."""
INSTALL = "Debian and Ubuntu: apt install fence-agents"
_OFF = 2

_AGENT = re.compile(r"fence_[a-z0-9_]+\Z")
_SECRET = re.compile(r"passw|passphrase|secret|token|community|credential|api[-_]?key|private[-_]?key")
"""Options of fence agents that are secrets themselves; with _file after its name any of them is the path of one."""


@dataclass(frozen=True)
class Method:
    """`needs` and `takes` name its options; `power_off` may take minutes, can be repeated, and returns the evidence."""

    name: str
    help: str
    power_off: Callable[[Cluster, Node, Mapping[str, str]], str]
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    program: str = ""
    """What it runs on the machine that fences; "" for nothing, or what an option names."""


def checked(method: str, options: Mapping[str, str]) -> dict[str, str]:
    """What a node's `fencing` is to be. Raises UsageError naming what is missing or unknown."""
    known = METHODS.get(method)
    if known is None:
        raise UsageError(f"{method!r} is not a way of fencing", hint=f"one of {', '.join(METHODS)}")
    missing = [name for name in known.needs if not options.get(name)]
    if missing:
        raise UsageError(f"fencing by {method} needs {' and '.join(missing)}", hint=f"--fence-option {missing[0]}=…")
    if known.name not in _OPEN:
        unknown = sorted(set(options) - {*known.needs, *known.takes})
        if unknown:
            names = ", ".join(dict.fromkeys((*known.needs, *known.takes)))
            raise UsageError(f"fencing by {method} knows no option {unknown[0]!r}", hint=f"it knows {names or 'none'}")
    for name, value in options.items():
        if not value.isprintable():
            raise UsageError(f"{name} is not printable text of one line: {value!r}")
        if _SECRET.search(name.lower()) and not name.endswith(("_file", "_script")):
            raise UsageError(f"{name} is a secret, which is not stored in the database",
                             hint=f"put it into a file of mode 0600: {_file_of(name)}=PATH")
    if "program" in options and not _AGENT.match(options["program"]):
        raise UsageError(f"{options['program']!r} is not the name of a fence agent", hint="one of fence-agents' programs: fence_apc, …")
    for name in options:
        if (name == "command" or _is_file(name)) and not options[name].startswith("/"):
            raise UsageError(f"{name} must be an absolute path, not {options[name]!r}")
    if "self_fence_s" in options:
        try:
            if not 5 <= float(options["self_fence_s"]) <= 3600:
                raise ValueError
        except ValueError:
            raise UsageError(f"self_fence_s must be 5 to 3600 seconds, not {options['self_fence_s']!r}") from None
    return {"method": method, **options}


def lacking(fencing: Mapping[str, str]) -> str:
    """The program that fencing so runs and this machine does not have; "" where nothing is lacking."""
    program = fencing.get("program") or fencing.get("command") or METHODS[fencing["method"]].program
    return program if program and shutil.which(program) is None else ""


def power_off(cluster: Cluster, node: Node, fencing: Mapping[str, str]) -> str:
    """Do it, and return the evidence. Raises FencingFailed, also where the switch says off and the node's agent answers."""
    options = {name: value for name, value in fencing.items() if name != "method"}
    evidence = METHODS[fencing["method"]].power_off(cluster, node, options)
    if fencing["method"] not in ("self", "ssh"):              # there the agent may live for a while: it is not what was switched off
        _refuse_living(cluster, node, evidence)
    return evidence


def _refuse_living(cluster: Cluster, node: Node, evidence: str) -> None:
    """A switch may be another machine's."""
    if _answers(cluster, node):
        raise _failed(
            node, f"{evidence}, but its agent answers: is it another machine's switch?", hint="see to the node's --fence-option",
            command=f"novactl node show {node.name}")


def _answers(cluster: Cluster, node: Node) -> bool:
    """Whether its agent does; a refusal is an answer, too."""
    try:
        cluster.agents.call(node, "agent.ping")
    except Unreachable:
        return False
    except AgentRefused:
        pass
    return True


# ---------------------------------------------------------------- power switches

def _switch(program: str, **fixed: str) -> Callable[[Cluster, Node, Mapping[str, str]], str]:
    def off(cluster: Cluster, node: Node, options: Mapping[str, str]) -> str:
        return _by_agent(cluster, node, options.get("program", program), {**fixed, **options})

    return off


def _by_agent(cluster: Cluster, node: Node, program: str, options: Mapping[str, str]) -> str:
    """Off, then asked until it says so."""
    path = shutil.which(program)
    if path is None:
        raise _failed(node, f"{program} is not installed on this machine", hint=INSTALL)
    named = {name: value for name, value in options.items() if name != "program" and not _is_file(name)}
    for name in filter(_is_file, options):
        named["passwd" if name == "password_file" else name.removesuffix("_file")] = _secret(node, options[name])
    named.setdefault("plug", node.name)
    for name, value in named.items():
        if not value.isprintable():                           # a line more would be another option
            raise _failed(node, f"its option {name} is more than a line of printable text", hint="see to the node's --fence-option")
    done = _run(node, [path], _lines({**named, "action": "off"}))
    if done.returncode:                                       # 2 is wrong arguments here, and off only for `status`
        raise _failed(node, f"{program} could not switch it off (status {done.returncode}): {_last(done)}")
    deadline = cluster.clock.monotonic() + TOOL_S
    while True:
        status = _run(node, [path], _lines({**named, "action": "status"}))
        if status.returncode == _OFF:
            return f"{program} says that it is off"
        if cluster.clock.monotonic() >= deadline:
            raise _failed(node, f"{program} switched it off, but does not say that it is off (status {status.returncode}): {_last(status)}")
        cluster.clock.sleep(POLL_S)


def _lines(options: Mapping[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in sorted(options.items()))


def _is_file(name: str) -> bool:
    """Whether the option is the path of a secret."""
    return name.endswith("_file") and _SECRET.search(name.lower()) is not None


def _file_of(name: str) -> str:
    return "password_file" if name in ("passwd", "password") else f"{name}_file"


def _secret(node: Node, path: str) -> str:
    file = Path(path)
    try:
        mode, text = file.stat().st_mode, file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as bad:
        raise _failed(node, f"its secret cannot be read: {bad}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise _failed(node, f"its secret in {path} can be read by others", command=f"chmod 600 {path}")
    return text


def _command(cluster: Cluster, node: Node, options: Mapping[str, str]) -> str:
    """`COMMAND off NODE`, then `COMMAND status NODE`: its success says that the node is off."""
    path = options["command"]
    for action, wrong in (("off", "could not switch it off"), ("status", "does not say that it is off")):
        done = _run(node, [path, action, node.name], "")
        if done.returncode:
            raise _failed(node, f"{path} {wrong} (status {done.returncode}): {_last(done)}")
    return f"{path} says that it is off"


def _run(node: Node, argv: list[str], lines: str) -> subprocess.CompletedProcess[str]:
    try:
        return tool.run(argv, lines, timeout_s=TOOL_S)
    except subprocess.TimeoutExpired:
        raise _failed(node, f"{argv[0]} did not end within {TOOL_S:g} s") from None
    except OSError as bad:
        raise _failed(node, f"{argv[0]} cannot be run: {bad.strerror}") from None


def _last(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


# ---------------------------------------------------------------- by SSH

_STOP = r"""
grep -qs '^State:' /proc/self/status || { echo "what runs there cannot be seen: no grep, or no /proc"; exit 1; }
of() { # PATTERN: the pids of the processes of that name with a thread that has not ended
    for process in /proc/[0-9]*; do
        { read -r name <"$process/comm"; } 2>/dev/null || continue
        case $name in qemu-ga) ;; $1) grep -qs '^State:[[:space:]]*[^ZX]' "$process"/task/*/status && echo "${process##*/}" ;; esac
    done
}
if [ -d /run/systemd/system ]; then
    units=
    for it in libvirtd libvirtd-ro libvirtd-admin libvirtd-tcp libvirtd-tls virtqemud virtqemud-ro virtqemud-admin; do
        units="$units $it.socket"
    done
    timeout 20 systemctl stop "$1" $units libvirtd.service virtqemud.service 2>/dev/null
else
    timeout 30 "$2" stop >/dev/null 2>&1
fi
kill -KILL $(of libvirtd; of virtqemud) 2>/dev/null
looked=0 none=0
while [ "$none" -lt 2 ] && [ "$looked" -lt 20 ]; do
    guests=$(of 'qemu-*'; of kvm)
    if [ -n "$guests" ]; then none=0; kill -KILL $guests 2>/dev/null; else none=$((none + 1)); fi
    looked=$((looked + 1))
    sleep 1
done
[ "$none" -ge 2 ] || { echo "still" $guests; exit 1; }
echo none
"""
"""$1 is the agent's unit, $2 its supervisor. A QEMU that is killed and does not end (its disk hangs) still is one; a tool that is
missing must not look like none."""
_POWER_OFF = "setsid sh -c 'sleep 1; systemctl poweroff --force || poweroff -f' </dev/null >/dev/null 2>&1 &"


def _ssh(cluster: Cluster, node: Node, options: Mapping[str, str]) -> str:
    """Agent and libvirt stopped, every QEMU killed, none seen any more, and the machine told to power off.

    What was seen holds where it does not hear the latter: there is nobody left to start a guest, unless the agent answers.
    """
    from novactl.agents import wire
    from novactl.enroll import paths
    from novactl.enroll.access import Access, Trust, open_shell

    stored = node.undo.get("access")
    if not stored:
        raise _failed(node, "how to reach it by SSH is not known", command=node.enroll_again)
    try:
        shell = open_shell(wire.from_plain(Access, stored), Trust())
        try:
            said = shell.run(_STOP, args=(paths.UNIT, paths.SUPERVISOR), timeout_s=TOOL_S)
            if said.status or said.stdout.split() != ["none"]:
                raise _failed(node, f"guests still run there: {said.stdout.strip() or said.stderr.strip()}")
            try:
                shell.run(_POWER_OFF)
            except NovaError as error:
                return _left_on(cluster, node, error)
        finally:
            shell.close()
    except FencingFailed:
        raise
    except NovaError as error:
        raise _failed(node, f"SSH: {error.message}", hint="where SSH does not answer, only a power switch can tell") from error
    return "over SSH: no QEMU was left running there, and it was told to power off"


def _left_on(cluster: Cluster, node: Node, error: NovaError) -> str:
    """Raises FencingFailed where the agent was not stopped."""
    if _answers(cluster, node):
        raise _failed(node, f"it could not be told to power off ({error.message}), and its agent answers")
    return f"over SSH: agent and libvirt were stopped, no QEMU was left running there; whether it powers off is not known: {error.message}"


# ---------------------------------------------------------------- by itself, and by hand

def self_fence_s(options: Mapping[str, str]) -> float:
    return float(options.get("self_fence_s", SELF_FENCE_S))


def _delay_s(node: Node, options: Mapping[str, str]) -> float:
    """A shorter delay that its agent may not have heard of does not count yet."""
    return max(self_fence_s(options), node.armed_s or 0.0)


def waits_s(node: Node, fencing: Mapping[str, str]) -> float:
    """What fencing it so takes beside what its program, or nothing, takes: an agent that fences itself is given its time."""
    return NODE_LEASE_S + _delay_s(node, fencing) + MARGIN_S if fencing.get("method") == "self" else 0.0


def _self(cluster: Cluster, node: Node, options: Mapping[str, str]) -> str:
    """Its lease is not renewed any more (its state sees to that), so that by now its agent has stopped all servers.

    Measured on this process's own clock, from now on: no two clocks are compared.
    """
    if node.lease_until is None:
        raise _failed(
            node, "its agent has never answered that it has a lease, and so fences nothing", hint="leases come from the conductor service",
            command="novactl conductor run")
    after_s, wait_s = _delay_s(node, options), waits_s(node, {"method": "self", **options})
    cluster.clock.sleep(wait_s)
    return f"its agent has had no lease for {wait_s - NODE_LEASE_S:g} s, and stops all servers after {after_s:g} s without one"


def by_hand(actor: str) -> str:
    return f"{actor} says that it has been powered off"


def _failed(node: Node, what: str, *, hint: str = "", command: str = "") -> FencingFailed:
    return FencingFailed(
        f"node {node.name} could not be fenced: {what}", hint=hint or "nothing of it is started elsewhere",
        command=command or f"novactl node fence {node.name} --i-have-powered-it-off")


_AT = ("ip", "username", "password_file")
_OPEN = ("agent",)
_IPMI, _REDFISH = "fence_ipmilan", "fence_redfish"
METHODS: Mapping[str, Method] = {method.name: method for method in (
    Method("ipmi", "its management controller, by fence_ipmilan", _switch(_IPMI, lanplus="1"), ("ip",),
           (*_AT, "ipport", "cipher", "privlvl", "lanplus", "timeout"), _IPMI),
    Method("redfish", "its management controller, by fence_redfish", _switch(_REDFISH), ("ip",),
           (*_AT, "ipport", "ssl_insecure", "systems_uri"), _REDFISH),
    Method("agent", "any fence agent of Pacemaker's: program=fence_…, and its options", _switch(""), ("program",)),
    Method("command", "a command of yours: COMMAND off NODE, then COMMAND status NODE", _command, ("command",)),
    Method("ssh", "over SSH: kill every QEMU, see that none is left, power off", _ssh),
    Method("self", "its agent stops all servers when the conductor has not renewed its lease", _self, (), ("self_fence_s",)),
)}
