"""A node is fenced, by whatever way, or it is not; only then are its servers started elsewhere."""

from __future__ import annotations

import dataclasses
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.clock import BootClock
from nodeagent.handlers import HANDLERS
from nodeagent.refusal import Refused
from nodeagent.wire import Code
from novactl.api import ha as api
from novactl.api import nodes as nodes_api
from novactl.api import power
from novactl.api import servers as servers_api
from novactl.conductor import evacuate_server, fences, fleet, ha, reconcile
from novactl.conductor.recover import recover
from novactl.db import nodes, operations, placement
from novactl.errors import Conflict, FencingFailed, NovaError, NoValidHost, UsageError
from novactl.model.node import NodeState
from tests.contract.kit import is_gone, until
from tests.world import World, small_world

SWITCH = """#!/bin/sh
# A power switch as fence agents are: options on standard input, status 0 is on, 2 is off.
options=$(cat)
echo "$options" | sed 's/^/said: /' >> {log}
case "$options" in *action=off*) {off} ;; *action=status*) exit {status} ;; esac
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with small_world(tmp_path, count=3) as made:
        yield made


def switch(folder: Path, monkeypatch: pytest.MonkeyPatch, *, off: str = "exit 0", status: int = 2, name: str = "fence_ipmilan") -> Path:
    """A fence agent of that name first on PATH; the file that it writes down what it was told."""
    programs = folder / "programs"
    programs.mkdir()
    log = folder / "switch.log"
    (programs / name).write_text(SWITCH.format(log=log, off=off, status=status))
    (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return log


def server_on(world: World, node: str, name: str = "web", *, wants_ha: bool = True) -> str:
    made = servers_api.create(world.cluster, servers_api.CreateServer(name=name, flavor="small", image="guest", node=node))
    if wants_ha:
        api.set_server(world.cluster, name, wants_ha=True)
    return made.servers[0].id


def power_cut(world: World, name: str) -> None:
    """The host is dead: its agent answers nobody, its guests are gone."""
    agent = world.agents[name]
    for state in agent.driver.states()[0]:
        agent.driver.destroy(state.server)
    with world.cluster.db.write() as tx:
        node = nodes.by_name(tx, name)
        assert node is not None
        nodes.silent(tx, node.id, world.cluster.clock.now() - 1000)
    world.endpoints[name].dispatcher.receive = lambda peer, key, frames: None  # type: ignore[method-assign]


def state_of(world: World, name: str) -> NodeState:
    with world.cluster.db.read() as tx:
        node = nodes.by_name(tx, name)
    assert node is not None
    return node.state


def test_a_power_switch_says_that_the_node_is_off(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fence agent is told by standard input, its password from a file; the server runs elsewhere with the next epoch."""
    log = switch(tmp_path, monkeypatch)
    secret = tmp_path / "ipmi.secret"
    secret.write_text("hunter2\n")
    secret.chmod(0o600)
    server = server_on(world, "n1")
    fencing = {"method": "ipmi", "ip": "10.0.9.1", "username": "ops", "password_file": str(secret)}
    nodes_api.set_(world.cluster, "n1", nodes_api.SetNode(fencing=fencing))
    power_cut(world, "n1")
    fenced = api.fence(world.cluster, "n1")
    assert not isinstance(fenced, str)
    assert (fenced.node.status, [one.name for one in fenced.elsewhere], fenced.stayed) == ("fenced", ["web"], ())
    said = log.read_text()
    assert "said: ip=10.0.9.1" in said and "said: passwd=hunter2" in said and "said: lanplus=1" in said and "password_file" not in said
    moved = servers_api.show(world.cluster, "web")
    assert moved.node_name in ("n2", "n3") and moved.epoch == 2 and moved.status == "ACTIVE"
    assert world.domains()[server] == "RUNNING"
    with world.cluster.db.read() as tx:
        assert {claim.node_id for claim in placement.all_(tx)} == {moved.node_id}
        assert nodes.row_of(tx, fenced.node.id).servers == 0  # type: ignore[union-attr]
        assert "hunter2" not in str(operations.recent(tx, ended=True))


def test_any_secret_of_a_fence_agent_comes_from_a_file(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, secret = switch(tmp_path, monkeypatch, name="fence_aws"), tmp_path / "aws.key"
    secret.write_text("S3CRET\n")
    secret.chmod(0o600)
    fencing = {"method": "agent", "program": "fence_aws", "plug": "i-1", "secret_key_file": str(secret)}
    nodes_api.set_(world.cluster, "n1", nodes_api.SetNode(fencing=fencing))
    power_cut(world, "n1")
    assert not isinstance(api.fence(world.cluster, "n1"), str)
    assert "said: secret_key=S3CRET" in log.read_text() and "secret_key_file" not in log.read_text()
    with world.cluster.db.read() as tx:
        assert "S3CRET" not in str(operations.recent(tx, ended=True))
    state = nodes_api.show(world.cluster, "n1")
    assert "S3CRET" not in str(state)


def test_a_secret_of_two_lines_is_no_second_option(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, secret = switch(tmp_path, monkeypatch), tmp_path / "secret"
    secret.write_text("x\naction=on\n")
    secret.chmod(0o600)
    nodes_api.set_(world.cluster, "n1", nodes_api.SetNode(fencing={"method": "ipmi", "ip": "10.0.9.1", "password_file": str(secret)}))
    with pytest.raises(FencingFailed, match="its option passwd is more than a line"):
        api.fence(world.cluster, "n1")
    assert not log.exists()


def test_a_switch_that_takes_too_long_switches_nothing_off_later(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has begun itself is killed with it: the node may be in service again by then."""
    begun, program = tmp_path / "begun", tmp_path / "switch"
    program.write_text(f"#!/bin/sh\nsleep 300 &\necho $! >{begun}\nwait\n")
    program.chmod(0o755)
    monkeypatch.setattr(fences, "TOOL_S", 1.5)
    nodes_api.set_(world.cluster, "n1", nodes_api.SetNode(fencing={"method": "command", "command": str(program)}))
    with pytest.raises(FencingFailed, match="did not end within 1.5 s"):
        api.fence(world.cluster, "n1")
    until(lambda: is_gone(begun.read_text().strip()))


@pytest.mark.parametrize(("how", "says"), [
    ({"off": "echo no such user >&2; exit 1"}, "no such user"), ({"status": 0}, "does not say that it is off"),
    ({"off": "echo unknown option >&2; exit 2"}, "unknown option"),
])
def test_what_is_not_off_is_not_fenced(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict, says: str,
) -> None:
    """A switch that fails, or goes on saying that the node is on: nothing is started elsewhere, and the node is as it was."""
    switch(tmp_path, monkeypatch, **how)
    if "status" in how:
        monkeypatch.setattr(fences, "TOOL_S", 3.0)            # it is asked again and again
    server_on(world, "n1")
    nodes_api.set_(world.cluster, "n1", nodes_api.SetNode(fencing={"method": "ipmi", "ip": "10.0.9.1"}))
    with pytest.raises(FencingFailed, match=says):
        api.fence(world.cluster, "n1")
    assert state_of(world, "n1") is NodeState.ENABLED
    assert servers_api.show(world.cluster, "web").node_name == "n1"
    with pytest.raises(Conflict, match="node n1 is not fenced"):
        api.evacuate(world.cluster, "web")


def test_another_machines_switch(world: World) -> None:
    """The switch says off, and the node's agent answers."""
    server_on(world, "n1")
    nodes_api.set_(world.cluster, "n1", nodes_api.SetNode(fencing={"method": "command", "command": "/bin/true"}))
    with pytest.raises(FencingFailed, match="says that it is off, but its agent answers"):
        api.fence(world.cluster, "n1")
    assert state_of(world, "n1") is NodeState.ENABLED and servers_api.show(world.cluster, "web").node_name == "n1"


def test_without_a_way_of_fencing_nothing_is_started_elsewhere(world: World) -> None:
    """And it says so, to who asks and to the conductor's log."""
    server_on(world, "n1")
    power_cut(world, "n1")
    with pytest.raises(Conflict, match="no way of being fenced") as refused:
        api.fence(world.cluster, "n1")
    assert refused.value.command == "novactl node fence n1 --i-have-powered-it-off"
    begun, said = ha.look_after(world.cluster)
    assert begun == [] and "no way of being fenced" in said[0]
    fenced = api.fence(world.cluster, "n1", by_hand=True)
    assert not isinstance(fenced, str) and len(fenced.elsewhere) == 1
    assert "says that it has been powered off" in fenced.node.reason


def test_a_node_that_answers_has_not_been_powered_off(world: World) -> None:
    with pytest.raises(Conflict, match="node n1 answers"):
        api.fence(world.cluster, "n1", by_hand=True)
    assert state_of(world, "n1") is NodeState.ENABLED


def test_only_those_that_asked_for_it(world: World) -> None:
    """Without --ha a server stays with its fenced node, until it is evacuated by name."""
    server_on(world, "n1", "kept", wants_ha=False)
    power_cut(world, "n1")
    fenced = api.fence(world.cluster, "n1", by_hand=True)
    assert not isinstance(fenced, str)
    assert fenced.elsewhere == () and [name for name, _ in fenced.stayed] == ["kept"]
    moved = api.evacuate(world.cluster, "kept")
    assert not isinstance(moved, str) and moved.node_name in ("n2", "n3")


def test_what_died_before_its_node_did_runs_elsewhere_too(world: World) -> None:
    """Whoever asked for --ha wants it to run: one whose QEMU died, or that did not start again after a boot, does not stay down with the
    node. What its admin stopped does."""
    died, stopped = server_on(world, "n1", "died"), server_on(world, "n1", "stopped")
    world.agents["n1"].driver.crash(died)
    power.stop(world.cluster, "stopped")
    fleet.refresh(world.cluster, max_age_s=-1.0)
    assert servers_api.show(world.cluster, "died", refresh=False).status == "ERROR"
    power_cut(world, "n1")
    fenced = api.fence(world.cluster, "n1", by_hand=True)
    assert not isinstance(fenced, str)
    assert [one.name for one in fenced.elsewhere] == ["died"] and fenced.stayed == (("stopped", "it is SHUTOFF"),)
    assert world.domains()[died] == "RUNNING" and world.domains().get(stopped) != "RUNNING"


def test_the_conductor_fences_and_restarts(world: World) -> None:
    """A silent node with --ha servers is fenced by its command, and its servers run elsewhere, without anybody asking."""
    server = server_on(world, "n1")
    nodes_api.set_(world.cluster, "n1", nodes_api.SetNode(fencing={"method": "command", "command": "/bin/true"}))
    power_cut(world, "n1")
    for _ in range(2):
        begun, _said = ha.look_after(world.cluster)
        assert len(begun) == 1
        for id_ in begun:
            drive(world, id_)
    moved = servers_api.show(world.cluster, "web")
    assert moved.node_name in ("n2", "n3") and world.domains()[server] == "RUNNING"
    assert ha.look_after(world.cluster) == ([], [])


def test_a_server_whose_second_node_dies_soon_after_is_not_kept_waiting(world: World) -> None:
    """Only what has failed is tried again later."""
    for name in ("n1", "n2", "n3"):
        nodes_api.set_(world.cluster, name, nodes_api.SetNode(fencing={"method": "command", "command": "/bin/true"}))
    server_on(world, "n1")
    lost = []
    for _ in range(2):
        lost.append(servers_api.show(world.cluster, "web").node_name)
        power_cut(world, lost[-1])
        with world.cluster.db.write() as tx:                  # where more than half are silent, none would be fenced
            for name in lost[:-1]:
                node = nodes.by_name(tx, name)
                assert node is not None
                nodes.update(tx, dataclasses.replace(node, address=""))
        for _ in range(2):
            begun, said = ha.look_after(world.cluster)
            assert len(begun) == 1, said
            for id_ in begun:
                drive(world, id_)
    assert servers_api.show(world.cluster, "web").node_name not in lost


def test_a_node_that_refuses_to_answer_is_there(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(HANDLERS, "agent.ping")
    server_on(world, "n1")
    nodes_api.set_(world.cluster, "n1", nodes_api.SetNode(fencing={"method": "command", "command": "/bin/true"}))
    with world.cluster.db.write() as tx:
        node = nodes.by_name(tx, "n1")
        assert node is not None
        nodes.silent(tx, node.id, world.cluster.clock.now() - 1000)
    assert ha.look_after(world.cluster) == ([], [])


def drive(world: World, operation_id: str) -> None:
    from novactl.api import operations as operations_api

    operations_api.resume(world.cluster, [operation_id])


def test_when_most_nodes_are_silent_none_is_fenced(world: World) -> None:
    """Then rather this machine is cut off."""
    for name in ("n1", "n2"):
        server_on(world, name, f"on-{name}")
        nodes_api.set_(world.cluster, name, nodes_api.SetNode(fencing={"method": "command", "command": "/bin/true"}))
    for name in ("n1", "n2"):
        power_cut(world, name)
    begun, said = ha.look_after(world.cluster)
    assert begun == [] and said == ["2 of 3 nodes are silent: rather this machine is cut off, and none is fenced"]


def test_a_server_that_fits_nowhere_stays_and_is_what_it_was(world: World) -> None:
    """The way back is a rename: its claim, its epoch and its node are as they were."""
    server = server_on(world, "n1")
    for name in ("n2", "n3"):
        nodes_api.disable(world.cluster, name)
    power_cut(world, "n1")
    with world.cluster.db.read() as tx:
        before = placement.all_(tx)
    fenced = api.fence(world.cluster, "n1", by_hand=True)
    assert not isinstance(fenced, str)
    assert fenced.elsewhere == () and "could not be started elsewhere" in fenced.stayed[0][1]
    with world.cluster.db.read() as tx:
        assert placement.all_(tx) == before
    with pytest.raises(NoValidHost):
        api.evacuate(world.cluster, "web")
    stayed = servers_api.show(world.cluster, "web", refresh=False)
    assert (stayed.node_name, stayed.epoch, stayed.operation_id) == ("n1", 1, "")
    assert server not in {id_ for id_, power in world.domains().items() if power == "RUNNING"}


def test_a_fencing_whose_process_died_is_taken_back(world: World) -> None:
    with world.cluster.db.write() as tx:
        node = nodes.by_name(tx, "n1")
        assert node is not None
        operation = ha.begin_fencing(world.cluster, tx, node, {"method": "command", "command": "/bin/true"}, detached=False)
    world.abandon(operation)
    recover(world.cluster)
    assert state_of(world, "n1") is NodeState.ENABLED


@pytest.mark.parametrize(("fencing", "says"), [
    ({"method": "prayer"}, "is not a way of fencing"),
    ({"method": "ipmi"}, "needs ip"),
    ({"method": "ipmi", "ip": "x", "colour": "red"}, "knows no option 'colour'"),
    ({"method": "agent", "program": "rm -rf"}, "not the name of a fence agent"),
    ({"method": "command", "command": "relative"}, "must be an absolute path"),
    ({"method": "agent", "program": "fence_apc", "passwd": "x"}, "passwd is a secret, which is not stored"),
    ({"method": "agent", "program": "fence_aws", "secret_key": "x"}, "secret_key is a secret, which is not stored"),
    ({"method": "agent", "program": "fence_apc_snmp", "community": "x"}, "community is a secret, which is not stored"),
    ({"method": "agent", "program": "fence_apc_snmp", "snmp_priv_passwd": "x"}, "snmp_priv_passwd is a secret, which is not stored"),
    ({"method": "agent", "program": "fence_aws", "secret_key_file": "k"}, "secret_key_file must be an absolute path"),
    ({"method": "agent", "program": "fence_apc", "plug": "3\naction=on"}, "plug is not printable text of one line"),
    ({"method": "self", "self_fence_s": "soon"}, "must be 5 to 3600"),
])
def test_what_cannot_fence_is_refused(world: World, fencing: dict, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        nodes_api.set_(world.cluster, "n1", nodes_api.SetNode(fencing=fencing))


def test_a_node_fences_itself(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renewed, it runs on; without a lease its agent stops every server, and then they are started elsewhere."""
    monkeypatch.setattr(fences, "NODE_LEASE_S", 1.0)
    monkeypatch.setattr(fences, "MARGIN_S", 4.0)
    server = server_on(world, "n1")
    nodes_api.set_(world.cluster, "n1", nodes_api.SetNode(fencing={"method": "self", "self_fence_s": "5"}))
    with pytest.raises(FencingFailed, match="never answered that it has a lease"):
        api.fence(world.cluster, "n1")
    ha.renew_leases(world.cluster)
    agent = world.agents["n1"]
    assert agent.self_fence.self_fence_s == 5 and not agent.self_fence.is_due()
    stopped = threading.Event()

    def watch() -> None:
        while agent.driver.run_id(server):
            time.sleep(0.05)
        stopped.set()

    threading.Thread(target=watch, daemon=True).start()
    began = time.monotonic()
    fenced = api.fence(world.cluster, "n1")
    assert stopped.is_set() and time.monotonic() - began >= 10
    assert not isinstance(fenced, str) and [one.name for one in fenced.elsewhere] == ["web"]
    assert agent.report(0).fencings == 1
    ha.renew_leases(world.cluster)                            # a fenced node gets none
    assert agent.clock.boottime_s() > agent.self_fence.until_s + 5


def test_nothing_is_started_without_a_lease(world: World) -> None:
    """The agent refuses it, and stops again what was started behind its back; no host that is back is asked for it before its lease."""
    server = server_on(world, "n1")
    nodes_api.set_(world.cluster, "n1", nodes_api.SetNode(fencing={"method": "self", "self_fence_s": "5"}))
    ha.renew_leases(world.cluster)
    nodes_api.list_nodes(world.cluster)
    agent = world.agents["n1"]
    agent.self_fence.until_s -= 100
    for _ in range(2):
        until(lambda: agent.driver.run_id(server) == "")
        agent.driver.start_domain(server)
    agent.driver.destroy(server)
    with pytest.raises(NovaError) as refused:
        server_on(world, "n1", "new")
    assert "this node fences itself, has had no lease" in f"{refused.value.message} {refused.value.reasons}"
    with world.cluster.db.write() as tx:
        node = nodes.by_name(tx, "n1")
        assert node is not None and node.lease_until is not None
        nodes.grant_lease(tx, node.id, world.cluster.clock.now() - 1, 5.0)
    assert reconcile.follow(world.cluster, [node.id]) == ()
    ha.renew_leases(world.cluster)
    assert len(reconcile.follow(world.cluster, [node.id])) == 1


def test_the_stop_by_ssh_is_sure_or_fails() -> None:
    """A machine without the tools to look is not one without guests."""
    done = subprocess.run(["/bin/sh", "-c", fences._STOP], env={"PATH": "/nonexistent"}, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "cannot be seen" in done.stdout


def test_a_node_that_is_back_gives_up_what_lives_elsewhere(world: World) -> None:
    """Its old copy is removed before it is enabled; what is still its own is not touched, and not started elsewhere any more."""
    moved, own = server_on(world, "n1", "moved"), server_on(world, "n1", "own", wants_ha=False)
    agent = world.agents["n1"]
    receive = world.endpoints["n1"].dispatcher.receive
    power_cut(world, "n1")
    assert not isinstance(api.fence(world.cluster, "n1", by_hand=True), str)
    world.endpoints["n1"].dispatcher.receive = receive  # type: ignore[method-assign]
    assert {state.server for state in agent.driver.states()[0]} == {moved, own}
    before = agent.driver.state(moved)
    view = nodes_api.enable(world.cluster, "n1")
    assert (view.state, before.epoch) == ("enabled", 1)
    assert {state.server for state in agent.driver.states()[0]} == {own}
    assert not list((world.folder / "n1" / "pool").glob(f"*{moved}*")) and list((world.folder / "n1" / "pool").glob(f"*{own}*"))
    assert servers_api.show(world.cluster, "moved").node_name in ("n2", "n3")
    with pytest.raises(Conflict, match="node n1 is not fenced"):
        api.evacuate(world.cluster, "own")


def test_what_runs_on_a_node_that_is_back_is_not_started_elsewhere(world: World) -> None:
    """A start that was under way while the node was fenced may have arrived after all: the node is asked, where it answers."""
    server = server_on(world, "n1", wants_ha=False)
    receive = world.endpoints["n1"].dispatcher.receive
    power_cut(world, "n1")
    api.fence(world.cluster, "n1", by_hand=True)
    world.endpoints["n1"].dispatcher.receive = receive  # type: ignore[method-assign]
    world.agents["n1"].driver.start_domain(server)
    with pytest.raises(Conflict, match="runs on node n1, which is fenced, but is back"):
        api.evacuate(world.cluster, "web")
    stayed = servers_api.show(world.cluster, "web", refresh=False)
    assert (stayed.node_name, stayed.epoch, stayed.operation_id) == ("n1", 1, "")


@pytest.mark.parametrize("hangs", [False, True], ids=["refuses", "hangs"])
def test_a_fenced_node_that_answers_and_cannot_say_what_runs_is_not_taken_for_off(
    world: World, monkeypatch: pytest.MonkeyPatch, hangs: bool,
) -> None:
    """Its agent lives, its libvirt does not, and the guest still runs."""
    monkeypatch.setattr(evacuate_server, "ANSWERS_S", 2.0)
    server = server_on(world, "n1", wants_ha=False)
    driver, heals = world.agents["n1"].driver, threading.Event()
    with world.cluster.db.write() as tx:
        node = nodes.by_name(tx, "n1")
        assert node is not None
        nodes.update(tx, dataclasses.replace(node, state=NodeState.FENCED, fenced_at=1.0))

    def ill(server: str) -> None:
        heals.wait(2.5 if hangs else 0)
        raise Refused(Code.DRIVER, "libvirt does not answer", elsewhere=True)

    monkeypatch.setattr(driver, "state", ill)
    with pytest.raises(Conflict, match="node n1 is fenced, but answers, and cannot say whether server web runs: .*libvirt does not answer"):
        api.evacuate(world.cluster, "web")
    heals.set()
    assert driver.run_id(server)
    assert [name for name, agent in world.agents.items() if any(one.server == server for one in agent.driver.states()[0])] == ["n1"]


def test_a_fenced_node_that_does_not_answer_stays_fenced(world: World) -> None:
    server_on(world, "n1")
    power_cut(world, "n1")
    api.fence(world.cluster, "n1", by_hand=True)
    with pytest.raises(NovaError):
        nodes_api.enable(world.cluster, "n1")
    assert state_of(world, "n1") is NodeState.FENCED


def test_nothing_starts_on_a_fenced_node_by_itself(world: World) -> None:
    """A host that starts anew while it counts as off revives nothing: its servers may be started elsewhere at that moment."""
    server = server_on(world, "n1", "own", wants_ha=False)
    receive = world.endpoints["n1"].dispatcher.receive
    power_cut(world, "n1")
    api.fence(world.cluster, "n1", by_hand=True)
    world.endpoints["n1"].dispatcher.receive = receive  # type: ignore[method-assign]
    world.agents["n1"].clock = AnotherBoot()
    world.agents["n1"].driver._guests[server].reason = ""
    nodes_api.list_nodes(world.cluster)
    with world.cluster.db.read() as tx:
        assert [op.kind for op in operations.recent(tx, ended=True) if op.kind == "server.revive"] == []
    assert world.agents["n1"].driver.run_id(server) == ""


def test_a_node_that_fenced_itself_and_was_not_given_up_starts_its_servers_again(world: World) -> None:
    """It was cut off for a while, nobody fenced it, and it has its lease again: what it had to stop runs again."""
    server = server_on(world, "n1")
    nodes_api.set_(world.cluster, "n1", nodes_api.SetNode(fencing={"method": "self", "self_fence_s": "5"}))
    ha.renew_leases(world.cluster)
    agent = world.agents["n1"]
    agent.report(0)
    nodes_api.list_nodes(world.cluster)
    agent.self_fence.until_s -= 100
    until(lambda: agent.driver.run_id(server) == "")
    ha.renew_leases(world.cluster)
    with world.cluster.db.read() as tx:
        node = nodes.by_name(tx, "n1")
    assert node is not None
    begun = reconcile.follow(world.cluster, [node.id])
    assert len(begun) == 1
    for id_ in begun:
        drive(world, id_)
    assert agent.driver.run_id(server) and servers_api.show(world.cluster, "web").status == "ACTIVE"


class AnotherBoot(BootClock):
    def __init__(self) -> None:
        super().__init__()
        self.boot_id = "00000000-0000-4000-8000-000000000000"
