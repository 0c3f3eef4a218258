"""Images that are taken in: from files and over HTTP, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from novactl.cluster import Cluster
from novactl.conductor import image_intake, image_source, image_store
from novactl.conductor.image_intake import drop, take_in
from novactl.conductor.progress import Progress, unwatched
from novactl.db import images as db_images
from novactl.db import servers as db_servers
from novactl.errors import AlreadyExists, BadImage, ExitStatus, InUse, NotFound, NotInitialised, Unreachable
from novactl.model.image import CreateImage, Image
from novactl.states import Event, advance
from tests.images import corpus
from tests.unit.test_seed import SERVER

GOOD = corpus.qcow2()
GOOD_SHA256 = hashlib.sha256(GOOD).hexdigest()


def intake(cluster: Cluster, source: Path | str, name: str = "debian", **claims: str) -> Image:
    return take_in(cluster, CreateImage(name=name, source=str(source), **claims), watch=unwatched)


def stored(cluster: Cluster) -> set[str]:
    return set(os.listdir(cluster.config.data_dir / "images")) - {".lock"}


def recorded(cluster: Cluster) -> list[str]:
    with cluster.db.read() as tx:
        return [image.name for image in db_images.all_(tx)]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.qcow2"
    path.write_bytes(GOOD)
    return path


# ---------------------------------------------------------------- files

def test_a_file_is_stored_under_its_sha256(cluster: Cluster, good: Path) -> None:
    """A sound qcow2 is recorded with what it is, and its bytes are kept privately under their SHA-256."""
    image = intake(cluster, good)
    assert (image.sha256, image.disk_format, image.size_bytes, image.virtual_size_bytes, image.architecture, image.source) == (
        GOOD_SHA256, "qcow2", len(GOOD), 16 << 20, "x86_64", str(good))
    kept = cluster.config.data_dir / "images" / GOOD_SHA256
    assert kept.read_bytes() == GOOD and stored(cluster) == {GOOD_SHA256}
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    with cluster.db.read() as tx:
        assert db_images.by_name(tx, "debian") == image


def test_cve_2014_5247_modes_do_not_depend_on_the_umask(cluster: Cluster, good: Path) -> None:
    """With umask 0 files are 0600 and the directory 0700 all the same."""
    before = os.umask(0)
    try:
        intake(cluster, good)
    finally:
        os.umask(before)
    directory = cluster.config.data_dir / "images"
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@pytest.mark.parametrize(("content", "declared"), [
    (corpus.partitioned_disk(), None), (corpus.partitioned_disk(), "raw"), (corpus.plain_disk(), "raw"),
])
def test_raw_disks(cluster: Cluster, tmp_path: Path, content: bytes, declared: str | None) -> None:
    """A disk with a partition table is known as raw; one without must be declared so."""
    path = tmp_path / "disk"
    path.write_bytes(content)
    image = take_in(cluster, CreateImage(name="disk", source=str(path), disk_format=declared), watch=unwatched)
    assert (image.disk_format, image.virtual_size_bytes) == ("raw", len(content))


@pytest.mark.parametrize("sha256", ["../../etc/passwd", "a" * 63, "A" * 64, "a" * 64 + "\n", ""])
def test_cve_2026_48769_a_hash_is_no_path(cluster: Cluster, sha256: str) -> None:
    """Only 64 hexadecimal digits name a file of the store."""
    with pytest.raises(ValueError):
        image_intake.store_of(cluster).path(sha256)


def test_holes_stay_holes(cluster: Cluster, tmp_path: Path) -> None:
    """A raw disk of zeros takes no room in the store, and reads the same."""
    path = tmp_path / "disk"
    path.write_bytes(corpus.partitioned_disk())
    os.truncate(path, 64 << 20)
    image = intake(cluster, path)
    kept = cluster.config.data_dir / "images" / image.sha256
    assert kept.stat().st_size == 64 << 20 and kept.stat().st_blocks * 512 < 4 << 20
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == image.sha256


@pytest.mark.parametrize("checksum", [f"sha256:{GOOD_SHA256}", f"sha256:{GOOD_SHA256.upper()}"])
def test_a_right_checksum(cluster: Cluster, good: Path, checksum: str) -> None:
    """The checksum given is compared, in either case of letters."""
    assert intake(cluster, good, checksum=checksum).sha256 == GOOD_SHA256


@pytest.mark.parametrize(("checksum", "said"), [
    ("sha256:" + "0" * 64, "has SHA-256"), (GOOD_SHA256, "is not valid"),
    ("md5:" + "0" * 32, "is not valid"), ("", "is not valid"),
    (f"sha256:{GOOD_SHA256}\n", "is not valid"),
])
def test_a_wrong_checksum(cluster: Cluster, good: Path, checksum: str, said: str) -> None:
    """A checksum that differs, or is none, refuses the image and leaves nothing."""
    with pytest.raises(BadImage, match=said):
        intake(cluster, good, checksum=checksum)
    assert recorded(cluster) == [] and not list((cluster.config.data_dir / "images").glob("[0-9a-f]*"))


def test_dry_run_checks_all_and_keeps_nothing(cluster: Cluster, good: Path) -> None:
    """A dry run tells what would be recorded, refuses what would be refused, and leaves nothing."""
    image = take_in(cluster, CreateImage(name="debian", source=str(good)), watch=unwatched, dry_run=True)
    assert image.sha256 == GOOD_SHA256 and stored(cluster) == set() and recorded(cluster) == []
    with pytest.raises(BadImage):
        take_in(cluster, CreateImage(name="debian", source=str(good), disk_format="raw"), watch=unwatched, dry_run=True)


def test_names_are_unique(cluster: Cluster, good: Path) -> None:
    """A second image of one name is refused before a byte is fetched."""
    intake(cluster, good)
    with pytest.raises(AlreadyExists) as caught:
        intake(cluster, "/no/such/file")
    assert caught.value.exit_status is ExitStatus.CONFLICT


def test_a_name_taken_meanwhile(cluster: Cluster, good: Path) -> None:
    """Of two images that take one name at the same time the second is refused and leaves nothing."""
    other = good.with_name("other.qcow2")
    other.write_bytes(corpus.qcow2(clusters=2))
    seen: list[Progress] = []

    def watch(progress: Progress) -> None:
        if progress.step == "check" and not seen:
            seen.append(progress)
            intake(cluster, good)

    with pytest.raises(AlreadyExists):
        take_in(cluster, CreateImage(name="debian", source=str(other)), watch=watch)
    assert stored(cluster) == {GOOD_SHA256} and recorded(cluster) == ["debian"]


def test_equal_content_is_stored_once(cluster: Cluster, good: Path) -> None:
    """Two images of one content share the file; it goes with the last of them."""
    one, two = intake(cluster, good, "one"), intake(cluster, good, "two")
    assert stored(cluster) == {GOOD_SHA256}
    drop(cluster, one.id, dry_run=True)
    assert recorded(cluster) == ["one", "two"]
    drop(cluster, one.id)
    assert stored(cluster) == {GOOD_SHA256} and recorded(cluster) == ["two"]
    drop(cluster, two.id)
    assert stored(cluster) == set() and recorded(cluster) == []
    with pytest.raises(NotFound):
        drop(cluster, two.id)


def test_an_image_in_use_stays(cluster: Cluster, good: Path) -> None:
    """While a server is being built from an image, it is not deleted and the server is named; afterwards it may go."""
    image = intake(cluster, good)
    building = replace(SERVER, image_id=image.id)
    with cluster.db.write() as tx:
        db_servers.insert(tx, building)
    with pytest.raises(InUse) as caught:
        drop(cluster, image.id)
    assert caught.value.reasons == (building.name,) and stored(cluster) == {GOOD_SHA256} and recorded(cluster) == ["debian"]
    with cluster.db.write() as tx:
        built = advance(building.state, Event.BUILT, building.name)
        db_servers.move_state(tx, building, built, operation_id="", at=0.0)
    drop(cluster, image.id)
    assert stored(cluster) == set() and recorded(cluster) == []


def test_no_cluster(good: Path, tmp_path: Path) -> None:
    """Before `init` the image is not even read, and no directory appears."""
    from novactl.config import load_config

    cluster = Cluster(load_config(env={"NOVACTL_DATA_DIR": str(tmp_path / "none"), "HOME": str(tmp_path)}))
    with pytest.raises(NotInitialised):
        intake(cluster, good)
    assert not (tmp_path / "none").exists()


def test_limits_are_settings(cluster: Cluster, good: Path, tmp_path: Path) -> None:
    """A file over image.max_file_gb and a disk over image.max_virtual_gb are refused, naming the setting."""
    big = tmp_path / "big"
    big.write_bytes(corpus.partitioned_disk())
    os.truncate(big, (2 << 30) + 512)
    cluster.config = cluster.config.replace(image__max_file_gb=2)
    with pytest.raises(BadImage) as caught:
        intake(cluster, big)
    assert caught.value.hint == "setting image.max_file_gb"
    good.write_bytes(corpus.qcow2(virtual_size=3 << 30))
    cluster.config = cluster.config.replace(image__max_virtual_gb=2)
    with pytest.raises(BadImage) as caught:
        intake(cluster, good)
    assert caught.value.hint == "setting image.max_virtual_gb"
    assert stored(cluster) == set()


def test_no_space(cluster: Cluster, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit on the disk is refused before it is fetched."""
    monkeypatch.setattr(image_store, "SPARE_BYTES", 1 << 62)
    with pytest.raises(image_store.NoSpace, match="the image needs"):
        intake(cluster, good)
    assert stored(cluster) == set()


def test_a_file_that_shrinks_while_it_is_read(cluster: Cluster, tmp_path: Path) -> None:
    """A source that changes under our eyes is refused."""
    path = tmp_path / "disk"
    path.write_bytes(corpus.partitioned_disk(4 << 20))
    with image_source.open_source(str(path)) as source:
        next(source.chunks)
        os.truncate(path, 2 << 20)
        with pytest.raises(BadImage, match="changed while it was read"):
            list(source.chunks)


def test_progress_is_told_in_bytes(cluster: Cluster, tmp_path: Path) -> None:
    """Whoever watches hears the transfer begin, grow and end, then the check."""
    path = tmp_path / "disk"
    path.write_bytes(corpus.partitioned_disk(9 << 20))
    told: list[Progress] = []
    take_in(cluster, CreateImage(name="disk", source=str(path)), watch=told.append)
    assert [(p.subject, p.step, p.state, p.done >> 20, p.total >> 20) for p in told] == [
        ("disk", "image", "started", 0, 9), ("disk", "image", "running", 4, 9), ("disk", "image", "running", 8, 9),
        ("disk", "image", "done", 9, 9), ("disk", "check", "started", 0, 0), ("disk", "check", "done", 0, 0),
    ]


def test_what_a_killed_process_left_is_swept(cluster: Cluster, good: Path) -> None:
    """Parts that nobody writes and files that no image knows go with the next create; what is being written stays."""
    store = image_intake.store_of(cluster)
    with store.part("alive") as part:
        (store.directory / "dead.part").write_bytes(b"x")
        (store.directory / ("a" * 64)).write_bytes(b"x")
        (store.directory / "notes.txt").write_bytes(b"kept: not ours")
        intake(cluster, good)
        assert stored(cluster) == {"alive.part", "notes.txt", GOOD_SHA256} and part.path.exists()
    assert stored(cluster) == {"notes.txt", GOOD_SHA256}


# ---------------------------------------------------------------- URLs

@dataclass
class Web:
    """A web server of one test: path -> (status, headers, body). A body of None stalls until the test ends."""

    url: str = ""
    pages: dict[str, tuple[int, dict[str, str], bytes | None]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    stalled: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            status, headers, body = made.pages.get(self.path, (404, {}, b""))
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body or b"")), **headers}.items():
                if value:
                    self.send_header(name, value)
            self.end_headers()
            if body is None:
                self.wfile.write(GOOD[:100_000])
                made.stalled.set()
                made.over.wait(60)
            else:
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield made
    made.over.set()
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_a_url(cluster: Cluster, web: Web) -> None:
    """An image comes over HTTP; what is stored of its URL has no query, where a signature may be."""
    web.pages["/i.qcow2?signature=canary"] = (200, {}, GOOD)
    image = intake(cluster, f"{web.url}/i.qcow2?signature=canary#part")
    assert (image.sha256, image.source) == (GOOD_SHA256, f"{web.url}/i.qcow2")


def test_a_url_of_unknown_length(cluster: Cluster, web: Web) -> None:
    """Without a Content-Length the end of the connection is the end; the checks tell whether it was whole."""
    web.pages["/whole"] = (200, {"Content-Length": ""}, GOOD)
    web.pages["/half"] = (200, {"Content-Length": ""}, GOOD[:300_000])
    assert intake(cluster, f"{web.url}/whole").sha256 == GOOD_SHA256
    with pytest.raises(BadImage, match="truncated"):
        intake(cluster, f"{web.url}/half", "half")


def test_redirects_are_followed(cluster: Cluster, web: Web) -> None:
    """A mirror may send us on, a few times."""
    web.pages["/a"] = (302, {"Location": "/b"}, b"")
    web.pages["/b"] = (308, {"Location": f"{web.url}/c"}, b"")
    web.pages["/c"] = (200, {}, GOOD)
    assert intake(cluster, f"{web.url}/a").source == f"{web.url}/a"
    assert web.asked == ["/a", "/b", "/c"]


@pytest.mark.parametrize(("status", "headers", "body", "said"), [
    (404, {}, b"", "answered 404"),
    (500, {}, b"", "answered 500"),
    (206, {}, GOOD, "answered 206"),
    (200, {"Content-Length": str(len(GOOD) + 1)}, GOOD, f"broke off after {len(GOOD)} of {len(GOOD) + 1} bytes"),
    (200, {"Content-Encoding": "gzip"}, GOOD, "sends the file encoded"),
    (302, {"Location": "/i"}, b"", "more than 5 redirects"),
    (302, {}, b"", "answered 302"),
])
def test_a_url_that_fails(cluster: Cluster, web: Web, status: int, headers: dict[str, str], body: bytes, said: str) -> None:
    """An error, a broken transfer or a circle of redirects is told, with exit status 6, and leaves nothing."""
    web.pages["/i"] = (status, headers, body)
    with pytest.raises(Unreachable, match=said) as caught:
        intake(cluster, f"{web.url}/i")
    assert caught.value.exit_status is ExitStatus.UNREACHABLE
    assert stored(cluster) == set() and recorded(cluster) == []


@pytest.mark.parametrize("target", ["file:///etc/shadow", "ftp://127.0.0.1/x", "data:,x", "gopher://127.0.0.1:6379/x"])
def test_a_redirect_elsewhere(cluster: Cluster, web: Web, target: str) -> None:
    """A redirect cannot make us read a local file or speak another protocol."""
    web.pages["/i"] = (302, {"Location": target}, b"")
    with pytest.raises(BadImage, match="is not supported"):
        intake(cluster, f"{web.url}/i")


@pytest.mark.parametrize("url", [
    "file:///etc/passwd", "ftp://host/x", "https://", "http:///x", "http://u:canary@host/x", "http://host:99999/x", "http://[::1/x",
    "http://ho st/", "http://host/\r\nX: y", "HTTP2://x",
])
def test_urls_we_do_not_take(cluster: Cluster, url: str) -> None:
    """Another scheme, a password, control characters, half an address: refused without asking anybody."""
    with pytest.raises(BadImage) as caught:
        intake(cluster, url)
    assert "canary" not in str(caught.value.as_dict())


def test_nobody_answers(cluster: Cluster) -> None:
    """A closed port and an unknown host are Unreachable."""
    for url in ("http://127.0.0.1:9/x", "http://no-such-host.invalid/x"):
        with pytest.raises(Unreachable):
            intake(cluster, url)


def test_a_server_that_falls_silent(cluster: Cluster, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transfer in which nothing comes any more ends with its deadline."""
    web.pages["/i"] = (200, {"Content-Length": str(len(GOOD))}, None)
    with pytest.raises(Unreachable, match="broke off"), image_source.open_source(f"{web.url}/i", timeout_s=2.0) as source:
        list(source.chunks)


def test_a_stream_without_end(cluster: Cluster, web: Web) -> None:
    """A server that promises no length and never stops is cut at image.max_file_gb."""
    store = image_intake.store_of(cluster)
    with store.part("p") as part, pytest.raises(BadImage, match="larger than 10.0 MiB"):
        part.fill(iter(lambda: bytes(1 << 20), b""), max_bytes=10 << 20, tell=lambda done: None)


def test_sigkill_in_the_middle_of_a_download(cluster: Cluster, web: Web, good: Path) -> None:
    """Killed in the middle, a download leaves a part; it goes with the next create, and no image is recorded."""
    web.pages["/i"] = (200, {"Content-Length": str(len(GOOD))}, None)
    script = (
        "import sys; from novactl.config import load_config; from novactl.cluster import Cluster\n"
        "from novactl.conductor.image_intake import *; from novactl.model.image import *\n"
        "from novactl.conductor.progress import unwatched\n"
        "take_in(Cluster(load_config()), CreateImage(name='x', source=sys.argv[1]), watch=unwatched)\n")
    child = subprocess.Popen(
        [sys.executable, "-c", script, f"{web.url}/i"], env={**os.environ, "NOVACTL_DATA_DIR": str(cluster.config.data_dir)})
    try:
        assert web.stalled.wait(60)
        assert [Path(name).suffix for name in stored(cluster)] == [".part"]
        intake(cluster, good, "meanwhile")
        assert len(stored(cluster)) == 2, "the part of a living process stays"
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(30)
    started = time.monotonic()
    intake(cluster, good, "next")
    assert stored(cluster) == {GOOD_SHA256} and recorded(cluster) == ["meanwhile", "next"]
    assert time.monotonic() - started < 60
