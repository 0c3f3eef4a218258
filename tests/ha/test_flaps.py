"""A node that dies while something is under way on it: what is stuck there keeps no server from being started elsewhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from novactl.api import ha as api
from novactl.api import nodes as nodes_api
from novactl.api import power as power_api
from novactl.api import servers as servers_api
from novactl.api import waiting
from novactl.conductor import background, faults, fleet, ha, owner, power, recover
from novactl.conductor.clean_server import CLEAN, CleanServer
from novactl.conductor.progress import Progress
from novactl.conductor.rotate_key import ROTATE_KEY, RotateKey
from novactl.conductor.saga import begin
from novactl.db import nodes, operations, servers
from novactl.errors import Busy, Conflict, NovaError, NoValidHost
from novactl.model.node import NodeState
from novactl.model.operation import OperationState
from novactl.states import Event, advance
from tests.ha.test_fencing import drive, power_cut, server_on
from tests.world import World, small_world


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Three nodes with a power switch; operations that would go to a process of their own are driven by the test."""
    for module in (background, waiting):
        monkeypatch.setattr(module, "hand_over", lambda cluster, ids: None)
    with small_world(tmp_path, count=3) as made:
        for name in ("n1", "n2", "n3"):
            nodes_api.set_(made.cluster, name, nodes_api.SetNode(fencing={"method": "command", "command": "/bin/true"}))
        yield made


class Killed(BaseException):
    """The process dies here: nothing after this line runs."""


def dies(world: World, name: str) -> None:
    """As `power_cut`, and nothing listens at its address any more."""
    power_cut(world, name)
    with world.cluster.db.write() as tx:
        node = nodes.by_name(tx, name)
        assert node is not None
        nodes.update(tx, dataclasses.replace(node, address="tcp://127.0.0.1:9"))


def under_way(world: World) -> list[str]:
    with world.cluster.db.read() as tx:
        return [one.id for one in operations.under_way(tx)]


def begun(world: World, saga: power.Saga[power.Power], event: Event) -> str:
    """Its process died just after it began."""
    server = servers_api.show(world.cluster, "web", refresh=False)
    with world.cluster.db.write() as tx:
        row = servers.by_id(tx, server.id)
        assert row is not None
        record = power.Power(server=row.id, node=row.node_id, epoch=row.epoch, hard=True)
        operation = begin(world.cluster, tx, saga, record, ("server", row.id, row.name), detached=True)
        servers.move_state(tx, row, advance(row.state, event, row.name), operation_id=operation.id, at=world.cluster.clock.now())
    return operation.id


def stuck(world: World) -> str:
    """What is under way on a node that is off is turned back, and cannot be."""
    (id_,) = under_way(world)
    world.abandon(recover.find(world.cluster, id_))
    recover.recover(world.cluster, budget_s=60.0)
    assert recover.find(world.cluster, id_).state is OperationState.STUCK
    return id_


def fenced(world: World) -> None:
    """By the conductor, which then begins what is to be begun; its processes end it."""
    for _ in range(2):
        ids, _said = ha.look_after(world.cluster)
        for id_ in ids:
            drive(world, id_)


def runs_elsewhere(world: World, server: str) -> None:
    moved = servers_api.show(world.cluster, "web")
    assert (moved.status, moved.operation_id, moved.fault) == ("ACTIVE", "", "") and moved.node_name in ("n2", "n3")
    assert world.domains()[server] == "RUNNING" and under_way(world) == []


def flap(world: World) -> None:
    """The host is back for a moment: its server is begun to be started there."""
    world.reboot("n1")
    fleet.refresh(world.cluster, max_age_s=-1.0)


@pytest.mark.parametrize("what", ["revive", "reboot", "stop"])
def test_what_was_under_way_when_its_node_died_runs_elsewhere(world: World, what: str) -> None:
    """It is stuck until the node is fenced; given up then, it failed, and says so."""
    server = server_on(world, "n1")
    if what == "revive":
        flap(world)
    else:
        saga, event = {"reboot": (power.REBOOT, Event.BEGIN_REBOOT_HARD), "stop": (power.STOP, Event.BEGIN_STOP)}[what]
        begun(world, saga, event)
    dies(world, "n1")
    id_ = stuck(world)
    with pytest.raises(NovaError, match="is not fenced"):
        api.evacuate(world.cluster, "web")
    fenced(world)
    runs_elsewhere(world, server)
    ended = recover.find(world.cluster, id_)
    assert ended.state is OperationState.FAILED and ended.error is not None and "node n1 is fenced" in ended.error["message"]


def test_a_start_that_is_stuck_is_given_up_by_who_evacuates(world: World) -> None:
    """Its admin had stopped it, and it never ran: it is not started elsewhere by itself, and by name it moves."""
    server = server_on(world, "n1")
    power_api.stop(world.cluster, "web")
    begun(world, power.START, Event.BEGIN_START)
    dies(world, "n1")
    id_ = stuck(world)
    assert not ha.look_after(world.cluster)[0], "nothing is to run there"
    api.fence(world.cluster, "n1", by_hand=True)
    assert recover.find(world.cluster, id_).state is OperationState.STUCK
    moved = api.evacuate(world.cluster, "web")
    assert not isinstance(moved, str) and (moved.status, moved.operation_id) == ("SHUTOFF", "") and moved.node_name in ("n2", "n3")
    assert world.domains()[server] == "SHUTDOWN" and under_way(world) == []


def test_the_second_node_dies_in_the_middle_of_an_evacuation(world: World) -> None:
    """Half of it was made there: it goes on to the third once that node, too, is fenced, and never before."""
    server = server_on(world, "n1")
    nodes_api.disable(world.cluster, "n3")
    dies(world, "n1")
    fencing, _said = ha.look_after(world.cluster)
    drive(world, fencing[0])
    (moving,), _said = ha.look_after(world.cluster)
    def killed(progress: Progress) -> None:
        if (progress.step, progress.state) == ("start", "done"):
            raise Killed

    driver = recover.take_over(world.cluster, recover.find(world.cluster, moving), forward=True, watch=killed)
    with pytest.raises(Killed):
        driver.drive()
    assert world.agents["n2"].driver.run_id(server)
    dies(world, "n2")
    assert stuck(world) == moving
    nodes_api.enable(world.cluster, "n3")
    assert ha.evacuate_the_fenced(world.cluster) == ([], {})  # n2 is not fenced yet
    fenced(world)
    moved = servers_api.show(world.cluster, "web")
    assert (moved.status, moved.node_name) == ("ACTIVE", "n3") and world.domains()[server] == "RUNNING"
    assert under_way(world) == []


def test_who_lives_is_not_given_up(world: World) -> None:
    """An operation whose process lives is waited for."""
    server_on(world, "n1")
    id_ = begun(world, power.REBOOT, Event.BEGIN_REBOOT_HARD)
    recover.take_over(world.cluster, recover.find(world.cluster, id_), forward=True)
    dies(world, "n1")
    api.fence(world.cluster, "n1", by_hand=True)
    with pytest.raises(Busy, match="server.reboot"):
        api.evacuate(world.cluster, "web")
    assert recover.find(world.cluster, id_).state is OperationState.RUNNING


def test_those_that_are_off_do_not_count_as_cut_off(world: World) -> None:
    """Two of three nodes do not answer, but one of them is fenced: the machine that asks is not what is cut off."""
    server = server_on(world, "n1")
    dies(world, "n3")
    api.fence(world.cluster, "n3", by_hand=True)
    dies(world, "n1")
    fenced(world)
    assert servers_api.show(world.cluster, "web").node_name == "n2" and world.domains()[server] == "RUNNING"


def test_a_server_that_is_being_cleaned_keeps_no_other_from_starting(world: World) -> None:
    """What was left of it elsewhere is under way: its row says nothing of that. It is started when that has ended."""
    kept, other = server_on(world, "n1"), server_on(world, "n1", "other")
    with world.cluster.db.write() as tx:
        cleaning = begin(world.cluster, tx, CLEAN, CleanServer(server=kept, node="", epoch=1), ("server", kept, "web"))
    flap(world)
    (id_,) = [one for one in under_way(world) if one != cleaning.id]
    drive(world, id_)
    assert (world.domains()[other], world.domains()[kept]) == ("RUNNING", "SHUTDOWN")
    with world.cluster.db.write() as tx:
        fresh = operations.by_id(tx, cleaning.id)
        assert fresh is not None
        operations.take(tx, fresh, state=OperationState.STUCK, owner="", lease_until=0.0)
        recover.give_up_stuck(world.cluster, tx, kept, NovaError("it is no more"))
    fleet.refresh(world.cluster, max_age_s=-1.0)
    (id_,) = under_way(world)
    drive(world, id_)
    assert world.domains()[kept] == "RUNNING"


def test_an_answer_of_another_boot_does_not_count_as_looked_after(world: World) -> None:
    """Who started it died with the answer on its way, and the host with it: the takeover is told what was once so, and the next look
    starts it."""
    server = server_on(world, "n1", wants_ha=False)
    flap(world)
    (id_,) = under_way(world)

    def killed(progress: Progress) -> None:
        if (progress.step, progress.state) == ("start", "done"):
            raise Killed

    with pytest.raises(Killed):
        recover.take_over(world.cluster, recover.find(world.cluster, id_), forward=True, watch=killed).drive()
    assert world.domains()[server] == "RUNNING"
    flap(world)
    world.abandon(recover.find(world.cluster, id_))
    recover.recover(world.cluster, budget_s=60.0)
    for _ in range(2):
        fleet.refresh(world.cluster, max_age_s=-1.0)
        for one in under_way(world):
            drive(world, one)
    shown = servers_api.show(world.cluster, "web")
    assert (shown.status, world.domains()[server]) == ("ACTIVE", "RUNNING")


def test_a_node_that_is_enabled_meanwhile_keeps_its_own(world: World) -> None:
    """Its server was about to be started elsewhere when it came back: it stays, with its disk."""
    server = server_on(world, "n1")
    power_cut(world, "n1")
    api.fence(world.cluster, "n1", by_hand=True, wait=False)
    (fencing,) = under_way(world)
    drive(world, fencing)
    (moving,), _said = ha.look_after(world.cluster)
    disks = world.disks()

    def enabled(progress: Progress) -> None:
        if (progress.step, progress.state) == ("place", "started"):
            with world.cluster.db.write() as tx:
                n1 = nodes.by_name(tx, "n1")
                assert n1 is not None
                nodes.update(tx, dataclasses.replace(n1, state=NodeState.ENABLED, fenced_at=None))

    with pytest.raises(Conflict, match="node n1 is not fenced"):
        recover.take_over(world.cluster, recover.find(world.cluster, moving), forward=True, watch=enabled).drive()
    stays = servers_api.show(world.cluster, "web", refresh=False)
    assert (stays.node_name, stays.epoch, stays.operation_id) == ("n1", 1, "") and world.disks() == disks
    assert server and under_way(world) == []


def test_the_node_it_leaves_is_never_where_it_goes(world: World) -> None:
    server_on(world, "n1")
    for name in ("n2", "n3"):
        nodes_api.disable(world.cluster, name)
    power_cut(world, "n1")
    api.fence(world.cluster, "n1", by_hand=True)
    with pytest.raises(NoValidHost) as refused:
        api.evacuate(world.cluster, "web")
    assert "is the node it leaves" in f"{refused.value.message} {refused.value.reasons}"


def test_what_is_stuck_on_a_node_does_not_keep_it_from_being_fenced(world: World) -> None:
    """It died in the middle of a change of its key: either key is known afterwards, and its servers run elsewhere."""
    server = server_on(world, "n1")
    n1 = nodes_api.show(world.cluster, "n1", refresh=False)
    with world.cluster.db.write() as tx:
        begin(world.cluster, tx, ROTATE_KEY, RotateKey(node=n1.id), ("node", n1.id, "n1"), detached=True)
    dies(world, "n1")
    (id_,) = under_way(world)
    with world.cluster.db.write() as tx:
        one = operations.by_id(tx, id_)
        assert one is not None
        operations.take(tx, one, state=OperationState.RUNNING, owner=owner.this_process(), lease_until=world.cluster.clock.now() + 60)
    begun, said = ha.look_after(world.cluster)
    assert begun == [] and "node n1 is silent and cannot be fenced yet" in said[0] and "node.rotate_key" in said[0]
    with world.cluster.db.write() as tx:
        one = operations.by_id(tx, id_)
        assert one is not None
        operations.take(tx, one, state=OperationState.STUCK, owner="", lease_until=0.0)
    fenced(world)
    runs_elsewhere(world, server)
    assert recover.find(world.cluster, id_).state is OperationState.FAILED


def test_a_fencing_whose_process_died_is_begun_anew_at_once(world: World) -> None:
    """It did not fail: a conductor that is restarted costs no five minutes."""
    server = server_on(world, "n1")
    power_cut(world, "n1")
    for _ in range(2):
        (lost,), _said = ha.look_after(world.cluster)
        world.abandon(recover.find(world.cluster, lost))
        recover.recover(world.cluster, budget_s=60.0)
        assert recover.find(world.cluster, lost).state is OperationState.FAILED
        (again,), _said = ha.look_after(world.cluster)
        drive(world, again)
    runs_elsewhere(world, server)


def test_what_could_not_be_started_now_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its host was being fenced just then, in vain: it is to run, and does when somebody looks later, or asks for it."""
    web, other = server_on(world, "n1", wants_ha=False), server_on(world, "n1", "other", wants_ha=False)
    flap(world)
    ids = under_way(world)
    n1 = nodes_api.show(world.cluster, "n1", refresh=False).id
    set_state(world, n1, NodeState.FENCING)
    for id_ in ids:
        with pytest.raises(NovaError, match="is fencing"):
            recover.take_over(world.cluster, recover.find(world.cluster, id_), forward=True).drive()
    set_state(world, n1, NodeState.ENABLED)
    for name in ("web", "other"):
        shown = servers_api.show(world.cluster, name, refresh=False)
        assert shown.status == "ERROR" and f"novactl server start {name}" in shown.fault
    fleet.refresh(world.cluster, max_age_s=-1.0)
    assert under_way(world) == [], "not at once"
    power_api.start(world.cluster, "other")
    assert world.domains()[other] == "RUNNING" and servers_api.show(world.cluster, "other").status == "ACTIVE"
    monkeypatch.setattr(faults, "LATER_S", 0.0)
    fleet.refresh(world.cluster, max_age_s=-1.0)
    for id_ in under_way(world):
        drive(world, id_)
    assert world.domains()[web] == "RUNNING" and servers_api.show(world.cluster, "web").fault == ""
    fleet.refresh(world.cluster, max_age_s=-1.0)
    assert under_way(world) == []
    power_api.stop(world.cluster, "web")
    fleet.refresh(world.cluster, max_age_s=-1.0)
    assert under_way(world) == [] and servers_api.show(world.cluster, "web").status == "SHUTOFF"


def set_state(world: World, node_id: str, state: NodeState) -> None:
    with world.cluster.db.write() as tx:
        node = nodes.by_id(tx, node_id)
        assert node is not None
        nodes.update(tx, dataclasses.replace(node, state=state))


def test_a_node_that_came_back_before_it_was_held_is_not_off(world: World) -> None:
    """Its admin had powered it off, and his command was kept waiting; meanwhile the host was on again and had its server started."""
    server = server_on(world, "n1")
    receive = world.endpoints["n1"].dispatcher.receive
    power_cut(world, "n1")
    api.fence(world.cluster, "n1", by_hand=True, wait=False)
    (fencing,) = under_way(world)
    world.endpoints["n1"].dispatcher.receive = receive  # type: ignore[method-assign]
    flap(world)
    (revive,) = [one for one in under_way(world) if one != fencing]
    drive(world, revive)
    assert world.domains()[server] == "RUNNING"
    with pytest.raises(Conflict, match="node n1 has answered since"):
        recover.take_over(world.cluster, recover.find(world.cluster, fencing), forward=True).drive()
    assert nodes_api.show(world.cluster, "n1", refresh=False).status == "up" and ha.look_after(world.cluster)[0] == []
