"""Hooks run as real commands, subscribers are real sockets."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from novactl.agents import keys
from novactl.agents.publishing import Publisher
from novactl.api import cluster as api_cluster
from novactl.api import keys as api_keys
from novactl.cluster import Cluster
from novactl.conductor import notify
from novactl.conductor.journal import Journal
from novactl.conductor.leader import Leadership
from novactl.conductor.notify import TOLD, Events, Hook, Hooks, Telling
from novactl.config import load_config
from novactl.db import events, meta, notices
from novactl.db.statements import Tx
from novactl.errors import UsageError
from novactl.model.key import Role
from novactl.model.operation import EventRecord
from tests import databases
from tests.contract.kit import is_gone, until

AN_EVENT = EventRecord(
    at=0.0, object_kind="server", object_id="", object_name="web", operation_id="", event="started", actor="", detail="", reason="")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    config = load_config(env={"HOME": str(tmp_path), "NOVACTL_DATA_DIR": str(tmp_path / "data"), "NOVACTL_CONDUCTOR_LEASE_S": "60"})
    made = Cluster(config, actor="tester@here")
    api_cluster.init(made)
    yield made
    made.close()


def happen(cluster: Cluster, *names: str, kind: str = "server") -> None:
    for name in names:
        with cluster.db.write() as tx:
            events.record(tx, EventRecord(
                at=cluster.clock.now(), object_kind=kind, object_id="an-id", object_name="web", operation_id="", event=name,
                actor=cluster.actor, detail="", reason=""))


@contextlib.contextmanager
def running(duty: Hooks | Telling) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=duty.run, args=(stop,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


@contextlib.contextmanager
def leading(cluster: Cluster) -> Iterator[Leadership]:
    leadership = Leadership(cluster)
    assert leadership.take()
    try:
        yield leadership
    finally:
        leadership.release()


def hooked(cluster: Cluster, command: str, *, timeout_s: float = 10.0) -> None:
    cluster.config = cluster.config.replace(conductor__hook=command, conductor__hook_timeout_s=timeout_s)


# ---------------------------------------------------------------- hooks

def test_a_hook_is_given_each_event(cluster: Cluster, tmp_path: Path) -> None:
    """Once each, as JSON on its standard input; not the events from before there was a hook. Its words are no shell's."""
    hooked(cluster, f"tee '{tmp_path}/$HOME;{{}}' -a")
    happen(cluster, "long ago")
    told = tmp_path / "$HOME;{}"
    with leading(cluster) as leadership, running(Hooks(leadership, Journal(lambda line: print(line, end=""), cluster.clock))):
        until(lambda: begun(cluster))
        happen(cluster, "started", "stopped")
        until(lambda: through(cluster))
    found = [json.loads(one) for one in told.read_text().replace("}{", "}\n{").splitlines()]
    assert sorted((one["event"], one["object_name"], one["actor"]) for one in found) == [
        ("started", "web", "tester@here"), ("stopped", "web", "tester@here")]


def begun(cluster: Cluster) -> bool:
    with cluster.db.read() as tx:
        return meta.get(tx, TOLD) is not None


def through(cluster: Cluster) -> bool:
    """Whether hooks have been through all events there are."""
    with cluster.db.read() as tx:
        return int(meta.get(tx, TOLD) or 0) == notices.newest(tx)


def test_the_next_leader_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    """What happened while nobody led is told by the next leader, from where the last one had come to."""
    hooked(cluster, f"tee -a {tmp_path}/told")
    journal = Journal(lambda line: print(line, end=""), cluster.clock)
    with leading(cluster) as leadership, running(Hooks(leadership, journal)):
        until(lambda: begun(cluster))
    happen(cluster, "between")
    with leading(cluster) as leadership, running(Hooks(leadership, journal)):
        until(lambda: (tmp_path / "told").exists() and (tmp_path / "told").read_text().endswith("}"))
    assert json.loads((tmp_path / "told").read_text())["event"] == "between"


def test_a_hook_that_hangs_or_fails_stops_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """It is killed with all that it started, the failure is in the log, and the events behind it are told."""
    script = tmp_path / "hook"
    script.write_text(
        f"#!/bin/sh\ntext=$(cat)\ncase $text in *hangs*) sleep 300 & echo $! >{tmp_path}/pid; wait;; *fails*) echo oh no; exit 3;;"
        f" *) echo done >>{tmp_path}/told;; esac\n")
    script.chmod(0o755)
    hooked(cluster, str(script), timeout_s=4.0)
    lines: list[str] = []
    with leading(cluster) as leadership, running(Hooks(leadership, Journal(lines.append, cluster.clock))):
        until(lambda: begun(cluster))
        happen(cluster, "hangs", "fails", "fine")
        until(lambda: through(cluster))
    assert (tmp_path / "told").read_text() == "done\n"
    until(lambda: is_gone((tmp_path / "pid").read_text().strip()))
    assert any("exit status 3: oh no" in line for line in lines) or any("killed after 4 s" in line for line in lines)


def scripted(folder: Path, text: str) -> str:
    script = folder / "hook"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)
    return str(script)


def test_a_hook_ends_with_its_conductor(cluster: Cluster, tmp_path: Path) -> None:
    """It is killed with what it started, long before its own timeout; the next leader's hook is given the event again."""
    hooked(cluster, scripted(tmp_path, f"sleep 300 & echo $! >{tmp_path}/pid; wait"), timeout_s=600.0)
    lines: list[str] = []
    with leading(cluster) as leadership, running(Hooks(leadership, Journal(lines.append, cluster.clock))):
        until(lambda: begun(cluster))
        happen(cluster, "started")
        until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "")
    until(lambda: is_gone((tmp_path / "pid").read_text().strip()))
    assert not through(cluster)
    until(lambda: any("was killed, as the conductor leads no more" in line for line in lines))


def test_a_hook_begun_too_late_is_killed_at_once(cluster: Cluster, tmp_path: Path) -> None:
    """One that had not started when the others were killed does not outlive them."""
    lines: list[str] = []
    hook = Hook(scripted(tmp_path, "exec sleep 300"), 600.0, Journal(lines.append, cluster.clock), cluster.clock)
    hook.end()
    began = time.monotonic()
    hook(1, AN_EVENT)
    assert time.monotonic() - began < 60 and "was killed" in lines[0]


def test_a_hook_that_floods_is_killed(cluster: Cluster, tmp_path: Path) -> None:
    """No disk is filled with what it says: it goes through a pipe, is counted, and a little is kept."""
    flood = f"head -c 8000000 /dev/zero; echo done >{tmp_path}/told"
    lines: list[str] = []
    Hook(scripted(tmp_path, flood), 60.0, Journal(lines.append, cluster.clock), cluster.clock)(1, AN_EVENT)
    assert "as it said more than 1 MiB" in lines[0] and not (tmp_path / "told").exists()


def test_what_a_hook_leaves_behind_is_not_waited_for(cluster: Cluster, tmp_path: Path) -> None:
    """Though it holds the pipe; the beginning of what a failing hook said is told."""
    script = scripted(tmp_path, f"sleep 60 & echo $! >{tmp_path}/pid; head -c 200000 /dev/zero; echo oh no >&2; exit 3")
    lines: list[str] = []
    began = time.monotonic()
    try:
        Hook(script, 50.0, Journal(lines.append, cluster.clock), cluster.clock)(1, AN_EVENT)
        assert time.monotonic() - began < 40 and "exit status 3" in lines[0]
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_a_hook_that_is_no_command_line_is_refused(cluster: Cluster) -> None:
    """Before the conductor does anything."""
    hooked(cluster, "tell 'unfinished")
    with leading(cluster) as leadership, pytest.raises(UsageError, match=r"conductor\.hook"):
        Hooks(leadership, Journal(lambda line: print(line, end=""), cluster.clock))


@pytest.mark.parametrize("behind_s", [0.0, 60.0])
@pytest.mark.parametrize("kind", databases.SHARED)
def test_an_event_that_commits_late_is_told(kind: str, behind_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction drew a smaller number and commits after a larger one was seen: neither is passed over, in their order.

    Their times are the writers' own, whose clocks may be behind."""
    def happened(tx: Tx, name: str) -> None:
        events.record(tx, EventRecord(
            at=time.time() - behind_s, object_kind="server", object_id="", object_name="", operation_id="", event=name, actor="",
            detail="", reason=""))

    with databases.database(kind) as url:
        config = load_config(env={"HOME": str(tmp_path), "NOVACTL_DATA_DIR": str(tmp_path / "data"), "NOVACTL_DATABASE_URL": url})
        cluster = Cluster(config, actor="tester@here")
        api_cluster.init(cluster)
        try:
            with cluster.db.read() as tx:
                found = Events(cluster, notices.newest(tx))
            with cluster.db.write() as slow:
                happened(slow, "first")
                with cluster.db.write() as tx:
                    happened(tx, "second")
                assert found.more() == []
            assert [event.event for _, event in found.more()] == ["first", "second"]
            with contextlib.suppress(ZeroDivisionError), cluster.db.write() as tx:
                happened(tx, "never")
                1 / 0  # noqa: B018 - its number is lost for good
            with cluster.db.write() as tx:
                happened(tx, "third")
            assert found.more() == []
            monkeypatch.setattr(notify, "LATECOMER_S", 0.0)
            assert [event.event for _, event in found.more()] == ["third"]
        finally:
            cluster.close()


# ---------------------------------------------------------------- the socket

class Subscriber:
    """As an admin's program would be; `pair` are its keys."""

    def __init__(self, endpoint: str, server_key: str, pair: tuple[str, str], *topics: str) -> None:
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.SUB)
        self.socket.setsockopt(zmq.CURVE_SERVERKEY, server_key.encode())
        self.socket.setsockopt(zmq.CURVE_PUBLICKEY, pair[0].encode())
        self.socket.setsockopt(zmq.CURVE_SECRETKEY, pair[1].encode())
        for topic in topics or ("",):
            self.socket.setsockopt(zmq.SUBSCRIBE, topic.encode())
        self.socket.connect(endpoint)

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)

    def next(self, within_s: float = 60.0) -> tuple[str, dict[str, Any]] | None:
        if not self.socket.poll(int(within_s * 1000)):
            return None
        topic, body = self.socket.recv_multipart()
        return topic.decode(), json.loads(body)

    def until(self, event: str) -> dict[str, Any]:
        while True:
            found = self.next()
            assert found is not None, f"{event} was not told"
            if found[1].get("event") == event:
                return found[1]


@pytest.fixture
def telling(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Telling]:
    monkeypatch.setattr(notify, "BEAT_S", 0.3)
    with leading(cluster) as leadership:
        made = Telling(leadership, Journal(lambda line: print(line, end=""), cluster.clock), "tcp://127.0.0.1:*")
        made.open()
        with running(made):
            yield made


def own(cluster: Cluster) -> tuple[str, str]:
    pair = keys.load(cluster.config.data_dir / "keys")
    return pair.public, pair.secret


def stranger() -> tuple[str, str]:
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def test_admins_hear_of_events_as_they_happen(cluster: Cluster, telling: Telling) -> None:
    """All of them, numbered without a gap within what they speak of; who asks for servers alone hears of servers alone."""
    with Subscriber(telling.endpoint, cluster.key, own(cluster)) as everything, \
            Subscriber(telling.endpoint, cluster.key, own(cluster), "server.") as some:
        until(lambda: everything.next() is not None)          # a beat: the subscription has arrived
        _beat_of(cluster, some)
        happen(cluster, "disabled", kind="node")
        happen(cluster, "started", "stopped")
        first, second = everything.until("started"), everything.until("stopped")
        assert (first["object_kind"], first["object_name"], second["seq"] - first["seq"]) == ("server", "web", 1)
        topics = [""]
        while topics[-1] != "server.stopped":
            found = some.next()
            assert found is not None
            topics.append(found[0])
        assert "server.started" in topics and all(topic.startswith("server.") for topic in topics[1:])


def _beat_of(cluster: Cluster, subscriber: Subscriber) -> None:
    """Events, until one is heard: then the subscription has arrived."""
    def heard() -> bool:
        happen(cluster, "hello")
        return subscriber.next(0.5) is not None

    until(heard)


def test_strangers_hear_nothing(cluster: Cluster, telling: Telling) -> None:
    """A key that is not enrolled is refused at the handshake, and so is none at all."""
    with Subscriber(telling.endpoint, cluster.key, stranger()) as other, Subscriber(telling.endpoint, cluster.key, own(cluster)) as admin:
        until(lambda: admin.next() is not None)
        happen(cluster, "started")
        admin.until("started")
        assert other.next(1.0) is None
    context = zmq.Context()
    bare = context.socket(zmq.SUB)
    bare.setsockopt(zmq.SUBSCRIBE, b"")
    bare.connect(telling.endpoint)
    assert not bare.poll(1000)
    context.destroy(linger=0)


def test_a_dead_doorkeeper_lets_nobody_in(cluster: Cluster, telling: Telling) -> None:
    """With the thread that answers ZAP gone not even an admin comes in, let alone a stranger."""
    publisher = telling._publisher
    publisher._closing.set()
    publisher._thread.join()
    with Subscriber(telling.endpoint, cluster.key, own(cluster)) as admin, Subscriber(telling.endpoint, cluster.key, stranger()) as other:
        assert admin.next(1.5) is None and other.next(0.5) is None


def test_who_is_revoked_hears_no_more(cluster: Cluster, telling: Telling) -> None:
    """A connection that is open when its key is revoked is cut; the others come in again by themselves."""
    second = stranger()
    api_keys.create(cluster, name="second", public_key=second[0], role=Role.READER)
    with contextlib.ExitStack() as stack:
        admin = stack.enter_context(Subscriber(telling.endpoint, cluster.key, own(cluster)))
        until(lambda: admin.next() is not None)
        until(lambda: second[0] in telling._publisher._admitted)
        other = stack.enter_context(Subscriber(telling.endpoint, cluster.key, second))
        until(lambda: other.next() is not None)
        api_keys.revoke(cluster, "second")
        until(lambda: second[0] not in telling._publisher._admitted)
        while other.next(0.6):
            pass                                              # what was on its way
        happen(cluster, "started")
        assert admin.until("started")["seq"]
        assert other.next(1.0) is None


def test_a_slow_subscriber_sees_that_it_lost_some(cluster: Cluster) -> None:
    """The conductor does not wait for it; the numbers of what it gets in the end have a gap."""
    big = EventRecord(
        at=0.0, object_kind="server", object_id="", object_name="", operation_id="", event="big", actor="", detail="x" * 100_000, reason="")
    count = 3000
    with leading(cluster) as leadership:
        telling = Telling(leadership, Journal(lambda line: None, cluster.clock), "tcp://127.0.0.1:*")
        with contextlib.closing(telling.open()) as publisher, \
                Subscriber(telling.endpoint, cluster.key, own(cluster)) as slow:
            until(lambda: telling._tell(publisher, "hello", "beat", {}) or slow.next(0.1) is not None)
            for _ in range(count):
                telling._tell(publisher, "server.big", "server", notify.as_plain(1, big))
            numbers = [found[1]["seq"] for found in iter(lambda: slow.next(1.0), None) if found[0] == "server.big"]
            assert 0 < len(numbers) < count and numbers == sorted(numbers)
            telling._tell(publisher, "server.last", "server", {"event": "last"})
            assert slow.until("last")["seq"] == count + 1 > numbers[-1] + 1


def test_an_address_that_cannot_be_had_again_is_tried_again() -> None:
    """When a key is revoked all must come in anew; where that fails once, it is made up for with the next beat."""
    pair, mine, gone = keys.new(), stranger(), stranger()
    publisher = Publisher(pair, "tcp://127.0.0.1:*", frozenset({mine[0], gone[0]}))
    with contextlib.closing(publisher), Subscriber(publisher.endpoint, pair.public, mine) as admin:
        publisher._wanted = "tcp://192.0.2.1:7767"
        with pytest.raises(UsageError, match="cannot publish"):
            publisher.admit(frozenset({mine[0]}))
        publisher._wanted = publisher.endpoint
        publisher.admit(frozenset({mine[0]}))
        until(lambda: publisher.send("hello", b"{}") or admin.next(0.1) is not None)
