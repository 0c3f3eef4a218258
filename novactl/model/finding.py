from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One checked fact. `verdict` is ok, warn or fail; `fix` says what to do about the last two."""

    check: str
    verdict: str
    detail: str
    fix: str = ""
