"""The agent's port: who gets in, and that nothing sent to it takes it down."""

import contextlib
import errno
import json
import os
import random
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
import zmq

from nodeagent import wire, zap
from nodeagent.admins import Admins
from nodeagent.loop import Loop, Unsafe, new_keypair
from nodeagent.wire import Code
from tests.contract.kit import Node, until
from tests.contract.process import AgentProcess, ask

REFUSED_S = 0.7
GROWTH_MB = 24.0


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    made = AgentProcess(tmp_path)
    yield made
    if made.process.poll() is None:
        assert made.stop() == 0


def serves(agent: AgentProcess) -> bool:
    """A correct caller is answered."""
    reply = ask(agent.dealer(), "agent.ping")
    return reply is not None and reply.kind == wire.RESULT


# ---- who gets in


def test_an_enrolled_key_is_served(agent: AgentProcess) -> None:
    """It says where it listens in one line, and who it is to those who may ask."""
    assert agent.first_line.startswith("nodeagent 0.1.0 listening on tcp://127.0.0.1:")
    reply = ask(agent.dealer(), "agent.hello")
    assert reply and reply.body["role"] == wire.ADMIN and reply.body["driver"] == "fake"


def test_a_stranger_is_refused(agent: AgentProcess) -> None:
    """A key that is not enrolled finishes no handshake and gets no answer."""
    assert ask(agent.dealer(tuple(k.decode() for k in zmq.curve_keypair())), "agent.ping", wait_s=REFUSED_S) is None
    assert serves(agent)


def test_without_curve_there_is_no_answer(agent: AgentProcess) -> None:
    """A NULL or PLAIN peer, and one that knows another server key, get nothing."""
    null = agent.context.socket(zmq.DEALER)
    plain = agent.context.socket(zmq.DEALER)
    plain.plain_username, plain.plain_password = b"admin", b"admin"
    for peer in (null, plain):
        peer.setsockopt(zmq.LINGER, 0)
        peer.connect(agent.address)
    other = agent.dealer(server=new_keypair()[0])
    for peer in (null, plain, other):
        assert ask(peer, "agent.ping", wait_s=REFUSED_S) is None
    assert serves(agent)


def test_a_revoked_key_loses_its_open_connection(agent: AgentProcess) -> None:
    """Taken out of admins.json, a key is denied on the connection it has; given a lesser role, it has that at once."""
    peer = agent.dealer()
    assert ask(peer, "agent.ping")
    agent.admit({agent.admin[0]: wire.READER})
    reply = ask(peer, "node.unprepare", operation="o", epoch=1)
    assert reply and reply.body["code"] == Code.DENIED
    agent.admit({})
    reply = ask(peer, "agent.ping")
    assert reply and reply.body["code"] == Code.DENIED
    assert ask(agent.dealer(), "agent.ping", wait_s=REFUSED_S) is None


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Loop, Node, str, tuple[str, str]]]:
    """A loop in this process whose handshakes can be broken: (loop, agent, server key, an enrolled pair)."""
    node, loop = Node(tmp_path), Loop()
    public, secret = new_keypair()
    pair = new_keypair()
    node.agent.admins = type(node.agent.admins)({pair[0]: ("admin", wire.ADMIN)})
    loop.add(node.agent, "tcp://127.0.0.1:*", secret, public)
    yield loop, node, public, pair
    loop.close()


def pings(loop: Loop, public: str, pair: tuple[str, str], wait_s: float = 30.0) -> bool:
    """Does a new connection with `pair` get an answer?"""
    endpoint, over = next(iter(loop._by_fd.values())), threading.Event()

    def steps() -> None:
        while not over.is_set():
            loop.step(0.01)

    running = threading.Thread(target=steps)
    with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
        peer.setsockopt(zmq.LINGER, 0)
        peer.curve_serverkey, peer.curve_publickey, peer.curve_secretkey = public.encode(), pair[0].encode(), pair[1].encode()
        peer.connect(endpoint.address)
        running.start()
        try:
            reply = ask(peer, "agent.ping", wait_s=wait_s)
        finally:
            over.set()
            running.join()
    return reply is not None


def test_without_its_gatekeeper_nobody_gets_in(served: tuple[Loop, Node, str, tuple[str, str]]) -> None:
    """When nothing answers ZAP any more, even an enrolled key is refused: it fails closed."""
    loop, _, public, pair = served
    assert pings(loop, public, pair)
    loop._zap.close(0)
    loop._answer_zap = lambda: None  # type: ignore[method-assign]
    assert not pings(loop, public, pair, REFUSED_S)


def test_a_fault_in_a_message_ends_that_message(
    served: tuple[Loop, Node, str, tuple[str, str]], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What nobody foresaw costs the one message it came with and one line in the log, however often it comes; the loop serves on."""
    loop, _, public, pair = served
    dispatcher = next(iter(loop._by_fd.values())).dispatcher
    came, answered = list[int](), list[bool]()
    with monkeypatch.context() as broken:
        broken.setattr(dispatcher, "receive", lambda *_: came.append(1) or 1 / 0)
        until(lambda: answered.append(pings(loop, public, pair, REFUSED_S)) or len(came) > 1)
    assert not any(answered)
    assert capfd.readouterr().err.count("ZeroDivisionError") == 1
    assert pings(loop, public, pair)


def test_a_late_reply_writes_to_nobodys_file(tmp_path: Path) -> None:
    """What a worker posts, or a signal stops, after the loop was closed goes nowhere, though the descriptors' numbers are in use again."""
    loop, node = Loop(), Node(tmp_path)
    endpoint = loop.add(node.agent, "tcp://127.0.0.1:*", *reversed(new_keypair()))
    loop.close()
    again = [os.open(tmp_path / f"f{number}", os.O_RDWR | os.O_CREAT) for number in range(30)]
    loop.post(endpoint, b"peer", [b"x"])
    loop.stop()
    assert all(os.fstat(fd).st_size == 0 for fd in again)
    for fd in again:
        os.close(fd)


def test_the_self_test_sees_an_open_door(served: tuple[Loop, Node, str, tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that would admit a stranger, or cannot tell, does not start; a sound one does."""
    loop = served[0]
    endpoint = next(iter(loop._by_fd.values()))
    loop.self_test(endpoint)
    monkeypatch.setattr(zap, "answer", lambda frames, *_: [b"1.0", frames[1], b"200", b"OK", b"x", b""])
    with pytest.raises(Unsafe, match="was admitted"):
        loop.self_test(endpoint)
    monkeypatch.setattr("nodeagent.loop.SELF_TEST_S", 0.3)
    monkeypatch.setattr(loop, "_answer_zap", lambda: None)
    with pytest.raises(Unsafe, match="neither"):
        loop.self_test(endpoint)


# ---- what is sent to it


def test_garbage_on_the_wire_does_no_harm(agent: AgentProcess) -> None:
    """Random bytes, half greetings, a greeting and then nonsense, frames that claim to be huge: it lives, and stays small."""
    chance = random.Random(1)
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE" + bytes(15) + bytes(32)
    before = agent.rss_mb()
    for number in range(300):
        with socket.create_connection(("127.0.0.1", agent.port)) as raw:
            what = [
                chance.randbytes(chance.randrange(1, 2000)), greeting[: chance.randrange(1, 64)],
                greeting + b"\x04\xc8\x05HELLO" + chance.randbytes(194), greeting + b"\x06" + b"\x7f" + b"\xff" * 7 + chance.randbytes(100),
            ][number % 4]
            with contextlib.suppress(OSError):
                raw.sendall(what)
    assert serves(agent)
    assert agent.rss_mb() - before < GROWTH_MB


def test_idle_connections_are_let_go(agent: AgentProcess) -> None:
    """Two hundred peers that connect and say nothing lose their connections within the handshake's time, and others are served."""
    idle = [socket.create_connection(("127.0.0.1", agent.port)) for _ in range(200)]
    assert serves(agent)
    for raw in idle:
        raw.settimeout(60)
        with contextlib.suppress(ConnectionError):
            while raw.recv(100):
                pass
        raw.close()
    assert serves(agent)


def test_messages_that_are_none_are_answered_or_dropped(agent: AgentProcess) -> None:
    """From an enrolled peer: random frames, half messages, other protocols, too many frames, deep and long JSON."""
    chance = random.Random(2)
    peer = agent.dealer()
    good = wire.encode(wire.Request("id", "agent.ping", {}))
    for number in range(2000):
        frames = [
            [chance.randbytes(chance.randrange(300)) for _ in range(chance.randrange(1, 5))],
            [wire.PROTOCOL, good[1][: chance.randrange(len(good[1]))]],
            [b"NV9", good[1]], [*good, b"", b"", b""] * 3, [wire.PROTOCOL, b"[" * 100_000], [wire.PROTOCOL],
            [wire.PROTOCOL, good[1].replace(b"agent.ping", b"agent.pong")], [wire.PROTOCOL, good[1], chance.randbytes(1000)],
        ][number % 8]
        peer.send_multipart(frames)
        while peer.poll(0):
            wire.decode(wire.Reply, peer.recv_multipart())
    assert serves(agent)
    reply = ask(peer, "agent.pong")
    assert reply and reply.body["code"] == Code.UNKNOWN_METHOD


def test_an_oversized_message_closes_its_connection_only(agent: AgentProcess) -> None:
    """A frame over the bound never reaches the agent; other peers are served, and memory stays bounded."""
    before = agent.rss_mb()
    for _ in range(5):
        peer = agent.dealer()
        peer.send_multipart([wire.PROTOCOL, bytes(wire.MAX_MESSAGE_BYTES + 1)])
        assert serves(agent)
    assert agent.rss_mb() - before < GROWTH_MB


def test_a_peer_that_takes_nothing_costs_little(agent: AgentProcess) -> None:
    """Thousands of questions from a peer that reads no answer: others are served, and memory stays bounded."""
    before = agent.rss_mb()
    greedy = agent.dealer()
    greedy.setsockopt(zmq.RCVHWM, 1)
    for _ in range(20_000):
        with contextlib.suppress(zmq.Again):
            greedy.send_multipart(wire.encode(wire.Request("x" * 150, "agent.hello", {})), zmq.NOBLOCK)
    assert serves(agent)
    assert agent.rss_mb() - before < GROWTH_MB


# ---- the process


def test_it_stops_when_told(agent: AgentProcess) -> None:
    """SIGTERM ends it with status 0 and guests go on; started again, it knows them."""
    assert agent.stop() == 0


def test_it_takes_the_descriptors_it_may_have(tmp_path: Path) -> None:
    """Started with few, it raises its own limit to what the host allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        agent = AgentProcess(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE)[0] == min(4096, hard)
    agent.stop()


def test_admins_that_could_not_be_opened_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of descriptors, nobody is admitted; as soon as one is free, all are again, though the file did not change."""
    path = tmp_path / "admins.json"
    path.write_text(json.dumps({"keys": {"k" * 40: {"name": "a", "role": wire.ADMIN}}}))
    admins = Admins(str(path))
    with monkeypatch.context() as full:
        full.setattr("builtins.open", Mock(side_effect=OSError(errno.EMFILE, "Too many open files")))
        assert admins.role("k" * 40) == "" and "Too many" in admins.fault
    assert (admins.role("k" * 40), admins.fault) == (wire.ADMIN, "")


def test_it_tells_the_service_manager(tmp_path: Path) -> None:
    """With NOTIFY_SOCKET it says READY=1 when it listens, WATCHDOG=1 while its loop turns, STOPPING=1 at the end."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(60)
        agent = AgentProcess(tmp_path, env={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "3000000"})
        said = [manager.recv(100), manager.recv(100)]
        agent.stop()
        while b"STOPPING=1" not in said:
            said.append(manager.recv(100))
    assert said[:2] == [b"READY=1", b"WATCHDOG=1"]


def test_it_says_why_it_cannot_run(tmp_path: Path) -> None:
    """Without keys, or with its address or its state taken, it ends with status 1 and one line."""
    first = AgentProcess(tmp_path)
    for changes in ({}, {"state_dir": str(tmp_path / "elsewhere"), "listen": first.address}):
        second = AgentProcess(tmp_path, **changes)
        assert second.process.wait(60) == 1 and "in use" in second.first_line
    (tmp_path / "other").mkdir()
    third = AgentProcess(tmp_path / "other", keys_dir=str(tmp_path / "nothing"))
    assert third.process.wait(60) == 1 and "nothing/agent.key" in third.first_line
    assert first.stop() == 0


def test_killed_it_comes_back_with_all_it_knew(tmp_path: Path) -> None:
    """After SIGKILL the next one answers a repeated request as the first did."""
    agent = AgentProcess(tmp_path)
    reply = ask(agent.dealer(), "agent.hello")
    assert reply
    request = {
        "id": "o:prepare:1:do", "operation": "o", "epoch": 3, "boot_id": reply.body["boot_id"],
        "valid_until_s": reply.body["boottime_s"] + 60}
    assert ask(agent.dealer(), "node.prepare", wire.Prepare(limits={"VCPU": 2}), **request)
    os.kill(agent.process.pid, signal.SIGKILL)
    agent.process.wait(60)
    again = AgentProcess(tmp_path)
    stale = ask(again.dealer(), "node.prepare", wire.Prepare(), **{**request, "epoch": 2})
    assert stale and stale.body["code"] == Code.STALE
    assert json.loads((tmp_path / "state/node.json").read_text())["limits"] == {"VCPU": 2}
    until(lambda: serves(again))
    again.stop()
