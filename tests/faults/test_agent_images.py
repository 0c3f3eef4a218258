"""Images on their way to a node that are cut, damaged or find no room: never there under their name unless whole (F18, F19)."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import random
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.images import ImageStore
from nodeagent.wire import Code, ImageChunk, ImageOffer, ImageProgress, ImageRef
from novactl.agents import link, wire
from novactl.api import servers as api
from novactl.conductor.saga import Run
from novactl.conductor.transfer import ensure_image
from novactl.db import images, nodes, operations
from novactl.errors import AgentRefused
from novactl.model.node import Node as NodeRow
from tests.contract.kit import Node
from tests.sagas.scenarios import _begin_create
from tests.world import World, small_world

CONTENT = random.Random(18).randbytes(30_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OFFER = ImageOffer(SHA256, len(CONTENT), len(CONTENT), "raw")
PIECE = 1000
OFFSETS = sorted(random.Random(7).sample(range(1, len(CONTENT)), 24) + [0, 1, PIECE - 1, PIECE, PIECE + 1, len(CONTENT) - 1])

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    made.prepare()
    yield made
    made.down()


def send(node: Node, content: bytes, *, end: int = len(CONTENT)) -> None:
    """Offer CONTENT and send `content` from where the node wants it, up to `end`; nothing may be visible meanwhile."""
    at = node.ok("image.begin", OFFER).offset
    while at < end:
        at = node.ok("image.chunk", ImageChunk(SHA256, at), content[at:min(at + PIECE, end)]).offset
        assert visible(node) == []


def visible(node: Node) -> list[str]:
    return [path.name for path in node.pool.iterdir() if not path.name.endswith(".part")]


def part(node: Node) -> Path:
    return node.pool / f"base-{SHA256}.{node.config.node_id}.part"


@pytest.mark.parametrize("at", OFFSETS)
def test_a_damaged_byte_is_found_wherever_it_is(node: Node, at: int) -> None:
    """One bit wrong at any offset: refused, nothing is left, and sent again rightly it arrives."""
    damaged = bytearray(CONTENT)
    damaged[at] ^= 1 << at % 8
    send(node, bytes(damaged))
    assert node.refusal("image.finish", ImageRef(SHA256)).code == Code.BAD_IMAGE
    assert list(node.pool.iterdir()) == []
    send(node, CONTENT)
    assert node.ok("image.finish", ImageRef(SHA256)).present and (node.pool / f"base-{SHA256}.raw").read_bytes() == CONTENT


@pytest.mark.parametrize("at", OFFSETS)
def test_a_transfer_goes_on_from_the_byte_it_was_cut_at(node: Node, at: int) -> None:
    """Cut after any number of bytes and gone on with by a restarted agent: no finish before the end, from `at` only, the same image."""
    send(node, CONTENT, end=at)
    node.restart()
    assert node.refusal("image.finish", ImageRef(SHA256)).code == Code.NOT_FOUND
    assert node.ok("image.begin", OFFER) == ImageProgress(False, at) and visible(node) == []
    assert node.refusal("image.finish", ImageRef(SHA256)).code == Code.CONFLICT
    send(node, bytes(at) + CONTENT[at:])
    assert node.ok("image.finish", ImageRef(SHA256)).present and (node.pool / f"base-{SHA256}.raw").read_bytes() == CONTENT


@pytest.mark.parametrize(("at", "damage"), [*itertools.product(OFFSETS[::4], ("cut", "bit", "longer"))])
def test_what_lay_on_disk_is_not_trusted(node: Node, at: int, damage: str) -> None:
    """A half file that lost its end, a bit, or grew while the agent was away: gone on with from what is there, or begun anew; what
    ends under the name is the image."""
    send(node, CONTENT, end=max(at, 1))
    node.down()
    held = bytearray(part(node).read_bytes())
    part(node).write_bytes({
        "cut": held[:at // 2], "bit": bytes([held[0] ^ 1]) + held[1:], "longer": held + CONTENT[len(held):] + b"more"}[damage])
    node._up()
    send(node, CONTENT)
    reply, _ = node.ask(node.request("image.finish", ImageRef(SHA256)))
    if damage == "bit":
        assert reply.body["code"] == Code.BAD_IMAGE and list(node.pool.iterdir()) == []
        send(node, CONTENT)
        reply, _ = node.ask(node.request("image.finish", ImageRef(SHA256)))
    assert reply.kind == wire.RESULT and (node.pool / f"base-{SHA256}.raw").read_bytes() == CONTENT


def test_two_who_send_the_same_end_with_one_image(node: Node) -> None:
    """Chunks of two senders, interleaved, repeated and out of order: each is told where it stands, and the bytes are the image's."""
    chance, places = random.Random(5), [0, 0]
    node.ok("image.begin", OFFER)
    while min(places) < len(CONTENT):
        who = chance.randrange(2)
        at = max(0, places[who] - chance.choice((0, 0, 0, PIECE)))
        answer = node.ok("image.chunk", ImageChunk(SHA256, at), CONTENT[at:at + chance.choice((PIECE, 300, 2 * PIECE))])
        places[who] = answer.offset
    assert node.ok("image.finish", ImageRef(SHA256)).present and (node.pool / f"base-{SHA256}.raw").read_bytes() == CONTENT


# ---------------------------------------------------------------- over a real connection that breaks

class Proxy:
    """TCP in between: the first connection that carried `cut_at` bytes to the agent is broken off there, or has that byte flipped."""

    def __init__(self, target: str, *, cut_at: int, flip: bool = False) -> None:
        self._target, self._left, self._flip, self.done = int(target.rpartition(":")[2]), cut_at, flip, False
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                threading.Thread(target=self._pump, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._pump, args=(far, near, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, inward: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if inward and not self.done:
                    data = self._spoil(data)
                sink.sendall(data)
                if inward and self.done and not self._flip and self._left <= 0:
                    self._left = 1
                    break
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _spoil(self, data: bytes) -> bytes:
        kept, self._left = data[:self._left], self._left - len(data)
        if self._left > 0:
            return data
        self.done = True
        return kept + bytes([data[len(kept)] ^ 1]) + data[len(kept) + 1:] if self._flip and len(kept) < len(data) else kept

    def close(self) -> None:
        self._server.close()


LARGE = random.Random(3).randbytes(12 << 20)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(link, "ASK_AGAIN_S", 0.3)
    with small_world(tmp_path, count=2) as made:
        made.add_image("large", LARGE)
        yield made


def row(world: World, name: str, **changes: str) -> NodeRow:
    with world.cluster.db.read() as tx:
        found = nodes.by_name(tx, name)
    assert found is not None
    return NodeRow(**{**{field: getattr(found, field) for field in found.__dataclass_fields__}, **changes})


def operation_of(world: World) -> Run:
    run = Run(world.cluster, _begin_create(world, None))
    run.step = "image"
    return run


@pytest.mark.parametrize("flip", [False, True], ids=["broken off", "a byte flipped"])
@pytest.mark.parametrize("cut_at", [60, 700, 70_000, (1 << 20) + 5, 5_000_000, 12_000_000])
def test_a_connection_that_breaks_is_made_up_for(world: World, cut_at: int, flip: bool) -> None:
    """Wherever the stream of bytes breaks, or is tampered with, the same call goes on with another connection, and what the node has
    in the end is the image."""
    proxy, offer = Proxy(world.endpoints["n1"].address, cut_at=cut_at, flip=flip), offer_of(world, "large")
    peer = row(world, "n1", address=proxy.address)
    ensure_image(operation_of(world), peer, offer)
    assert proxy.done
    arrived = world.folder / "n1" / "pool" / f"base-{offer.sha256}.raw"
    assert arrived.read_bytes() == LARGE
    proxy.close()


def test_a_chunk_that_takes_long_is_asked_for_again_and_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that stalls: what is unanswered comes twice, the agent says that it is under way, and the transfer goes on."""
    told: list[str] = []
    append, dispatcher = ImageStore.append, world.endpoints["n1"].dispatcher
    answers = dispatcher._send

    def stalls(store: ImageStore, sha256: str, at: int, data: bytes) -> ImageProgress:
        if at == 2 << 20:
            time.sleep(1)
        return append(store, sha256, at, data)

    def hearing(peer: bytes, frames: list[bytes]) -> None:
        told.extend(["under way"] * (b"under_way_s" in frames[1]))
        answers(peer, frames)

    monkeypatch.setattr(ImageStore, "append", stalls)
    dispatcher._send = hearing
    offer = offer_of(world, "large")
    ensure_image(operation_of(world), row(world, "n1"), offer)
    assert told and (world.folder / "n1" / "pool" / f"base-{offer.sha256}.raw").read_bytes() == LARGE


def test_what_comes_late_is_no_answer_to_the_next_try(world: World) -> None:
    """The agent forgets a transfer, as a restarted one does: that try fails at its first refusal, and the next, whose requests are
    of the same step, hears nothing of the refusals that were still on their way."""
    images, offer, node, run = world.agents["n1"].images, offer_of(world, "large"), row(world, "n1"), operation_of(world)
    agents, at, forgotten = world.cluster.agents, [0], []

    def chunks() -> Iterator[tuple[ImageChunk, bytes]]:
        while at[0] < len(LARGE):
            yield ImageChunk(offer.sha256, at[0]), LARGE[at[0]:at[0] + (256 << 10)]
            at[0] += 256 << 10

    run.call(node, "image.begin", offer)
    with pytest.raises(AgentRefused, match="is not arriving"):
        for number, _ in enumerate(agents.pipeline(node, "image.chunk", chunks(), fence=run.fence("image.chunk"), window=8)):
            if number == 4:
                forgotten.append(images._arriving.pop(offer.sha256))
    at[0] = run.call(node, "image.begin", offer).offset
    told = list(agents.pipeline(node, "image.chunk", chunks(), fence=run.fence("image.chunk"), window=8))
    assert told[-1].offset == len(LARGE) and run.call(node, "image.finish", ImageRef(offer.sha256)).present
    assert agents.link(node)._asked == set() and not agents.link(node)._early
    forgotten[0].close()


def offer_of(world: World, name: str) -> ImageOffer:
    with world.cluster.db.read() as tx:
        image = images.by_name(tx, name)
    assert image is not None
    return ImageOffer(image.sha256, image.size_bytes, image.virtual_size_bytes, image.disk_format)


# ---------------------------------------------------------------- no room (F19)

@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "none", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)


@as_root
def test_a_pool_that_fills_up_keeps_what_it_has(node: Node) -> None:
    """The disk fills in the middle of a transfer: no_space, another node may do it, and with room again it goes on where it was."""
    with small_disk(node.pool, "70M"):
        send(node, CONTENT, end=10 * PIECE)
        _fill(node.pool)
        full = node.refusal("image.chunk", ImageChunk(SHA256, 10 * PIECE), CONTENT[10 * PIECE:])
        assert (full.code, full.elsewhere) == (Code.NO_SPACE, True)
        assert node.refusal("image.begin", OFFER).code == Code.NO_SPACE
        (node.pool / "filler").unlink()
        assert node.ok("image.begin", OFFER).offset == part(node).stat().st_size >= 10 * PIECE
        send(node, CONTENT)
        assert node.ok("image.finish", ImageRef(SHA256)).present and (node.pool / f"base-{SHA256}.raw").read_bytes() == CONTENT
        node.restart()


@as_root
@pytest.mark.parametrize("what", ["image", "disk"])
def test_a_server_goes_where_there_is_room(world: World, what: str) -> None:
    """With one node's pool full, when the image comes or when the disk is made, the server is on the other, and the full one is clean."""
    pool = world.folder / "n1" / "pool"
    with small_disk(pool, "1M" if what == "image" else "80M"):
        if what == "disk":
            ensure_image(operation_of(world), row(world, "n1"), offer_of(world, "guest"))
            _fill(pool)
        made = [api.create(world.cluster, api.CreateServer(name=f"web{n}", flavor="small", image="guest")).servers[0] for n in range(3)]
        assert {server.node_name for server in made} == {"n2"}
        with world.cluster.db.read() as tx:
            assert any(operation.attempt for operation in operations.recent(tx, ended=True)), "the full node was never tried"
        assert [path.name for path in pool.iterdir() if not path.name.startswith(("base-", "filler"))] == []


def _fill(pool: Path) -> None:
    with (pool / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4096))
