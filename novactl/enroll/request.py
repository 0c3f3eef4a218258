"""What enrolment is asked for, and what it answers. Light: imported by the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from novactl.model.finding import Finding


def ssh_name(user: str, host: str, port: int) -> str:
    """A machine as people and `node enroll` name it: `user@host:port`."""
    return f"{user}@[{host}]:{port}" if ":" in host else f"{user}@{host}:{port}"


@dataclass(frozen=True)
class HostKey:
    """An SSH host key as a person compares it: `kind` is `ssh-ed25519`, `fingerprint` `SHA256:…`."""

    host: str
    port: int
    kind: str
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.kind} {self.fingerprint} of {self.host}"

    @property
    def read_it_with(self) -> str:
        """The command that prints this key's fingerprint on the machine's own console."""
        name = {"ssh-ed25519": "ed25519", "ssh-rsa": "rsa"}.get(self.kind, "ecdsa")
        return f"ssh-keygen -lf /etc/ssh/ssh_host_{name}_key.pub"


SudoPassword = Callable[[], str]
ConfirmHostKey = Callable[[HostKey], bool]


@dataclass(frozen=True, kw_only=True)
class EnrollNode:
    """Enrol `target` (`[user@]host`), or this machine (`local`).

    `name` None: the machine's host name. `port` None: 22. `host_key` is a fingerprint (`SHA256:…`) the caller vouches
    for; `accept_new` trusts an unknown key on first use (never a changed one). `address` is the host at which the
    controllers reach the agent (None: the SSH host). `autostart`: after a boot of the host its servers start when a
    conductor has "confirmed" that they are still its own, or by the "local" agent at once (None: as before, at first the
    former). The callbacks are for a person at a terminal; None: nobody is there.
    """

    target: str = ""
    local: bool = False
    name: str | None = None
    zone: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    port: int | None = None
    identity: Path | None = None
    host_key: str | None = None
    accept_new: bool = False
    address: str | None = None
    agent_port: int | None = None
    autostart: str | None = None
    packages: bool = True
    sudo_password: SudoPassword | None = None
    confirm_host_key: ConfirmHostKey | None = None
    keep_on_failure: bool = False


@dataclass(frozen=True)
class EnrolPlan:
    """What was found and what would change (`--dry-run`); no changes: the machine is enrolled already."""

    node: str
    findings: tuple[Finding, ...]
    changes: tuple[str, ...]
