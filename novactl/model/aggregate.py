from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

ZONE_KEY = "availability_zone"
"""The metadata key that makes an aggregate's members a zone, as in Nova."""
TENANTS = ("filter_tenant_id", "filter_project_id")
"""Keys that begin so name the projects that an aggregate's members are kept for."""
FLAVORS, MAX_SERVERS, MAX_IO_OPS = "instance_type", "max_instances_per_host", "max_io_ops_per_host"
TRAIT, REQUIRED = "trait:", "required"
"""`trait:TRAIT` = required, as flavors and images say it too."""


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """A named set of nodes with metadata that filters and weighers read. A node may be in several."""

    id: str
    name: str
    metadata: Mapping[str, str]
    created_at: float


def zone_of(own: str, metadata: Iterable[Mapping[str, str]]) -> str:
    """The zone of a node: its own word, else the first that its aggregates' metadata names; "" is none."""
    return own or next((zone for one in metadata if (zone := one.get(ZONE_KEY, ""))), "")
