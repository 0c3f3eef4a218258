"""This admin's CURVE key pair, made on this machine and kept here: the secret is never printed, sent or logged.

In the data directory, `keys/admin.secret` is the pair in use. While it is changed, `admin.secret.next` is the one to come; afterwards
`admin.secret.former` is the one before, as long as there are nodes that know no other.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

from novactl.errors import BadConfig, Conflict, NotInitialised


class KeyPair(NamedTuple):
    """Z85 text, 40 characters each (https://rfc.zeromq.org/spec/32/)."""

    public: str
    secret: str

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public!r})"


SECRET, NEXT, FORMER = "admin.secret", "admin.secret.next", "admin.secret.former"


def ensure(keys_dir: Path) -> KeyPair:
    """The key pair in `keys_dir`, made when there is none. Calling it again changes nothing."""
    secret_file = keys_dir / SECRET
    if not secret_file.exists():
        keys_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            write(secret_file, new())
    return load(keys_dir)


def new() -> KeyPair:
    """A pair nobody has."""
    import zmq

    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode(), secret.decode())


def write(path: Path, pair: KeyPair) -> None:
    """A new file, 0600 from its first moment whatever the umask, whole or not there at all, and on disk before this returns.

    Raises FileExistsError, OSError.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(part)                                       # of a process that died and had the same number
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as out:
            out.write(f"{pair.secret}\n{pair.public}\n")
            out.flush()
            os.fsync(out.fileno())
        os.link(part, path)
    finally:
        os.unlink(part)
    _sync(path.parent)


def load(keys_dir: Path) -> KeyPair:
    """The pair in use. Raises NotInitialised where there is none, BadConfig where others could read it or it is damaged."""
    try:
        return read(keys_dir / SECRET)
    except FileNotFoundError:
        raise NotInitialised(str(keys_dir.parent)) from None


def read(path: Path) -> KeyPair:
    """The pair in a file that `write` made. Raises FileNotFoundError, BadConfig."""
    try:
        with open(path, encoding="ascii") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            lines = file.read(256).split("\n")
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as bad:
        why = bad.strerror if isinstance(bad, OSError) else "it is not text"
        raise BadConfig(f"cannot read the admin key {path}: {why}") from None
    if mode & 0o077:
        raise BadConfig(f"the admin key {path} can be read by others (mode {mode:04o})", command=f"chmod 600 {path}")
    if len(lines) < 2 or len(lines[0]) != 40 or len(lines[1]) != 40:
        raise BadConfig(
            f"the admin key {path} is damaged", hint="restore it from a backup, or move it away, run `novactl init` for a new one, and have"
            " an admin make that known: novactl key create")
    return KeyPair(public=lines[1], secret=lines[0])


def adopt(path: Path, keys_dir: Path) -> KeyPair:
    """Use the pair in `path`, which another admin made, as this one's own. The same again changes nothing.

    Raises BadConfig where it cannot be read or does not fit together, Conflict where another pair is in use here.
    """
    import zmq

    try:
        pair = read(path)
        if zmq.curve_public(pair.secret.encode()).decode() != pair.public:
            raise BadConfig(f"the admin key {path} is damaged: its halves do not belong together")
    except (FileNotFoundError, ValueError, zmq.ZMQError):
        raise BadConfig(f"there is no admin key in {path}") from None
    keys_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        write(keys_dir / SECRET, pair)
    if load(keys_dir) != pair:
        raise Conflict(f"another admin key is in use here: {keys_dir / SECRET}", hint="use another NOVACTL_DATA_DIR, or move it away")
    return pair


# ---------------------------------------------------------------- changing it


def next_pair(keys_dir: Path) -> KeyPair:
    """The pair to come, made where there is none."""
    with contextlib.suppress(FileExistsError):
        write(keys_dir / NEXT, new())
    return read(keys_dir / NEXT)


def promote(keys_dir: Path) -> None:
    """The pair to come is the one in use, the one before is kept. At each moment one of them is in use; safe to repeat."""
    if not (keys_dir / NEXT).exists():
        return
    current = load(keys_dir)
    if former(keys_dir) != current:
        forget_former(keys_dir)
        write(keys_dir / FORMER, current)
    os.replace(keys_dir / NEXT, keys_dir / SECRET)
    _sync(keys_dir)


def former(keys_dir: Path) -> KeyPair | None:
    """The pair used before; None where it is no longer needed, or its file was never written to the end."""
    try:
        return read(keys_dir / FORMER)
    except (FileNotFoundError, BadConfig):
        return None


def forget_former(keys_dir: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(keys_dir / FORMER)
        _sync(keys_dir)


def _sync(folder: Path) -> None:
    """What was made in it, renamed or removed stays so after a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
