"""What travels about keys: the table of the admins' keys, and the node's own next key."""

from dataclasses import dataclass
from typing import Tuple

from nodeagent.codec import MAX_INT, BadMessage, shown
from nodeagent.messages import check_key, check_name

READER, OPERATOR, ADMIN = "reader", "operator", "admin"
ROLES = (READER, OPERATOR, ADMIN)
"""Weakest first: a role may do what the ones before it may."""
MAX_KEYS = 256


@dataclass(frozen=True)
class AdminKey:
    """One admin's key (Z85), whose it is, and what it may do."""

    public_key: str
    name: str
    role: str

    def __post_init__(self) -> None:
        check_key(self.public_key)
        check_name(self.name, "key name")
        if self.role not in ROLES:
            raise BadMessage(f"role {shown(self.role)} is not one of {', '.join(ROLES)}")


@dataclass(frozen=True)
class KeysTable:
    """All keys that may call. `version` rises with each change of the cluster's table; without an admin nobody could change it again."""

    version: int
    keys: Tuple[AdminKey, ...]

    def __post_init__(self) -> None:
        if not 0 < self.version <= MAX_INT:
            raise BadMessage(f"version must be a positive integer, not {self.version}")
        if not 0 < len(self.keys) <= MAX_KEYS:
            raise BadMessage(f"{len(self.keys)} keys, where 1 to {MAX_KEYS} are due")
        if len({key.public_key for key in self.keys}) < len(self.keys):
            raise BadMessage("a key is in the table twice")
        if not any(key.role == ADMIN for key in self.keys):
            raise BadMessage("a table without an admin's key is not taken: nobody could change it again")


@dataclass(frozen=True)
class NodeKey:
    """A key of the node's own: its public half. The other never leaves the node."""

    public_key: str

    def __post_init__(self) -> None:
        check_key(self.public_key)
