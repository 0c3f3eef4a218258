"""A server's life on real hosts: create, list, console, stop, start, reboot, delete."""

import re
import sys

import pexpect
import pytest

from tests.lab.fleet import READY, REPOSITORY, Fleet, until


def console(fleet: Fleet, name: str) -> pexpect.spawn:
    """The guest's console on a terminal of our own, at its shell's prompt."""
    line = pexpect.spawn(
        sys.executable, ["-m", "novactl", "server", "console", name], env={**fleet.env, "TERM": "vt100"}, cwd=str(REPOSITORY),
        encoding="utf-8", codec_errors="replace", timeout=120, echo=False,
    )
    line.expect("leave with Ctrl-]")
    line.send("\r")
    line.expect(r"root@\S+# ")
    return line


def test_a_server_boots_and_is_found(fleet: Fleet) -> None:
    """A created server runs on one node, prints its ready line, and shows the address its guest tells."""
    server = fleet.create("web1")
    assert (server["status"], server["power_state"]) == ("ACTIVE", "RUNNING")
    assert fleet.host_of(server).domains() == {f"novactl-{server['id']}": "running"}
    address = fleet.await_ready("web1")
    assert f"{READY}web1 {address}" in fleet.novactl("server", "console-log", "web1").stdout
    until(lambda: fleet.server("web1")["addresses"] == [address], "the address is shown")
    listed = fleet.novactl("server", "list", "-o", "json").items
    assert [(row["name"], row["status"], row["node"]) for row in listed] == [("web1", "ACTIVE", server["node_name"])]


def test_stop_start_and_reboot_keep_the_disk(fleet: Fleet) -> None:
    """A guest is shut down, not cut off; started and rebooted it has the disk it had."""
    server = fleet.create("web1")
    host, domain = fleet.host_of(server), f"novactl-{server['id']}"
    fleet.await_ready("web1")
    fleet.novactl("server", "stop", "web1")
    until(lambda: "Power down" in fleet.novactl("server", "console-log", "web1").stdout, "it was shut down")
    assert fleet.server("web1")["status"] == "SHUTOFF" and host.domains() == {domain: "shut off"}
    fleet.novactl("server", "start", "web1")
    fleet.await_ready("web1", boot=2)
    for boot, words in ((3, ()), (4, ("--hard",))):
        fleet.novactl("server", "reboot", "web1", *words)
        fleet.await_ready("web1", boot=boot)
        assert fleet.server("web1")["status"] == "ACTIVE" and host.domains() == {domain: "running"}


def test_a_guest_that_shuts_itself_down(fleet: Fleet) -> None:
    """A guest's own shutdown is seen when the server is looked at, and the server can be started again."""
    server = fleet.create("web1")
    fleet.await_ready("web1")
    line = console(fleet, "web1")
    line.send("poweroff\r")
    line.expect(pexpect.EOF)
    until(lambda: fleet.host_of(server).domains() == {f"novactl-{server['id']}": "shut off"}, "the guest is off")
    fleet.novactl("server", "start", "web1")
    fleet.await_ready("web1", boot=2)
    assert "found_off" in fleet.novactl("server", "events", "web1").stdout


def test_verbs_can_be_repeated(fleet: Fleet) -> None:
    """Starting what runs and stopping what is off succeed and change nothing; deleting twice says it is gone."""
    fleet.create("web1")
    fleet.novactl("server", "start", "web1")
    fleet.novactl("server", "stop", "web1", "--grace", "0")
    fleet.novactl("server", "stop", "web1")
    assert fleet.server("web1")["status"] == "SHUTOFF"
    fleet.novactl("server", "delete", "web1", "--yes")
    fleet.novactl("server", "delete", "web1", "--yes", status=3)


def test_the_console_is_interactive(fleet: Fleet) -> None:
    """Keys reach the guest's shell, its answers come back, Ctrl-] leaves and the guest runs on."""
    fleet.create("web1")
    fleet.await_ready("web1")
    line = console(fleet, "web1")
    line.send("echo sum=$((6 * 7)) on $(hostname)\r")
    line.expect(r"sum=42 on web1")
    line.send("\x1d")
    line.expect("left the console")
    line.expect(pexpect.EOF)
    line.close()
    assert line.exitstatus == 0
    again = console(fleet, "web1")
    again.send("\x1d")
    again.expect(pexpect.EOF)
    assert fleet.server("web1")["status"] == "ACTIVE"


def test_the_console_needs_a_running_guest(fleet: Fleet) -> None:
    """The console of a server that is off is refused with a conflict."""
    fleet.create("web1")
    fleet.novactl("server", "stop", "web1", "--grace", "0")
    assert "error" in fleet.novactl("server", "console", "web1", status=4).stderr


def test_the_console_log_follows(fleet: Fleet) -> None:
    """`console-log --follow` prints what the guest writes as it writes it."""
    fleet.create("web1")
    follow = fleet.begin("server", "console-log", "web1", "--follow")
    try:
        assert follow.stdout is not None
        assert any(READY in line for line in follow.stdout)
    finally:
        follow.kill()
        follow.communicate()


def test_keys_and_user_data_reach_the_guest(fleet: Fleet, tmp_path) -> None:
    """The seed carries host name, public key and user data."""
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho user-data of $(hostname)\n")
    fleet.novactl("keypair", "create", "alice", "--public-key", f"{fleet.lab.client_key}.pub")
    try:
        fleet.create("web1", "--key", "alice", "--user-data", str(script))
        fleet.await_ready("web1")
        key = fleet.lab.client_key.with_suffix(".pub").read_text().split()[1]
        until(lambda: "user-data of web1" in fleet.novactl("server", "console-log", "web1").stdout, "user data has run")
        assert f"novactl-guest key: ssh-ed25519 {key}" in fleet.novactl("server", "console-log", "web1").stdout
    finally:
        fleet.novactl("keypair", "delete", "alice", "--yes", status=0)


def test_several_spread_over_the_nodes(fleet: Fleet) -> None:
    """Three servers of one command land on three nodes, are claimed there, and are gone with their disks when deleted."""
    fleet.novactl("server", "create", "web", "--count", "3", "--flavor", "tiny", "--image", "guest")
    servers = [fleet.server(f"web-{number}") for number in (1, 2, 3)]
    assert {server["node_name"] for server in servers} == {"h1", "h2", "h3"}
    claims = fleet.novactl("placement", "list", "-o", "json").items
    assert len(claims) >= 3
    fleet.novactl("server", "delete", "web-1", "web-2", "web-3", "--yes")
    assert fleet.novactl("server", "list", "-o", "json").items == []
    assert all(host.domains() == {} for host in fleet.lab.hosts) and fleet.leftovers() == {}


def test_zone_and_node_are_obeyed(fleet: Fleet) -> None:
    """A server asked for in a zone or on a node is there, and `why` tells what spoke against the others."""
    assert fleet.create("a", "--zone", "left")["node_name"] == "h1"
    assert fleet.create("b", "--node", "h3")["node_name"] == "h3"
    why = fleet.novactl("server", "why", "a").stdout
    assert re.search(r"h1\tchosen", why) and len(re.findall("zone", why)) >= 2


def test_a_guest_outlives_its_agent(fleet: Fleet) -> None:
    """Killing the agent stops no guest; the supervisor brings the agent back and it still knows the server."""
    server = fleet.create("web1")
    host = fleet.host_of(server)
    fleet.await_ready("web1")
    pids = host.run("pgrep", "-f", "nodeagent.*--config").stdout.split()
    host.run("kill", "-KILL", *pids, check=False)
    until(lambda: fleet.status("node", "check", host.name) == 0, "the agent is back")
    assert fleet.server("web1")["status"] == "ACTIVE" and host.domains() == {f"novactl-{server['id']}": "running"}


@pytest.mark.parametrize("output", ["table", "json", "yaml", "csv", "tsv", "name"])
def test_lists_in_every_format(fleet: Fleet, output: str) -> None:
    """Nodes can be listed in every format, and each names all three."""
    text = fleet.novactl("node", "list", "-o", output).stdout
    assert all(host.name in text for host in fleet.lab.hosts)
