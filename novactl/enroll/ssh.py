"""The root shell over SSH. The only file that knows paramiko.

A host key is believed, in this order: it is the one pinned in the database; its fingerprint was given; it is in the
user's or the system's known_hosts; a person confirmed it; or `accept_new` was said. A key other than the one
known is HostKeyChanged, an unknown one HostKeyUnknown. Nothing is sent before that.
"""

from __future__ import annotations

import getpass
import logging
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from novactl.enroll.request import ConfirmHostKey, HostKey, ssh_name
from novactl.enroll.shell import Log, Output, Shell
from novactl.errors import HostKeyChanged, HostKeyUnknown, SshDenied, Unreachable, UsageError

if TYPE_CHECKING:
    import paramiko

SYSTEM_KNOWN_HOSTS = Path("/etc/ssh/ssh_known_hosts")
_ORDER = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-512", "rsa-sha2-256")
_READ = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where to connect, as whom, and by what its host key is believed.

    `pinned` is a whole public key (`ssh-ed25519 AAAA…`) from the database; `fingerprint` (`SHA256:…`) overrules it,
    being the caller's own word. `identity` is a private key file.
    """

    host: str
    port: int = 22
    user: str = ""
    identity: Path | None = None
    pinned: str = ""
    fingerprint: str = ""
    accept_new: bool = False
    confirm: ConfirmHostKey | None = None
    known_hosts: tuple[Path, ...] = ()
    timeout_s: float = 10.0

    @property
    def ssh(self) -> str:
        return ssh_name(self.user, self.host, self.port)


def parse_target(text: str, port: int | None = None) -> Target:
    """`[user@]host`, `[user@]host:port` or `[user@][v6]:port`. The user defaults to the caller's own. Raises UsageError."""
    user, at, rest = text.rpartition("@")
    host, given = rest, ""
    if rest.startswith("["):
        host, closed, given = rest[1:].partition("]")
        given = given[1:] if given.startswith(":") else given
        if not closed:
            raise UsageError(f"{text!r} is not [user@]host")
    elif rest.count(":") == 1:
        host, _, given = rest.partition(":")
    if not host or (at and not user) or host.startswith("-") or any(c.isspace() or not c.isprintable() for c in text):
        raise UsageError(f"{text!r} is not [user@]host")
    if given and not (given.isdecimal() and 0 < int(given) < 65536):
        raise UsageError(f"{given!r} in {text!r} is not a port")
    return Target(host=host, user=user or getpass.getuser(), port=port or int(given or 22))


def default_known_hosts(home: Path) -> tuple[Path, ...]:
    return (home / ".ssh" / "known_hosts", SYSTEM_KNOWN_HOSTS)


class SshShell(Shell):
    """A root shell on a machine behind SSH; `host_key` is the verified public key, to be pinned."""

    def __init__(self, transport: paramiko.Transport, target: Target, host_key: str, log: Log | None) -> None:
        super().__init__(log)
        self._transport = transport
        self.name = target.ssh
        self.host_key = host_key

    def _exec(self, line: str, stdin: bytes, timeout_s: float) -> Output:
        import paramiko

        deadline = time.monotonic() + timeout_s
        try:
            channel = self._transport.open_session(timeout=timeout_s)
        except (paramiko.SSHException, OSError, EOFError) as bad:
            raise Unreachable(f"{self.name}: the SSH connection is gone: {bad}") from None
        try:
            channel.exec_command(line)
            errors: list[bytes] = []
            other = threading.Thread(target=_drain, args=(channel.recv_stderr, errors), daemon=True)
            channel.settimeout(timeout_s)
            other.start()
            if stdin:
                _send(channel, stdin)
            channel.shutdown_write()
            output: list[bytes] = []
            while chunk := channel.recv(_READ):
                output.append(chunk)
                channel.settimeout(max(0.01, deadline - time.monotonic()))
            if not channel.status_event.wait(max(0.01, deadline - time.monotonic())):
                raise self._late(timeout_s)
            other.join(max(0.01, deadline - time.monotonic()))
            return Output.of(channel.recv_exit_status(), b"".join(output), b"".join(errors))
        except TimeoutError:
            raise self._late(timeout_s) from None
        except (paramiko.SSHException, OSError, EOFError) as bad:
            raise Unreachable(f"{self.name}: the SSH connection was lost: {bad}") from None
        finally:
            channel.close()

    def close(self) -> None:
        super().close()
        self._transport.close()


def _send(channel: paramiko.Channel, content: bytes) -> None:
    try:
        channel.sendall(content)
    except OSError as gone:
        if isinstance(gone, TimeoutError):
            raise
        # The command ended without reading all of its input; its exit status says why.


def _drain(recv: object, into: list[bytes]) -> None:
    try:
        while chunk := recv(_READ):  # type: ignore[operator]
            into.append(chunk)
    except OSError:
        pass


def connect(target: Target, log: Log | None = None) -> SshShell:
    """Connect, verify the host key, log in. Becoming root is the shell's `become_root`.

    Raises Unreachable, HostKeyUnknown, HostKeyChanged, SshDenied; UsageError for an identity file that is none.
    """
    import paramiko

    if not (logger := logging.getLogger("paramiko")).handlers:
        logger.addHandler(logging.NullHandler())              # what it logs is raised too; without a handler it is printed
    known = list(_known_keys(target))
    transport = _transport(target, [kind for kind, _ in known])
    try:
        offered = transport.get_remote_server_key()
        why = _believe(target, offered, known)
        if log:
            log(f"host key {offered.get_name()} {offered.fingerprint} of {target.ssh}: {why}")
        _authenticate(transport, target)
        transport.set_keepalive(15)
        return SshShell(transport, target, f"{offered.get_name()} {offered.get_base64()}", log)
    except (paramiko.SSHException, OSError, EOFError) as bad:
        transport.close()
        raise Unreachable(f"{target.ssh}: SSH failed: {bad}") from None
    except BaseException:
        transport.close()
        raise


def _transport(target: Target, kinds: Sequence[str]) -> paramiko.Transport:
    import paramiko

    try:
        sock = socket.create_connection((target.host, target.port), timeout=target.timeout_s)
    except OSError as bad:
        raise Unreachable(
            f"{target.ssh}: no SSH connection: {bad}", hint="is the machine up, and the name or address right?",
            command=f"ssh -p {target.port} {target.user}@{target.host} true",
        ) from None
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport = paramiko.Transport(sock)
    transport.banner_timeout = transport.auth_timeout = target.timeout_s
    options = transport.get_security_options()
    wanted = [k for kind in kinds for k in (("rsa-sha2-512", "rsa-sha2-256") if kind == "ssh-rsa" else (kind,))]
    options.key_types = tuple(dict.fromkeys(k for k in (*wanted, *_ORDER) if k in options.key_types))
    try:
        transport.start_client(timeout=target.timeout_s)
    except (paramiko.SSHException, OSError, EOFError) as bad:
        transport.close()
        raise Unreachable(f"{target.ssh}: what answers there does not speak SSH as it should: {bad}") from None
    return transport


# ---------------------------------------------------------------- whose key is it


def _known_keys(target: Target) -> Iterator[tuple[str, str]]:
    """(kind, key in base64) of every key on record for the host; the database's pin, if there is one, alone."""
    if target.pinned:
        kind, _, blob = target.pinned.partition(" ")
        yield kind, blob
        return
    name = target.host if target.port == 22 else f"[{target.host}]:{target.port}"
    for file in target.known_hosts:
        for kind, key in (_host_keys(file).lookup(name) or {}).items():
            yield kind, key.get_base64()


def _host_keys(file: Path) -> paramiko.HostKeys:
    """The plain lines of a known_hosts file; paramiko knows neither markers (`@cert-authority`, `@revoked`) nor bad lines."""
    import paramiko

    hosts = paramiko.HostKeys()
    for line in _lines(file):
        if not line.startswith(("#", "@")):
            try:
                entry = paramiko.hostkeys.HostKeyEntry.from_line(line)
            except (paramiko.hostkeys.InvalidHostKey, paramiko.SSHException, ValueError):
                continue
            for name in entry.hostnames if entry else ():
                hosts.add(name, entry.key.get_name(), entry.key)
    return hosts


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return []


def _revoked(target: Target, blob: str) -> bool:
    return any(line.startswith("@revoked") and blob in line.split() for file in target.known_hosts for line in _lines(file))


def _believe(target: Target, offered: paramiko.PKey, known: Sequence[tuple[str, str]]) -> str:
    """Why the offered key is this host's. Raises HostKeyChanged or HostKeyUnknown."""
    key = HostKey(target.host, target.port, offered.get_name(), offered.fingerprint)
    if _revoked(target, offered.get_base64()):
        raise HostKeyUnknown(f"the host key {key.fingerprint} that {target.ssh} offers is marked @revoked in known_hosts")
    if target.fingerprint:
        if target.fingerprint.rstrip("=") == key.fingerprint:
            return "its fingerprint was given"
        raise _changed(target, key, [target.fingerprint])
    if known:
        if (key.kind, offered.get_base64()) in known:
            return "pinned" if target.pinned else "in known_hosts"
        raise _changed(target, key, [fingerprint_of(f"{kind} {blob}") for kind, blob in known])
    if target.accept_new:
        return "UNVERIFIED: accepted on first use (--accept-new)"
    if target.confirm is not None and target.confirm(key):
        return "confirmed at the terminal"
    raise HostKeyUnknown(
        f"the host key of {target.ssh} is not known: {key.kind} {key.fingerprint}",
        hint=f"compare it with what its own console prints: {key.read_it_with}", command=f"--host-key {key.fingerprint}",
        details={"fingerprint": key.fingerprint, "kind": key.kind},
    )


def _changed(target: Target, key: HostKey, known: Sequence[str]) -> HostKeyChanged:
    return HostKeyChanged(
        f"the host key of {target.ssh} is not the one on record: somebody may be in between",
        reasons=[*(f"on record: {fingerprint}" for fingerprint in known), f"offered:   {key.fingerprint} ({key.kind})"],
        hint=f"only if the machine was reinstalled: compare with what its own console prints ({key.read_it_with}),"
        f" then say --host-key {key.fingerprint}",
        details={"known": list(known), "offered": key.fingerprint},
    )


def fingerprint_of(public_key: str) -> str:
    """`ssh-ed25519 AAAA…` -> `SHA256:…` (as OpenSSH prints it)."""
    import base64
    import hashlib

    blob = base64.b64decode(public_key.split()[1])
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


# ---------------------------------------------------------------- logging in


def _authenticate(transport: paramiko.Transport, target: Target) -> None:
    import paramiko

    tried: list[str] = []
    for origin, key in _keys(target, tried):
        try:
            if not transport.auth_publickey(target.user, key):
                return
            tried.append(f"{origin}: accepted, but the server asks for more than a key")
        except paramiko.BadAuthenticationType:
            tried.append(f"{origin}: the server takes no keys")
        except paramiko.AuthenticationException:
            tried.append(f"{origin} {key.fingerprint}: refused")
        if not transport.is_active():
            break
    refused = sum(": refused" in text for text in tried)
    raise SshDenied(
        f"{target.ssh} accepts none of {refused} keys offered" if refused else f"there is no SSH key to offer to {target.ssh}",
        reasons=tried, hint="name the right private key with --identity FILE, or put yours on the machine",
        command=f"ssh-copy-id -p {target.port} {target.user}@{target.host}",
    )


def _keys(target: Target, skipped: list[str]) -> Iterator[tuple[str, paramiko.PKey]]:
    """The key named, else the agent's and the user's default ones; why one is left out goes to `skipped`."""
    import paramiko

    if target.identity is not None:
        yield str(target.identity), _load(target.identity)
        return
    agent = paramiko.Agent()
    try:
        for key in agent.get_keys():
            yield "agent", key
    finally:
        agent.close()
    for name in ("id_ed25519", "id_ecdsa", "id_rsa"):
        file = Path.home() / ".ssh" / name
        if file.is_file():
            try:
                yield str(file), _load(file)
            except (SshDenied, UsageError) as bad:
                skipped.append(bad.message)


def _load(file: Path) -> paramiko.PKey:
    import paramiko

    try:
        return paramiko.PKey.from_path(file)
    except FileNotFoundError:
        raise UsageError(f"there is no private key {file}") from None
    except (paramiko.PasswordRequiredException, TypeError):
        raise SshDenied(f"the private key {file} has a passphrase", command=f"ssh-add {file}") from None
    except (paramiko.SSHException, OSError, ValueError) as bad:
        raise UsageError(f"{file} is not a private key that can be used: {bad}") from None
