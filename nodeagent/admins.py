"""Whose keys may call, and as what: admins.json, read anew when it changes."""

import json
import os
from typing import Dict, Mapping, Optional, Tuple

from nodeagent import wire


class BadAdmins(ValueError):
    """admins.json cannot be used; the text says why."""


def parse(text: str) -> Dict[str, Tuple[str, str]]:
    """The text of admins.json -> {public key in Z85: (name, role)}. Raises BadAdmins."""
    try:
        keys = json.loads(text)["keys"]
        found = {}
        for key, entry in keys.items():
            if entry["role"] not in wire.ROLES:
                raise BadAdmins(f"role {entry['role']!r} is not one of {', '.join(wire.ROLES)}")
            found[wire.check_key(key)] = (str(entry.get("name", "")), entry["role"])
        return found
    except (ValueError, KeyError, TypeError, AttributeError) as bad:
        raise BadAdmins(f"{type(bad).__name__}: {bad}") from None


class Admins:
    """The table, asked for every message so that taking a key out cuts its open connections too.

    A file that is missing or broken admits nobody; one that could not be opened this time is tried again the next.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: Optional[Tuple[int, int, int]] = None
        self._keys: Mapping[str, Tuple[str, str]] = {}
        self.fault = ""

    def role(self, key: str) -> str:
        """The role of `key` (Z85), or '' where it is not enrolled."""
        entry = self._current().get(key)
        return entry[1] if entry else ""

    def name(self, key: str) -> str:
        entry = self._current().get(key)
        return entry[0] if entry else ""

    def _current(self) -> Mapping[str, Tuple[str, str]]:
        try:
            stat = os.stat(self._path)
        except OSError as bad:
            self._seen, self._keys, self.fault = None, {}, f"{self._path}: {bad.strerror}"
            return self._keys
        seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        if seen != self._seen:
            self._read(seen)
        return self._keys

    def _read(self, seen: Tuple[int, int, int]) -> None:
        try:
            with open(self._path, encoding="utf-8") as file:
                self._keys, self.fault = parse(file.read()), ""
            self._seen = seen
        except BadAdmins as bad:
            self._seen, self._keys, self.fault = seen, {}, f"{self._path}: {bad}"
        except OSError as bad:
            self._seen, self._keys, self.fault = None, {}, f"{self._path}: {bad.strerror}"


class FixedAdmins:
    """A table that is given, for many agents in one process."""

    fault = ""

    def __init__(self, keys: Mapping[str, Tuple[str, str]]) -> None:
        self._keys = keys

    def role(self, key: str) -> str:
        return self._keys.get(key, ("", ""))[1]

    def name(self, key: str) -> str:
        return self._keys.get(key, ("", ""))[0]
