from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ZONE_KEY = "availability_zone"
"""The metadata key that makes an aggregate's members a zone, as in Nova."""


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """A named set of nodes with metadata that filters and weighers read. A node may be in several."""

    id: str
    name: str
    metadata: Mapping[str, str]
    created_at: float
