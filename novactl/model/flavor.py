from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Flavor:
    """A size of server. `disk_gb` 0 means as large as the image. `specs` are Nova's extra specs (novactl.model.extra_specs)."""

    id: str
    name: str
    vcpus: int
    memory_mb: int
    disk_gb: int
    created_at: float
    specs: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
