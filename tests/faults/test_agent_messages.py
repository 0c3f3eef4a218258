"""Messages that come twice, late, out of order, or from whom they were not meant: a server's life through a bad network (F7, F8, F23)."""

import itertools
import random
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent import wire
from nodeagent.wire import Code, DiskSpec, DomainRef
from tests.contract.kit import ISO, KEYS, Node

Sent = tuple[wire.Request, bytes | None]


class Counting:
    """A driver that counts what is really done to each server."""

    EFFECTS = ("create_disk", "delete_disk", "define", "undefine", "start_domain", "destroy")

    def __init__(self, driver: object) -> None:
        self.driver, self.done = driver, dict.fromkeys(self.EFFECTS, 0)

    def __getattr__(self, name: str) -> object:
        if name in self.EFFECTS:
            self.done[name] += 1
        return getattr(self.driver, name)


def create(node: Node, sha256: str) -> tuple[str, list[Sent]]:
    """The messages that make one server, as its saga sends them."""
    spec = node.spec(sha256)
    ref = DomainRef(spec.server, spec.epoch)
    return spec.server, [
        (node.request("disk.create", DiskSpec(spec.server, 1, sha256, 1)), None), (node.request("seed.write", ref), ISO),
        (node.request("domain.define", spec), None), (node.request("domain.start", ref), None)]


def deliver(node: Node, sent: Sent, *, role: str = wire.ADMIN, peer: bytes = b"peer") -> wire.Reply:
    node.send(sent[0], sent[1], role=role, peer=peer)
    while True:
        reply, _ = node.next()
        if reply.kind != wire.PROGRESS:
            return reply


@pytest.fixture
def made(tmp_path: Path) -> Iterator[tuple[Node, Counting, str]]:
    """A prepared node on the fake driver, what counts its effects, and an image it has."""
    node = Node(tmp_path)
    node.prepare()
    sha256 = node.put_image()
    counting = Counting(node.agent.driver)
    node.agent.driver = counting
    yield node, counting, sha256
    node.down()


@pytest.mark.parametrize("seed", range(40))
def test_twice_late_and_out_of_order(made: tuple[Node, Counting, str], seed: int) -> None:
    """I5: however often and in whatever order the repeats of a create's messages come, each effect is there once, each id has one
    answer, and the server that is made is the one that was asked for."""
    node, counting, sha256 = made
    chance, (server, messages) = random.Random(seed), create(node, sha256)
    answers: dict[str, wire.Reply] = {}
    for step, message in enumerate(messages):
        again = chance.choices(messages[:step + 1], k=chance.randrange(5))
        for number, sent in enumerate((message, *again)):
            reply = deliver(node, sent, peer=chance.choice((b"one", b"two")) if number else b"one")
            assert answers.setdefault(reply.id, reply) == reply
    assert all(reply.kind == wire.RESULT for reply in answers.values())
    assert (counting.done["create_disk"], counting.done["define"], counting.done["start_domain"]) == (1, 1, 1)
    assert node.agent.driver.state(server).power_state == "RUNNING"


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[1:])
def test_no_order_makes_a_half_server_run(made: tuple[Node, Counting, str], order: tuple[int, ...]) -> None:
    """The four messages in any wrong order: what comes too early is refused, what is refused has no effect, nothing runs without its
    disk; sent again in their order at the next epoch, they make the server."""
    node, counting, sha256 = made
    server, messages = create(node, sha256)
    kinds = [deliver(node, messages[n]).kind for n in order]
    before_start = set(order[:order.index(3)])
    assert (kinds[order.index(3)] == wire.RESULT) == (node.agent.driver.state(server).power_state == "RUNNING") == ({0, 2} <= before_start)
    for request, payload in messages:
        later = wire.Request(**{**vars(request), "epoch": 2})
        assert deliver(node, (later, payload)).kind == wire.RESULT
    assert node.agent.driver.state(server).power_state == "RUNNING"
    assert counting.done["start_domain"] <= 2 and len(node.agent.driver.specs()) == 1


def test_all_at_once_from_two_connections(made: tuple[Node, Counting, str]) -> None:
    """The same message five times before the first was answered: they wait for each other, and all get the one answer."""
    node, counting, sha256 = made
    _, messages = create(node, sha256)
    for message in messages:
        for number in range(5):
            node.send(*message, peer=b"one" if number % 2 else b"two")
        replies = []
        while len(replies) < 5:
            reply, _ = node.next()
            replies += [reply] if reply.kind != wire.PROGRESS else []
        assert len({(reply.id, reply.kind, str(reply.body)) for reply in replies}) == 1
    assert (counting.done["create_disk"], counting.done["define"], counting.done["start_domain"]) == (1, 1, 1)


def test_a_create_that_comes_after_its_undoing_changes_nothing(made: tuple[Node, Counting, str]) -> None:
    """I6: once the undo was seen at the next epoch, every message of the create, repeated, is stale, and nothing comes back."""
    node, counting, sha256 = made
    server, messages = create(node, sha256)
    for message in messages:
        deliver(node, message)
    ref = DomainRef(server, 1)
    for method in ("domain.destroy", "domain.undefine", "seed.delete", "disk.delete"):
        node.ok(method, ref, epoch=2)
    before = dict(counting.done)
    for message in messages:
        assert deliver(node, message).body["code"] == Code.STALE
    assert counting.done == before and not node.agent.driver.specs() and [path.name[:5] for path in node.pool.iterdir()] == ["base-"]


@pytest.mark.parametrize("late_s", [0.0, 1.0, 3600.0, 400 * 86400.0])
def test_what_was_given_up_does_nothing(made: tuple[Node, Counting, str], late_s: float) -> None:
    """I7: a message that is delivered when its time is over, by a second or by a year, is stale and has no effect."""
    node, counting, sha256 = made
    _, messages = create(node, sha256)
    for request, payload in messages:
        expired = wire.Request(**{**vars(request), "valid_until_s": node.agent.clock.boottime_s() - late_s})
        assert deliver(node, (expired, payload)).body["code"] == Code.STALE
    assert not any(counting.done.values())


def test_what_was_sent_before_a_reboot_does_nothing_after_it(made: tuple[Node, Counting, str]) -> None:
    """A message that outlived its host's boot is stale, though its seconds since boot lie ahead of the new boot's."""
    node, _, sha256 = made
    _, messages = create(node, sha256)
    node.reboot()
    assert {deliver(node, message).body["code"] for message in messages} == {Code.STALE}
    assert not node.agent.driver.specs()


# ---------------------------------------------------------------- F23: replayed

def recorded(made: tuple[Node, Counting, str]) -> tuple[str, list[Sent]]:
    """A whole create that has happened."""
    server, messages = create(made[0], made[2])
    for message in messages:
        assert deliver(made[0], message).kind == wire.RESULT
    return server, messages


@pytest.mark.parametrize("role", [wire.ADMIN, wire.OPERATOR])
def test_a_replay_on_another_connection_or_by_another_key_has_no_effect(made: tuple[Node, Counting, str], role: str) -> None:
    """Who may do the same anyway gets the first answer again; the server's disk, domain and run stay the ones there are."""
    _, messages = recorded(made)
    node, counting, _ = made
    before = dict(counting.done)
    assert all(deliver(node, message, role=role, peer=b"elsewhere").kind == wire.RESULT for message in messages)
    assert counting.done == before


@pytest.mark.parametrize("key", [wire.READER, "z" * 40])
def test_a_replay_by_a_weaker_key_is_denied(made: tuple[Node, Counting, str], key: str) -> None:
    """A reader's key, and one that is not enrolled, learn not even what was answered."""
    assert key == "z" * 40 or key in KEYS
    _, messages = recorded(made)
    replies = [deliver(made[0], message, role=key) for message in messages]
    assert {reply.body["code"] for reply in replies} == {Code.DENIED}
    assert all("power_state" not in str(reply.body) for reply in replies)


def test_a_replay_on_another_node_is_refused(made: tuple[Node, Counting, str], tmp_path: Path) -> None:
    """A message is for one boot of one host: what was recorded on its way to one node does nothing on another."""
    _, messages = recorded(made)
    (tmp_path / "other").mkdir()
    other = Node(tmp_path / "other")
    other.prepare()
    other.clock.boot_id = "another-host"
    assert {deliver(other, message).body["code"] for message in messages} == {Code.STALE}
    assert not other.agent.driver.specs()
    other.down()


def test_a_replay_that_was_altered_is_refused(made: tuple[Node, Counting, str]) -> None:
    """The recorded id with other arguments is a conflict; with a higher epoch it answers what it answered; with a lower it is stale."""
    _, messages = recorded(made)
    node, counting, _ = made
    before = dict(counting.done)
    start = messages[-1][0]
    other = wire.Request(**{**vars(start), "args": wire.to_plain(DomainRef(str(uuid.uuid4()), 1))})
    assert deliver(node, (other, None)).body["code"] == Code.CONFLICT
    assert deliver(node, (wire.Request(**{**vars(start), "epoch": 2}), None)).kind == wire.RESULT
    assert deliver(node, messages[-1]).body["code"] == Code.STALE
    assert counting.done == before
