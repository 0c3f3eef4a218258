"""What a machine is to become, and the files' contents that follow from it. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from novactl.enroll import paths
from novactl.enroll.facts import Facts

CONFIRMED, LOCAL = "confirmed", "local"


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What the machine is to be. `admins`: CURVE public key -> name and role; `admins_version` is that table's. `peer`: whom the
    firewall must let in."""

    node_id: str
    cluster_id: str
    name: str
    version: str
    bundle_folder: str
    bundle_sha256: str
    admins: Mapping[str, Mapping[str, str]]
    admins_version: int = 0
    port: int = 7766
    report_interval_s: float = 10.0
    autostart: str = CONFIRMED
    packages: bool = True
    peer: str = ""


@dataclass(frozen=True, kw_only=True)
class Others:
    """What is known of the cluster's nodes: machine id, host name and node id -> the name of the node that has it."""

    machine_ids: Mapping[str, str] = field(default_factory=dict)
    hostnames: Mapping[str, str] = field(default_factory=dict)
    ids: Mapping[str, str] = field(default_factory=dict)


def config_text(goal: Goal) -> str:
    """config.json (nodeagent.config.Config)."""
    return json.dumps({
        "node_id": goal.node_id, "cluster_id": goal.cluster_id, "name": goal.name, "listen": f"tcp://0.0.0.0:{goal.port}",
        "keys_dir": paths.KEYS_DIR, "admins_file": paths.ADMINS_FILE, "state_dir": paths.STATE_DIR,
        "pool_name": paths.POOL_NAME, "pool_dir": paths.POOL_DIR, "driver": "libvirt", "libvirt_uri": "qemu:///system",
        "virt_type": "auto", "report_interval_s": goal.report_interval_s,
        **({"autostart": goal.autostart} if goal.autostart != CONFIRMED else {}),
    }, indent=1) + "\n"


def admins_text(goal: Goal) -> str:
    """admins.json: the cluster's whole table and its version (nodeagent.admins)."""
    keys = {key: dict(entry) for key, entry in sorted(goal.admins.items())}
    return json.dumps({"version": goal.admins_version, "keys": keys}, indent=1) + "\n"


def same_admins(facts: Facts, goal: Goal) -> bool:
    """Whether the node has that table, whoever wrote it there."""
    return parsed(facts.installed.admins) == parsed(admins_text(goal))


def admins_version(facts: Facts) -> int:
    """Of the node's table; 0 where it has none, or one without a version."""
    version = parsed(facts.installed.admins).get("version", 0)
    return version if isinstance(version, int) else 0


def run_user(facts: Facts) -> str:
    """Whose process the agent is: its own user's under systemd, root's elsewhere."""
    return paths.USER if facts.systemd else "root"


def read_config(facts: Facts) -> Mapping[str, Any]:
    return parsed(facts.installed.config)


def parsed(text: str) -> dict[str, Any]:
    """A file of JSON; empty for one that is none."""
    try:
        plain = json.loads(text or "{}")
    except ValueError:
        return {}
    return plain if isinstance(plain, dict) else {}


def kvm_closed(facts: Facts) -> bool:
    """/dev/kvm is there, but QEMU's user cannot open it: then libvirt probes QEMU anew at every start (a minute each)."""
    if not facts.kvm_device:
        return False
    mode, _, group = facts.kvm_device.split()
    bits = int(mode, 8)
    return not (bits & 0o006 == 0o006 or (group == "kvm" and bits & 0o060 == 0o060))


def nft_rule(goal: Goal) -> tuple[str, ...]:
    family = "ip6" if ":" in goal.peer else "ip"
    source = (family, "saddr", goal.peer) if goal.peer else ()
    return (*source, "tcp", "dport", str(goal.port), "accept", "comment", '"novactl"')
