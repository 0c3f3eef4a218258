"""What the api promises of servers, on a fleet of fake nodes behind real sockets, on each kind of database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from novactl.agents import wire
from novactl.api import flavors as api_flavors
from novactl.api import nodes as api_nodes
from novactl.api import operations as api_operations
from novactl.api import placement as api_placement
from novactl.api import servers as api
from novactl.api.recovery import settle
from novactl.api.servers import CreateServer
from novactl.cluster import Cluster
from novactl.db import meta, placement
from novactl.db.refusals import Crossed
from novactl.errors import (
    AgentRefused,
    AlreadyExists,
    Ambiguous,
    Busy,
    Conflict,
    NotFound,
    NoValidHost,
    Unreachable,
    UsageError,
)
from tests import databases
from tests.world import World, small_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with small_world(tmp_path) as made:
        yield made


def wanted(name: str = "web", **how: object) -> CreateServer:
    return CreateServer(**{"name": name, "flavor": "small", "image": "guest", **how})  # type: ignore[arg-type]


def life_of_servers(world: World) -> None:
    """Create, list, stop, start, reboot and delete; nothing stays."""
    cluster = world.cluster
    made = api.create(cluster, wanted(count=3))
    assert [s.name for s in made.servers] == ["web-1", "web-2", "web-3"]
    assert {s.status for s in made.servers} == {"ACTIVE"}
    assert {row.name for row in api.list_servers(cluster)} == {"web-1", "web-2", "web-3"}
    assert len(api.list_servers(cluster, limit=2)) == 2
    assert {s.node_name for s in made.servers} == {"n1", "n2"}
    assert api.stop(cluster, "web-1").status == "SHUTOFF"  # type: ignore[union-attr]
    assert [row.name for row in api.list_servers(cluster, status="SHUTOFF")] == ["web-1"]
    assert api.start(cluster, "web-1").status == "ACTIVE"  # type: ignore[union-attr]
    assert api.reboot(cluster, "web-1", hard=True).status == "ACTIVE"  # type: ignore[union-attr]
    for name in ("web-1", "web-2", "web-3"):
        api.delete(cluster, name)
    assert world.leftovers() == []
    kinds = [op.kind for op in api_operations.list_operations(cluster, all=True)]
    assert kinds.count("server.create") == kinds.count("server.delete") == 3


@pytest.mark.parametrize("kind", databases.EACH)
def test_a_life(tmp_path: Path, kind: str) -> None:
    """The whole life of servers leaves nothing behind, by the same queries on each database."""
    with databases.cluster(kind) as url, small_world(tmp_path, url=url) as world:
        life_of_servers(world)


@pytest.mark.parametrize("kind", databases.SHARED)
def test_concurrent_claims_never_overfill(tmp_path: Path, kind: str) -> None:
    """12 threads for room for 4 on each of 2 nodes: 8 servers run, 4 are refused, and the ledger is exactly full."""
    with databases.cluster(kind) as url, small_world(tmp_path, url=url) as world:
        world.add_flavor("wide", vcpus=8)                      # 8 CPUs x ratio 4 = room for 4 on a node
        outcome: list[object] = []

        def create(number: int) -> None:
            mine = Cluster(world.config, actor=f"admin{number}")
            try:
                outcome.append(api.create(mine, wanted(f"w{number}", flavor="wide")).servers[0].status)
            except NoValidHost as refused:
                outcome.append(refused)
            finally:
                mine.close()

        threads = [threading.Thread(target=create, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert outcome.count("ACTIVE") == 8, outcome
        with world.cluster.db.read() as tx:
            assert {node: used["VCPU"] for node, used in placement.used(tx).items()} == dict.fromkeys(placement.used(tx), 32)


@pytest.mark.parametrize("kind", databases.SHARED)
def test_one_object_has_one_open_operation(tmp_path: Path, kind: str) -> None:
    """Two transactions that both saw the node free: the second to write is refused, whatever it checked before."""
    from novactl.conductor.saga import begin
    from tests.sagas.scenarios import SCENARIOS

    with databases.cluster(kind) as url, small_world(tmp_path, url=url, count=1) as world:
        saga, outcome = SCENARIOS["server.stop"].saga, list[object]()
        gate = threading.Barrier(2)

        def start() -> None:
            record = saga.record(server=world.cluster.ids.uuid(), node="", epoch=1)
            try:
                with world.cluster.db.write() as tx:
                    meta.get(tx, "schema")
                    gate.wait(60)
                    begin(world.cluster, tx, saga, record, ("server", "11111111-1111-4111-8111-111111111111", "x"))
                outcome.append("begun")
            except Conflict:
                outcome.append("refused")

        threads = [threading.Thread(target=start) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert sorted(map(str, outcome)) == ["begun", "refused"]


def test_a_server_that_fits_nowhere_leaves_nothing(world: World) -> None:
    """Exit 5: each node is named with what it lacks; no server, claim or operation stays, and `why` still knows."""
    world.add_flavor("huge", vcpus=33, memory_mb=10**6)
    with pytest.raises(NoValidHost) as refused:
        api.create(world.cluster, wanted(flavor="huge"))
    assert refused.value.exit_status == 5
    assert [reason.split(":")[0] for reason in refused.value.reasons] == ["n1", "n2"]
    assert "short by" in refused.value.reasons[0]
    assert world.leftovers() == []
    assert [row.verdict for row in api.why(world.cluster, "web").rows] == ["rejected", "rejected"]


def test_bad_requests_change_nothing(world: World) -> None:
    """Unknown, ambiguous and duplicate names, a disk too small, a silly count: each its own error, before anything is written."""
    cluster = world.cluster
    api.create(cluster, wanted("web"))
    before = world.leftovers()
    for bad, error in (
        (wanted("x", flavor="nope"), NotFound), (wanted("x", image="nope"), NotFound), (wanted("x", key="nope"), NotFound),
        (wanted("x", node="nope"), NotFound), (wanted("web"), AlreadyExists), (wanted("../x"), UsageError),
        (wanted("x", count=0), UsageError),
    ):
        with pytest.raises(error):
            api.create(cluster, bad)
    assert world.leftovers() == before
    with pytest.raises(NotFound) as similar:
        api.show(cluster, "wev")
    assert "web" in similar.value.hint


def test_an_ambiguous_id_lists_the_candidates(world: World) -> None:
    """Two flavors whose ids begin alike: the prefix is refused with both named, a longer one finds its own."""
    import dataclasses

    from novactl.db import flavors

    first = world.add_flavor("f1")
    with world.cluster.db.write() as tx:
        flavors.insert(tx, dataclasses.replace(first, id=first.id[:-1] + ("0" if first.id[-1] != "0" else "1"), name="f2"))
    with pytest.raises(Ambiguous) as refused:
        api_flavors.show(world.cluster, first.id[:8])
    assert len(refused.value.reasons) == 2 and refused.value.exit_status == 2
    assert api_flavors.show(world.cluster, first.id).name == "f1"
    with pytest.raises(NotFound):
        api_flavors.show(world.cluster, first.id[:3])


def test_dry_run_decides_and_writes_nothing(world: World) -> None:
    """A dry run shows where each of a batch would go, each seeing the ones before; nothing is created."""
    made = api.create(world.cluster, wanted(count=4), dry_run=True)
    assert sorted(s.node_name for s in made.servers) == ["n1", "n1", "n2", "n2"]
    assert world.leftovers() == []
    assert api_operations.list_operations(world.cluster, all=True) == ()


def test_explain_and_create_agree(world: World) -> None:
    """The node that explain calls chosen is the one the server goes to."""
    asked = api_placement.explain(world.cluster, wanted())
    made = api.create(world.cluster, wanted())
    assert [row.node for row in asked.rows if row.verdict == "chosen"] == [made.servers[0].node_name]
    assert [(c.consumer, c.node, c.vcpus, c.memory_mb, c.disk_gb) for c in api_placement.list_claims(world.cluster)] == [
        ("web", made.servers[0].node_name, 1, 512, 1)]


def test_a_zone_and_a_node_can_be_asked_for(tmp_path: Path) -> None:
    """`--zone` and `--node` leave only what matches; the others say so."""
    world = World(tmp_path)
    world.add_node("a", zone="z1")
    world.add_node("b", zone="z2")
    world.add_flavor()
    world.add_image()
    world.start()
    try:
        assert api.create(world.cluster, wanted("in-z2", zone="z2")).servers[0].node_name == "b"
        assert api.create(world.cluster, wanted("on-a", node="a")).servers[0].node_name == "a"
        with pytest.raises(NotFound) as missing:
            api.create(world.cluster, wanted("nowhere", zone="z3"))
        assert "z1" in missing.value.hint or "z2" in missing.value.hint
        api_nodes.disable(world.cluster, "a", reason="new kernel")
        with pytest.raises(NoValidHost) as refused:
            api.create(world.cluster, wanted("on-a-too", node="a"))
        assert any("new kernel" in reason for reason in refused.value.reasons)
        api_nodes.enable(world.cluster, "a")
        assert api.create(world.cluster, wanted("again", node="a")).servers[0].node_name == "a"
    finally:
        world.stop()


def test_a_busy_server_names_its_operation(world: World) -> None:
    """While one operation holds a server, another is refused and told which, whose and how old."""
    from tests.sagas.scenarios import SCENARIOS

    scenario = SCENARIOS["server.stop"]
    server = scenario.prepare(world)
    operation = scenario.start(world, server)
    with pytest.raises(Busy) as refused:
        api.delete(world.cluster, "web")
    assert operation.id[:8] in refused.value.message and "pid" in refused.value.message
    assert refused.value.exit_status == 4
    assert settle(world.cluster) == ()                         # its owner, this process, lives
    world.abandon(operation)
    assert len(settle(world.cluster)) == 1
    assert api.show(world.cluster, "web").status == "SHUTOFF"
    assert settle(world.cluster) == ()


def test_a_wrong_state_is_refused(world: World) -> None:
    """Rebooting what is shut off names both states; starting what runs is success."""
    api.create(world.cluster, wanted())
    assert api.start(world.cluster, "web").status == "ACTIVE"  # type: ignore[union-attr]
    api.stop(world.cluster, "web")
    with pytest.raises(Conflict, match="stopped"):
        api.reboot(world.cluster, "web")
    with pytest.raises(Conflict, match="does not run"), api.console(world.cluster, "web"):
        pass


def test_a_silent_node_is_passed_over_and_named(tmp_path: Path) -> None:
    """A node that does not answer is rejected as silent within the deadline; the other takes the server; delete there exits 6."""
    with small_world(tmp_path) as world:
        made = api.create(world.cluster, wanted("first"))
        silent = made.servers[0].node_name
        with world.cluster.db.write() as tx:
            import dataclasses

            from novactl.db import nodes

            node = nodes.by_name(tx, silent)
            assert node is not None
            nodes.update(tx, dataclasses.replace(node, address="tcp://127.0.0.1:9"))
            nodes.silent(tx, node.id, world.cluster.clock.now())
        patience_s, world.cluster.agents.connect_s = world.cluster.agents.connect_s, 100.0
        began = world.cluster.clock.monotonic()
        assert api.create(world.cluster, wanted("second")).servers[0].node_name != silent
        assert world.cluster.clock.monotonic() - began < 50
        world.cluster.agents.connect_s = patience_s
        began = world.cluster.clock.monotonic()
        with pytest.raises(Unreachable) as refused:
            api.delete(world.cluster, "first")
        assert refused.value.exit_status == 6 and "does not answer" in refused.value.message
        assert world.cluster.clock.monotonic() - began < 60
        assert api.show(world.cluster, "first").status == "ACTIVE"
        assert {n.name: n.status for n in api_nodes.list_nodes(world.cluster)}[silent] == "stale"
        world.cluster.config = world.cluster.config.replace(node__down_s=0.0)
        assert {n.name: n.status for n in api_nodes.list_nodes(world.cluster)}[silent] == "down"
        with pytest.raises(NoValidHost) as nowhere:
            api.create(world.cluster, wanted("third", node=silent))
        assert any("answer" in reason for reason in nowhere.value.reasons)


def test_a_stuck_operation_ends_when_its_node_comes_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A creation whose undo cannot reach the node stays, named; other commands lose little time to it; healed, it is undone."""
    import dataclasses

    from novactl.conductor import recover
    from novactl.conductor.driver import Driver
    from novactl.db import nodes
    from novactl.errors import NovaError, Stuck
    from tests.sagas.scenarios import SCENARIOS
    from tests.sagas.test_laws import altered

    scenario = SCENARIOS["server.create"]
    operation = scenario.start(world, None)
    cut: list = []

    def cutting(do, run, record):
        record = do(run, record)
        with world.cluster.db.write() as tx:
            node = nodes.by_id(tx, record.node)
            cut.append(node)
            nodes.update(tx, dataclasses.replace(node, address="tcp://127.0.0.1:9"))
        run.extras.clear()
        raise NovaError("the link broke")

    with pytest.raises(Stuck) as stuck:
        Driver(world.cluster, altered(scenario.saga, 4, do=cutting), operation).drive()
    assert stuck.value.exit_status == 6 and "operation resume" in stuck.value.command
    world.cluster.agents.connect_s = 100.0
    began = world.cluster.clock.monotonic()
    assert "cannot be ended yet" in settle(world.cluster)[0]
    assert world.cluster.clock.monotonic() - began < 50
    with world.cluster.db.write() as tx:
        nodes.update(tx, cut[0])
    monkeypatch.setattr(recover, "PROBE_S", 60.0)             # it answers, however late on this machine
    assert "has been ended: failed" in settle(world.cluster)[0]
    assert world.leftovers() == []


@pytest.mark.parametrize(("count", "tried"), [(2, 2), (5, 3)])
def test_a_fault_of_every_node_is_undone_on_each(tmp_path: Path, count: int, tried: int) -> None:
    """When no node can start it, each is tried (placement.max_attempts, 3, at most) and nothing stays on any."""
    world = World(tmp_path)
    for number in range(1, count + 1):
        world.add_node(f"n{number}", fake={"fail": {"start_domain": "out of order"}})
    world.add_flavor()
    world.add_image()
    world.start()
    try:
        with pytest.raises((AgentRefused, NoValidHost)):
            api.create(world.cluster, wanted())
        assert world.leftovers() == []
        (operation,) = api_operations.list_operations(world.cluster, all=True)
        _, steps = api_operations.show(world.cluster, operation.id)
        assert len({step.attempt for step in steps if step.name == "start"}) == tried
        assert operation.error is not None and "out of order" in str(operation.error)
    finally:
        world.stop()


def test_a_report_brings_the_guests_addresses(world: World) -> None:
    """After any refresh of the nodes the list has the addresses that nobody asked each server for."""
    api.create(world.cluster, wanted())
    assert [row.addresses for row in api.list_servers(world.cluster)] == [()]
    cluster = Cluster(world.config.replace(placement__refresh_s=0.0), actor="tester@world")
    api_nodes.list_nodes(cluster)
    cluster.close()
    assert [len(row.addresses) for row in api.list_servers(world.cluster)] == [1]


def test_nodes_that_change_while_they_are_read_are_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a shared database the second query may see what another has committed since the first."""
    from novactl.db import nodes

    shapes, seen = nodes.shapes, iter([{}, {}])
    monkeypatch.setattr(nodes, "shapes", lambda tx: next(seen, shapes(tx)))
    assert api.create(world.cluster, wanted()).servers[0].status == "ACTIVE" and next(seen, None) is None


def test_console_and_its_log(world: World) -> None:
    """What is typed comes back from the (echoing) guest; the log has it and can be cut to its last lines."""
    api.create(world.cluster, wanted())
    with api.console(world.cluster, "web") as line:
        line.write(b"hello\n")
        seen = b""
        while b"hello\n" not in seen:
            came = line.read(2)
            assert came, seen
            seen += came
    log = b"".join(api.console_log(world.cluster, "web"))
    assert b"fake guest web ready" in log and log.endswith(b"hello\n")
    assert b"".join(api.console_log(world.cluster, "web", lines=1)) == b"hello\n"


def test_a_console_that_opens_with_output_or_not_at_all(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older agent's first piece has what the guest wrote just then; and a guest may go off before there is one."""
    api.create(world.cluster, wanted())
    stream = Mock(result=wire.ConsoleClosed("the guest was powered off"))
    monkeypatch.setattr(world.cluster.agents, "stream", Mock(return_value=stream))
    stream.read.side_effect = [({}, b"login: "), None, EOFError]
    with api.console(world.cluster, "web") as line:
        assert [line.read(1) for _ in range(4)] == [b"login: ", b"", None, None]
    stream.read.side_effect = [EOFError]
    with api.console(world.cluster, "web") as line:
        assert (line.read(1), line.reason) == (None, "the guest was powered off")


def test_history_says_who_did_what(world: World) -> None:
    """Every change of a server is an event with its actor and operation, also after it is gone."""
    made = api.create(world.cluster, wanted())
    api.stop(world.cluster, "web")
    api.delete(world.cluster, "web")
    told = api.events(world.cluster, made.servers[0].id)
    assert [(event.event, event.detail.partition(":")[0]) for event in told] == [
        ("server.create", "begun"), ("built", told[1].detail), ("server.create", "ok"), ("server.stop", "begun"), ("stopped", ""),
        ("server.stop", "ok"), ("server.delete", "begun"), ("deleted", ""), ("server.delete", "ok")]
    assert {event.actor for event in told} == {"tester@world"}
    assert all(event.operation_id for event in told)


def test_node_list_shows_used_allocated_and_capacity(world: World) -> None:
    """The ledger and the report side by side: 8 CPUs x 4, memory less the reserve, and what the one server holds."""
    made = api.create(world.cluster, wanted())
    view = next(v for v in api_nodes.list_nodes(world.cluster) if v.name == made.servers[0].node_name)
    assert (view.vcpu_allocated, view.vcpu_capacity) == (1, 32)
    assert (view.memory_allocated_mb, view.memory_capacity_mb) == (512, 16384 - 512)
    assert (view.disk_allocated_gb, view.disk_capacity_gb) == (1, 100)
    assert view.status == "up" and view.servers == 1 and view.report_age_s is not None and view.report_age_s < 60


def test_a_domain_that_is_gone_is_said_so_and_can_be_deleted(world: World) -> None:
    """Undefined behind our back: the server shows ERROR with the reason; stop fails and ends; hard reboot defines it anew."""
    made = api.create(world.cluster, wanted(node="n1")).servers[0]
    world.agents["n1"].driver._guests.clear()
    shown = api.show(world.cluster, "web")
    assert shown.status == "ERROR" and "no domain" in shown.fault
    with pytest.raises(AgentRefused):
        api.stop(world.cluster, "web")
    assert api_operations.list_operations(world.cluster) == ()
    assert api.reboot(world.cluster, "web", hard=True).status == "ACTIVE"  # type: ignore[union-attr]
    assert world.domains() == {made.id: "RUNNING"}
    api.delete(world.cluster, "web")
    assert world.leftovers() == []


def test_what_is_stuck_does_not_keep_a_server_from_being_deleted(world: World) -> None:
    """A change of power that can go neither on nor back is given up when the server is deleted."""
    from novactl.conductor.driver import Driver
    from novactl.errors import NovaError, Stuck
    from tests.sagas.scenarios import SCENARIOS
    from tests.sagas.test_laws import altered

    def failing(inner, run, record):
        raise NovaError("as the test wants it")

    scenario = SCENARIOS["server.stop"]
    operation = scenario.start(world, scenario.prepare(world))
    with pytest.raises(Stuck):
        Driver(world.cluster, altered(scenario.saga, 0, do=failing, undo=failing), operation).drive()
    api.delete(world.cluster, "web")
    assert world.leftovers() == []
    assert {o.kind: o.state for o in api_operations.list_operations(world.cluster, all=True)}["server.stop"] == "failed"


def test_a_stuck_change_of_power_can_simply_be_done_again(world: World) -> None:
    """`operation resume` of a stop that got stuck turning back stops the server, under a new attempt."""
    from novactl.conductor.driver import Driver
    from novactl.errors import NovaError, Stuck
    from tests.sagas.scenarios import SCENARIOS
    from tests.sagas.test_laws import altered

    def failing(inner, run, record):
        raise NovaError("as the test wants it")

    scenario = SCENARIOS["server.stop"]
    operation = scenario.start(world, scenario.prepare(world))
    with pytest.raises(Stuck):
        Driver(world.cluster, altered(scenario.saga, 0, do=failing, undo=failing), operation).drive()
    (ended,) = api_operations.resume(world.cluster, [operation.id])
    assert (ended.state, ended.attempt) == ("ok", 1)
    assert api.show(world.cluster, "web").status == "SHUTOFF"


def test_servers_of_a_lost_node_can_be_forgotten(world: World) -> None:
    """`--lost` is refused while the node answers; once it is silent the server, its claim and its name are free."""
    import dataclasses

    from novactl.db import nodes

    api.create(world.cluster, wanted(node="n1"))
    with pytest.raises(Conflict, match="answers"):
        api.delete(world.cluster, "web", lost=True)
    with world.cluster.db.write() as tx:
        node = nodes.by_name(tx, "n1")
        assert node is not None
        nodes.update(tx, dataclasses.replace(node, address="tcp://127.0.0.1:9"))
    with pytest.raises(Unreachable) as refused:
        api.delete(world.cluster, "web")
    assert "novactl server delete web --lost" in "; ".join(refused.value.reasons)
    api.delete(world.cluster, "web", lost=True)
    assert api.list_servers(world.cluster) == () and api_placement.list_claims(world.cluster) == ()


def test_a_watcher_that_breaks_does_not_break_the_act(world: World) -> None:
    """Whoever looks on may go away (a closed pipe): the server is created all the same."""

    def broken(progress: object) -> None:
        raise BrokenPipeError

    assert api.create(world.cluster, wanted(), watch=broken).servers[0].status == "ACTIVE"


def test_what_waits_its_turn_keeps_its_lease(tmp_path: Path) -> None:
    """Of six creations driven four at a time, the two that wait longer than a lease are not taken for abandoned."""
    from novactl.db import operations

    world = World(tmp_path)
    world.config = world.cluster.config = world.config.replace(operation__lease_s=5.0, operation__parallel=1)
    world.add_node("n1", fake={"start_delay_s": 3.0})
    world.add_flavor()
    world.add_image()
    world.start()
    seen: list[bool] = []
    try:
        def look(progress: object) -> None:
            with world.cluster.db.read() as tx:
                seen.extend(op.lease_until > world.cluster.clock.now() for op in operations.recent(tx, ended=False))

        made = api.create(world.cluster, wanted(count=3), watch=look)
        assert {server.status for server in made.servers} == {"ACTIVE"}
        assert seen and all(seen)
    finally:
        world.stop()


def test_a_node_that_hangs_costs_a_command_its_budget_only(world: World) -> None:
    """Recovery of an operation whose node answers pings but not the call is handed to the background after the budget."""
    import threading as th

    from novactl.conductor import background
    from tests.sagas.scenarios import SCENARIOS

    scenario = SCENARIOS["server.delete"]
    server = scenario.prepare(world)
    operation = scenario.start(world, server)
    world.abandon(operation)
    freed, handed = th.Event(), []
    for agent in world.agents.values():
        agent.driver.destroy = lambda _server: freed.wait(300)
    original, background.hand_over = background.hand_over, lambda cluster, ids: handed.extend(ids)
    try:
        began = world.cluster.clock.monotonic()
        (said,) = settle(world.cluster, budget_s=0.5)
        assert world.cluster.clock.monotonic() - began < 60 and "background" in said
        assert handed == [operation.id]
    finally:
        background.hand_over = original
        freed.set()


def test_a_deletion_whose_transaction_the_database_ends_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the point of no return two commands wait for each other, and the database ends this one's transaction: it is begun anew."""
    api.create(world.cluster, wanted())
    release, times = placement.release, []

    def crossed(*args: str) -> None:
        release(*args)
        times.append(args)
        if len(times) < 3:
            raise Crossed("two commands waited for each other")

    monkeypatch.setattr(placement, "release", crossed)
    api.delete(world.cluster, "web")
    assert len(times) == 3 and world.leftovers() == []
