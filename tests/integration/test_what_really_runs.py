"""Real hosts that start anew, guests that die, domains that are not ours: the database follows, and mends what it may."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.fleet import Fleet, until
from tests.lab.host import Host

DISK = "/var/lib/libvirt/images/legacy.qcow2"
WILD = f"""<domain type="qemu"><name>legacy</name><memory unit="MiB">64</memory><vcpu>1</vcpu>
<os><type arch="x86_64">hvm</type></os>
<devices><disk type="file" device="disk"><driver name="qemu" type="qcow2"/><source file="{DISK}"/><target dev="vda" bus="virtio"/></disk>
</devices></domain>"""


def qemu_of(host: Any, server: str) -> int:
    """The pid, outside its host's namespace, of the guest's QEMU."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"qemu-system-x86_64") and any(server.encode() in word for word in words) and host.has(int(path.name)):
            return int(path.name)
    raise AssertionError(f"no QEMU of {server}")


def test_a_host_that_starts_anew_runs_what_ran(fleet: Fleet) -> None:
    """After a boot the first command has what ran started, by operations of its own; what was stopped stays off."""
    one = fleet.create("web1", "--node", "h2")
    fleet.create("web2", "--node", "h2")
    fleet.await_ready("web1")
    fleet.novactl("server", "stop", "web2", "--grace", "0")
    fleet.novactl("node", "list")
    host = fleet.host_of(one)
    host.power_off()
    host.power_on()
    assert set(host.domains().values()) == {"shut off"}
    until(lambda: (fleet.novactl("node", "list"), host.domains()[f"novactl-{one['id']}"])[1] == "running", "the guest is started")
    until(lambda: fleet.server("web1")["status"] == "ACTIVE", "the database says so")
    fleet.await_ready("web1", boot=2)
    assert fleet.server("web2")["status"] == "SHUTOFF" and sorted(host.domains().values()) == ["running", "shut off"]
    kinds = {row["kind"]: row["state"] for row in fleet.novactl("operation", "list", "--all", "-o", "json").items[:3]}
    assert kinds["server.revive"] == "ok"
    assert fleet.novactl("cluster", "verify", "-o", "json").items == []


def test_a_host_may_start_them_itself(fleet: Fleet) -> None:
    """With --autostart local the agent starts what ran before any command is given, and the database then agrees."""
    host = fleet.lab.host("h2")
    fleet.novactl("node", "enroll", f"root@{host.address}", "--zone", "right", "--autostart", "local")
    try:
        one = fleet.create("web1", "--node", "h2")
        fleet.create("web2", "--node", "h2")
        fleet.await_ready("web1")
        fleet.novactl("server", "stop", "web2", "--grace", "0")
        host.power_off()
        host.power_on()
        domain = f"novactl-{one['id']}"
        until(lambda: host.domains().get(domain) == "running", "the agent starts it")
        until(host.agent_listens, "and answers")
        assert sorted(host.domains().values()) == ["running", "shut off"]
        fleet.novactl("node", "list")
        assert fleet.server("web1")["status"] == "ACTIVE" and fleet.server("web2")["status"] == "SHUTOFF"
        assert fleet.novactl("cluster", "verify", "-o", "json").items == []
        assert "server.revive" not in fleet.novactl("server", "events", "web1").stdout
    finally:
        fleet.novactl("node", "enroll", f"root@{host.address}", "--zone", "right", "--autostart", "confirmed")


def test_a_guest_that_dies_is_in_error(fleet: Fleet) -> None:
    """A QEMU that is killed is told apart from one that went off; verify finds it, repair shows it, a hard reboot starts it anew."""
    server = fleet.create("web1", "--node", "h1")
    fleet.await_ready("web1")
    os.kill(qemu_of(fleet.lab.host("h1"), server["id"]), signal.SIGKILL)
    domain = f"novactl-{server['id']}"
    until(lambda: fleet.host_of(server).domains() == {domain: "shut off"}, "libvirt sees it")
    (drift,) = fleet.novactl("cluster", "verify", "-o", "json", status=1).items
    assert (drift["kind"], drift["object"], drift["node"]) == ("crashed", "server web1", "h1")
    (mended,) = fleet.novactl("cluster", "repair", "-o", "json").items
    assert mended["result"] == "mended"
    shown = fleet.server("web1")
    assert (shown["status"], shown["power_state"]) == ("ERROR", "CRASHED") and "its QEMU on node h1 died" in shown["fault"]
    fleet.novactl("server", "reboot", "web1", "--hard")
    fleet.await_ready("web1", boot=2)
    shown = fleet.server("web1")
    assert (shown["status"], shown["fault"]) == ("ACTIVE", "")


@pytest.fixture
def stranger(fleet: Fleet) -> Iterator[Host]:
    """A host whose domain `legacy` goes with the test, whoever has it by then."""
    host = fleet.lab.host("h3")
    yield host
    for words in (("virsh", "destroy", "legacy"), ("virsh", "undefine", "legacy"), ("rm", "-f", DISK)):
        host.run(*words, check=False)


def test_others_domains_are_left_alone_or_taken_in(fleet: Fleet, stranger: Host) -> None:
    """A domain that somebody made by hand is told and not touched by repairing; adopted it is a server, whose disk outlives it."""
    host = stranger
    host.run("qemu-img", "create", "-f", "qcow2", DISK, "1G")
    host.run("virsh", "define", "/dev/stdin", stdin=WILD)
    host.run("virsh", "start", "legacy")
    pid = qemu_of(host, "legacy")
    (drift,) = fleet.novactl("cluster", "verify", "-o", "json").items
    assert (drift["kind"], drift["object"], drift["is_fault"]) == ("wild", "domain legacy", False)
    assert "running, 1 vcpus, 64 MiB" in drift["what"]
    fleet.novactl("cluster", "repair")
    assert host.domains() == {"legacy": "running"} and qemu_of(host, "legacy") == pid
    fleet.novactl(*drift["command"].split()[1:], "--name", "db1")
    shown = fleet.server("db1")
    assert (shown["status"], shown["node_name"], shown["memory_mb"], shown["disk_gb"]) == ("ACTIVE", "h3", 64, 1)
    assert qemu_of(host, "legacy") == pid and fleet.novactl("cluster", "verify", "-o", "json").items == []
    fleet.novactl("server", "stop", "db1", "--grace", "0")
    fleet.novactl("server", "start", "db1")
    assert host.domains() == {"legacy": "running"} and qemu_of(host, "legacy") != pid
    fleet.novactl("server", "delete", "db1", "--yes")
    assert host.domains() == {} and host.run("stat", DISK).status == 0


def test_what_was_left_behind_is_removed(fleet: Fleet) -> None:
    """Domain, seed and disk of a server that was deleted while its node was away are found when it is back, and removed."""
    server = fleet.create("web1", "--node", "h1")
    host = fleet.host_of(server)
    fleet.await_ready("web1")
    host.power_off()
    fleet.novactl("server", "delete", "web1", "--lost", "--yes")
    host.power_on()
    until(lambda: fleet.novactl("node", "list", "-o", "json").items[0]["status"] == "up", "the node answers")
    (dry,) = fleet.novactl("cluster", "repair", "--dry-run", "-o", "json").items
    assert (dry["kind"], dry["repair"], dry["result"]) == ("leftover", "remove it from the node", "")
    assert host.domains() != {}
    fleet.novactl("cluster", "repair", "--node", "h1")
    assert host.domains() == {} and not any(server["id"] in name for name in host.pool_files())
    assert fleet.novactl("cluster", "verify", "-o", "json").items == []
