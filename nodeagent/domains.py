"""What travels about domains in numbers: pages of them, those that are not ours, and how many fit into one message."""

import re
from dataclasses import dataclass
from typing import Any, Sequence

from nodeagent.codec import MAX_INT, BadMessage, dumps, to_plain

WILD_AT_MOST = 64
"""Domains that are not ours, told with their particulars; of more there is the count."""
FILES_AT_MOST = 256
NAME_CHARS = 100


@dataclass(frozen=True)
class Page:
    """What comes after the server `after` ('' for the beginning), in the order of ids: `limit` at most (0: as many as fit)."""

    after: str = ""
    limit: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.limit <= MAX_INT:
            raise BadMessage(f"limit must be 0 or more, not {self.limit}")


@dataclass(frozen=True)
class WildDomain:
    """A domain on the host that is not novactl's: listed, never touched. `name` is as libvirt has it, made printable."""

    name: str
    uuid: str
    power_state: str
    vcpus: int
    memory_mb: int


def printable(text: str) -> str:
    """Any text as a screen and the wire can take it."""
    kept = "".join(letter if letter.isprintable() else "?" for letter in text)
    return kept.encode("utf-8", "replace").decode()[:NAME_CHARS]


def server_name(name: str, uuid: str) -> str:
    """A domain's name as a server may have it."""
    kept = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_")[:63]
    return kept if kept else f"domain-{uuid[:8]}"


def fitting(items: Sequence[Any], room_bytes: int) -> int:
    """How many of the first messages' JSON go into so many bytes."""
    left = room_bytes
    for count, item in enumerate(items):
        left -= len(dumps(to_plain(item)).encode()) + 1
        if left < 0:
            return count
    return len(items)
