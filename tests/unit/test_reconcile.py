"""Rows follow what runs: guests that went off, died, vanished or came back, and hosts that started anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nodeagent import autostart, handlers
from novactl.agents import wire
from novactl.api import power
from novactl.api import servers as api
from novactl.api.servers import CreateServer
from novactl.conductor import background, fleet, reconcile
from novactl.conductor.recover import find, resume, take_over
from novactl.db import events, nodes, operations, servers
from novactl.errors import Busy
from novactl.model.operation import OperationState
from novactl.model.server import Server
from novactl.states import PowerState, VmState
from tests import databases
from tests.world import World, small_world


@pytest.fixture(params=databases.EACH)
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """One node; operations that would go to a process of their own are driven by the test."""
    monkeypatch.setattr(background, "hand_over", lambda cluster, ids: None)
    with databases.database(request.param) as url, small_world(tmp_path, count=1, url=url) as made:
        yield made


def made(world: World, count: int = 1) -> tuple[Server, ...]:
    return api.create(world.cluster, CreateServer(name="web", flavor="small", image="guest", count=count)).servers


def row(world: World, server: Server) -> Server:
    with world.cluster.db.read() as tx:
        found = servers.by_id(tx, server.id)
    assert found is not None
    return found


def told(world: World, id_: str) -> list[str]:
    with world.cluster.db.read() as tx:
        return [event.event for event in events.of(tx, id_)]


def drive(world: World, ids: tuple[str, ...]) -> list[OperationState]:
    """As the process that they are handed to does."""
    for id_ in ids:
        resume(world.cluster, take_over(world.cluster, find(world.cluster, id_), forward=True), forward=False)
    return [find(world.cluster, id_).state for id_ in ids]


def begun(world: World) -> tuple[str, ...]:
    with world.cluster.db.read() as tx:
        return tuple(op.id for op in operations.recent(tx, ended=False))


def refresh(world: World) -> None:
    assert fleet.refresh(world.cluster, max_age_s=-1.0) == {}


def act(world: World, server: Server, what: str) -> None:
    driver: Any = world.agents["n1"].driver
    if what == "vanish":
        driver.destroy(server.id)
        driver.undefine(server.id)
    else:
        {"off": driver.shut_down, "crash": driver.crash, "on": driver.start_domain}[what](server.id)


@pytest.mark.parametrize(("what", "status", "shows", "event"), [
    ("off", "SHUTOFF", PowerState.SHUTDOWN, "found_off"), ("crash", "ERROR", PowerState.CRASHED, "found_crashed"),
    ("vanish", "ERROR", PowerState.NOSTATE, "found_gone")])
def test_the_row_follows_the_guest(world: World, what: str, status: str, shows: PowerState, event: str) -> None:
    """Any command's refresh shows that a guest went off, died or is gone, once, in the history too; and that it runs again."""
    (server,) = made(world)
    act(world, server, what)
    refresh(world)
    refresh(world)
    after = row(world, server)
    assert (after.status, after.power_state) == (status, shows)
    assert told(world, server.id).count(event) == 1
    assert bool(after.fault) == (status == "ERROR")
    if what != "vanish":
        act(world, server, "on")
        refresh(world)
        back = row(world, server)
        assert (back.status, back.power_state, back.fault) == ("ACTIVE", PowerState.RUNNING, "")
        assert told(world, server.id)[-1] == "found_on"


def test_a_list_shows_it(world: World) -> None:
    """What a refresh found is what lists and show print."""
    (server,) = made(world)
    act(world, server, "off")
    refresh(world)
    assert [line.status for line in api.list_servers(world.cluster)] == ["SHUTOFF"]
    assert api.show(world.cluster, server.name).status == "SHUTOFF"


def test_the_same_again_is_one_statement(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report that says nothing new costs one statement; after a server's row was changed, the next one is looked at in whole."""
    (server,) = made(world)
    refresh(world)
    ran: list[str] = []
    with world.cluster.db.read() as tx:
        node = nodes.by_name(tx, "n1")
        cls = type(tx)
    assert node is not None
    run = cls.run
    monkeypatch.setattr(cls, "run", lambda tx, query, **params: ran.append(query.name) or run(tx, query, **params))
    report = dataclasses.replace(world.agents["n1"].report(0.0), age_s=0.0)   # what is older than a change is no answer to it

    def taken() -> list[str]:
        ran.clear()
        with world.cluster.db.write() as tx:
            fleet.take_report(tx, node.id, report, world.cluster.clock.now())
        return list(ran)

    taken()                                                   # since the refresh the host's disk may have filled
    assert taken() == ["nodes.q_measured"]
    with world.cluster.db.write() as tx:
        (seen,) = servers.powers(tx, node.id)
        assert servers.found(tx, seen, seen.state, world.cluster.clock.now(), "")
    assert len(taken()) > 1
    assert taken() == ["nodes.q_measured"]


def test_what_was_seen_before_a_change_corrects_nothing(world: World) -> None:
    """A report taken before a server was stopped, and stored after, does not make it run again."""
    (server,) = made(world)
    late = world.agents["n1"].report(0.0)
    power.stop(world.cluster, server.name)
    with world.cluster.db.write() as tx:
        assert fleet.take_report(tx, server.node_id, late, world.cluster.clock.now())
    assert reconcile.follow(world.cluster, [server.node_id]) == ()
    assert row(world, server).status == "SHUTOFF" and "found_on" not in told(world, server.id)


def test_the_busy_are_left_alone(world: World) -> None:
    """A server with an operation under way is its operation's; what was found of it is looked at again when that has ended."""
    (server,) = made(world)
    (seen,) = _powers(world, server.node_id)
    with world.cluster.db.write() as tx:
        held = servers.by_id(tx, server.id)
        assert held is not None
        servers.move_state(tx, held, held.state, operation_id="x" * 36, at=world.cluster.clock.now())
    act(world, server, "off")
    refresh(world)
    assert row(world, server).vm_state is VmState.ACTIVE
    with world.cluster.db.write() as tx:
        held = servers.by_id(tx, server.id)
        assert held is not None
        servers.move_state(tx, held, held.state, operation_id="", at=world.cluster.clock.now())
    refresh(world)
    assert row(world, server).status == "SHUTOFF" and seen.vm_state is VmState.ACTIVE


def _powers(world: World, node_id: str) -> list[Any]:
    with world.cluster.db.read() as tx:
        return servers.powers(tx, node_id)


def test_only_its_own_epoch_is_believed(world: World) -> None:
    """A domain of another epoch than the row's is not the server: whether it is off or gone says nothing of it."""
    (server,) = made(world)
    guest = world.agents["n1"].driver._guests[server.id]  # type: ignore[attr-defined]
    guest.spec = dataclasses.replace(guest.spec, epoch=server.epoch + 1)
    act(world, server, "off")
    refresh(world)
    assert row(world, server).status == "ACTIVE"
    assert api.show(world.cluster, server.name).status == "ACTIVE"


def test_a_paused_guest_says_why(world: World) -> None:
    """QEMU stopped for want of space: the server stays active, shows that it is paused, and why; running again ends it."""
    server, other = made(world, 2)
    guest, by_hand = (world.agents["n1"].driver._guests[one.id] for one in (server, other))  # type: ignore[attr-defined]
    guest.power, guest.reason = "PAUSED", "ioerror"
    by_hand.power, by_hand.reason = "PAUSED", "user"
    refresh(world)
    assert row(world, other).power_state is PowerState.PAUSED and "space" not in row(world, other).fault
    after = row(world, server)
    assert (after.status, after.power_state) == ("ACTIVE", PowerState.PAUSED) and "no space left" in after.fault
    guest.power, guest.reason = "RUNNING", ""
    refresh(world)
    assert row(world, server).power_state is PowerState.RUNNING and row(world, server).fault == ""


def test_what_ran_runs_again_after_the_host_started_anew(world: World) -> None:
    """Another boot: what ran is started, each by an operation, once; what was stopped stays so; the boot is noted with it."""
    first, second, third = made(world, 3)
    power.stop(world.cluster, second.name)
    refresh(world)
    with world.cluster.db.read() as tx:
        before = nodes.by_name(tx, "n1")
    world.reboot("n1")
    refresh(world)
    ids = begun(world)
    assert [find(world.cluster, id_).kind for id_ in ids] == ["server.revive"] * 2
    assert {row(world, one).status for one in (first, third)} == {"REBOOT"} and row(world, second).status == "SHUTOFF"
    refresh(world)
    assert begun(world) == ids
    with pytest.raises(Busy):
        power.reboot(world.cluster, first.name, hard=True)
    assert drive(world, ids) == [OperationState.OK] * 2
    refresh(world)
    assert {row(world, one).status for one in (first, third)} == {"ACTIVE"} and row(world, second).status == "SHUTOFF"
    assert set(world.domains().values()) == {"RUNNING", "SHUTDOWN"} and row(world, first).fault == ""
    with world.cluster.db.read() as tx:
        after = nodes.by_name(tx, "n1")
    assert before is not None and after is not None
    assert before.boot_id != after.boot_id == world.agents["n1"].clock.boot_id
    assert [event for event in told(world, first.id) if event in ("found_down", "revived")] == ["found_down", "revived"]
    act(world, first, "off")
    refresh(world)
    assert row(world, first).status == "SHUTOFF"


def test_a_busy_server_is_waited_for(world: World) -> None:
    """One that had an operation under way when its host went down is started, too, when that has ended."""
    first, second = made(world, 2)
    with world.cluster.db.write() as tx:
        held = servers.by_id(tx, first.id)
        assert held is not None
        servers.move_state(tx, held, held.state, operation_id="x" * 36, at=world.cluster.clock.now())
    world.reboot("n1")
    refresh(world)
    assert [find(world.cluster, id_).object_id for id_ in begun(world)] == [second.id]
    drive(world, begun(world))
    with world.cluster.db.write() as tx:
        held = servers.by_id(tx, first.id)
        assert held is not None
        servers.move_state(tx, held, held.state, operation_id="", at=world.cluster.clock.now())
    refresh(world)
    assert [find(world.cluster, id_).object_id for id_ in begun(world)] == [first.id]
    drive(world, begun(world))
    assert set(world.domains().values()) == {"RUNNING"}


def test_what_the_agent_started_itself_is_left_as_it_is(world: World) -> None:
    """Where the agent has started them already, in its new boot, there is nothing to begin."""
    (server,) = made(world)
    refresh(world)
    world.reboot("n1")
    act(world, server, "on")
    refresh(world)
    assert begun(world) == () and row(world, server).status == "ACTIVE"


def test_what_cannot_start_again_says_so(world: World) -> None:
    """A server whose disk is gone ends in ERROR with the reason, and is not tried for ever."""
    (server,) = made(world)
    (world.folder / "n1" / "pool" / f"disk-{server.id}.qcow2").unlink()
    world.reboot("n1")
    refresh(world)
    assert drive(world, begun(world)) == [OperationState.FAILED]
    refresh(world)
    after = row(world, server)
    assert (after.status, after.power_state) == ("ERROR", PowerState.SHUTDOWN) and "its disk is missing" in after.fault
    assert begun(world) == ()


def test_a_guest_that_goes_down_with_its_host_is_to_run_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the host shuts down, guests that go off are not taken for stopped: after the boot they are started."""
    (server,) = made(world)
    monkeypatch.setattr(autostart, "NOLOGIN", str(tmp_path / "nologin"))
    (tmp_path / "nologin").touch()
    act(world, server, "off")
    refresh(world)
    assert row(world, server).status == "ACTIVE"
    (tmp_path / "nologin").unlink()
    world.reboot("n1")
    refresh(world)
    assert drive(world, begun(world)) == [OperationState.OK]
    assert row(world, server).status == "ACTIVE"


def test_a_node_of_many_servers_is_followed(world: World) -> None:
    """With 1,500 domains, more than one message holds, each row follows its own."""
    (server,) = made(world)
    driver: Any = world.agents["n1"].driver
    guest = driver._guests[server.id]
    with world.cluster.db.write() as tx:
        one = servers.by_id(tx, server.id)
        assert one is not None
        for number in range(1499):
            id_ = world.cluster.ids.uuid()
            servers.insert(tx, dataclasses.replace(one, id=id_, name=f"m{number}"))
            driver._guests[id_] = type(guest)(dataclasses.replace(guest.spec, server=id_, name=f"m{number}"), guest.mark, "RUNNING", 1)
    last = max(driver._guests)
    driver._guests[last].power, driver._guests[last].reason = "SHUTDOWN", "shutdown"
    refresh(world)
    found = {line.id: line.status for line in api.list_servers(world.cluster)}
    assert len(found) == 1500 and {id_ for id_, status in found.items() if status != "ACTIVE"} == {last}
    report = world.cluster.agents.call(_node(world), "inventory.read", wire.InventoryRead(0)).body
    assert report.domains_left > 0


def test_a_report_without_room_for_domains_loses_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not one domain fits into the report they are all asked for, and none is taken for vanished; a node that comes to
    no end is not believed."""
    (server,) = made(world)
    agent: Any = world.agents["n1"]
    honest = agent.report
    agent.report = lambda age_s: dataclasses.replace(honest(age_s), domains=(), domains_left=1, load_1m=7.0, images=())
    refresh(world)
    assert row(world, server).status == "ACTIVE"
    endless = wire.DomainStates((), "z")
    monkeypatch.setitem(handlers.HANDLERS, "domain.list", lambda call, args, payload: (endless, None))
    monkeypatch.setattr(fleet, "PAGES", 5)
    (error,) = fleet.refresh(world.cluster, max_age_s=-1.0).values()
    assert "does not come to an end" in error.message and row(world, server).status == "ACTIVE"


def _node(world: World) -> Any:
    with world.cluster.db.read() as tx:
        return nodes.by_name(tx, "n1")
