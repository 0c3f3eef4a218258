"""The agent's configuration file: what it may hold, and nothing else."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Mapping

from nodeagent import wire

AUTOSTART = ("confirmed", "local")
DRIVERS = ("libvirt", "fake")
VIRT_TYPES = ("auto", "kvm", "qemu")


class BadConfig(ValueError):
    """The configuration cannot be used; the text says which key and why."""


@dataclass(frozen=True)
class Config:
    """What enrolment wrote. `fake` is read by the fake driver only (see drivers/fake.py)."""

    node_id: str
    cluster_id: str
    name: str
    listen: str = f"tcp://0.0.0.0:{wire.PORT}"
    keys_dir: str = "/etc/nodeagent/keys"
    admins_file: str = "/etc/nodeagent/admins.json"
    state_dir: str = "/var/lib/nodeagent"
    pool_name: str = "novactl"
    pool_dir: str = "/var/lib/libvirt/images/novactl"
    driver: str = "libvirt"
    libvirt_uri: str = "qemu:///system"
    virt_type: str = "auto"
    report_interval_s: float = 10.0
    autostart: str = "confirmed"
    """After a boot of the host: 'confirmed' servers start when a conductor says so, 'local' at once (see autostart.py)."""
    fake: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wire.check_uuid(self.node_id, "node_id")
        wire.check_uuid(self.cluster_id, "cluster_id")
        wire.check_name(self.name)
        wire.check_name(self.pool_name, "pool_name")
        if self.driver not in DRIVERS:
            raise wire.BadMessage(f"driver {self.driver!r} is not one of {', '.join(DRIVERS)}")
        if self.virt_type not in VIRT_TYPES:
            raise wire.BadMessage(f"virt_type {self.virt_type!r} is not one of {', '.join(VIRT_TYPES)}")
        if self.autostart not in AUTOSTART:
            raise wire.BadMessage(f"autostart {self.autostart!r} is not one of {', '.join(AUTOSTART)}")
        if not 0 < self.report_interval_s <= 3600:
            raise wire.BadMessage("report_interval_s must be more than 0 and at most 3600")
        for what in ("keys_dir", "admins_file", "state_dir", "pool_dir"):
            if not getattr(self, what).startswith("/"):
                raise wire.BadMessage(f"{what} must be an absolute path, not {getattr(self, what)!r}")


def parse(text: str) -> Config:
    """The text of config.json -> Config. Raises BadConfig naming the key; an unknown key is an error."""
    try:
        plain = json.loads(text)
    except ValueError as bad:
        raise BadConfig(f"not JSON: {bad}") from None
    if not isinstance(plain, dict):
        raise BadConfig("must be a JSON object")
    unknown = sorted(set(plain) - {f.name for f in dataclasses.fields(Config)})
    if unknown:
        raise BadConfig(f"unknown key {unknown[0]!r}")
    try:
        return wire.from_plain(Config, plain)
    except wire.BadMessage as bad:
        raise BadConfig(str(bad)) from None


def load(path: str) -> Config:
    """Read `path`. Raises BadConfig, naming the file."""
    try:
        with open(path, encoding="utf-8") as file:
            return parse(file.read())
    except OSError as bad:
        raise BadConfig(f"{path}: {bad.strerror}") from None
    except (BadConfig, UnicodeDecodeError) as bad:
        raise BadConfig(f"{path}: {bad}") from None
