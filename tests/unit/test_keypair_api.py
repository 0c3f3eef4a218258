from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from novactl.api import keypairs
from novactl.api.keypairs import CreateKeypair
from novactl.cluster import Cluster, RandomIds
from novactl.errors import AlreadyExists, Conflict, NotFound, UsageError
from novactl.model.keypair import BadKey
from tests.images.conftest import cluster, empty_data_dir  # noqa: F401  (fixtures)
from tests.unit.test_keypair_parsing import ED25519


def test_a_public_key_is_imported(cluster: Cluster) -> None:  # noqa: F811
    """An imported key is recorded and found by name, id and the beginning of its id."""
    made = keypairs.create(cluster, CreateKeypair(name="alice", public_key=f"{ED25519} alice\n"))
    assert made.private_key_path == "" and made.keypair.public_key == f"{ED25519} alice"
    assert keypairs.list_keypairs(cluster) == (made.keypair,)
    for ref in ("alice", made.keypair.id, made.keypair.id[:8]):
        assert keypairs.show(cluster, ref) == made.keypair


def test_cve_2022_24302_a_pair_is_made_privately(cluster: Cluster, tmp_path: Path) -> None:  # noqa: F811
    """OpenSSH reads the private half that was written, finds our public half in it, and needs no other mode."""
    path = tmp_path / "ci.key"
    before = os.umask(0)
    try:
        made = keypairs.create(cluster, CreateKeypair(name="ci", private_key_path=path))
    finally:
        os.umask(before)
    assert made.private_key_path == str(path) and stat.S_IMODE(path.stat().st_mode) == 0o600
    shown = subprocess.run(["ssh-keygen", "-y", "-f", str(path)], check=True, capture_output=True, text=True, timeout=60).stdout
    assert shown.split()[:2] == made.keypair.public_key.split()[:2] and made.keypair.public_key.endswith(" novactl-ci")
    secret = "".join(path.read_text().splitlines()[1:-1])
    assert not any(secret[40:80].encode() in file.read_bytes() for file in cluster.config.data_dir.iterdir() if file.is_file())


@pytest.mark.parametrize("kind", ["file", "link", "dangling link", "directory"])
def test_an_existing_file_is_never_overwritten(cluster: Cluster, tmp_path: Path, kind: str) -> None:  # noqa: F811
    """A private key is only ever written to a new file; otherwise nothing is recorded."""
    path, other = tmp_path / "key", tmp_path / "other"
    if kind != "dangling link":
        other.write_text("precious")
    {"file": lambda: path.write_text("precious"), "directory": path.mkdir}.get(kind, lambda: path.symlink_to(other))()
    with pytest.raises(Conflict, match="not overwritten"):
        keypairs.create(cluster, CreateKeypair(name="ci", private_key_path=path))
    assert keypairs.list_keypairs(cluster) == ()
    assert kind == "dangling link" or other.read_text() == "precious"


def test_nothing_stays_of_a_pair_that_was_not_recorded(cluster: Cluster, tmp_path: Path) -> None:  # noqa: F811
    """When another process takes the name in between, the private half goes too."""
    class Racing(RandomIds):
        def uuid(self) -> str:
            cluster.ids = RandomIds()
            keypairs.create(cluster, CreateKeypair(name="ci", public_key=ED25519))
            return super().uuid()

    cluster.ids = Racing()
    with pytest.raises(AlreadyExists):
        keypairs.create(cluster, CreateKeypair(name="ci", private_key_path=tmp_path / "ci.key"))
    assert not (tmp_path / "ci.key").exists()


def test_dry_runs(cluster: Cluster, tmp_path: Path) -> None:  # noqa: F811
    """A dry run refuses what would be refused, and changes nothing."""
    path = tmp_path / "ci.key"
    assert keypairs.create(cluster, CreateKeypair(name="ci", private_key_path=path), dry_run=True).private_key_path == str(path)
    assert keypairs.create(cluster, CreateKeypair(name="alice", public_key=ED25519), dry_run=True).keypair.name == "alice"
    assert not path.exists() and keypairs.list_keypairs(cluster) == ()
    with pytest.raises(BadKey):
        keypairs.create(cluster, CreateKeypair(name="alice", public_key="x"), dry_run=True)
    with pytest.raises(UsageError, match="cannot write"):
        keypairs.create(cluster, CreateKeypair(name="ci", private_key_path=tmp_path / "no" / "key"), dry_run=True)
    keypairs.create(cluster, CreateKeypair(name="alice", public_key=ED25519))
    keypairs.delete(cluster, "alice", dry_run=True)
    assert [keypair.name for keypair in keypairs.list_keypairs(cluster)] == ["alice"]


def test_names(cluster: Cluster, tmp_path: Path) -> None:  # noqa: F811
    """Names are unique and safe; a deleted one is free again."""
    keypairs.create(cluster, CreateKeypair(name="alice", public_key=ED25519))
    with pytest.raises(AlreadyExists):
        keypairs.create(cluster, CreateKeypair(name="alice", private_key_path=tmp_path / "key"))
    assert not (tmp_path / "key").exists()
    for name in ("../x", "", "a b", "a" * 64):
        with pytest.raises(UsageError):
            keypairs.create(cluster, CreateKeypair(name=name, public_key=ED25519))
    keypairs.delete(cluster, "alice")
    with pytest.raises(NotFound):
        keypairs.delete(cluster, "alice")
    assert keypairs.create(cluster, CreateKeypair(name="alice", public_key=ED25519))


def test_one_of_two(cluster: Cluster, tmp_path: Path) -> None:  # noqa: F811
    """Neither or both of a public key and a file is refused."""
    for given in ({}, {"public_key": ED25519, "private_key_path": tmp_path / "k"}):
        with pytest.raises(UsageError, match="either"):
            keypairs.create(cluster, CreateKeypair(name="x", **given))
