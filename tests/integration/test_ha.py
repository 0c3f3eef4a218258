"""A host dies: its servers run elsewhere once nothing of it can run any more, by each way of making sure; and it comes back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from novactl.conductor import fences
from tests.integration.test_what_really_runs import qemu_of
from tests.lab.fleet import REPOSITORY, Fleet, until

SWITCH = """#!/bin/sh
# A power switch: SWITCH off|status NODE. Off is no process of that host, and so none of its guests.
host={lab}/$2
pid=$(cat "$host/pid")
on() {{ tr '\\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q "$host "; }}
case $1 in
    off) if on; then kill -KILL "$pid"; sleep 1; fi ;;
    status) if on; then echo "$2 is on"; exit 1; fi ;;
    *) exit 2 ;;
esac
"""
BMC = """
import subprocess, sys
from pyghmi.ipmi.bmc import Bmc

switch, node, port = sys.argv[1:]

class Board(Bmc):
    def get_power_state(self):
        return "on" if subprocess.run([switch, "status", node]).returncode else "off"

    def power_off(self):
        subprocess.run([switch, "off", node])

Board({"ops": "secret"}, address="127.0.0.1", port=int(port)).listen()
"""
BMC_PORT = "16230"
HA_OPERATIONS = """
    SELECT kind, object_name, state, created_at, ended_at FROM operation
    WHERE kind IN ('node.fence', 'server.evacuate') AND created_at > ? ORDER BY created_at"""


@pytest.fixture
def switch(fleet: Fleet, tmp_path: Path) -> Iterator[str]:
    """A power switch for every host, to the end of the test: the fleet is mended while it still works."""
    path = tmp_path / "switch"
    path.write_text(SWITCH.format(lab=fleet.lab.dir))
    path.chmod(0o755)
    yield str(path)
    fleet.mend()


def status_of(fleet: Fleet, name: str) -> str:
    return next(row["status"] for row in fleet.novactl("node", "list", "-o", "json").items if row["name"] == name)


def claims(fleet: Fleet, server: str) -> set[str]:
    return {name for name, in fleet.rows("SELECT node.name FROM claim JOIN node ON node.id = claim.node_id WHERE consumer_id = ?", server)}


def runs_elsewhere(fleet: Fleet, server: dict[str, Any], *, boot: int = 1) -> Any:
    """The server runs on another host with the next epoch and boots there; that host."""
    moved = fleet.server(server["name"])
    assert (moved["status"], moved["epoch"]) == ("ACTIVE", 2) and moved["node_name"] != server["node_name"]
    assert claims(fleet, server["id"]) == {moved["node_name"]}
    host = fleet.host_of(moved)
    assert host.domains() == {f"novactl-{server['id']}": "running"}
    fleet.await_ready(server["name"], boot=boot)
    return host


def is_alive(pid: int) -> bool:
    """A process that is dead may stay in the table until its parent asks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def others(fleet: Fleet, name: str) -> list[Any]:
    return [host for host in fleet.lab.hosts if host.name != name]


def test_power_loss(fleet: Fleet, switch: str) -> None:
    """Unfenced nothing is started elsewhere; fenced it is; the host that is back starts nothing, and gives up its copy when enabled."""
    server, kept = fleet.create("web", "--node", "h1"), fleet.create("kept", "--node", "h1")
    fleet.await_ready("web")
    host = fleet.host_of(server)
    assert "no way of being fenced" in fleet.novactl("server", "set", "web", "--ha").stderr
    host.power_off()

    refused = fleet.novactl("node", "fence", "h1", "--yes", status=4).stderr
    assert "node h1 has no way of being fenced" in refused and "--i-have-powered-it-off" in refused
    assert "node h1 is not fenced" in fleet.novactl("server", "evacuate", "web", "--yes", status=4).stderr
    assert all(other.domains() == {} for other in others(fleet, "h1")) and fleet.server("web")["node_name"] == "h1"

    fleet.novactl("node", "set", "h1", "--fence", "command", "--fence-option", f"command={switch}")
    fleet.novactl("node", "fence", "h1", "--yes")
    elsewhere = runs_elsewhere(fleet, server)
    assert claims(fleet, kept["id"]) == {"h1"} and fleet.server("kept")["epoch"] == 1

    host.power_on()
    until(host.agent_listens, "its agent runs")
    assert status_of(fleet, "h1") == "fenced"
    assert fleet.novactl("server", "create", "new", "--flavor", "tiny", "--image", "guest", "--node", "h1", status=5).stderr
    for _ in range(3):
        fleet.novactl("node", "list")
        fleet.novactl("server", "list")
        time.sleep(1)
    assert host.domains() == {f"novactl-{one['id']}": "shut off" for one in (server, kept)}

    fleet.novactl("node", "enable", "h1")
    assert f"novactl-{server['id']}" not in host.domains() and not any(server["id"] in name for name in host.pool_files())
    until(lambda: (fleet.novactl("node", "list"), host.domains() == {f"novactl-{kept['id']}": "running"})[1], "its own runs again")
    until(lambda: fleet.server("kept")["status"] == "ACTIVE", "and is known to")
    assert elsewhere.domains() == {f"novactl-{server['id']}": "running"}
    assert fleet.novactl("cluster", "verify", "-o", "json").items == [] and fleet.leftovers() == {}


def test_a_switch_that_does_not_say_off(fleet: Fleet, switch: str, tmp_path: Path) -> None:
    """A switch that says done and is not: the host's guests go on, and nothing is started elsewhere."""
    server = fleet.create("web", "--node", "h1")
    fleet.novactl("server", "set", "web", "--ha")
    liar = tmp_path / "liar"
    liar.write_text(f'#!/bin/sh\n[ "$1" = off ] || exec {switch} "$@"\n')
    liar.chmod(0o755)
    fleet.novactl("node", "set", "h1", "--fence", "command", "--fence-option", f"command={liar}")
    failed = fleet.novactl("node", "fence", "h1", "--yes", status=1)
    assert "h1 is on" in failed.stderr
    assert fleet.lab.host("h1").domains() == {f"novactl-{server['id']}": "running"}
    fleet.novactl("node", "set", "h1", "--fence", "command", "--fence-option", "command=/bin/true")
    assert "its agent answers" in fleet.novactl("node", "fence", "h1", "--yes", status=1).stderr
    assert all(other.domains() == {} for other in others(fleet, "h1")) and status_of(fleet, "h1") == "up"


def test_by_ssh(fleet: Fleet, switch: str) -> None:
    """A living host: all its QEMUs are killed, its agent too, it powers off; those of other hosts run on."""
    server = fleet.create("web", "--node", "h1")
    fleet.create("other", "--node", "h2")
    fleet.await_ready("web")
    host, beside = fleet.lab.host("h1"), qemu_of(fleet.lab.host("h2"), fleet.server("other")["id"])
    mine = qemu_of(host, server["id"])
    spaces = {os.readlink(f"/proc/{pid}/ns/pid") for pid in (mine, beside, os.getpid())}
    assert len(spaces) == 3, "a kill in one host must not reach the others, nor this machine"
    fleet.novactl("server", "set", "web", "--ha")
    fleet.novactl("node", "set", "h1", "--fence", "ssh")
    fleet.novactl("node", "fence", "h1", "--yes")
    assert not is_alive(mine) and is_alive(beside)
    until(lambda: not host.is_on, "it powers off")
    moved = fleet.server("web")
    assert (moved["status"], moved["epoch"]) == ("ACTIVE", 2) and moved["node_name"] in ("h2", "h3")
    fleet.await_ready("web")


def test_by_ssh_with_systemd(tmp_path: Path) -> None:
    """What is run there, where there is a (stand-in of a) systemctl: sockets are stopped with what they start, a QEMU as Red Hat
    calls it is killed, and the guest agent of a host that is itself a guest is none. In a PID namespace of its own."""
    (tmp_path / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/said\n')
    for name in ("qemu-kvm", "qemu-ga"):
        shutil.copy("/bin/sleep", tmp_path / name)
    (tmp_path / "systemctl").chmod(0o755)
    script = """mount -t tmpfs none /run && mkdir -p /run/systemd/system || exit 9
        qemu-kvm 100 & qemu=$!; qemu-ga 100 & sh -c "$1" novactl nodeagent.service /nonexistent; status=$?
        kill -0 $! || exit 8; kill -0 $qemu 2>/dev/null && exit 7; exit $status"""
    done = subprocess.run(
        ["unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc", "sh", "-c", script, "sh", fences._STOP],
        env={"PATH": f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin"}, capture_output=True, text=True, timeout=90, check=False)
    assert (done.returncode, done.stdout) == (0, "none\n"), done
    said = (tmp_path / "said").read_text()
    assert said.startswith("stop nodeagent.service libvirtd.socket") and "virtqemud-admin.socket libvirtd.service virtqemud.service" in said


def test_by_ssh_a_silent_host_is_not_fenced(fleet: Fleet, switch: str) -> None:
    server = fleet.create("web", "--node", "h1")
    fleet.novactl("server", "set", "web", "--ha")
    fleet.novactl("node", "set", "h1", "--fence", "ssh")
    fleet.lab.host("h1").cut()
    failed = fleet.novactl("node", "fence", "h1", "--yes", status=1)
    assert "only a power switch can tell" in failed.stderr
    assert all(other.domains() == {} for other in others(fleet, "h1"))
    assert fleet.lab.host("h1").domains() == {f"novactl-{server['id']}": "running"}


def test_by_a_management_controller(fleet: Fleet, switch: str, tmp_path: Path) -> None:
    """fence_ipmilan, ipmitool, and IPMI 2.0 over the network to a controller that works the host's power."""
    server = fleet.create("web", "--node", "h1")
    fleet.novactl("server", "set", "web", "--ha")
    secret, program = tmp_path / "secret", tmp_path / "bmc.py"
    secret.write_text("secret\n")
    secret.chmod(0o600)
    program.write_text(BMC)
    options = {"ip": "127.0.0.1", "ipport": BMC_PORT, "username": "ops", "password_file": str(secret)}
    fleet.novactl("node", "set", "h1", "--fence", "ipmi", *(f"--fence-option={name}={value}" for name, value in options.items()))
    fleet.novactl("node", "fence", "h1", "--yes", status=1)
    assert status_of(fleet, "h1") == "up", "nobody answers there"
    board = subprocess.Popen(["/usr/bin/python3", program, switch, "h1", BMC_PORT], stdout=subprocess.DEVNULL)
    try:
        fleet.novactl("node", "fence", "h1", "--yes")
    finally:
        board.kill()
        board.wait()
    assert not fleet.lab.host("h1").is_on
    runs_elsewhere(fleet, server)


def test_by_a_fence_agent(fleet: Fleet, switch: str, tmp_path: Path) -> None:
    """fence_dummy's switch is a file; the host is off."""
    server = fleet.create("web", "--node", "h1")
    fleet.novactl("server", "set", "web", "--ha")
    state = tmp_path / "state"
    state.write_text("on")
    fleet.novactl(
        "node", "set", "h1", "--fence", "agent", "--fence-option", "program=fence_dummy", "--fence-option", "type=file",
        "--fence-option", f"status_file={state}")
    fleet.lab.host("h1").power_off()
    fleet.novactl("node", "fence", "h1", "--yes")
    assert state.read_text() == "off"
    runs_elsewhere(fleet, server)


def test_a_host_fences_itself(fleet: Fleet, switch: str) -> None:
    """Cut off, with no conductor, the agent stops its guests; back, they run again with the next conductor's lease. Cut off for good and
    given up, they run elsewhere, and nowhere twice."""
    server = fleet.create("web", "--node", "h1")
    fleet.await_ready("web")
    host, domain = fleet.lab.host("h1"), f"novactl-{server['id']}"
    fleet.novactl("server", "set", "web", "--ha")
    fleet.novactl("node", "set", "h1", "--fence", "self", "--fence-option", "self_fence_s=5")
    lease = host.dir / "var/lib/nodeagent/lease.json"
    with conductor(fleet):
        until(lambda: lease.exists() and '"self_fence_s": 5' in lease.read_text(), "it has a lease")
    host.cut()
    until(lambda: host.domains() == {domain: "shut off"}, "it has fenced itself", within_s=30 + 5 + 60)
    fleet.lab.heal()
    fleet.novactl("node", "list")
    assert host.domains() == {domain: "shut off"} and "found_down" not in fleet.novactl("server", "events", "web").stdout
    with conductor(fleet):
        until(lambda: host.domains() == {domain: "running"}, "it runs again")
        until(lambda: fleet.server("web")["status"] == "ACTIVE", "and is known to")
        host.cut()
        fleet.novactl("node", "fence", "h1", "--yes")
        assert host.domains() == {domain: "shut off"}
        runs_elsewhere(fleet, server)


def test_the_conductor_by_itself(fleet: Fleet, switch: str) -> None:
    """A host loses power, and no command is given: the conductor has it fenced once it was silent for long enough, and only then starts
    its --ha server elsewhere, with the next epoch. Back, the host starts nothing and gives up its copy."""
    fence_after_s = 10.0                                      # h2: what was fenced lately, as h1 by other tests, is not fenced again
    server = fleet.create("web", "--node", "h2")
    fleet.novactl("node", "set", "h2", "--fence", "command", "--fence-option", f"command={switch}")
    fleet.novactl("server", "set", "web", "--ha")
    host, domain = fleet.lab.host("h2"), f"novactl-{server['id']}"
    settings = {"HA_FENCE_AFTER_S": str(fence_after_s), "AGENT_REPORT_INTERVAL_S": "1", "CONDUCTOR_LEASE_S": "2"}
    began = time.time()
    with conductor(fleet, **settings):
        until(lambda: fleet.rows("SELECT 1 FROM node WHERE name = 'h2' AND reported_at > ?", began), "it leads")
        time.sleep(fence_after_s)
        assert not fleet.rows(HA_OPERATIONS, began) and host.domains()[domain] == "running", "none is fenced that answers"
        host.power_off()
        [(silent_since,)] = until(
            lambda: fleet.rows("SELECT silent_since FROM node WHERE name = 'h2' AND silent_since IS NOT NULL"), "it is seen to be silent")
        until(lambda: [row[2] for row in fleet.rows(HA_OPERATIONS, began)] == ["ok", "ok"], "it runs elsewhere")
    fencing, moving = fleet.rows(HA_OPERATIONS, began)
    assert fencing[:2] == ("node.fence", "h2") and moving[:2] == ("server.evacuate", "web")
    assert silent_since + fence_after_s <= fencing[3] < fencing[4] <= moving[3]
    elsewhere = runs_elsewhere(fleet, server)

    with conductor(fleet, **settings):
        host.power_on()
        until(host.agent_listens, "its agent runs")
        time.sleep(fence_after_s)
        assert host.domains() == {domain: "shut off"} and status_of(fleet, "h2") == "fenced"
        fleet.novactl("node", "enable", "h2")
        fleet.novactl("node", "unset", "h2", "--fence")
        assert host.domains() == {} and not any(server["id"] in name for name in host.pool_files())
    assert elsewhere.domains() == {domain: "running"} and fleet.novactl("cluster", "verify", "-o", "json").items == []


class conductor:
    """`novactl conductor run` with other settings, killed at the end."""

    def __init__(self, fleet: Fleet, **settings: str) -> None:
        self._fleet, self._settings = fleet, {f"NOVACTL_{name}": value for name, value in settings.items()}

    def __enter__(self) -> None:
        self._log = (self._fleet.data_dir / "conductor.log").open("a")
        self._process = subprocess.Popen(
            self._fleet.command("conductor", "run"), stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            env={**self._fleet.env, **self._settings, "NOVACTL_NO_INPUT": "1"}, cwd=REPOSITORY)

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._log.close()
