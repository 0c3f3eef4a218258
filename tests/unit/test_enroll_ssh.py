"""Whose host key is believed, over a real SSH server of our own (paramiko's) on loopback."""

import base64
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import paramiko
import pytest

from novactl.enroll import ssh
from novactl.enroll.request import HostKey
from novactl.errors import HostKeyChanged, HostKeyUnknown, SshDenied, Unreachable, UsageError


class _OneKey(paramiko.ServerInterface):
    """Admits one public key; runs no command."""

    def __init__(self, admitted: str) -> None:
        self.admitted = admitted

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.AUTH_SUCCESSFUL if key.get_base64() == self.admitted else paramiko.AUTH_FAILED

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"


class Server:
    """Serves SSH with `host_key` until closed; counts the logins tried."""

    def __init__(self, host_key: paramiko.PKey, admitted: str) -> None:
        self.host_key, self.admitted = host_key, admitted
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            transport = paramiko.Transport(connection)
            transport.add_server_key(self.host_key)
            try:
                transport.start_server(server=_OneKey(self.admitted))
            except (paramiko.SSHException, EOFError, OSError):
                transport.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("keys")
    from cryptography.hazmat.primitives import serialization as ser
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    for name in ("host", "other_host", "user", "stranger"):
        raw = Ed25519PrivateKey.generate().private_bytes(ser.Encoding.PEM, ser.PrivateFormat.OpenSSH, ser.NoEncryption())
        (folder / name).write_bytes(raw)
    locked = Ed25519PrivateKey.generate().private_bytes(ser.Encoding.PEM, ser.PrivateFormat.OpenSSH, ser.BestAvailableEncryption(b"pw"))
    (folder / "locked").write_bytes(locked)
    return {path.name: path for path in folder.iterdir()}


def public(path: Path) -> str:
    key = paramiko.PKey.from_path(path)
    return f"{key.get_name()} {key.get_base64()}"


@pytest.fixture
def server(keys: dict[str, Path]) -> Iterator[Server]:
    made = Server(paramiko.PKey.from_path(keys["host"]), paramiko.PKey.from_path(keys["user"]).get_base64())
    yield made
    made.close()


@pytest.fixture
def target(server: Server, keys: dict[str, Path]) -> ssh.Target:
    return ssh.Target(host="127.0.0.1", port=server.port, user="root", identity=keys["user"])


def known_hosts(tmp_path: Path, target: ssh.Target, *keys: str, mark: str = "") -> tuple[Path, ...]:
    file = tmp_path / "known_hosts"
    marked = f"@cert-authority * {keys[0]}\n* not a key\n" if keys else ""
    file.write_text("# a comment\n\n" + marked + "".join(f"{mark}[{target.host}]:{target.port} {key}\n" for key in keys))
    return (tmp_path / "there is none", file)


def test_an_unknown_key_is_refused(target: ssh.Target, keys: dict[str, Path]) -> None:
    """Nobody vouches: HostKeyUnknown (exit 8) with the fingerprint, and how to read it on the console."""
    with pytest.raises(HostKeyUnknown) as refused:
        ssh.connect(target)
    fingerprint = ssh.fingerprint_of(public(keys["host"]))
    assert refused.value.exit_status == 8
    assert fingerprint in refused.value.message and refused.value.command == f"--host-key {fingerprint}"
    assert "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub" in refused.value.hint


def test_a_fingerprint_vouches(target: ssh.Target, keys: dict[str, Path]) -> None:
    """The right one connects and the verified key comes back to be pinned; another is HostKeyChanged (exit 4)."""
    right = ssh.fingerprint_of(public(keys["host"]))
    shell = ssh.connect(replace(target, fingerprint=right))
    assert shell.host_key == public(keys["host"])
    shell.close()
    with pytest.raises(HostKeyChanged) as refused:
        ssh.connect(replace(target, fingerprint=ssh.fingerprint_of(public(keys["other_host"]))))
    assert refused.value.exit_status == 4


def test_the_pinned_key_and_no_other(target: ssh.Target, keys: dict[str, Path], tmp_path: Path) -> None:
    """A pin decides alone: a changed key is refused with both fingerprints, whatever known_hosts, TOFU or a person say."""
    ssh.connect(replace(target, pinned=public(keys["host"]))).close()
    with pytest.raises(HostKeyChanged) as refused:
        ssh.connect(replace(
            target, pinned=public(keys["other_host"]), accept_new=True, confirm=lambda key: True,
            known_hosts=known_hosts(tmp_path, target, public(keys["host"])),
        ))
    shown = " ".join(refused.value.reasons)
    assert ssh.fingerprint_of(public(keys["host"])) in shown and ssh.fingerprint_of(public(keys["other_host"])) in shown


def test_a_pin_is_overruled_by_the_callers_own_word(target: ssh.Target, keys: dict[str, Path]) -> None:
    """After a reinstallation, --host-key with the new fingerprint is enough."""
    ssh.connect(replace(target, pinned=public(keys["other_host"]), fingerprint=ssh.fingerprint_of(public(keys["host"])))).close()


def test_known_hosts(target: ssh.Target, keys: dict[str, Path], tmp_path: Path) -> None:
    """A key in known_hosts connects; another one there for this host is HostKeyChanged; a revoked one never connects."""
    ssh.connect(replace(target, known_hosts=known_hosts(tmp_path, target, public(keys["host"])))).close()
    with pytest.raises(HostKeyChanged):
        ssh.connect(replace(target, accept_new=True, known_hosts=known_hosts(tmp_path, target, public(keys["other_host"]))))
    revoked = known_hosts(tmp_path, target, public(keys["host"]), mark="@revoked ")
    with pytest.raises(HostKeyUnknown, match="revoked"):
        ssh.connect(replace(target, accept_new=True, known_hosts=revoked))


def test_hashed_known_hosts(target: ssh.Target, keys: dict[str, Path], tmp_path: Path) -> None:
    """Host names hashed as OpenSSH does are found too."""
    name = paramiko.HostKeys.hash_host(f"[{target.host}]:{target.port}")
    file = tmp_path / "hashed"
    file.write_text(f"{name} {public(keys['host'])}\n")
    ssh.connect(replace(target, known_hosts=(file,))).close()


def test_a_person_may_vouch(target: ssh.Target, keys: dict[str, Path]) -> None:
    """Asked with host and fingerprint; yes connects, no is HostKeyUnknown."""
    asked: list[HostKey] = []
    ssh.connect(replace(target, confirm=lambda key: not asked.append(key))).close()
    assert asked == [HostKey("127.0.0.1", target.port, "ssh-ed25519", ssh.fingerprint_of(public(keys["host"])))]
    with pytest.raises(HostKeyUnknown):
        ssh.connect(replace(target, confirm=lambda key: False))


def test_trust_on_first_use_is_said(target: ssh.Target) -> None:
    """--accept-new connects, and the log calls it unverified."""
    lines: list[str] = []
    ssh.connect(replace(target, accept_new=True), lines.append).close()
    assert "UNVERIFIED" in lines[0]


def test_a_key_that_is_not_admitted(target: ssh.Target, keys: dict[str, Path]) -> None:
    """SshDenied (exit 8) names the key file and the ways out."""
    with pytest.raises(SshDenied) as refused:
        ssh.connect(replace(target, accept_new=True, identity=keys["stranger"]))
    assert refused.value.exit_status == 8
    assert str(keys["stranger"]) in refused.value.reasons[0] and "--identity" in refused.value.hint


def test_identity_files_that_cannot_be_used(target: ssh.Target, keys: dict[str, Path], tmp_path: Path) -> None:
    """One that is missing or no key is a usage error, one with a passphrase says ssh-add."""
    (tmp_path / "text").write_text("not a key")
    for path in (tmp_path / "nothing", tmp_path / "text"):
        with pytest.raises(UsageError):
            ssh.connect(replace(target, accept_new=True, identity=path))
    with pytest.raises(SshDenied, match="passphrase"):
        ssh.connect(replace(target, accept_new=True, identity=keys["locked"]))


def test_nobody_listens_and_something_else_listens(target: ssh.Target) -> None:
    """Both are Unreachable (exit 6), in time."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(Unreachable):
            ssh.connect(replace(target, port=silent.getsockname()[1], timeout_s=0.5))
        free = silent.getsockname()[1]
    with pytest.raises(Unreachable) as refused:
        ssh.connect(replace(target, port=free, timeout_s=0.5))
    assert refused.value.exit_status == 6


@pytest.mark.parametrize(("text", "expected"), [
    ("root@h1", ("root", "h1", 22)), ("root@h1:2222", ("root", "h1", 2222)), ("a@[::1]:2222", ("a", "::1", 2222)),
    ("a@fe80::1", ("a", "fe80::1", 22)), ("a@b@h", ("a@b", "h", 22)),
])
def test_targets(text: str, expected: tuple[str, str, int]) -> None:
    """[user@]host with a port and with IPv6 addresses."""
    found = ssh.parse_target(text)
    assert (found.user, found.host, found.port) == expected


@pytest.mark.parametrize("text", [
    "", "@h1", "root@", "root@h 1", "root@h1:x", "root@h1:0", "root@[::1", "-oProxyCommand=x", "a@-x", "a\x1b@h",
])
def test_targets_that_are_none(text: str) -> None:
    """Refused before anything is connected."""
    with pytest.raises(UsageError):
        ssh.parse_target(text)


def test_fingerprints_are_openssh_s() -> None:
    """The fingerprint is the one ssh-keygen -lf prints (known answer)."""
    blob = base64.b64encode(b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00 " + bytes(32)).decode()
    assert ssh.fingerprint_of(f"ssh-ed25519 {blob}") == "SHA256:kmYcvdi2GkPeWxB6XLjrZB8JHsy2Hm8luHMFp9GMvqk"
