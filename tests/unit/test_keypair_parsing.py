"""Public keys as people paste them, against what ssh-keygen says of the same."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novactl.model.keypair import BadKey, parse_public_key


def keygen(directory: Path, *arguments: str) -> Path:
    subprocess.run(
        ["ssh-keygen", "-q", "-N", "", "-C", "alice@laptop", "-f", str(directory / "key"), *arguments], check=True, timeout=60)
    return directory / "key"


def line(key_type: str, *fields: bytes) -> str:
    blob = b"".join(len(f).to_bytes(4, "big") + f for f in (key_type.encode(), *fields))
    return f"{key_type} {base64.b64encode(blob).decode()}"


ED25519 = line("ssh-ed25519", bytes(range(32)))


@pytest.mark.parametrize("arguments", [
    ("-t", "ed25519"), ("-t", "rsa", "-b", "2048"), ("-t", "ecdsa", "-b", "256"), ("-t", "ecdsa", "-b", "384"),
    ("-t", "ecdsa", "-b", "521"),
], ids=lambda a: "-".join(a[1::2]))
def test_keys_of_ssh_keygen(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Every type OpenSSH makes is taken, kept as it is, with the fingerprint `ssh-keygen -l` shows."""
    private = keygen(tmp_path, *arguments)
    text = private.with_suffix(".pub").read_text()
    key = parse_public_key(text)
    shown = subprocess.run(
        ["ssh-keygen", "-lf", f"{private}.pub"], check=True, capture_output=True, text=True, timeout=60).stdout.split()
    assert key.fingerprint == shown[1] and key.text == text.strip() and text.startswith(key.key_type)
    with pytest.raises(BadKey, match="this is a private key") as refused:
        parse_public_key(private.read_text())
    assert private.read_text().splitlines()[1] not in str(refused.value.as_dict())


def test_security_keys() -> None:
    """Keys of FIDO tokens are taken."""
    assert parse_public_key(line("sk-ssh-ed25519@openssh.com", bytes(32), b"ssh:")).key_type == "sk-ssh-ed25519@openssh.com"
    assert parse_public_key(line("sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256", bytes(65), b"ssh:"))


@pytest.mark.parametrize(("given_text", "text"), [
    (f"  {ED25519}  alice's   key \n", f"{ED25519} alice's   key"), (ED25519, ED25519), (f"{ED25519} ", ED25519),
    (f"{ED25519} été", f"{ED25519} été"),
])
def test_comments_and_blanks(given_text: str, text: str) -> None:
    """Blanks around are dropped; a comment is kept, or may be missing."""
    assert parse_public_key(given_text).text == text


BLOB = ED25519.split()[1]


@pytest.mark.parametrize(("text", "said"), [
    ("", "is empty"), (" \n", "is empty"), ("hello", "not an OpenSSH public key"), (f"{ED25519}\n{ED25519}", "more than one key"),
    (f"ssh-ed25519 {BLOB[:-1]}", "base64 is damaged"), (f"ssh-ed25519 {BLOB[:-4]}", "cut short"),
    ("ssh-ed25519", "holds another type"),
    (f"ssh-rsa {BLOB}", "holds another type"), (f"ssh-ed25519 {BLOB[:20]}!{BLOB[21:]}", "base64 is damaged"),
    (f"command=\"x\" {ED25519}", "not an OpenSSH public key"), ("ssh-dss AAAA", "DSA"), (f"{ED25519} a\x1b[31mb", "comment"),
    (f"{ED25519} {'c' * 256}", "comment"), ("x" * 20_000, "more than one key"), (line("ssh-ed25519", bytes(31)), "31 bytes"),
    (line("ssh-ed25519", bytes(32), b""), "fields of ssh-ed25519"), (line("ssh-ed25519"), "fields of ssh-ed25519"),
    (line("ssh-rsa", b"\1\0\1", b"\xff" * 128), "1024 bits is too short"),
    (line("ecdsa-sha2-nistp256", b"nistp384", bytes(97)), "curve or point"),
    (line("ecdsa-sha2-nistp256", b"nistp256", bytes(64)), "curve or point"),
    (line("ecdsa-sha2-nistp256", b"", bytes(65)), "curve or point"), ("ssh-ed25519 é", "base64 is damaged"),
])
def test_what_is_refused(text: str, said: str) -> None:
    """Anything but one whole public key is refused, saying what is wrong."""
    with pytest.raises(BadKey, match=said):
        parse_public_key(text)


@settings(deadline=None)
@given(st.text(max_size=200) | st.binary(max_size=120).map(lambda b: f"ssh-ed25519 {base64.b64encode(b).decode()}"))
def test_any_text_is_a_key_or_refused(text: str) -> None:
    """Whatever is pasted, the answer is a key or BadKey."""
    try:
        assert "\n" not in parse_public_key(text).text
    except BadKey:
        pass
