"""How an image arrives: in order, checked, resumable, and never seen before it is right."""

import hashlib
import json
import os
import random
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from pathlib import Path
from typing import Any

import pytest

from nodeagent import images, wire
from nodeagent.refusal import Refused
from nodeagent.wire import CHUNK_BYTES, Code, ImageChunk, ImageOffer, ImageRef
from tests.contract.kit import Node

CONTENT = random.Random(7).randbytes(3 * CHUNK_BYTES + 12345)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OFFER = ImageOffer(SHA256, len(CONTENT), len(CONTENT), "raw")


def send(node: Node, start: int = 0, end: int = len(CONTENT), content: bytes = CONTENT) -> wire.ImageProgress:
    progress = wire.ImageProgress(False, start)
    while progress.offset < end:
        at = progress.offset
        progress = node.ok("image.chunk", ImageChunk(SHA256, at), content[at : min(at + CHUNK_BYTES, end)])
    return progress


def files(node: Node) -> list[str]:
    return sorted(path.name for path in node.pool.iterdir())


def test_an_image_arrives(fake: Node) -> None:
    """Chunk by chunk, then under its own name with the very bytes; offering it again says it is present."""
    assert fake.ok("image.begin", OFFER) == wire.ImageProgress(False, 0)
    send(fake)
    assert files(fake) == [f"base-{SHA256}.{fake.config.node_id}.part"]
    assert fake.ok("image.finish", ImageRef(SHA256)).present
    assert files(fake) == [f"base-{SHA256}.raw"]
    assert (fake.pool / f"base-{SHA256}.raw").read_bytes() == CONTENT
    assert fake.ok("image.begin", OFFER).present
    assert fake.ok("image.finish", ImageRef(SHA256)).present
    assert fake.ok("image.list").images == (wire.CachedImage(SHA256, len(CONTENT), "raw", len(CONTENT)),)


@pytest.mark.parametrize("cut", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 7, len(CONTENT)])
def test_a_transfer_goes_on_after_a_restart(fake: Node, cut: int) -> None:
    """Wherever it was cut, a restarted agent wants the next byte and ends with the same image."""
    fake.ok("image.begin", OFFER)
    send(fake, 0, cut)
    fake.restart()
    assert fake.refusal("image.chunk", ImageChunk(SHA256, cut), b"x").code == Code.NOT_FOUND
    assert fake.ok("image.begin", OFFER) == wire.ImageProgress(False, cut)
    send(fake, cut)
    assert fake.ok("image.finish", ImageRef(SHA256)).present


def test_a_chunk_out_of_place_is_answered_with_the_place(fake: Node) -> None:
    """A chunk that came before, or too early, changes nothing and says which offset is wanted."""
    fake.ok("image.begin", OFFER)
    send(fake, 0, 1000)
    for offset in (0, 999, 1001, len(CONTENT)):
        assert fake.ok("image.chunk", ImageChunk(SHA256, offset), b"!") == wire.ImageProgress(False, 1000)
    send(fake, 1000)
    assert fake.ok("image.finish", ImageRef(SHA256)).present


def test_wrong_bytes_never_become_an_image(fake: Node) -> None:
    """One flipped bit: finish says bad_image, and neither image nor half of one is left."""
    fake.ok("image.begin", OFFER)
    send(fake, content=CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))
    failure = fake.refusal("image.finish", ImageRef(SHA256))
    assert failure.code == Code.BAD_IMAGE and not failure.retryable
    assert files(fake) == []
    fake.ok("image.begin", OFFER)


def test_more_bytes_than_offered_are_refused(fake: Node) -> None:
    """A chunk past the offered size ends the transfer."""
    fake.ok("image.begin", OFFER)
    send(fake)
    assert fake.refusal("image.chunk", ImageChunk(SHA256, len(CONTENT)), b"!").code == Code.BAD_IMAGE
    assert files(fake) == []


def test_an_unfinished_image_is_not_finished(fake: Node) -> None:
    """Finish with bytes missing is refused with the numbers; the transfer can go on."""
    fake.ok("image.begin", OFFER)
    send(fake, 0, 1000)
    failure = fake.refusal("image.finish", ImageRef(SHA256))
    assert failure.code == Code.CONFLICT and f"1000 of {len(CONTENT)} bytes" in failure.message
    send(fake, 1000)
    assert fake.ok("image.finish", ImageRef(SHA256)).present


def test_an_image_that_does_not_fit_is_not_begun(fake: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without space for it, begin says what it needs and has, and leaves nothing."""
    stat = os.statvfs(fake.pool)
    monkeypatch.setattr(images.os, "statvfs", lambda _: stat.__class__((stat.f_bsize, 1 << 20, 8, 8, 8, *stat[5:])))
    failure = fake.refusal("image.begin", OFFER)
    assert (failure.code, failure.elsewhere) == (Code.NO_SPACE, True)
    assert "needs 67 MiB" in failure.message and "has 8 MiB" in failure.message
    assert files(fake) == []


def test_few_images_arrive_at_once(fake: Node) -> None:
    """The fifth image at once is told to come again; when one is done, it is let in."""
    offers = [ImageOffer(f"{n:064x}", 10, 10, "raw") for n in range(images.ARRIVING_AT_ONCE + 1)]
    for offer in offers[:-1]:
        fake.ok("image.begin", offer)
    assert fake.refusal("image.begin", offers[-1]).code == Code.BUSY
    fake.ok("image.delete", ImageRef(offers[0].sha256))
    fake.ok("image.begin", offers[-1])


def test_another_offer_of_the_same_image_is_a_conflict(fake: Node) -> None:
    """Size and format of an image that is arriving do not change."""
    fake.ok("image.begin", OFFER)
    assert fake.refusal("image.begin", ImageOffer(SHA256, 5, len(CONTENT), "raw")).code == Code.CONFLICT


def test_a_link_in_the_pool_is_not_followed(fake: Node) -> None:
    """Where a symbolic link stands in a half image's place, nothing is written through it."""
    target = fake.pool.parent / "victim"
    target.write_bytes(b"untouched")
    (fake.pool / f"base-{SHA256}.{fake.config.node_id}.part").symlink_to(target)
    assert fake.refusal("image.begin", OFFER).code == Code.INTERNAL
    assert target.read_bytes() == b"untouched"


def test_only_an_iso_is_a_seed(fake: Node) -> None:
    """What is not ISO 9660 is a bad request and leaves no file; a seed is for its owner's eyes."""
    spec = fake.spec("0" * 64)
    for payload in (None, b"", b"#cloud-config", bytes(40000)):
        assert fake.refusal("seed.write", wire.DomainRef(spec.server, 1), payload).code == Code.BAD_REQUEST
    assert files(fake) == []
    fake.ok("seed.write", wire.DomainRef(spec.server, 1), bytes(32769) + b"CD001")
    assert (fake.pool / f"seed-{spec.server}.iso").stat().st_mode & 0o777 == 0o600


def test_what_was_renamed_stays_after_a_loss_of_power(fake: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds, and what the node was prepared with: the directory is on disk before the ledger says that it was done."""
    synced: list[str] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    spec = fake.spec("0" * 64)
    fake.ok("seed.write", wire.DomainRef(spec.server, 1), bytes(32769) + b"CD001")
    assert synced[-1] == str(fake.pool) and files(fake) == [f"seed-{spec.server}.iso"]
    fake.ok("node.prepare", wire.Prepare("default", {}))
    assert synced[-1] == fake.config.state_dir


def test_without_a_pool_nothing_is_written(fake: Node) -> None:
    """Before node.prepare, images and seeds are refused with what to do first."""
    fake.ok("node.unprepare")
    fake.pool.rmdir()
    for method, args in (("image.begin", OFFER), ("seed.write", wire.DomainRef(fake.spec(SHA256).server, 1))):
        failure = fake.refusal(method, args, bytes(32769) + b"CD001")
        assert (failure.code, failure.hint) == (Code.CONFLICT, "node.prepare first")


def offer(letter: str) -> ImageOffer:
    return ImageOffer(letter * 64, 1 << 20, 1 << 20, "raw")


def other_thread_removes(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    """Whatever is listed is gone when it is looked at."""
    look = getattr(os.path, function)

    def gone(path: str) -> float:
        os.unlink(path)
        return look(path)

    monkeypatch.setattr(images.os.path, function, gone)


def test_an_image_that_goes_while_it_is_listed_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread deletes it, or gives it its final name: the list, and so the report, and others' arrivals go on."""
    store = images.ImageStore(str(tmp_path), "n1")
    (tmp_path / f"base-{'a' * 64}.raw").write_bytes(b"x")
    other_thread_removes(monkeypatch, "getsize")
    assert store.list() == []
    (tmp_path / f"base-{'b' * 64}.part").write_bytes(b"x")
    other_thread_removes(monkeypatch, "getmtime")
    assert store.begin(offer("c")) == wire.ImageProgress(False, 0)


def held_up(monkeypatch: pytest.MonkeyPatch, function: str) -> tuple[threading.Event, threading.Event]:
    """(it was called, it may go on): the first call waits."""
    act, called, on = getattr(os, function), threading.Event(), threading.Event()

    def waiting(*args: Any) -> Any:
        if not called.is_set():
            called.set()
            assert on.wait(60)
        return act(*args)

    monkeypatch.setattr(images.os, function, waiting)
    return called, on


def test_an_image_that_is_slow_to_reach_the_disk_keeps_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While its bytes are written out, for longer than a transfer may idle, others that want its place are refused; then it is there."""
    monkeypatch.setattr(images, "IDLE_S", 0.0)
    monkeypatch.setattr(images, "ARRIVING_AT_ONCE", 1)
    store = images.ImageStore(str(tmp_path), "n1")
    store.begin(OFFER)
    store.append(SHA256, 0, CONTENT)
    called, on = held_up(monkeypatch, "fsync")
    with ThreadPoolExecutor(1) as pool:
        checked = pool.submit(store.check, SHA256)
        assert called.wait(60)
        with pytest.raises(Refused, match="arriving already"):
            store.begin(offer("c"))
        on.set()
        assert checked.result(20) == OFFER
    store.publish(OFFER)
    assert (tmp_path / f"base-{SHA256}.raw").read_bytes() == CONTENT


def test_images_are_cleared_behind_what_is_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is closed when the bytes under way are in it, and not before: its descriptor's number may be another file's then.
    What comes after that is told to begin again, and so is what was checked."""
    store = images.ImageStore(str(tmp_path), "n1")
    store.begin(OFFER)
    called, on = held_up(monkeypatch, "pwrite")
    with ThreadPoolExecutor(2) as pool:
        written = pool.submit(store.append, SHA256, 0, CONTENT)
        assert called.wait(60)
        cleared = pool.submit(store.clear)
        with pytest.raises(TimeoutError):
            cleared.result(0.3)
        on.set()
        assert written.result(20).offset == len(CONTENT) and cleared.result(20) is None
    assert list(tmp_path.iterdir()) == []
    for late in (lambda: store.append(SHA256, len(CONTENT), b"x"), lambda: store.publish(OFFER)):
        with pytest.raises(Refused) as refused:
            late()
        assert refused.value.failure.code == Code.NOT_FOUND and refused.value.failure.retryable


def another_nodes_disk(node: Node, sha256: str) -> str:
    """As the agent of another host makes it in a directory that both have: no libvirt here has heard of it. -> its server"""
    server = str(uuid.uuid4())
    (node.pool / f"disk-{server}.qcow2").write_text(json.dumps({"server": server, "image_sha256": sha256}))
    return server


def test_images_under_another_nodes_disks_stay(node: Node) -> None:
    """Neither image.delete nor node.unprepare removes what may lie under a disk in the directory, whoever made that; what arrives here
    is given up, what arrives elsewhere is not."""
    sha256 = node.put_image()
    server = another_nodes_disk(node, sha256)
    failure = node.refusal("image.delete", ImageRef(sha256))
    assert failure.code == Code.CONFLICT and server in failure.message
    node.ok("image.begin", OFFER)
    (node.pool / f"base-{'ab' * 32}.n2.part").write_bytes(b"half of another's")
    node.ok("node.unprepare")
    base = next(name for name in files(node) if sha256 in name)
    assert files(node) == sorted([f"base-{'ab' * 32}.n2.part", base, f"disk-{server}.qcow2"])
    (node.pool / f"disk-{server}.qcow2").unlink()
    node.prepare()
    node.ok("node.unprepare")
    assert files(node) == []
    node.prepare()


def test_a_directory_that_the_agent_made_stays_while_others_disks_are_there(tmp_path: Path) -> None:
    """The node is given up all the same."""
    made = Node(tmp_path)
    made.pool.rmdir()
    made.prepare()
    server = another_nodes_disk(made, "c" * 64)
    made.ok("node.unprepare")
    assert files(made) == [f"disk-{server}.qcow2"]
    made.down()


def test_two_nodes_of_one_directory_write_no_file_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the faster has published is not written to, cut or replaced by the slower, whatever happens to that: disks lie on it."""
    fast, slow, late = (images.ImageStore(str(tmp_path), name) for name in ("n1", "n2", "n3"))
    for store in (fast, slow, late):
        assert store.begin(OFFER) == wire.ImageProgress(False, 0)
        store.append(SHA256, 0, CONTENT[:100])
    for store in (fast, late):
        store.append(SHA256, 100, CONTENT[100:])
        assert store.check(SHA256) == OFFER
    fast.publish(OFFER)
    base = tmp_path / f"base-{SHA256}.raw"
    published = base.stat().st_ino
    with monkeypatch.context() as broken:
        broken.setattr(images.os, "pwrite", lambda *args: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(Refused, match="Input/output error"):
            slow.append(SHA256, 100, CONTENT[100:])
    slow.append(SHA256, 100, bytes(len(CONTENT) - 100))
    assert slow.check(SHA256) is None
    late.publish(OFFER)
    assert [path.name for path in tmp_path.iterdir()] == [base.name]
    assert base.read_bytes() == CONTENT and base.stat().st_ino == published


def test_what_agents_that_died_left_behind_goes_after_a_day(tmp_path: Path) -> None:
    """One's own, another's of the directory, and one of an agent before they were named; what is being written stays."""
    names = [f"base-{letter * 64}{whose}.part" for letter, whose in (("a", ".n1"), ("b", f".{uuid.uuid4()}"), ("d", ""), ("e", ".n2"))]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
        if name != names[-1]:
            os.utime(tmp_path / name, (0, 0))
    images.ImageStore(str(tmp_path), "n1").begin(offer("c"))
    assert {path.name for path in tmp_path.iterdir()} == {names[-1], f"base-{'c' * 64}.n1.part"}
