"""Nodes that do not answer: commands end in time and say so, the others go on."""

import time

from tests.lab.fleet import PATIENCE_S, Fleet, until

DEADLINE_S = 30.0
FOR_EVER = {"NOVACTL_AGENT_CONNECT_S": "100"}
"""Who asks a silent node is told apart from who does not, however slow the machine."""


def test_a_cut_off_node_is_unreachable_in_time(fleet: Fleet) -> None:
    """What needs the cut-off node is exit 6 within the deadline; once it is back the same command works."""
    server = fleet.create("web1", "--node", "h2")
    host = fleet.host_of(server)
    host.cut()
    for words in (("server", "stop", "web1"), ("node", "check", "h2"), ("server", "console-log", "web1")):
        began = time.monotonic()
        status = 1 if words[0] == "node" else 6
        ran = fleet.novactl(*words, status=status)
        assert "h2" in ran.stderr + ran.stdout
        assert time.monotonic() - began < DEADLINE_S, words
    fleet.lab.heal()
    fleet.novactl("server", "stop", "web1", "--grace", "0")
    assert fleet.server("web1")["status"] == "SHUTOFF"


def test_a_cut_off_node_is_not_chosen(fleet: Fleet) -> None:
    """Servers go to nodes that answer; asked for on the silent one, the refusal says that it is silent."""
    fleet.lab.host("h1").cut()
    nodes = [fleet.create(f"web{number}")["node_name"] for number in (1, 2)]
    assert set(nodes) == {"h2", "h3"}
    refused = fleet.novactl("server", "create", "web3", "--flavor", "tiny", "--image", "guest", "--node", "h1", status=5).stderr
    assert "h1" in refused and "answer" in refused


def test_lists_do_not_wait_for_a_silent_node(fleet: Fleet) -> None:
    """`node list` ends in time with a silent node and still shows the others; `server list` does not ask at all."""
    fleet.lab.host("h3").cut()
    began = time.monotonic()
    listed = fleet.novactl("node", "list", "-o", "json").items
    assert len(listed) == 3 and time.monotonic() - began < DEADLINE_S
    began = time.monotonic()
    fleet.novactl("server", "list", env=FOR_EVER)
    assert time.monotonic() - began < 50


def test_a_lost_answer_is_not_asked_twice(fleet: Fleet) -> None:
    """A node that hears but cannot answer: the create ends, elsewhere or not at all, and nothing stays behind when it is back."""
    host = fleet.lab.host("h2")
    host.cut(to_host=False, from_host=True)
    created = fleet.begin("server", "create", "web1", "--flavor", "tiny", "--image", "guest", "--node", "h2")
    created.communicate(timeout=PATIENCE_S)
    assert created.returncode in (5, 6)
    fleet.lab.heal()
    until(lambda: (fleet.novactl("server", "list"), fleet.leftovers())[1] == {}, "nothing is left of web1")
    assert fleet.novactl("server", "list", "-o", "json").items == []


def test_power_loss_and_return(fleet: Fleet) -> None:
    """While its node is without power a server cannot be started; when it is back, what ran runs again with the disk it had."""
    server = fleet.create("web1", "--node", "h3")
    host = fleet.host_of(server)
    fleet.await_ready("web1")
    host.power_off()
    assert fleet.novactl("server", "start", "web1", status=6).stderr
    host.power_on()
    until(lambda: "found_down" in (fleet.server("web1"), fleet.novactl("server", "events", "web1"))[1].stdout, "the boot is seen")
    until(lambda: fleet.server("web1")["status"] == "ACTIVE", "the server runs again")
    fleet.await_ready("web1", boot=2)
