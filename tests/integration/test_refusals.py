"""Bad input on a real fleet: the right exit status, the reason in words, and nothing changed."""

import hashlib
import re
import struct
import subprocess
from pathlib import Path

import pytest

from tests.lab.fleet import Fleet


@pytest.fixture(autouse=True)
def nothing_changes(fleet: Fleet):
    """No test here changes what the cluster is."""

    def nouns() -> list[str]:
        return [fleet.novactl(noun, "list", "-o", "name").stdout for noun in ("server", "image", "flavor", "node", "keypair")]

    before = nouns()
    yield
    assert nouns() == before


def test_a_server_that_fits_nowhere(fleet: Fleet) -> None:
    """A flavor larger than any node: exit 5, every node named with what it lacks, in create and in explain."""
    fleet.novactl("flavor", "create", "huge", "--vcpus", "1", "--ram", "900G", "--disk", "1")
    try:
        refused = fleet.novactl("server", "create", "web1", "--flavor", "huge", "--image", "guest", status=5).stderr
        for host in fleet.lab.hosts:
            assert any(host.name in line and "memory" in line.lower() and "900" in line for line in refused.splitlines()), refused
        explained = fleet.novactl("placement", "explain", "--flavor", "huge", "--image", "guest", status=5).stdout
        assert all(f"{host.name}\trejected" in explained for host in fleet.lab.hosts)
        fleet.novactl("server", "create", "web1", "--flavor", "huge", "--image", "guest", "--dry-run", status=5)
    finally:
        fleet.novactl("flavor", "delete", "huge", "--yes")


def test_one_of_two_fits(fleet: Fleet) -> None:
    """Of two servers for which a node has room for one, none is created (exit 5 says what the second lacks); with --min-count 1 one is."""
    room = next(node for node in fleet.novactl("node", "list", "-o", "json").items if node["name"] == "h1")["disk_capacity_gb"]
    fleet.novactl("flavor", "create", "wide", "--ram", "192M", "--disk", f"{room * 6 // 10}G")
    batch = ("server", "create", "web", "--count", "2", "--node", "h1", "--flavor", "wide", "--image", "guest")
    try:
        refused = fleet.novactl(*batch, status=5).stderr
        assert any("h1: disk: needs" in line for line in refused.splitlines()), refused
        assert fleet.lab.host("h1").domains() == {} and fleet.novactl("placement", "list", "-o", "json").items == []
        assert [server["name"] for server in fleet.novactl(*batch, "--min-count", "1", "-o", "json").items] == ["web-1"]
        assert len(fleet.lab.host("h1").domains()) == 1
        fleet.novactl("server", "delete", "web-1", "--yes")
    finally:
        fleet.novactl("flavor", "delete", "wide", "--yes")


def test_disabled_nodes_take_nothing(fleet: Fleet) -> None:
    """With every node disabled a create is refused with each node's reason, and works again once one is enabled."""
    names = [host.name for host in fleet.lab.hosts]
    fleet.novactl("node", "disable", *names, "--reason", "new kernel")
    try:
        refused = fleet.novactl("server", "create", "web1", "--flavor", "tiny", "--image", "guest", status=5).stderr
        assert all(re.search(rf'{name}: state: disabled for \d.* s by \S+ \("new kernel"\)', refused) for name in names)
        fleet.novactl("node", "enable", "h2")
        assert fleet.create("web1")["node_name"] == "h2"
    finally:
        fleet.novactl("node", "enable", *names)
        fleet.novactl("server", "delete", "web1", "--yes")


def test_names_that_are_not_there(fleet: Fleet) -> None:
    """Unknown servers, flavors, images, nodes and keys are exit 3, whatever is asked of them."""
    for words in (
        ("server", "show", "nobody"), ("server", "delete", "nobody", "--yes"), ("server", "console-log", "nobody"),
        ("node", "show", "nobody"), ("image", "show", "nobody"), ("flavor", "delete", "nobody", "--yes"),
        ("server", "create", "web1", "--flavor", "nosize", "--image", "guest"),
        ("server", "create", "web1", "--flavor", "tiny", "--image", "noimage"),
        ("server", "create", "web1", "--flavor", "tiny", "--image", "guest", "--key", "nokey"),
        ("server", "create", "web1", "--flavor", "tiny", "--image", "guest", "--node", "nonode"),
        ("operation", "show", "00000000"),
    ):
        assert "error[" in fleet.novactl(*words, status=3).stderr


def test_names_that_are_taken_or_malformed(fleet: Fleet) -> None:
    """A duplicate name is exit 4; a name that could break a path, an XML file or a screen is exit 2."""
    fleet.create("web1")
    fleet.novactl("server", "create", "web1", "--flavor", "tiny", "--image", "guest", status=4)
    fleet.novactl("flavor", "create", "tiny", "--ram", "1G", status=4)
    fleet.novactl("image", "create", "guest", "/nonexistent", status=4)
    for name in ("../up", "a b", "<x>", "-x", "a" * 64, "", "ä"):
        fleet.novactl("server", "create", "--flavor", "tiny", "--image", "guest", "--", name, status=2)
    fleet.novactl("server", "delete", "web1", "--yes")


def test_deleting_without_consent(fleet: Fleet) -> None:
    """Where nobody can answer, a delete without --yes is exit 2 and deletes nothing."""
    fleet.create("web1")
    assert "--yes" in fleet.novactl("server", "delete", "web1", status=2).stderr
    assert fleet.server("web1")["status"] == "ACTIVE"
    fleet.novactl("server", "delete", "web1", "--yes")


def qcow2(path: Path, *options: str) -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), "16M"], check=True, capture_output=True)
    return path


def bad_images(folder: Path, guest: Path) -> dict[str, Path]:
    """One file of each kind that must not reach a node."""
    base = qcow2(folder / "base.qcow2")
    backed = qcow2(folder / "backed.qcow2", "-b", str(base), "-F", "qcow2")
    data = qcow2(folder / "data.qcow2", "-o", f"data_file={folder}/data.raw,data_file_raw=on")
    truncated = folder / "truncated.qcow2"
    truncated.write_bytes(guest.read_bytes()[: 3 << 20])
    text = folder / "text.qcow2"
    text.write_text("not a disk\n" * 1000)
    encrypted = folder / "encrypted.qcow2"
    header = bytearray(base.read_bytes())
    header[32:36] = struct.pack(">I", 1)
    encrypted.write_bytes(header)
    huge = qcow2(folder / "huge.qcow2")
    subprocess.run(["qemu-img", "resize", "-q", str(huge), "4P"], check=False, capture_output=True)
    return {"backing file": backed, "data file": data, "truncated": truncated, "other format": text, "encrypted": encrypted}


def test_bad_images_reach_no_node(fleet: Fleet, guest_image: Path, tmp_path: Path) -> None:
    """Truncated, mislabelled, backed, data-file and encrypted images are refused before any node sees them."""
    files = [host.pool_files() for host in fleet.lab.hosts]
    for kind, path in bad_images(tmp_path, guest_image).items():
        refused = fleet.novactl("image", "create", "bad", str(path), "--format", "qcow2", status=2)
        assert "error[" in refused.stderr, kind
    fleet.novactl("image", "create", "bad", str(guest_image), "--format", "raw", status=2)
    assert files == [host.pool_files() for host in fleet.lab.hosts]


def test_a_wrong_checksum(fleet: Fleet, guest_image: Path) -> None:
    """An image whose SHA-256 is another is refused, and both sums are named; a malformed checksum is a usage error."""
    right = hashlib.sha256(guest_image.read_bytes()).hexdigest()
    wrong = "0" * 64
    refused = fleet.novactl("image", "create", "bad", str(guest_image), "--checksum", f"sha256:{wrong}", status=2).stderr
    assert right in refused and wrong in refused
    fleet.novactl("image", "create", "bad", str(guest_image), "--checksum", "md5:123", status=2)
    fleet.novactl("image", "create", "bad", "/nonexistent/file", status=2)


def test_an_unknown_and_a_changed_host_key(fleet: Fleet, tmp_path: Path) -> None:
    """A host whose key is unknown, or is not the one that is known, is not enrolled; exit 8 and exit 4, never trusted."""
    host = fleet.lab.hosts[0]
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/id_ed25519").write_bytes(fleet.lab.client_key.read_bytes())
    (tmp_path / ".ssh/id_ed25519").chmod(0o600)
    elsewhere = {"HOME": str(tmp_path), "NOVACTL_DATA_DIR": str(tmp_path / "data")}
    fleet.novactl("init", env=elsewhere)
    unknown = fleet.novactl("node", "enroll", f"root@{host.address}", env=elsewhere, status=8).stderr
    assert host.fingerprint in unknown
    (tmp_path / ".ssh/known_hosts").write_text(f"{host.address} {fleet.lab.hosts[1].host_key}\n")
    changed = fleet.novactl("node", "enroll", f"root@{host.address}", env=elsewhere, status=4).stderr
    assert host.fingerprint in changed and fleet.lab.hosts[1].fingerprint in changed


def test_a_config_with_an_unknown_key(fleet: Fleet, tmp_path: Path) -> None:
    """A setting that does not exist is exit 2 and named."""
    config = tmp_path / "config.toml"
    config.write_text("[placement]\nfrehs_s = 3\n")
    assert "frehs_s" in fleet.novactl("server", "list", env={"NOVACTL_CONFIG": str(config)}, status=2).stderr
