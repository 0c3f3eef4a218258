"""Whether a request is carried out at all: roles, epochs, expiry, boots, and the answers given before."""

import errno
import json
import sqlite3
import threading
import uuid
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nodeagent import wire
from nodeagent.admins import Table
from nodeagent.wire import METHODS, Code, DomainRef
from tests.contract.kit import ISO, Node, until

SERVER = str(uuid.uuid4())


@pytest.mark.parametrize("method", METHODS)
def test_a_weaker_role_is_denied(fake: Node, method: str) -> None:
    """Each method is denied to the role below the one its row names, and to a key that is not enrolled."""
    below = wire.ROLES[: wire.ROLES.index(METHODS[method].role)]
    for role in (*below, "x" * 40):
        assert fake.refusal(method, role=role).code == Code.DENIED


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if row.mutates])
@pytest.mark.parametrize(
    ("envelope", "says"),
    [({"boot_id": "another"}, "another boot"), ({"valid_until_s": 1.0}, "expired"), ({"epoch": 1}, "is at epoch 2")],
)
def test_what_is_late_changes_nothing(fake: Node, method: str, envelope: dict, says: str) -> None:
    """Of another boot, expired, or of an epoch the operation has left: each mutation is refused as stale before it looks further."""
    fake.ok("node.prepare", wire.Prepare(), epoch=2)
    arguments = {
        wire.DomainSpec: fake.spec("0" * 64, server=SERVER), wire.DiskSpec: wire.DiskSpec(SERVER, 1, "0" * 64, 1),
        wire.ImageOffer: wire.ImageOffer("0" * 64, 1, 1, "raw"), wire.ImageChunk: wire.ImageChunk("0" * 64, 0),
        wire.ImageRef: wire.ImageRef("0" * 64), wire.DomainRef: DomainRef(SERVER, 1), wire.Stop: wire.Stop(SERVER, 1),
        wire.Reboot: wire.Reboot(SERVER, 1), wire.NodeKey: wire.NodeKey("k" * 40),
        wire.KeysTable: wire.KeysTable(1, (wire.AdminKey("k" * 40, "alice", wire.ADMIN),))}
    before = sorted(path.name for path in fake.pool.iterdir())
    failure = fake.refusal(method, arguments.get(METHODS[method].args), **{"epoch": 2, **envelope})
    assert failure.code == Code.STALE and says in failure.message
    assert sorted(path.name for path in fake.pool.iterdir()) == before


def test_an_overtaken_operation_stays_overtaken(fake: Node) -> None:
    """The newest epoch seen of an operation is remembered across a restart of the agent."""
    fake.ok("seed.write", DomainRef(SERVER, 1), ISO, epoch=7)
    fake.restart()
    assert fake.refusal("seed.delete", DomainRef(SERVER, 1), epoch=6).code == Code.STALE
    fake.ok("seed.delete", DomainRef(SERVER, 1), epoch=7)


def test_an_old_server_epoch_is_refused(node: Node) -> None:
    """Once a server was seen at an epoch, a lower one changes nothing, though the operation is another."""
    spec = node.define(node.put_image(), epoch=5)
    failure = node.refusal("domain.destroy", DomainRef(spec.server, 4), operation=str(uuid.uuid4()))
    assert failure.code == Code.STALE and "epoch 5" in failure.message


def test_a_lost_ledger_is_made_up_for_by_the_domains(node: Node, tmp_path: Path) -> None:
    """Without the ledger's file, the epoch in the domain's own metadata still refuses older ones."""
    spec = node.define(node.put_image(), epoch=5)
    node.agent.ledger.close()
    for path in Path(node.config.state_dir).glob("ledger.db*"):
        path.unlink()
    assert node.refusal("domain.destroy", DomainRef(spec.server, 4), operation=str(uuid.uuid4())).code == Code.STALE
    node.ok("domain.destroy", DomainRef(spec.server, 5))


def test_the_first_answer_is_the_answer(node: Node) -> None:
    """A repeated request id gets the first answer and has no second effect, also when the first was a refusal."""
    spec = node.define(node.put_image())
    start = node.request("domain.start", DomainRef(spec.server, 1))
    first = node.ask(start)
    node.ok("domain.destroy", DomainRef(spec.server, 1))
    assert node.ask(start) == first and first[0].body["power_state"] == "RUNNING"
    assert node.ok("domain.state", DomainRef(spec.server)).power_state == "SHUTDOWN"
    unknown = node.request("domain.start", DomainRef(str(uuid.uuid4()), 1))
    assert node.ask(unknown)[0].body["code"] == Code.NOT_FOUND
    assert node.ask(unknown) == node.ask(unknown)


def test_whoever_takes_over_may_ask_again(tmp_path: Path) -> None:
    """A refusal is the answer as long as the operation's epoch is the same; at a later one the request is tried anew."""
    broken = {"delete_disk": "no"}
    node = Node(tmp_path, fake={"fail": broken})
    node.prepare()
    delete = node.request("disk.delete", DomainRef(SERVER, 1))
    first = node.ask(delete)
    assert first[0].body["code"] == Code.DRIVER
    broken.clear()
    assert node.ask(delete) == first
    later = wire.Request(**{**vars(delete), "epoch": delete.epoch + 1})
    assert node.ask(later)[0].kind == wire.RESULT
    assert node.ask(later)[0].kind == wire.RESULT
    node.down()


def test_answers_outlive_the_agent(fake: Node) -> None:
    """A request repeated to a restarted agent gets the first answer."""
    spec = fake.define(fake.put_image())
    start = fake.request("domain.start", DomainRef(spec.server, 1))
    first = fake.ask(start)
    fake.restart()
    fake.ok("domain.destroy", DomainRef(spec.server, 1))
    assert fake.ask(start) == first


@pytest.mark.parametrize("change", ["method", "args", "payload"])
def test_one_id_means_one_request(fake: Node, change: str) -> None:
    """The same id with another method, argument or payload is a conflict and does nothing."""
    request = fake.request("seed.write", DomainRef(SERVER, 1))
    assert fake.ask(request, ISO)[0].kind == wire.RESULT
    method = "seed.delete" if change == "method" else "seed.write"
    other = wire.Request(**{**vars(request), "method": method, "args": {"server": SERVER, "epoch": 2 if change == "args" else 1}})
    reply, _ = fake.ask(other, ISO + b"." if change == "payload" else ISO)
    assert reply.body["code"] == Code.CONFLICT
    assert (fake.pool / f"seed-{SERVER}.iso").read_bytes() == ISO


def test_what_may_pass_is_tried_again(tmp_path: Path) -> None:
    """A retryable refusal is not kept: the same request id succeeds when its reason is gone."""
    node = Node(tmp_path)
    node.prepare()
    start = node.request("disk.create", wire.DiskSpec(SERVER, 1, "0" * 64, 1))
    assert node.ask(start)[0].body["code"] == Code.NOT_FOUND
    (tmp_path / "pool" / f"base-{'0' * 64}.raw").write_bytes(b"")
    assert node.ask(start)[0].kind == wire.RESULT
    node.down()


@pytest.mark.parametrize("envelope", [{"operation": ""}, {"epoch": 0}, {"id": ""}])
def test_a_mutation_names_its_operation(fake: Node, envelope: dict) -> None:
    """Without a request id, an operation or its epoch, a mutation is a bad request."""
    assert fake.refusal("seed.delete", DomainRef(SERVER, 1), **envelope).code == Code.BAD_REQUEST


def test_a_fault_of_ours_is_an_answer(fake: Node, capfd: pytest.CaptureFixture[str]) -> None:
    """An exception that nobody foresaw becomes an `internal` error, its trace goes to the log, and the agent lives on."""
    fake.agent.driver.states = None  # type: ignore[assignment]
    assert fake.refusal("domain.list").code == Code.INTERNAL
    assert "Traceback" in capfd.readouterr().err
    fake.ok("agent.ping")


@pytest.mark.parametrize(("fault", "code"), [
    (sqlite3.OperationalError("database or disk is full"), Code.NO_SPACE), (sqlite3.OperationalError("disk I/O error"), Code.DRIVER),
    (OSError(errno.ENOSPC, "No space left on device"), Code.NO_SPACE)])
@pytest.mark.parametrize("act", ["epochs", "raise_epochs", "answer", "record"])
def test_a_ledger_that_cannot_be_written_sends_elsewhere(
    fake: Node, fault: Exception, code: str, act: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node whose state disk is full or broken says so: another node may do it, and this one later with the same request."""
    request = fake.request("seed.write", DomainRef(SERVER, 1))
    with monkeypatch.context() as full:
        full.setattr(fake.agent.ledger, act, Mock(side_effect=fault))
        body = fake.ask(request, ISO)[0].body
    assert (body["code"], body["retryable"], body["elsewhere"]) == (code, True, True)
    assert fake.ask(request, ISO)[0].kind == wire.RESULT


def test_many_calls_for_one_server_wait_without_threads(tmp_path: Path) -> None:
    """A hundred calls behind one slow server do not keep another server's call waiting; too many are told to come again."""
    node = Node(tmp_path)
    node.prepare()
    slow, other = (node.define(node.put_image(), name=name) for name in ("slow", "other"))
    start, go = node.agent.driver.start_domain, threading.Event()
    node.agent.driver.start_domain = lambda server: go.wait(60) and start(server)  # type: ignore[method-assign]
    for _ in range(100):
        node.send(node.request("domain.start", DomainRef(slow.server, 1)))
    node.ok("seed.write", DomainRef(other.server, 1), ISO)
    assert node.replies.empty()
    for _ in range(300):
        node.send(node.request("domain.start", DomainRef(slow.server, 1)))
    go.set()
    codes = []
    for _ in range(100 + 300):
        reply, _ = node.next()
        codes.append(reply.body.get("code", reply.kind))
    assert set(codes) == {wire.RESULT, Code.BUSY} and codes.count(wire.RESULT) >= 256
    node.down()


def test_a_flood_of_one_key_is_its_own_to_wait_for(fake: Node) -> None:
    """With a slow driver and hundreds of reads of a reader, an admin's reads are answered meanwhile, and those of the reader are few."""
    host, taken, go = fake.agent.driver.host, [], threading.Semaphore(0)

    def slow() -> Any:
        taken.append(go.acquire(timeout=60))
        return host()

    fake.agent.driver.host = slow  # type: ignore[method-assign]
    for _ in range(600):
        fake.send(fake.request("inventory.read", wire.InventoryRead(0)), role=wire.READER)
    assert fake.ok("domain.list").domains == ()
    fake.send(fake.request("inventory.read", wire.InventoryRead(0), id="mine"))
    go.release(5)                                             # so many reports are taken, and no more
    until(lambda: any(reply.id == "mine" for _, reply, _ in list(fake.replies.queue)))
    assert len(taken) < 6
    fake.agent.driver.host = host  # type: ignore[method-assign]
    go.release(600)
    until(lambda: fake.replies.qsize() == 601)
    codes = [fake.next()[0].body.get("code", "") for _ in range(601)]
    assert codes.count(Code.BUSY) >= 600 - 256 - 8


def test_those_who_ask_at_once_share_one_report(fake: Node) -> None:
    """Asked for while one is being taken, the next report serves all, and it began after each of them asked."""
    host, began, go = fake.agent.driver.host, threading.Semaphore(0), threading.Semaphore(0)

    def held() -> Any:
        began.release()
        assert go.acquire(timeout=60)
        return host()

    fake.agent.driver.host = held  # type: ignore[method-assign]
    found: list[wire.Report] = []
    threads = [threading.Thread(target=lambda: found.append(fake.agent.report(0.0))) for _ in range(9)]
    threads[0].start()
    assert began.acquire(timeout=60)
    for thread in threads[1:]:
        thread.start()
    until(lambda: len(fake.agent._reports._waiters) == 8)     # type: ignore[attr-defined]
    asked_s = fake.agent.clock.boottime_s()
    go.release(9)
    for thread in threads:
        thread.join(60)
    assert len({report.taken_s for report in found}) == 2 and [report.taken_s > asked_s for report in found].count(True) == 8


def test_reads_pass_writes(tmp_path: Path) -> None:
    """With every write thread taken, a read is answered at once."""
    node = Node(tmp_path, fake={"start_delay_s": 300})
    node.prepare()
    sha256 = node.put_image()
    specs = [node.define(sha256, name=f"s{number}") for number in range(40)]
    for spec in specs:
        node.send(node.request("domain.start", DomainRef(spec.server, 1)))
    assert len(node.ok("domain.list").domains) == 40
    assert node.replies.empty()
    node.agent.driver.close()
    for _ in specs:
        node.next()
    node.down()


@pytest.mark.parametrize("header", [
    b"{", b"[]", b'{"id":"\\ud800"}', b'{"id":"x","method":"nope","args":{}}',
    b'{"id":"x","method":"domain.state","args":{"server":"' + b"\x7f" * 250_000 + b'"}}'])
def test_a_key_taken_out_is_denied_whatever_it_sends(fake: Node, header: bytes) -> None:
    """A key that is not enrolled learns nothing from what it sends: not whether it is a message, nor of which method."""
    fake.send_frames([wire.PROTOCOL, header], role="x" * 40)
    assert fake.next()[0].body["code"] == Code.DENIED


@pytest.mark.parametrize("args", [
    b'{"server":"' + b"\x7f" * 250_000 + b'"}', b'{"server":[' + b'"",' * 80_000 + b'""]}', b'{"console":"' + b"\x7f" * 250_000 + b'"}',
    b'{"epoch":"' + b"\x7f" * 250_000 + b'"}'])
def test_a_long_value_gets_a_short_answer(fake: Node, args: bytes) -> None:
    """What is wrong with a value of a quarter of a megabyte that does not print is said in a few hundred bytes."""
    for method in ("domain.state", "console.close"):
        fake.send_frames([wire.PROTOCOL, b'{"id":"x","method":"' + method.encode() + b'","args":' + args + b"}"])
        body = fake.next()[0].body
        assert body["code"] == Code.BAD_REQUEST and len(body["message"]) < 300


def test_an_envelope_is_short(fake: Node) -> None:
    """Its id, operation, actor and boot are printable and at most 200 characters: they are kept while it waits."""
    for field in ("id", "operation", "actor", "boot_id"):
        for text in ("x" * 201, "a\nb"):
            fake.send(wire.Request(**{"id": "x", "method": "inventory.read", "args": {}, field: text}))
            assert fake.next()[0].body["code"] == Code.BAD_REQUEST


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_nothing_a_peer_sends_ends_the_loop(fake: Node, data: st.DataObject) -> None:
    """Any JSON in any field of an envelope, from any role: an answer or none, and never an exception out of the dispatcher."""
    junk = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=8)
    plain = wire.to_plain(fake.request(data.draw(st.sampled_from(sorted(METHODS)))))
    for field in data.draw(st.lists(st.sampled_from(sorted(plain)), max_size=3)):
        plain[field] = data.draw(junk)
    for field in data.draw(st.lists(st.sampled_from(("server", "sha256", "epoch", "console", "name", "offset")), max_size=3)):
        if isinstance(plain["args"], dict):
            plain["args"][field] = data.draw(junk)
    header = json.dumps(plain, ensure_ascii=data.draw(st.booleans())).encode("utf-8", "surrogatepass")
    fake.send_frames([wire.PROTOCOL, header], role=data.draw(st.sampled_from(wire.ROLES)))
    assert fake.ask(fake.request("agent.ping"))[0].kind == wire.RESULT


def test_two_copies_of_the_database_are_told_apart(fake: Node) -> None:
    """A number that comes with another operation is refused as diverged, before and after a restart, and changes nothing;
    hello tells the highest."""
    fake.ok("seed.write", DomainRef(SERVER, 1), ISO, seq=41)
    for _ in range(2):
        failure = fake.refusal("seed.delete", DomainRef(SERVER, 1), operation=str(uuid.uuid4()), seq=41)
        assert failure.code == Code.DIVERGED and "number 41" in failure.message and "novactl cluster adopt" in failure.hint
        assert not failure.retryable and not failure.elsewhere
        fake.restart()
    assert (fake.pool / f"seed-{SERVER}.iso").exists()
    hello = fake.ok("agent.hello")
    assert (hello.seq, hello.seq_operation) == (41, fake.operation)
    fake.ok("seed.delete", DomainRef(SERVER, 1), operation=str(uuid.uuid4()), seq=40)


def test_newer_keys_come_first(fake: Node) -> None:
    """Of a request made with a newer table of admins' keys than the agent's nothing is done but asking who it is."""
    failure = fake.refusal("inventory.read", wire.InventoryRead(), admins_version=1)
    assert failure.code == Code.OLD_KEYS and failure.retryable
    fake.ok("agent.hello", admins_version=1)
    fake.agent.admins.write(Table(1, fake.agent.admins.current().keys))
    fake.ok("inventory.read", wire.InventoryRead(), admins_version=1)


def test_asking_again_while_it_is_under_way_tells_so(tmp_path: Path) -> None:
    """A repeated request whose first is still running gets progress at once, and then the answer the first gets; it is done once."""
    node = Node(tmp_path, fake={"start_delay_s": 0.3})
    node.prepare()
    spec = node.define(node.put_image())
    start = node.request("domain.start", DomainRef(spec.server, 1))
    node.send(start)
    until(lambda: start.id in node.dispatcher._under_way)
    node.send(start, peer=b"again")
    heard = [node.replies.get(timeout=60)[:2] for _ in range(3)]
    assert [(peer, reply.kind) for peer, reply in heard] == [
        (b"again", wire.PROGRESS), (b"peer", wire.RESULT), (b"again", wire.RESULT)]
    assert heard[0][1].body["under_way_s"] >= 0 and heard[1][1].body == heard[2][1].body
    assert node.agent.driver.run_id(spec.server) == "1" and not node.dispatcher._under_way
    node.down()
