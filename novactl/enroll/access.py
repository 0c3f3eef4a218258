"""How to get back to a node's root shell: stored with it, its host key pinned."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from novactl.enroll.request import ConfirmHostKey, EnrollNode, SudoPassword, ssh_name
from novactl.enroll.shell import LocalShell, Log, Shell
from novactl.errors import UsageError

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}=?\Z")


@dataclass(frozen=True, kw_only=True)
class Access:
    """`host` "" means this machine. `host_key` is the pinned public key, `identity` a private key's path or ""."""

    host: str = ""
    port: int = 22
    user: str = ""
    identity: str = ""
    host_key: str = ""

    @property
    def ssh(self) -> str:
        """As the node's row says it: `user@host:port`, or `local`."""
        return ssh_name(self.user, self.host, self.port) if self.host else "local"


@dataclass(frozen=True, kw_only=True)
class Trust:
    """What may vouch for a host key beside the pin, and who may be asked."""

    fingerprint: str = ""
    accept_new: bool = False
    confirm: ConfirmHostKey | None = None
    sudo_password: SudoPassword | None = None


def requested(request: EnrollNode) -> tuple[Access, Trust]:
    """Where a request wants to go. Raises UsageError."""
    if request.host_key and not _FINGERPRINT.match(request.host_key):
        raise UsageError(f"{request.host_key!r} is not a fingerprint as ssh-keygen -lf prints it: SHA256: and 43 characters")
    if request.identity and not request.identity.is_file():
        raise UsageError(f"there is no private key {request.identity}")
    trust = Trust(fingerprint=request.host_key or "", accept_new=request.accept_new, confirm=request.confirm_host_key,
                  sudo_password=request.sudo_password)
    if request.local:
        return Access(), trust
    from novactl.enroll.ssh import parse_target

    target = parse_target(request.target, request.port)
    identity = str(request.identity.absolute()) if request.identity else ""
    return Access(host=target.host, port=target.port, user=target.user, identity=identity), trust


def open_shell(access: Access, trust: Trust, log: Log | None = None) -> Shell:
    """A root shell there. An identity that another admin's machine had and this one has not is passed over.

    Raises Unreachable, HostKeyUnknown, HostKeyChanged, SshDenied, UsageError."""
    shell: Shell
    if access.host:
        from novactl.enroll import ssh

        shell = ssh.connect(ssh.Target(
            host=access.host, port=access.port, user=access.user,
            identity=Path(access.identity) if access.identity and Path(access.identity).is_file() else None,
            pinned=access.host_key, fingerprint=trust.fingerprint, accept_new=trust.accept_new, confirm=trust.confirm,
            known_hosts=ssh.default_known_hosts(Path.home()),
        ), log)
    else:
        shell = LocalShell(log)
    try:
        shell.become_root(trust.sudo_password)
    except BaseException:
        shell.close()
        raise
    return shell
