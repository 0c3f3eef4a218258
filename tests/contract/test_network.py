"""The NAT network through libvirt, on its test driver: what is made, moved, and put back."""

from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from nodeagent import networkxml, wire
from nodeagent.drivers import network as network_file
from tests.contract.kit import Node

USUAL, NEXT = IPv4Network("192.168.122.0/24"), IPv4Network("192.168.123.0/24")


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Node]:
    """A node that is not prepared."""
    node = Node(tmp_path, driver="libvirt", architecture="i686")
    yield node
    node.ok("node.unprepare")
    with node.agent.driver.link.acting("clean up") as conn:
        for network in conn.listAllNetworks(0):
            if network.name() == node.network:
                if network.isActive():
                    network.destroy()
                network.undefine()
    node.down()


def seen(node: Node) -> tuple[bool, bool, list[IPv4Network]] | None:
    """(active, autostart, subnets) of the node's network, or None."""
    with node.agent.driver.link.acting("look") as conn:
        network = node.agent.driver.link.found(conn.networkLookupByName, node.network)
        return (bool(network.isActive()), bool(network.autostart()), networkxml.subnets(network.XMLDesc(0))) if network else None


def define(node: Node, *, start: bool = False) -> None:
    """As the distribution's package does."""
    with node.agent.driver.link.acting("define") as conn:
        network = conn.networkDefineXML(networkxml.build(node.network, USUAL))
        if start:
            network.create()


def test_a_network_is_made_and_taken_away(bare: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is none, it is made on a subnet the host does not use, active and autostarted; unprepare leaves none."""
    monkeypatch.setattr(network_file, "_host_routes", lambda: [USUAL])
    bare.prepare()
    assert seen(bare) == (True, True, [NEXT])
    bare.ok("node.unprepare")
    assert seen(bare) is None


def test_a_network_that_was_there_is_put_back(bare: Node) -> None:
    """One that was defined and off is started and autostarted, then off and not autostarted again, and still defined."""
    define(bare)
    bare.prepare()
    bare.prepare()
    assert seen(bare) == (True, True, [USUAL])
    bare.ok("node.unprepare")
    assert seen(bare) == (False, False, [USUAL])


def test_a_network_that_collides_moves_and_comes_back(bare: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a host that is itself in its subnet, a network that is off moves to a free one; unprepare restores the old definition."""
    monkeypatch.setattr(network_file, "_host_routes", lambda: [USUAL])
    define(bare)
    bare.prepare()
    assert seen(bare) == (True, True, [NEXT])
    bare.ok("node.unprepare")
    assert seen(bare) == (False, False, [USUAL])


def test_an_active_network_is_left_running(bare: Node) -> None:
    """One that ran before us runs after us."""
    define(bare, start=True)
    bare.prepare()
    assert seen(bare) == (True, True, [USUAL])
    bare.ok("node.unprepare")
    assert seen(bare) == (True, False, [USUAL])


def test_a_network_with_strangers_on_it_stays(bare: Node, capfd: pytest.CaptureFixture[str]) -> None:
    """While another's running domain uses it, unprepare leaves even a network we made, and says so."""
    bare.prepare()
    xml = f"""<domain type='test'><name>stranger</name><memory>65536</memory><os><type arch='i686'>hvm</type></os>
      <devices><interface type='network'><source network='{bare.network}'/></interface></devices></domain>"""
    with bare.agent.driver.link.acting("a stranger") as conn:
        stranger = conn.createXML(xml, 0)
    bare.ok("node.unprepare")
    assert seen(bare) is not None and "stays: stranger use" in capfd.readouterr().err
    with bare.agent.driver.link.acting("gone") as conn:
        conn.lookupByName(stranger.name()).destroy()


def test_what_was_made_is_known_after_a_failure(tmp_path: Path) -> None:
    """When prepare fails half way, what it had made is remembered, and unprepare takes it away."""
    node = Node(tmp_path, fake={"fail": {"prepare": "no network today"}})
    failure = node.refusal("node.prepare", wire.Prepare())
    assert "no network today" in failure.message
    node.restart()
    assert node.agent.prepared.made == {"pool": node.config.pool_name} and node.agent.prepared.network == ""
    node.down()
