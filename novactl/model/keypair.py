"""Keypairs, and reading an OpenSSH public key. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from novactl.errors import UsageError
from novactl.model.project import DEFAULT_PROJECT

MAX_KEY_CHARS = 16_384
MAX_COMMENT_CHARS = 255
MIN_RSA_BITS = 2048


@dataclass(frozen=True, kw_only=True)
class Keypair:
    """A public SSH key that servers are given. The private half is never stored.

    `public_key` is `TYPE BASE64 [COMMENT]` on one line; `fingerprint` is as `ssh-keygen -l` shows it.
    """

    id: str
    name: str
    key_type: str
    public_key: str
    fingerprint: str
    created_at: float
    project_id: str = DEFAULT_PROJECT


class BadKey(UsageError):
    """What was given is not one OpenSSH public key."""

    code = "keypair"


@dataclass(frozen=True)
class PublicKey:
    key_type: str
    text: str
    fingerprint: str


_FIELDS: Mapping[str, tuple[str, ...]] = {
    "ssh-ed25519": ("key",),
    "ssh-rsa": ("exponent", "modulus"),
    "ecdsa-sha2-nistp256": ("curve", "point"),
    "ecdsa-sha2-nistp384": ("curve", "point"),
    "ecdsa-sha2-nistp521": ("curve", "point"),
    "sk-ssh-ed25519@openssh.com": ("key", "application"),
    "sk-ecdsa-sha2-nistp256@openssh.com": ("curve", "point", "application"),
}
"""Key types and the fields after the type (RFC 4253 6.6, RFC 5656 3.1, RFC 8709 4, OpenSSH PROTOCOL.u2f)."""
_POINT_BYTES: Mapping[bytes, int] = {b"nistp256": 65, b"nistp384": 97, b"nistp521": 133}


def parse_public_key(text: str) -> PublicKey:
    """One line of a `.pub` file -> the key, its fields checked against its type. Raises BadKey; never quotes a secret."""
    line = text.strip()
    if "PRIVATE KEY" in line:
        raise BadKey("this is a private key", hint="give the public half: the file ending in .pub, or `ssh-keygen -y -f FILE`")
    if not line:
        raise BadKey("the public key is empty")
    if len(line) > MAX_KEY_CHARS or "\n" in line or "\r" in line:
        raise BadKey("there is more than one key in it", hint="give one line: TYPE BASE64 [COMMENT]")
    key_type, _, rest = line.partition(" ")
    encoded, _, comment = rest.strip().partition(" ")
    comment = comment.strip()
    if key_type == "ssh-dss":
        raise BadKey("DSA keys are no longer accepted by OpenSSH", hint="ssh-keygen -t ed25519")
    if key_type not in _FIELDS:
        raise BadKey("not an OpenSSH public key", hint=f"one line, TYPE BASE64 [COMMENT]; types: {', '.join(_FIELDS)}")
    if not comment.isprintable() or len(comment) > MAX_COMMENT_CHARS:
        raise BadKey(f"the key's comment must be printable, at most {MAX_COMMENT_CHARS} characters")
    blob, fingerprint = _decoded(encoded)
    _check_fields(key_type, _fields(blob))
    return PublicKey(key_type, f"{key_type} {encoded} {comment}".rstrip(), fingerprint)


def _decoded(encoded: str) -> tuple[bytes, str]:
    """(the key's bytes, their fingerprint). Imports late: whoever lists keys need not hash them."""
    import base64
    import hashlib

    try:
        blob = base64.b64decode(encoded, validate=True)
    except ValueError:
        raise BadKey("the key's base64 is damaged", hint="copy the whole line") from None
    if base64.b64encode(blob).decode() != encoded:
        raise BadKey("the key's base64 is damaged", hint="copy the whole line")
    return blob, "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _fields(blob: bytes) -> list[bytes]:
    """The length-prefixed strings that make up the whole blob."""
    found, at = [], 0
    while at < len(blob):
        end = at + 4 + int.from_bytes(blob[at:at + 4], "big")
        if at + 4 > len(blob) or end > len(blob):
            raise BadKey("the key is cut short", hint="copy the whole line")
        found.append(blob[at + 4:end])
        at = end
    return found


def _check_fields(key_type: str, fields: list[bytes]) -> None:
    if not fields or fields[0] != key_type.encode():
        raise BadKey(f"the key says {key_type} but holds another type")
    if len(fields) != 1 + len(_FIELDS[key_type]):
        raise BadKey(f"the key does not have the fields of {key_type}", hint="copy the whole line")
    value = dict(zip(_FIELDS[key_type], fields[1:], strict=True))
    if "key" in value and len(value["key"]) != 32:
        raise BadKey(f"the key has {len(value['key'])} bytes; {key_type} has 32")
    if "modulus" in value:
        bits = int.from_bytes(value["modulus"], "big").bit_length()
        if bits < MIN_RSA_BITS:
            raise BadKey(f"an RSA key of {bits} bits is too short: at least {MIN_RSA_BITS}", hint="ssh-keygen -t ed25519")
    if "curve" in value:
        curve = value["curve"]
        if curve.decode("ascii", "replace") not in key_type or len(value["point"]) != _POINT_BYTES.get(curve):
            raise BadKey(f"the key's curve or point is not that of {key_type}")
