"""All agents listened to on one thread: real agents, real sockets, a real database."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nodeagent import wire
from nodeagent.agent import Agent
from nodeagent.loop import Loop, new_keypair, public_of
from nodeagent.nodekeys import NodeKeys
from novactl.agents import keys
from novactl.agents.watching import Heard, Watching
from novactl.api import servers as api
from novactl.api.servers import CreateServer
from novactl.conductor import fleet
from novactl.conductor.journal import Journal
from novactl.conductor.leader import Leadership
from novactl.conductor.watcher import Watcher
from novactl.db import events, leases, nodes
from novactl.errors import DatabaseFailed, DatabaseUnavailable
from novactl.model.node import Node, NodeState
from tests.contract.kit import until
from tests.contract.process import AgentProcess
from tests.world import World, small_world

INTERVAL_S = 1.0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with small_world(tmp_path) as made:
        made.cluster.config = made.config.replace(agent__report_interval_s=INTERVAL_S, conductor__lease_s=60.0)
        for agent in made.agents.values():
            agent.config = dataclasses.replace(agent.config, report_interval_s=INTERVAL_S)
        yield made


@contextmanager
def watching(
    world: World, heard: Callable[[str, wire.Report, bool], None] = lambda id_, report, odd: None,
) -> Iterator[tuple[Watcher, list[str]]]:
    """A watcher that runs, and the lines of its log."""
    lines: list[str] = []
    leadership, stop = Leadership(world.cluster), threading.Event()
    assert leadership.take()
    watcher = Watcher(leadership, Journal(lines.append, world.cluster.clock), heard)
    thread = threading.Thread(target=watcher.run, args=(stop,))
    thread.start()
    try:
        yield watcher, lines
    finally:
        stop.set()
        thread.join(60)
        leadership.release()
        assert not thread.is_alive()


def rows(world: World) -> dict[str, nodes.AgentRow]:
    with world.cluster.db.read() as tx:
        return {row.name: row for row in nodes.agent_rows(tx)}


def names_of_events(world: World, node: str) -> list[str]:
    id_ = rows(world)[node].id
    with world.cluster.db.read() as tx:
        return [event.event for event in events.of(tx, id_)]


def test_reports_keep_rows_fresh(world: World) -> None:
    """Every node's row is written anew again and again, though nobody asks."""
    first = {name: row.reported_at for name, row in rows(world).items()}
    with watching(world) as (watcher, _):
        until(lambda: all(row.reported_at > first[name] for name, row in rows(world).items()) and watcher.connected == 2)
        second = {name: row.reported_at for name, row in rows(world).items()}
        until(lambda: all(row.reported_at > second[name] for name, row in rows(world).items()))


def test_a_change_is_told_at_once(world: World) -> None:
    """A guest that dies is known to have long before the next report would be due."""
    world.cluster.config = world.cluster.config.replace(agent__report_interval_s=600.0)
    for agent in world.agents.values():
        agent.config = dataclasses.replace(agent.config, report_interval_s=600.0)
    server = api.create(world.cluster, CreateServer(name="web", flavor="small", image="guest")).servers[0]
    odd: list[str] = []
    with watching(world, lambda id_, report, is_odd: odd.append(id_) if is_odd else None) as (watcher, _):
        until(lambda: watcher.connected == 2 and watcher.reports >= 2)
        odd.clear()                                           # the report that a stream begins with may be from before
        world.agents[server.node_name].driver.crash(server.id)
        until(lambda: set(odd) == {server.node_id})


def test_silence_is_noted_once_and_ends(world: World) -> None:
    """A node whose agent says nothing is silent after 2.5 intervals, since the first word that was due; when it speaks, it is not."""
    (n1,) = [endpoint for name, endpoint in world.endpoints.items() if name == "n1"]
    receive, said = n1.dispatcher.receive, n1.send
    with watching(world) as (watcher, lines):
        until(lambda: watcher.connected == 2 and watcher.reports >= 2)
        n1.dispatcher.receive, n1.send = (lambda *_: None), (lambda *_: None)
        began = world.cluster.clock.now()
        until(lambda: rows(world)["n1"].silent_since is not None)
        assert rows(world)["n2"].silent_since is None
        assert began - INTERVAL_S < rows(world)["n1"].silent_since < world.cluster.clock.now() - INTERVAL_S
        n1.dispatcher.receive, n1.send = receive, said
        until(lambda: rows(world)["n1"].silent_since is None)
    assert names_of_events(world, "n1") == ["silent", "answers"] and names_of_events(world, "n2") == []
    assert [line.split(" ", 1)[1].split()[:2] for line in lines] == [["node", "silent"], ["node", "answers"]]


def test_who_was_heard_by_another_and_is_silent_again_is_noted_again(world: World) -> None:
    """A host that flaps: some command had a report of it before the conductor's own connection was made again. It is silent since then."""
    (n1,) = [endpoint for name, endpoint in world.endpoints.items() if name == "n1"]
    with watching(world) as (watcher, _):
        until(lambda: watcher.connected == 2 and watcher.reports >= 2)
        n1.dispatcher.receive, n1.send = (lambda *_: None), (lambda *_: None)
        until(lambda: rows(world)["n1"].silent_since is not None)
        id_, heard = rows(world)["n1"].id, world.cluster.clock.now()
        with world.cluster.db.write() as tx:
            fleet.take_report(tx, id_, world.agents["n1"].report(0), heard)
        assert rows(world)["n1"].silent_since is None
        until(lambda: rows(world)["n1"].silent_since is not None)
        assert rows(world)["n1"].silent_since >= heard - 1.0
    assert names_of_events(world, "n1")[:2] == ["silent", "silent"]



def test_a_stream_whose_time_is_over_is_opened_again(world: World) -> None:
    """It ends with an error and a new one is asked for on the same connection; no word of it in the log."""
    with watching(world) as (watcher, lines):
        until(lambda: watcher.connected == 2 and watcher.reports >= 2)
        dispatcher = world.endpoints["n2"].dispatcher
        ((key, first),) = dispatcher._streams.items()
        first.finish(wire.ERROR, wire.Failure(wire.Code.STALE, "the stream reached its time limit", retryable=True))
        dispatcher._forget(first)
        until(lambda: any(found != key for found in list(dispatcher._streams)))
    assert lines == []


def test_an_agent_that_was_killed_is_heard_again(world: World, tmp_path: Path) -> None:
    """Its connection is gone with it; the one that is made to the next process gets a stream of its own, before silence is noted."""
    world.cluster.config = world.cluster.config.replace(agent__report_interval_s=30.0)
    (tmp_path / "n3").mkdir()
    how = {"node_id": world.cluster.ids.uuid(), "name": "n3", "report_interval_s": 30.0}
    with contextlib.ExitStack() as stack:
        first = AgentProcess(tmp_path / "n3", **how)
        stack.callback(first.stop)
        first.admit({world.cluster.key: wire.ADMIN})
        with world.cluster.db.write() as tx:
            nodes.insert(tx, Node(
                id=how["node_id"], name="n3", state=NodeState.ENABLED, address=first.address, public_key=first.public, ssh="", host_key="",
                zone="", architecture="x86_64", agent_version="", generation=0, created_at=world.cluster.clock.now()))
        with watching(world) as (watcher, lines):
            until(lambda: rows(world)["n3"].reported_at is not None)
            heard_at = rows(world)["n3"].reported_at
            first.process.kill()
            first.process.wait()
            until(lambda: watcher.connected == 2)
            second = AgentProcess(tmp_path / "n3", **how, listen=first.address)
            stack.callback(second.stop)
            second.admit({world.cluster.key: wire.ADMIN})
            until(lambda: watcher.connected == 3 and rows(world)["n3"].reported_at > heard_at)
        assert lines == []


def test_nodes_come_and_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that is removed is let go; one that is added is listened to."""
    monkeypatch.setattr("novactl.conductor.watcher.ROWS_S", 0.2)
    n1 = rows(world)["n1"]
    with world.cluster.db.read() as tx:
        kept = nodes.by_id(tx, n1.id)
    with watching(world) as (watcher, _):
        until(lambda: watcher.connected == 2)
        with world.cluster.db.write() as tx:
            nodes.delete(tx, n1.id)
        until(lambda: watcher.connected == 1)
        with world.cluster.db.write() as tx:
            nodes.insert(tx, kept)
        until(lambda: watcher.connected == 2 and rows(world)["n1"].reported_at is not None)


def test_a_watcher_that_was_overtaken_writes_nothing(world: World) -> None:
    """When another leads, its next batch is refused and its thread ends; the rows are as they were."""
    with watching(world) as (watcher, _):
        until(lambda: watcher.connected == 2 and watcher.reports >= 2)
        with world.cluster.db.write() as tx:
            assert leases.take(tx, "conductor", "somebody else", world.cluster.clock.now() + 60, watcher.leadership.lease)
            before = {name: row.reported_at for name, row in {row.name: row for row in nodes.agent_rows(tx)}.items()}
        time.sleep(4 * INTERVAL_S)
        assert {name: row.reported_at for name, row in rows(world).items()} == before


def test_nonsense_of_one_node_costs_the_others_nothing(world: World) -> None:
    """A node that speaks of another is not believed, and named in the log; the other's reports go on."""
    agent = world.agents["n1"]
    agent.config = dataclasses.replace(agent.config, node_id=world.cluster.ids.uuid())
    agent._report = None
    before = rows(world)
    with watching(world) as (watcher, lines):
        until(lambda: rows(world)["n2"].reported_at > before["n2"].reported_at + INTERVAL_S)
        until(lambda: any("n1" in line for line in lines))
    assert rows(world)["n1"].reported_at == before["n1"].reported_at


@contextmanager
def by_hand(
    world: World, heard: Callable[[str, wire.Report, bool], None] = lambda id_, report, odd: None,
) -> Iterator[tuple[Watcher, list[str]]]:
    """A watcher that is told what its agents would say, and the lines of its log."""
    lines: list[str] = []
    leadership = Leadership(world.cluster)
    assert leadership.take()
    watcher = Watcher(leadership, Journal(lines.append, world.cluster.clock), heard)
    with world.cluster.db.read() as tx:
        watcher.follow(nodes.agent_rows(tx))
    try:
        yield watcher, lines
    finally:
        leadership.release()


def test_nonsense_of_one_node_costs_no_other_its_silence(world: World) -> None:
    """A report on which writing fails is named in the log; what came with it, the silence of another node too, is written."""
    n1, n2 = rows(world)["n1"].id, rows(world)["n2"].id
    report = world.agents["n1"].report(0.0)

    def heard(id_: str, report: wire.Report, odd: bool) -> None:
        raise ValueError("nonsense")

    with by_hand(world, heard) as (watcher, lines):
        watcher.take([Heard(n1, report, 0.0)], {n2: 30.0})
        assert rows(world)["n2"].silent_since == rows(world)["n2"].reported_at, "since it was last heard, by whomever"
        assert ["failed", "what=\"report"] in [line.split()[1:3] for line in lines]
        assert not watcher.waits
    assert names_of_events(world, "n2") == ["silent"]


def test_a_silence_after_a_report_is_written_after_it(world: World) -> None:
    """While the database took nothing a node said its last word; both are written then, as of when they were."""
    n1 = rows(world)["n1"].id
    report = dataclasses.replace(world.agents["n1"].report(0.0), age_s=0.0)
    with by_hand(world) as (watcher, _):
        write, watcher.leadership.write = watcher.leadership.write, unavailable  # type: ignore[method-assign]
        with pytest.raises(DatabaseUnavailable):
            watcher.take([Heard(n1, report, 0.0)], {})
        heard_at = world.cluster.clock.now()
        time.sleep(1.5)
        told_from = world.cluster.clock.now()
        with pytest.raises(DatabaseUnavailable):
            watcher.take([], {n1: 1.0})
        told_until = world.cluster.clock.now()
        time.sleep(0.5)
        watcher.leadership.write = write  # type: ignore[method-assign]
        watcher.take([], {})
        assert rows(world)["n1"].reported_at < heard_at + 0.1
        assert told_from - 0.1 < rows(world)["n1"].silent_since + 1.0 < told_until + 0.1
        watcher.take([Heard(n1, report, 0.0)], {})
        assert rows(world)["n1"].silent_since is None
    assert names_of_events(world, "n1") == ["silent", "answers"]


@contextmanager
def unavailable() -> Iterator[None]:
    raise DatabaseUnavailable("another process holds it")
    yield


def test_a_word_ends_a_silence_that_was_not_written(world: World) -> None:
    """A node that was silent and spoke again, all while the database took nothing, is not silent."""
    n1 = rows(world)["n1"].id
    with by_hand(world) as (watcher, _):
        write, watcher.leadership.write = watcher.leadership.write, unavailable  # type: ignore[method-assign]
        with pytest.raises(DatabaseUnavailable):
            watcher.take([], {n1: 30.0})
        watcher.leadership.write = write  # type: ignore[method-assign]
        watcher.take([Heard(n1, world.agents["n1"].report(0.0), 0.0)], {})
        assert rows(world)["n1"].silent_since is None and not watcher.waits
    assert names_of_events(world, "n1") == []


def test_a_silence_that_could_not_be_written_waits(world: World) -> None:
    """Nobody tells it again: whatever the writing failed of, it is tried with the next round."""
    n1 = rows(world)["n1"].id

    @contextmanager
    def refused() -> Iterator[None]:
        raise DatabaseFailed("attempt to write a readonly database")
        yield

    with by_hand(world) as (watcher, _):
        write, watcher.leadership.write = watcher.leadership.write, refused  # type: ignore[method-assign]
        watcher.take([], {n1: 30.0})
        assert watcher.waits
        watcher.leadership.write = write  # type: ignore[method-assign]
        watcher.take([], {})
        assert not watcher.waits and rows(world)["n1"].silent_since is not None


def test_a_connection_that_was_remade_unseen_gets_its_stream(world: World) -> None:
    """The agents restart while nobody looks, and when somebody does, all are connected: they are asked for reports, as they are late,
    and then for streams, too."""
    listening = Watching(world.cluster.agents, INTERVAL_S)
    try:
        listening.follow(rows(world).values())
        heard: set[str] = set()
        until(lambda: len(heard.update(one.peer for one in listening.read(0.2)) or heard) == 2)
        restart_agents(world)
        time.sleep(2.5)
        until(lambda: listening.read(0.2) is not None and all(len(e.dispatcher._streams) == 1 for e in world.endpoints.values()))
        streams = [list(endpoint.dispatcher._streams) for endpoint in world.endpoints.values()]
        until(lambda: len(listening.read(5.0)) >= 8)          # streams that speak stay
        assert streams == [list(endpoint.dispatcher._streams) for endpoint in world.endpoints.values()]
    finally:
        listening.close()


def restart_agents(world: World) -> None:
    """Other sockets at the same addresses."""
    world.loop.stop()
    world._thread.join()
    world.loop.close()
    world.loop = Loop()
    for name, agent in world.agents.items():
        own = NodeKeys(agent.config.keys_dir, public_of, new_keypair)
        public, secret = own.ensure()
        until(functools.partial(_is_added, world, agent, name, secret, public, own))
    world.start()


def _is_added(world: World, agent: Agent, name: str, secret: str, public: str, own: NodeKeys) -> bool:
    try:
        world.endpoints[name] = world.loop.add(agent, world.endpoints[name].address, secret, public, own)
        return True
    except OSError:
        return False


def test_a_changed_key_of_ours_is_used_for_all(world: World) -> None:
    """Connections stay as long as it is the same, and are all made anew when it is another: the old one is let in nowhere."""
    agents = world.cluster.agents
    listening = Watching(agents, INTERVAL_S)
    try:
        listening.follow(rows(world).values())
        before = [line.socket for line in listening._lines.values()]
        listening.follow(rows(world).values())
        assert before == [line.socket for line in listening._lines.values()]
        agents._load = keys.new
        listening.follow(rows(world).values())
        assert len(before) == len(listening._lines) == 2
        assert not {id(socket) for socket in before} & {id(line.socket) for line in listening._lines.values()}
        assert all(socket.closed for socket in before)
    finally:
        listening.close()
