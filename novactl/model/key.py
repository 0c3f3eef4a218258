from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from novactl.errors import UsageError

Z85_KEY = re.compile(r"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}\Z")


class Role(enum.StrEnum):
    """What an admin's key may do; weakest first, each may what the ones before it may."""

    READER = "reader"
    OPERATOR = "operator"
    ADMIN = "admin"

    def allows(self, needed: Role) -> bool:
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, kw_only=True)
class AdminKey:
    """Whose CURVE key it is (`public_key`, Z85) and what it may do. `created_by` is an operation's actor. Revoked for good."""

    id: str
    name: str
    public_key: str
    role: Role
    created_at: float
    created_by: str
    revoked_at: float | None = None


def check_public_key(text: str) -> str:
    """A CURVE public key in Z85 (https://rfc.zeromq.org/spec/32/). Raises UsageError."""
    if not Z85_KEY.match(text):
        raise UsageError(
            f"{text[:60]!r} is no public key: one is 40 characters of Z85",
            hint="`novactl init` prints it as admin_key, on the machine it is of")
    return text
