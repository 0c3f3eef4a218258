from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Keypair:
    """A public SSH key that servers are given. The private half is never stored."""

    id: str
    name: str
    key_type: str
    public_key: str
    fingerprint: str
    created_at: float
