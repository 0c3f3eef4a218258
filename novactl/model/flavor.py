from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Flavor:
    """A size of server. `disk_gb` 0 means as large as the image."""

    id: str
    name: str
    vcpus: int
    memory_mb: int
    disk_gb: int
    created_at: float
