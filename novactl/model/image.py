from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

GIB = 1 << 30
DISK_FORMATS = ("qcow2", "raw")


@dataclass(frozen=True, kw_only=True)
class Image:
    """A bootable disk, checked at intake and stored under its SHA-256. Sizes in bytes.

    `virtual_size_bytes` is the disk a guest sees. `source` is the file or URL it came from. `properties` say what
    its servers need (novactl.model.extra_specs).
    """

    id: str
    name: str
    sha256: str
    disk_format: str
    size_bytes: int
    virtual_size_bytes: int
    architecture: str
    source: str
    created_at: float
    properties: Mapping[str, str] = field(default_factory=dict)

    @property
    def min_disk_gb(self) -> int:
        return -(-self.virtual_size_bytes // GIB)


@dataclass(frozen=True, kw_only=True)
class CreateImage:
    """An image to take in. `source` is a path or an http(s) URL; `disk_format` and `checksum` are claims to be checked."""

    name: str
    source: str
    disk_format: str | None = None
    checksum: str | None = None
    architecture: str = "x86_64"
    properties: Mapping[str, str] = field(default_factory=dict)
