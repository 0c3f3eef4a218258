"""Consoles and watches: what flows, how much of it, and when it ends."""

import functools
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nodeagent import wire
from nodeagent.admins import FixedAdmins
from nodeagent.wire import CONSOLE_WINDOW_BYTES, Code, ConsoleRef, DomainRef
from tests.contract.kit import KEYS, Node, until


@pytest.fixture
def running(fake: Node) -> Iterator[tuple[Node, str]]:
    """A node and the id of a running server on it."""
    spec = fake.define(fake.put_image())
    fake.ok("domain.start", DomainRef(spec.server, 1))
    yield fake, spec.server


def opened(node: Node, server: str, peer: bytes = b"peer") -> str:
    request = node.request("console.open", DomainRef(server))
    node.send(request, peer=peer)
    reply, payload = node.next()
    assert (reply.kind, reply.id, payload) == (wire.PROGRESS, request.id, b"")
    return request.id


def output(node: Node, console: str, count: int) -> bytes:
    """The console's next output, `count` bytes of it."""
    found = b""
    while len(found) < count:
        reply, payload = node.next()
        assert (reply.id, reply.kind) == (console, wire.PROGRESS)
        found += payload or b""
    return found


def test_what_is_typed_comes_back(running: tuple[Node, str]) -> None:
    """Input reaches the guest in order, and its echo comes as progress."""
    node, server = running
    console = opened(node, server)
    for number in range(50):
        node.ok("console.input", ConsoleRef(console), b"%d;" % number)
    expected = b"".join(b"%d;" % number for number in range(50))
    assert output(node, console, len(expected)) == expected
    assert node.ask(node.request("console.log", wire.ConsoleLogRead(server)))[1].endswith(expected)


def test_what_the_guest_writes_just_then_comes_after_the_opening(running: tuple[Node, str]) -> None:
    """That it is open is said first, with nothing; what was written between is not lost."""
    node, server = running
    act = node.agent.driver.open_console

    def talking(*args: Any) -> Any:
        console = act(*args)
        console.write(b"login: ")
        return console

    node.agent.driver.open_console = talking
    assert output(node, opened(node, server), 7) == b"login: "


def test_output_stops_where_credit_does(running: tuple[Node, str]) -> None:
    """Without credit nothing more is sent than the window; with credit the rest comes, none lost."""
    node, server = running
    console = opened(node, server)
    block = bytes(range(256)) * 256
    for _ in range(6):
        node.ok("console.input", ConsoleRef(console), block)
    first = output(node, console, CONSOLE_WINDOW_BYTES)
    assert len(first) == CONSOLE_WINDOW_BYTES and node.replies.empty()
    node.ok("console.credit", ConsoleRef(console, 1000))
    first += output(node, console, 1000)
    assert node.replies.empty()
    node.ok("console.credit", ConsoleRef(console, CONSOLE_WINDOW_BYTES))
    assert first + output(node, console, 6 * len(block) - len(first)) == 6 * block


def test_the_newest_console_wins(running: tuple[Node, str]) -> None:
    """Opening a server's console again ends the older one, saying why."""
    node, server = running
    first = opened(node, server)
    node.send(node.request("console.open", DomainRef(server)))
    ended = next(reply for reply in (node.next()[0], node.next()[0]) if reply.kind == wire.RESULT)
    assert ended.id == first and "taken over" in ended.body["reason"]


def test_a_console_ends_with_its_guest(running: tuple[Node, str]) -> None:
    """When the guest is powered off, the stream ends with a reason; its id is then unknown."""
    node, server = running
    console = opened(node, server)
    node.ok("domain.destroy", DomainRef(server, 1))
    reply, _ = node.next()
    assert (reply.id, reply.kind) == (console, wire.RESULT) and "powered off" in reply.body["reason"]
    assert node.refusal("console.input", ConsoleRef(console), b"x").code == Code.NOT_FOUND


def test_a_console_belongs_to_its_caller(running: tuple[Node, str]) -> None:
    """Another key can neither type into a console nor close it."""
    node, server = running
    console = opened(node, server)
    for method in ("console.input", "console.credit", "console.close"):
        assert node.refusal(method, ConsoleRef(console), b"x", role=wire.OPERATOR).code == Code.NOT_FOUND
    node.ok("console.close", ConsoleRef(console))
    assert node.next()[0].body["reason"] == "closed"


def test_a_server_that_is_off_has_no_live_console(fake: Node) -> None:
    """Opening it is a conflict, and leaves no session behind."""
    spec = fake.define(fake.put_image())
    assert fake.refusal("console.open", DomainRef(spec.server)).code == Code.CONFLICT
    fake.ok("domain.start", DomainRef(spec.server, 1))
    opened(fake, spec.server)


def test_a_change_is_reported_at_once(running: tuple[Node, str]) -> None:
    """A watcher gets a report when it starts and one as soon as a domain changed state."""
    node, server = running
    node.send(node.request("inventory.watch"))
    states = [report.domains[0].power_state for report in reports(node, 1)]
    node.agent.driver.crash(server)
    states += [report.domains[0].power_state for report in reports(node, 1)]
    assert states == ["RUNNING", "CRASHED"]


def reports(node: Node, count: int) -> list[wire.Report]:
    return [wire.from_plain(wire.Report, node.next()[0].body) for _ in range(count)]


def test_taking_a_key_out_ends_its_streams(running: tuple[Node, str]) -> None:
    """A key that is no longer enrolled loses its open streams at the next tick, not only new calls."""
    node, server = running
    node.send(node.request("inventory.watch"))
    reports(node, 1)
    node.agent.admins = type(node.agent.admins)({})
    node.dispatcher.tick()
    reply, _ = node.next()
    assert (reply.kind, reply.body["code"]) == (wire.ERROR, Code.DENIED)
    node.agent.changes.notify()
    assert node.replies.empty()


def test_a_gone_caller_costs_nothing(running: tuple[Node, str]) -> None:
    """When its peer is gone, a console is closed in the driver too and can be opened by another."""
    node, server = running
    console = opened(node, server, peer=b"gone")
    session = node.agent.consoles.get(console, KEYS[wire.ADMIN])
    node.dispatcher.peer_gone(b"gone")
    until(lambda: session.room() == 0)
    assert node.refusal("console.input", ConsoleRef(console), b"x").code == Code.NOT_FOUND
    opened(node, server, peer=b"new")


def spied(owner: Any, name: str) -> threading.Event:
    """Set when it has returned."""
    act, done = getattr(owner, name), threading.Event()

    def called(*args: Any) -> Any:
        try:
            return act(*args)
        finally:
            done.set()

    setattr(owner, name, called)
    return done


@pytest.mark.parametrize("where", ["agent.consoles.add", "agent.driver.open_console"])
def test_a_caller_that_leaves_early_leaves_no_console(running: tuple[Node, str], where: str) -> None:
    """It goes while its console is being opened, before or after that is known to be its own: agent and driver have none then."""
    node, server = running
    consoles, guest = node.agent.consoles, node.agent.driver._guests[server]
    holder = functools.reduce(getattr, where.split(".")[:-1], node)
    name = where.rpartition(".")[2]
    act = getattr(holder, name)

    def left(*args: Any) -> Any:
        node.dispatcher.peer_gone(b"gone")
        time.sleep(0.2)                                       # what is dropped now finds it half open
        return act(*args)

    setattr(holder, name, left)
    done = spied(node.agent.driver, "open_console")
    node.send(node.request("console.open", DomainRef(server)), peer=b"gone")
    assert done.wait(20)
    until(lambda: not consoles._sessions and not any(console._open for console in guest.consoles))


def test_streams_are_bounded(fake: Node) -> None:
    """One key's 65th stream is told to come again, another key's is opened; so is the 257th of all."""
    roles = {f"{number}" * 40: ("r", wire.READER) for number in range(5)}
    fake.agent.admins = FixedAdmins(roles)
    for number in range(4):
        for _ in range(64):
            fake.send(fake.request("inventory.watch"), role=f"{number}" * 40)
            reports(fake, 1)
        if not number:
            assert fake.refusal("inventory.watch", role="0" * 40).code == Code.BUSY
    assert fake.refusal("inventory.watch", role="4" * 40).code == Code.BUSY


def test_a_log_is_read_from_anywhere(fake: Node, tmp_path: Path) -> None:
    """By offset, from its end, beyond its end, and before there is one."""
    spec = fake.define(fake.put_image(), name="talker")
    read = wire.ConsoleLogRead

    def log(offset: int, count: int = 100) -> tuple[int, int, bytes]:
        reply, payload = fake.ask(fake.request("console.log", read(spec.server, offset, count)))
        return reply.body["offset"], reply.body["size_bytes"], payload or b""

    assert log(0) == (0, 0, b"")
    fake.ok("domain.start", DomainRef(spec.server, 1))
    text = b"fake guest talker ready\n"
    assert log(0, 4) == (0, len(text), b"fake")
    assert log(-6) == (len(text) - 6, len(text), b"ready\n")
    assert log(1000) == (len(text), len(text), b"")
    assert log(-1000) == (0, len(text), text)
