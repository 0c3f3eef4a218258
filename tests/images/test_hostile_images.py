"""What others were broken with, and what we say to it. Each file is refused before it is stored, and leaves nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from novactl.cluster import Cluster
from novactl.conductor import image_inspection
from novactl.conductor.image_intake import take_in
from novactl.conductor.progress import unwatched
from novactl.db import images as db_images
from novactl.errors import BadImage, ExitStatus
from novactl.model.image import CreateImage
from tests.images import corpus


def refused(cluster: Cluster, content: bytes, declared: str | None = None, name: str = "evil.img") -> str:
    """What is said when `content` is offered; nothing of it may stay."""
    source = cluster.config.data_dir.parent / name
    source.write_bytes(content)
    with pytest.raises(BadImage) as caught:
        take_in(cluster, CreateImage(name="evil", source=str(source), disk_format=declared), watch=unwatched)
    assert caught.value.exit_status is ExitStatus.USAGE
    assert os.listdir(cluster.config.data_dir / "images") == [".lock"]
    with cluster.db.read() as tx:
        assert db_images.all_(tx) == ()
    return caught.value.message.replace(str(source), "IT")


@pytest.mark.parametrize("declared", [None, "qcow2", "raw"])
@pytest.mark.parametrize("version", [2, 3])
def test_cve_2015_5163_backing_file(cluster: Cluster, declared: str | None, version: int) -> None:
    """A qcow2 with a backing file, which would show /etc/shadow of a node, is refused whatever it is called."""
    said = refused(cluster, corpus.qcow2(backing=b"/etc/shadow", version=version), declared)
    assert said.startswith("IT is qcow2, not raw" if declared == "raw" else "IT has a backing file")


def test_cve_2024_4467_json_backing_file(cluster: Cluster) -> None:
    """A backing file told as json:{…}, which `qemu-img info` itself would open, is refused before qemu-img sees it."""
    chain = b'json:{"driver":"qcow2","file":{"driver":"https","url":"https://127.0.0.1:9/x"}}'
    assert refused(cluster, corpus.qcow2(backing=chain)).startswith("IT has a backing file")


def test_cve_2024_32498_data_file(cluster: Cluster) -> None:
    """A qcow2 whose data is in another file (a file of the node) is refused."""
    evil = corpus.qcow2(incompatible=0b100, extensions=corpus.extension(0x44415441, b"/etc/shadow"))
    assert refused(cluster, evil).startswith("IT keeps its data in another file")


def test_cve_2024_32498_json_data_file(cluster: Cluster) -> None:
    """The same with a json: name."""
    name = b'json:{"driver":"file","filename":"/etc/shadow"}'
    evil = corpus.qcow2(incompatible=0b100, extensions=corpus.extension(0x44415441, name))
    assert refused(cluster, evil).startswith("IT keeps its data in another file")


@pytest.mark.parametrize("incompatible", [1 << 5, 1 << 40, 1 << 63])
def test_unknown_features(cluster: Cluster, incompatible: int) -> None:
    """Feature bits that the inspector does not know may mean anything: refused."""
    assert "version or feature" in refused(cluster, corpus.qcow2(incompatible=incompatible))


@pytest.mark.parametrize("version", [0, 1, 4])
def test_unknown_versions(cluster: Cluster, version: int) -> None:
    """qcow version 1 and versions to come are refused."""
    assert "version or feature" in refused(cluster, corpus.qcow2(version=version))


@pytest.mark.parametrize("crypt_method", [1, 2, 1 << 31])
def test_encrypted_qcow2(cluster: Cluster, crypt_method: int) -> None:
    """An encrypted qcow2 is refused as such, old AES and LUKS alike."""
    assert refused(cluster, corpus.qcow2(crypt_method=crypt_method)) == "IT is encrypted"


@pytest.mark.parametrize("declared", [None, "raw"])
def test_encrypted_disk(cluster: Cluster, declared: str | None) -> None:
    """A LUKS disk is refused, also when it is called raw."""
    assert refused(cluster, corpus.luks(), declared) == "IT is encrypted (LUKS)"


@pytest.mark.parametrize("extent", ['RW 2048 FLAT "/etc/shadow" 0', 'RW 2048 VMFS "/etc/shadow"'])
@pytest.mark.parametrize("declared", [None, "raw", "qcow2"])
def test_cve_2022_47951_vmdk_flat(cluster: Cluster, declared: str | None, extent: str) -> None:
    """A VMDK descriptor that points at a file of the node is refused, whatever it is called."""
    for evil in (corpus.sparse_vmdk("monolithicFlat", extent), corpus.vmdk("monolithicFlat", extent)):
        assert refused(cluster, evil, declared) == "IT is vmdk: only qcow2 and raw are supported"


@pytest.mark.parametrize("make", [corpus.qcow2, corpus.sparse_vmdk, corpus.vhd, corpus.vdi, corpus.qed, corpus.iso, corpus.luks],
                         ids=lambda make: make.__name__)
def test_cve_2024_40767_raw_that_is_not_raw(cluster: Cluster, make: object) -> None:
    """A file called raw, by name and by declaration, that holds another format is refused."""
    said = refused(cluster, make(), "raw", "fake.raw")  # type: ignore[operator]
    assert "not raw as declared" in said or "only qcow2 and raw" in said or "encrypted" in said


@pytest.mark.parametrize(("make", "kind"), [
    (corpus.vhd, "vhd"), (corpus.vdi, "vdi"), (corpus.qed, "qed"), (corpus.iso, "iso"), (corpus.sparse_vmdk, "vmdk"),
])
def test_unsupported_formats(cluster: Cluster, make: object, kind: str) -> None:
    """A format we do not take is named, with the command that converts it."""
    assert refused(cluster, make()) == f"IT is {kind}: only qcow2 and raw are supported"  # type: ignore[operator]


@pytest.mark.parametrize("virtual_size", [2 * corpus.PIB, 2048 * corpus.GIB + 512, (1 << 63) - 512, (1 << 64) - 512])
def test_cve_2013_2096_huge_virtual_size(cluster: Cluster, virtual_size: int) -> None:
    """A small file that is a disk of 2 PiB is refused."""
    evil = corpus.qcow2(virtual_size=virtual_size)
    said = refused(cluster, evil)
    assert "at most 2.0 TiB are taken" in said or "truncated or damaged" in said


def test_a_disk_of_no_size(cluster: Cluster) -> None:
    """A qcow2 of 0 bytes is refused."""
    assert refused(cluster, corpus.qcow2(virtual_size=0)) == "IT is a disk of no size"


@pytest.mark.parametrize("kept", [511, 512, 4096, 65_536, 200_000, 5 * 65_536, 8 * 65_536])
def test_truncated_qcow2(cluster: Cluster, kept: int) -> None:
    """A qcow2 that ends early, in its header, its tables or its data, is refused."""
    whole = corpus.qcow2(clusters=4)
    said = refused(cluster, whole[:kept], "qcow2")
    assert "truncated or damaged" in said if kept >= 512 else said == "IT is raw, not qcow2 as declared"


@pytest.mark.parametrize(("content", "declared", "said"), [
    (b"", None, "IT is empty"),
    (b"", "raw", "IT is empty"),
    (b"x", "raw", "IT is truncated, or not a raw disk: 1 bytes are not a multiple of 512"),
    (corpus.plain_disk()[:-1], "raw", "IT is truncated, or not a raw disk: 1048575 bytes are not a multiple of 512"),
    (corpus.partitioned_disk()[:-100], None, "IT is truncated, or not a raw disk: 1048476 bytes are not a multiple of 512"),
    (corpus.plain_disk(), None, "IT is not recognised: no qcow2, and no partition table"),
    (b"<html>404</html>".ljust(512), None, "IT is not recognised: no qcow2, and no partition table"),
    (corpus.plain_disk(), "qcow2", "IT is raw, not qcow2 as declared"),
    (corpus.qcow2(), "vmdk", "disk format 'vmdk' is not supported"),
])
def test_not_what_it_should_be(cluster: Cluster, content: bytes, declared: str | None, said: str) -> None:
    """Empty, cut, unrecognisable or misnamed files are refused with what they are."""
    assert refused(cluster, content, declared) == said


def test_two_formats_in_one(cluster: Cluster) -> None:
    """A file that is an ISO and something else at once hides one of them: refused."""
    both = bytearray(corpus.iso())
    both[:512] = corpus.partitioned_disk()[:512]
    assert refused(cluster, bytes(both)).startswith("IT is not one plain image: Multiple formats detected")


def test_an_unsound_partition_table(cluster: Cluster) -> None:
    """A boot record with an impossible partition entry is refused, with the way round."""
    disk = bytearray(corpus.partitioned_disk())
    disk[446] = 0x7F
    assert refused(cluster, bytes(disk)).startswith("IT has a partition table that is not sound")


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/", "/proc/self/environ/x", "no/such", "a\0b", "/dev/stdin/x"])
def test_sources_that_are_no_files(cluster: Cluster, path: str) -> None:
    """Devices, directories and files that are not there are refused at once."""
    with pytest.raises(BadImage):
        take_in(cluster, CreateImage(name="evil", source=path), watch=unwatched)


def test_a_pipe_does_not_hang(cluster: Cluster) -> None:
    """A pipe that nobody writes to is refused, not waited for."""
    pipe = cluster.config.data_dir.parent / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(BadImage, match="not a regular file"):
        take_in(cluster, CreateImage(name="evil", source=str(pipe)), watch=unwatched)


def test_cve_2015_5162_qemu_img_is_limited(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A qemu-img that takes too much memory, prints without end or dies is ended by a limit, and the image refused."""
    tool = tmp_path / "bin" / "qemu-img"
    tool.parent.mkdir()
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    for body in ("x = bytearray(3 << 30)", "while True: print('x' * 10000)", "import os; os.kill(os.getpid(), 9)"):
        tool.write_text(f"#!{sys.executable} -IS\n{body}\n")
        tool.chmod(0o755)
        said = refused(cluster, corpus.qcow2())
        assert "ended by a limit" in said or "truncated or damaged" in said


def test_qemu_img_is_told_the_format(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call has `-f`, the limits in force, and nothing of our environment."""
    log = tmp_path / "log"
    tool = tmp_path / "bin" / "qemu-img"
    tool.parent.mkdir()
    tool.write_text(
        f"#!{sys.executable} -IS\nimport os, resource, sys\n"
        f"open({str(log)!r}, 'a').write(repr((sys.argv[1:4], resource.getrlimit(resource.RLIMIT_CPU)[0],"
        " resource.getrlimit(resource.RLIMIT_AS)[0] >> 30, 'SECRET' in os.environ)) + '\\n')\n"
        "print('{\"format\": \"qcow2\", \"virtual-size\": 16777216}')\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SECRET", "canary")
    source = tmp_path / "good.qcow2"
    source.write_bytes(corpus.qcow2())
    take_in(cluster, CreateImage(name="good", source=str(source)), watch=unwatched)
    assert log.read_text().splitlines() == [
        "(['info', '-f', 'qcow2'], 30, 2, False)", "(['check', '-f', 'qcow2'], 30, 2, False)"]


def test_without_qemu_img_somebody_must_vouch(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no qemu-img can tell that a qcow2 is whole, a checksum must, and hostile ones are refused all the same."""
    import hashlib

    monkeypatch.setattr(image_inspection, "qemu_img", lambda: None)
    good = corpus.qcow2()
    assert refused(cluster, good) == "cannot tell whether IT is whole: there is no qemu-img here, and no checksum was given"
    assert refused(cluster, corpus.qcow2(backing=b"/etc/shadow")).startswith("IT has a backing file")
    assert refused(cluster, corpus.qcow2(crypt_method=2)) == "IT is encrypted"
    source = tmp_path / "good.qcow2"
    source.write_bytes(good)
    claim = f"sha256:{hashlib.sha256(good).hexdigest()}"
    assert take_in(cluster, CreateImage(name="good", source=str(source), checksum=claim), watch=unwatched).disk_format == "qcow2"


def test_refusals_are_told_once(cluster: Cluster, tmp_path: Path) -> None:
    """The inspector's own log does not reach the terminal beside our error."""
    source = tmp_path / "evil.qcow2"
    source.write_bytes(corpus.qcow2(backing=b"/etc/shadow"))
    script = (
        "import pathlib, sys; from novactl.conductor.image_inspection import inspect\n"
        "try: inspect(pathlib.Path(sys.argv[1]), None, shown='IT', vouched=False)\n"
        "except Exception as refused: print(refused)\n")
    ended = subprocess.run([sys.executable, "-c", script, str(source)], capture_output=True, text=True, check=True, timeout=120)
    assert ended.stderr == "" and ended.stdout.startswith("IT has a backing file")
