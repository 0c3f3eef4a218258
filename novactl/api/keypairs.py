"""Keypairs: import a public key, or make a pair and hand out its private half once. The home of `cryptography`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from novactl.api.resolve import resolve
from novactl.cluster import Cluster
from novactl.db import keypairs as db_keypairs
from novactl.errors import AlreadyExists, Conflict, UsageError
from novactl.model.ids import check_name
from novactl.model.keypair import Keypair, PublicKey, parse_public_key


@dataclass(frozen=True, kw_only=True)
class CreatedKeypair:
    """`private_key_path` is where the private half was written, "" where a public key was imported."""

    keypair: Keypair
    private_key_path: str


def create(
    cluster: Cluster, *, name: str, public_key: str | None = None, private_key_path: Path | None = None, dry_run: bool = False,
) -> CreatedKeypair:
    """Import `public_key` (the text of one), or make an ed25519 pair and write its private half to `private_key_path`.

    The file is new, 0600 from its first moment; an existing one is never touched. A dry run of the latter shows no key:
    none was made. Raises BadKey, AlreadyExists, and Conflict or UsageError about the file.
    """
    check_name("keypair", name)
    if (public_key is None) == (private_key_path is None):
        raise UsageError("give either a public key to import, or a file for the new private key")
    with cluster.db.read() as tx:
        if db_keypairs.by_name(tx, name):
            raise AlreadyExists("keypair", name)
    if public_key is not None:
        keypair = _keypair(cluster, name, parse_public_key(public_key))
        if not dry_run:
            _insert(cluster, keypair)
        return CreatedKeypair(keypair=keypair, private_key_path="")
    assert private_key_path is not None
    path = Path(os.path.abspath(private_key_path.expanduser()))
    if dry_run:
        _check_writable(path)
        return CreatedKeypair(keypair=_keypair(cluster, name, PublicKey("ssh-ed25519", "", "")), private_key_path=str(path))
    private, public = _ed25519(f"novactl-{name}")
    keypair = _keypair(cluster, name, parse_public_key(public))
    with _new_file(path, private):
        _insert(cluster, keypair)
    return CreatedKeypair(keypair=keypair, private_key_path=str(path))


def list_keypairs(cluster: Cluster) -> tuple[Keypair, ...]:
    with cluster.db.read() as tx:
        return db_keypairs.all_(tx)


def show(cluster: Cluster, ref: str) -> Keypair:
    with cluster.db.read() as tx:
        return resolve(tx, "keypair", db_keypairs, ref)


def delete(cluster: Cluster, ref: str, *, dry_run: bool = False) -> Keypair:
    """Servers keep the key they were given."""
    with cluster.db.write() as tx:
        keypair = resolve(tx, "keypair", db_keypairs, ref)
        if not dry_run:
            db_keypairs.delete(tx, keypair.id)
    return keypair


def _keypair(cluster: Cluster, name: str, key: PublicKey) -> Keypair:
    return Keypair(
        id=cluster.ids.uuid(), name=name, key_type=key.key_type, public_key=key.text, fingerprint=key.fingerprint,
        created_at=cluster.clock.now())


def _insert(cluster: Cluster, keypair: Keypair) -> None:
    with cluster.db.write() as tx:
        if db_keypairs.by_name(tx, keypair.name):
            raise AlreadyExists("keypair", keypair.name)
        db_keypairs.insert(tx, keypair)


def _ed25519(comment: str) -> tuple[bytes, str]:
    """(private half as OpenSSH writes it, public line)."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return private, f"{public} {comment}"


def _check_writable(path: Path) -> None:
    if os.path.lexists(path):
        raise Conflict(f"{path} exists already; it is not overwritten", hint="--private-key FILE names another")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write {path}: the directory is not there, or not writable")


@contextlib.contextmanager
def _new_file(path: Path, content: bytes) -> Iterator[None]:
    """`path` with `content`, 0600 since it was opened; gone again if what is done inside fails."""
    _check_writable(path)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as failed:
        raise UsageError(f"cannot write {path}: {failed.strerror}") from None
    try:
        with os.fdopen(file, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise
