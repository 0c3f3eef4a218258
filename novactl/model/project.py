from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

DEFAULT_PROJECT = "default"
"""The id, and the name, of the project that is there from the beginning."""
UNLIMITED = -1


class QuotaKind(NamedTuple):
    """`claimed`: its usage is counted with the claims, in their transaction."""

    unit: str
    claimed: bool
    help: str


QUOTAS: Mapping[str, QuotaKind] = {
    "servers": QuotaKind("", True, "servers that hold a claim"),
    "cores": QuotaKind("", True, "VCPU and PCPU of its servers"),
    "ram_mb": QuotaKind("MiB", True, "memory of its servers"),
    "disk_gb": QuotaKind("GiB", True, "root disks of its servers"),
    "volumes": QuotaKind("", False, "volumes"),
    "networks": QuotaKind("", False, "networks"),
    "keypairs": QuotaKind("", False, "key pairs"),
    "groups": QuotaKind("", False, "server groups"),
}


@dataclass(frozen=True, kw_only=True)
class Project:
    """Whose servers they are, and what limits hold for them together."""

    id: str
    name: str
    description: str
    created_at: float
