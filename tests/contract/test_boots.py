"""After a boot of the host: who starts what ran, and who remembers it."""

import json
import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nodeagent import autostart, wire
from nodeagent.config import BadConfig, parse
from nodeagent.ledger import Ledger
from nodeagent.wire import DomainRef, Stop
from tests.contract.kit import Node, until


def powers(node: Node) -> dict[str, str]:
    return {state.name: state.power_state for state in node.ok("domain.list").domains}


def tick(node: Node) -> None:
    """As the loop does once a second, without waiting for it."""
    node.agent.autostart._next_s = node.dispatcher._next_follow_s = 0.0
    node.dispatcher.tick()


def settled(node: Node, wanted: dict[str, bool]) -> None:
    """Tick until what should run is remembered so, by name."""
    names = {spec.server: spec.name for spec in node.agent.driver.specs()}

    def is_so() -> bool:
        tick(node)
        return {names[server]: one.runs for server, one in node.agent.ledger.wanted().items() if server in names} == wanted

    until(is_so)


def four(node: Node) -> dict[str, wire.DomainSpec]:
    """`up` runs; `down` was stopped; `quit` went off by itself; `dead` died."""
    sha256 = node.put_image()
    specs = {name: node.define(sha256, name=name) for name in ("up", "down", "quit", "dead")}
    for spec in specs.values():
        node.ok("domain.start", DomainRef(spec.server, 1))
    node.ok("domain.stop", Stop(specs["down"].server, 1))
    node.agent.driver.shut_down(specs["quit"].server)
    node.agent.driver.crash(specs["dead"].server)
    settled(node, {"up": True, "down": False, "quit": False, "dead": True})
    return specs


def test_a_conductor_is_waited_for(fake: Node) -> None:
    """By default nothing starts by itself, whatever ran before."""
    four(fake)
    fake.reboot()
    for _ in range(3):
        tick(fake)
    assert set(powers(fake).values()) == {"SHUTDOWN"}
    assert fake.ok("inventory.read", wire.InventoryRead(0)).boot_id == fake.clock.boot_id


def test_what_ran_starts_at_once_where_that_is_wished(fake: Node) -> None:
    """With autostart local the agent starts in a new boot what ran or had died, once, and never what had been stopped."""
    specs = four(fake)
    fake.reboot(autostart="local")
    until(lambda: tick(fake) or powers(fake) == {"up": "RUNNING", "down": "SHUTDOWN", "quit": "SHUTDOWN", "dead": "RUNNING"})
    assert all(state.started_by_us for state in fake.ok("domain.list").domains if state.power_state == "RUNNING")
    until(lambda: fake.agent.ledger.boot() == fake.clock.boot_id)
    fake.agent.driver.shut_down(specs["up"].server)
    fake.restart()
    for _ in range(3):
        tick(fake)
    assert powers(fake)["up"] == "SHUTDOWN"


def test_another_nodes_server_is_not_started(fake: Node) -> None:
    """A domain older than the newest epoch seen of its server is a copy that was left behind: it stays off."""
    specs = four(fake)
    fake.agent.ledger.raise_epochs("moved-away", 1, specs["up"].server, 2, 1.0)
    fake.reboot(autostart="local")
    until(lambda: tick(fake) or fake.agent.ledger.boot() == fake.clock.boot_id)
    assert powers(fake) == {"up": "SHUTDOWN", "down": "SHUTDOWN", "quit": "SHUTDOWN", "dead": "RUNNING"}


def test_what_does_not_start_is_tried_again(fake: Node) -> None:
    """A start that fails is tried again a while, and the boot counts as seen to only when that has come to an end."""
    specs = four(fake)
    disk = fake.pool / f"disk-{specs['up'].server}.qcow2"
    away = disk.rename(disk.with_suffix(".away"))
    fake.reboot(autostart="local")
    until(lambda: tick(fake) or powers(fake)["dead"] == "RUNNING")
    assert fake.agent.ledger.boot() != fake.clock.boot_id
    away.rename(disk)
    until(lambda: tick(fake) or powers(fake)["up"] == "RUNNING")
    until(lambda: fake.agent.ledger.boot() == fake.clock.boot_id)


def test_a_start_that_cannot_be_noted_is_tried_again(fake: Node) -> None:
    """A ledger that takes nothing for a while costs a try, and what runs is followed afterwards; the boot is seen to in the end."""
    specs = four(fake)
    failing = {"should_run", "set_boot"}

    def full(name: str) -> Callable[..., Any]:
        act = getattr(Ledger, name)

        def called(*args: Any) -> Any:
            if name in failing:
                raise sqlite3.OperationalError("database or disk is full")
            return act(fake.agent.ledger, *args)

        return called

    fake.reboot(autostart="local")
    fake.agent.ledger.should_run, fake.agent.ledger.set_boot = full("should_run"), full("set_boot")
    until(lambda: tick(fake) or (powers(fake)["up"] == powers(fake)["dead"] == "RUNNING"))
    tick(fake)
    failing.discard("should_run")
    until(lambda: tick(fake) or not fake.agent.autostart._left)
    assert fake.agent.ledger.boot() != fake.clock.boot_id
    fake.agent.driver.shut_down(specs["up"].server)
    for _ in range(3):
        tick(fake)
    failing.clear()
    settled(fake, {"up": False, "down": False, "quit": False, "dead": True})
    until(lambda: tick(fake) or fake.agent.ledger.boot() == fake.clock.boot_id)


def test_a_host_that_goes_down_takes_nothing_back(fake: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guests that the host shuts down as it goes are to run again, and the report says why they go."""
    specs = four(fake)
    monkeypatch.setattr(autostart, "NOLOGIN", str(tmp_path / "nologin"))
    (tmp_path / "nologin").write_text("System is going down")
    fake.agent.driver.shut_down(specs["up"].server)
    for _ in range(3):
        tick(fake)
    assert fake.ok("inventory.read", wire.InventoryRead(0)).going_down
    until(lambda: not fake.dispatcher._changed)
    assert fake.agent.ledger.wanted()[specs["up"].server].runs


def test_autostart_is_one_of_two() -> None:
    """Another word in the configuration is refused and named."""
    with pytest.raises(BadConfig, match="autostart 'maybe' is not one of confirmed, local"):
        parse(json.dumps({"node_id": str(uuid.uuid4()), "cluster_id": str(uuid.uuid4()), "name": "n", "autostart": "maybe"}))
