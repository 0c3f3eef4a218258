"""Keypairs: import a public key, or make a pair and hand out its private half once. The home of `cryptography`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from novactl.api.authority import Role, needs
from novactl.api.resolve import resolve
from novactl.api.secret_half import kept_if_recorded
from novactl.api.trial import changing
from novactl.cluster import Cluster
from novactl.db import keypairs as db_keypairs
from novactl.db.statements import Tx
from novactl.errors import AlreadyExists, Conflict, UsageError
from novactl.model.ids import check_name
from novactl.model.keypair import Keypair, PublicKey, parse_public_key
from novactl.model.project import DEFAULT_PROJECT


@dataclass(frozen=True, kw_only=True)
class CreatedKeypair:
    """`private_key_path` is where the private half was written, "" where a public key was imported."""

    keypair: Keypair
    private_key_path: str


@dataclass(frozen=True, kw_only=True)
class CreateKeypair:
    """`public_key` is the text of one to import; else a pair is made and its private half written to `private_key_path`."""

    name: str
    public_key: str | None = None
    private_key_path: Path | None = None
    project: str | None = None


@needs(Role.OPERATOR)
def create(cluster: Cluster, wanted: CreateKeypair, *, dry_run: bool = False) -> CreatedKeypair:
    """Import a public key, or make an ed25519 pair.

    The file is new, 0600 from its first moment; an existing one is never touched. A dry run of the latter shows no key:
    none was made. Raises BadKey, NotFound, AlreadyExists, QuotaExceeded, and Conflict or UsageError about the file.
    """
    name, public_key, private_key_path = check_name("keypair", wanted.name), wanted.public_key, wanted.private_key_path
    if (public_key is None) == (private_key_path is None):
        raise UsageError("give either a public key to import, or a file for the new private key")
    with cluster.db.read() as tx:
        project_id = _project(tx, wanted.project)
        _check_new(tx, name, project_id)
    if public_key is not None:
        keypair = _keypair(cluster, name, parse_public_key(public_key), project_id)
        if not dry_run:
            _insert(cluster, keypair, wanted)
        return CreatedKeypair(keypair=keypair, private_key_path="")
    assert private_key_path is not None
    path = Path(os.path.abspath(private_key_path.expanduser()))
    if dry_run:
        _check_writable(path)
        return CreatedKeypair(keypair=_keypair(cluster, name, PublicKey("ssh-ed25519", "", ""), project_id), private_key_path=str(path))
    private, public = _ed25519(f"novactl-{name}")
    keypair = _keypair(cluster, name, parse_public_key(public), project_id)
    _new_file(path, private)
    with kept_if_recorded(cluster, path, lambda tx: _is_recorded(tx, keypair)):
        _insert(cluster, keypair, wanted)
    return CreatedKeypair(keypair=keypair, private_key_path=str(path))


def list_keypairs(cluster: Cluster, *, project: str | None = None) -> tuple[Keypair, ...]:
    """By name; with `project` only that one's."""
    with cluster.db.read() as tx:
        only = _project(tx, project) if project else ""
        return tuple(keypair for keypair in db_keypairs.all_(tx) if not only or keypair.project_id == only)


def show(cluster: Cluster, ref: str) -> Keypair:
    with cluster.db.read() as tx:
        return resolve(tx, "keypair", db_keypairs, ref)


@needs(Role.OPERATOR)
def delete(cluster: Cluster, ref: str, *, dry_run: bool = False) -> Keypair:
    """Servers keep the key they were given."""
    with changing(cluster, "keypair.delete", dry_run=dry_run) as tx:
        keypair = resolve(tx, "keypair", db_keypairs, ref)
        db_keypairs.delete(tx, keypair.id)
        tx.on(keypair)
    return keypair


def _keypair(cluster: Cluster, name: str, key: PublicKey, project_id: str) -> Keypair:
    return Keypair(
        id=cluster.ids.uuid(), name=name, key_type=key.key_type, public_key=key.text, fingerprint=key.fingerprint,
        created_at=cluster.clock.now(), project_id=project_id)


def _project(tx: Tx, ref: str | None) -> str:
    """The id of the project that is named, or of the default one. Raises NotFound."""
    if ref is None:
        return DEFAULT_PROJECT
    from novactl.db import projects

    return resolve(tx, "project", projects, ref).id


def _check_new(tx: Tx, name: str, project_id: str) -> None:
    """Raises AlreadyExists or QuotaExceeded."""
    from novactl.db import quotas

    if db_keypairs.by_name(tx, name):
        raise AlreadyExists("keypair", name)
    quotas.check(tx, project_id, "keypairs", 1)


def _insert(cluster: Cluster, keypair: Keypair, wanted: CreateKeypair) -> None:
    with changing(cluster, "keypair.create", wanted, dry_run=False) as tx:
        _check_new(tx, keypair.name, keypair.project_id)
        db_keypairs.insert(tx, keypair)
        tx.on(keypair, detail=keypair.fingerprint)


def _is_recorded(tx: Tx, keypair: Keypair) -> bool:
    """Also where it is being recorded at this moment: the row waited for is what `_check_new` has locked."""
    from novactl.db import projects

    projects.lock(tx, keypair.project_id)
    return db_keypairs.by_id(tx, keypair.id) is not None


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


def _new_file(path: Path, content: bytes) -> None:
    """`path` with `content`, 0600 since it was opened; there whole, or not at all."""
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
    except BaseException:
        path.unlink(missing_ok=True)
        raise
