"""Admins' keys: create, list, show, set, revoke, rotate. Each change goes to every node at once; those it does not reach get it first
thing when they are next asked for anything."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from novactl.agents import keys as key_files
from novactl.api.authority import Role, needs
from novactl.api.resolve import resolve
from novactl.api.secret_half import kept_if_recorded
from novactl.api.trial import Change, changing
from novactl.cluster import Cluster
from novactl.conductor import keyring
from novactl.db import admission, keys
from novactl.db.crossing import begun_anew
from novactl.db.statements import Tx
from novactl.errors import AlreadyExists, Conflict, UsageError
from novactl.model.ids import check_name
from novactl.model.key import AdminKey, check_public_key

MAX_KEYS = 256
"""So many an agent takes."""


@dataclass(frozen=True, kw_only=True)
class KeyView:
    """`status`: active, or revoked. `used_at` is when it last began an operation, None for never. `unreached` are the nodes that have
    not been told of the change that was just made, each with the reason; `secret_file` is where a new secret half was written."""

    id: str
    name: str
    role: str
    status: str
    public_key: str
    created_at: float
    created_by: str
    used_at: float | None
    revoked_at: float | None
    is_own: bool
    unreached: Mapping[str, str] = field(default_factory=dict)
    secret_file: str = ""


@needs(Role.ADMIN)
def create(
    cluster: Cluster, *, name: str, role: Role, public_key: str | None = None, secret_file: Path | None = None, dry_run: bool = False,
) -> KeyView:
    """Make a key known: `public_key` of somebody who has made a pair, or a new pair whose secret half is written to `secret_file`.

    The file is new, 0600 from its first moment. Raises UsageError, AlreadyExists, Conflict.
    """
    check_name("key", name)
    if (public_key is None) == (secret_file is None):
        raise UsageError("give either a public key, or a file for the secret half of a new pair")
    path = Path(os.path.abspath(secret_file.expanduser())) if secret_file else None
    if path is not None and (os.path.lexists(path) or not os.access(path.parent, os.W_OK)):
        why = "it exists already" if os.path.lexists(path) else "the directory is not there, or not writable"
        raise UsageError(f"cannot write {path}: {why}")
    public = check_public_key(public_key) if public_key is not None else ""
    pair = None if path is None or dry_run else key_files.new()
    made = AdminKey(
        id=cluster.ids.uuid(), name=name, public_key=pair.public if pair else public, role=role, created_at=cluster.clock.now(),
        created_by=cluster.actor)
    wanted = {"name": name, "role": role, "public_key": made.public_key}
    with contextlib.ExitStack() as undo, changing(cluster, "key.create", wanted, dry_run=dry_run) as tx:
        keys.lock(tx)
        _check_new(tx, made)
        keys.insert(tx, made)
        _changed(cluster, tx, made)
        if pair is not None and path is not None:             # in the transaction: without the file there is no such key
            _write(path, pair)
            undo.enter_context(kept_if_recorded(cluster, path, lambda tx: _is_recorded(tx, made)))
    return _told(cluster, made, dry_run, secret_file=str(path or ""))


def list_keys(cluster: Cluster, *, all: bool = False) -> tuple[KeyView, ...]:
    """By name; with `all` the revoked ones too."""
    with cluster.db.read() as tx:
        last = keys.last_used(tx)
        return tuple(_view(cluster, key, last.get(key.public_key)) for key in keys.all_(tx) if all or key.revoked_at is None)


def show(cluster: Cluster, ref: str) -> KeyView:
    with cluster.db.read() as tx:
        found: AdminKey = resolve(tx, "key", keys, ref)
        return _view(cluster, found, keys.last_used(tx).get(found.public_key))


@needs(Role.ADMIN)
def set_(cluster: Cluster, ref: str, *, role: Role, dry_run: bool = False) -> KeyView:
    """Give it another role; the same again changes nothing. Raises Conflict for the last admin's and for a revoked one."""
    with changing(cluster, "key.set", {"key": ref, "role": role}, dry_run=dry_run) as tx:
        found = _alone(cluster, tx, ref)
        changed = dataclasses.replace(found, role=role)
        if changed != found:
            keys.update(tx, changed)
        _changed(cluster, tx, changed, detail=f"{found.role} -> {role}", anew=changed != found)
    return _told(cluster, changed, dry_run)


@needs(Role.ADMIN)
def revoke(cluster: Cluster, ref: str, *, force: bool = False, dry_run: bool = False) -> KeyView:
    """From its next message on it is refused, on open connections too, by every node that could be reached, and by the others when
    they are next asked for anything.

    Raises Conflict for the last admin's key, and without `force` for one's own. Revoking a revoked one changes nothing.
    """
    with changing(cluster, "key.revoke", {"key": ref}, dry_run=dry_run) as tx:
        found = _alone(cluster, tx, ref, revoked=True)
        if found.public_key == cluster.key and not force:
            raise Conflict(f"key {found.name} is the one you use", hint="to change it: novactl key rotate; to be out for good: --force",
                           command="novactl key rotate")
        changed = dataclasses.replace(found, revoked_at=found.revoked_at or cluster.clock.now())
        if changed != found:
            keys.update(tx, changed)
        _changed(cluster, tx, changed, anew=changed != found)
        sent = keyring.Sending.of(cluster, tx)                # one's own key may be no admin's any more when it is sent
    return _told(cluster, changed, dry_run, sent)


@needs(Role.ADMIN)
def rotate(cluster: Cluster, *, dry_run: bool = False) -> KeyView:
    """Give oneself another key pair; the one before is revoked. Killed at any point, both are known or the old one is, and the same
    command goes on.

    The new key is made known beside the old one, then it is used, then the old one is revoked. The old secret half is kept (0600)
    as long as there are nodes that have not heard of the new key, to tell them. Raises Conflict while a rotation before
    this one is not over on every node.
    """
    folder = cluster.config.data_dir / "keys"
    mine = _before_rotation(cluster, folder)
    if dry_run:
        return _told(cluster, mine, True)
    former = key_files.former(folder)
    if former is None or former.public == cluster.key:        # else: a process died when it had the new key already
        pair = key_files.next_pair(folder)
        _introduce(cluster, mine, pair.public)
        keyring.push_to_all(cluster)
        key_files.promote(folder)
        former = key_files.former(folder)
        cluster.forget_key()
        cluster.agents.rekey()
    assert former is not None
    return _told(cluster, _retire(cluster, former.public), False)


@begun_anew
def _retire(cluster: Cluster, former: str) -> AdminKey:
    """Revoke the key before; the one in its place."""
    with changing(cluster, "key.rotate", {}, dry_run=False) as tx:
        keys.lock(tx)
        old, new = keys.by_public(tx, former), keys.by_public(tx, cluster.key)
        if old is None or new is None:
            raise Conflict("the key that is being rotated is not in the database", command="novactl key list")
        keys.update(tx, dataclasses.replace(old, revoked_at=cluster.clock.now()))
        _changed(cluster, tx, new, detail=f"in place of {old.name}")
        return new


def _before_rotation(cluster: Cluster, folder: Path) -> AdminKey:
    """One's own key. Raises Conflict while nodes wait for the end of the rotation before."""
    with cluster.db.read() as tx:
        mine = keyring.own(tx, cluster)
        if mine is None:
            raise Conflict("your key is not in the database", command="novactl key list")
        former = key_files.former(folder)
        known = keys.by_public(tx, former.public) if former and former.public != cluster.key else None
        if known is not None and known.revoked_at is not None:
            waiting = [node.name for node in keyring.behind(tx)]
            if waiting:
                raise Conflict(
                    f"the rotation before is not over: {', '.join(waiting)} have not heard of it, and know only the key before",
                    hint="they are told when they answer: novactl node list. One that is gone for good: novactl node remove NODE --lost",
                    command="novactl node list")
    keyring.forget_former(cluster)
    return mine


@begun_anew
def _introduce(cluster: Cluster, mine: AdminKey, public_key: str) -> None:
    """The new key bears the name from now on, with the same role. Done already: nothing changes."""
    with cluster.db.write() as tx:
        keys.lock(tx)
        if keys.by_public(tx, public_key) is not None:
            return
        admission.check(tx, cluster.key, Role.ADMIN, "keys.rotate")
        keys.update(tx, dataclasses.replace(mine, name=_freed(mine)))
        keys.insert(tx, AdminKey(
            id=cluster.ids.uuid(), name=mine.name, public_key=public_key, role=mine.role, created_at=cluster.clock.now(),
            created_by=cluster.actor))
        keys.raise_version(tx)


def _check_new(tx: Tx, made: AdminKey) -> None:
    """Raises AlreadyExists, Conflict. A revoked key gives its name up."""
    there = keys.by_name(tx, made.name)
    if there is not None and there.revoked_at is None:
        raise AlreadyExists("key", made.name)
    if there is not None:
        keys.update(tx, dataclasses.replace(there, name=_freed(there)))
    twin = keys.by_public(tx, made.public_key) if made.public_key else None
    if twin is not None:
        raise Conflict(
            f"this public key is {twin.name}'s" + (", and was revoked" if twin.revoked_at is not None else ""),
            command=f"novactl key show {twin.name}")
    if len(keys.active(tx)) >= MAX_KEYS:
        raise Conflict(f"there are {MAX_KEYS} keys already, and agents take no more", command="novactl key list")


def _is_recorded(tx: Tx, made: AdminKey) -> bool:
    keys.lock(tx)
    return keys.by_public(tx, made.public_key) is not None


def _freed(key: AdminKey) -> str:
    return f"{key.name[:54]}.{key.id[:8]}"


def _alone(cluster: Cluster, tx: Tx, ref: str, *, revoked: bool = False) -> AdminKey:
    """The key to change, nobody else changing any, and at least one admin's left beside it. Raises Conflict, Denied."""
    keys.lock(tx)
    admission.check(tx, cluster.key, Role.ADMIN, "changing keys")
    found: AdminKey = resolve(tx, "key", keys, ref)
    if found.revoked_at is not None and not revoked:
        raise Conflict(f"key {found.name} was revoked", command=f"novactl key create {found.name} --role {found.role}")
    return found


def _changed(cluster: Cluster, tx: Change, key: AdminKey, *, detail: str = "", anew: bool = True) -> None:
    """Note it, and see that an admin is left. Raises Conflict."""
    tx.on(key, detail=detail or f"{key.name} ({key.role})")
    if not any(other.role is Role.ADMIN for other in keys.active(tx)):
        raise Conflict(
            f"key {key.name} is the last admin's: nobody could change keys or nodes any more",
            command="novactl key create NAME --role admin")
    if anew:
        keys.raise_version(tx)


def _told(
    cluster: Cluster, key: AdminKey, dry_run: bool, sent: keyring.Sending | None = None, *, secret_file: str = "",
) -> KeyView:
    """The key as it is now, once every node that answers has been told."""
    unreached = {} if dry_run else keyring.push_to_all(cluster, sent)
    return dataclasses.replace(_view(cluster, key, None), unreached=unreached, secret_file=secret_file)


def _view(cluster: Cluster, key: AdminKey, used_at: float | None) -> KeyView:
    return KeyView(
        id=key.id, name=key.name, role=key.role.value, status="active" if key.revoked_at is None else "revoked", public_key=key.public_key,
        created_at=key.created_at, created_by=key.created_by, used_at=used_at, revoked_at=key.revoked_at,
        is_own=key.public_key == cluster.key)


def _write(path: Path, pair: key_files.KeyPair) -> None:
    try:
        key_files.write(path, pair)
    except OSError as failed:
        raise UsageError(f"cannot write {path}: {failed.strerror}") from None
