"""This admin's CURVE key pair, made on this machine and kept here: the secret is never printed, sent or logged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from novactl.errors import BadConfig, NotInitialised


class KeyPair(NamedTuple):
    """Z85 text, 40 characters each (https://rfc.zeromq.org/spec/32/)."""

    public: str
    secret: str

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public!r})"


def ensure(keys_dir: Path) -> KeyPair:
    """The key pair in `keys_dir`, made when there is none. Calling it again changes nothing."""
    secret_file = keys_dir / "admin.secret"
    if not secret_file.exists():
        import zmq

        keys_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        public, secret = zmq.curve_keypair()
        try:
            with os.fdopen(os.open(secret_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
                out.write(f"{secret.decode()}\n{public.decode()}\n")
                out.flush()
                os.fsync(out.fileno())
        except FileExistsError:
            return load(keys_dir)
    return load(keys_dir)


def load(keys_dir: Path) -> KeyPair:
    """Raises NotInitialised where there is none, BadConfig where others could read it or it is damaged."""
    secret_file = keys_dir / "admin.secret"
    try:
        mode = secret_file.stat().st_mode & 0o777
        lines = secret_file.read_text(encoding="ascii").split("\n")
    except FileNotFoundError:
        raise NotInitialised(str(keys_dir.parent)) from None
    except (OSError, UnicodeDecodeError) as bad:
        raise BadConfig(f"cannot read the admin key {secret_file}: {bad}") from None
    if mode & 0o077:
        raise BadConfig(f"the admin key {secret_file} can be read by others (mode {mode:04o})", command=f"chmod 600 {secret_file}")
    if len(lines) < 2 or len(lines[0]) != 40 or len(lines[1]) != 40:
        raise BadConfig(
            f"the admin key {secret_file} is damaged", hint="restore it from a backup, or move it away and enrol the nodes again")
    return KeyPair(public=lines[1], secret=lines[0])
