"""Whose keys may call, and as what: admins.json, read anew when it changes."""

import abc
import json
import os
import threading
from typing import Mapping, NamedTuple, Optional, Tuple

from nodeagent import wire
from nodeagent.secretfile import write_private

Keys = Mapping[str, Tuple[str, str]]
"""Public key in Z85 -> (name, role)."""


class BadAdmins(ValueError):
    """admins.json cannot be used; the text says why."""


class OlderTable(ValueError):
    """A table older than the one that is here, or another one of the same version; the text says so."""


class Table(NamedTuple):
    """`version` 0 is that of a file which tells none."""

    version: int
    keys: Keys


NOBODY = Table(0, {})


def parse(text: str) -> Table:
    """The text of admins.json. Raises BadAdmins."""
    try:
        plain = json.loads(text)
        version, found = plain.get("version", 0), {}
        if isinstance(version, bool) or not isinstance(version, int) or version < 0:
            raise BadAdmins(f"version {version!r} is not a number")
        for key, entry in plain["keys"].items():
            if entry["role"] not in wire.ROLES:
                raise BadAdmins(f"role {entry['role']!r} is not one of {', '.join(wire.ROLES)}")
            found[wire.check_key(key)] = (str(entry.get("name", "")), entry["role"])
        return Table(version, found)
    except (ValueError, KeyError, TypeError, AttributeError) as bad:
        raise BadAdmins(f"{type(bad).__name__}: {bad}") from None


def text_of(table: Table) -> str:
    keys = {key: {"name": name, "role": role} for key, (name, role) in sorted(table.keys.items())}
    return json.dumps({"version": table.version, "keys": keys}, indent=1) + "\n"


def table_of(sent: wire.KeysTable) -> Table:
    return Table(sent.version, {key.public_key: (key.name, key.role) for key in sent.keys})


class _Known(abc.ABC):
    """What both kinds of table answer, of the one in force."""

    fault = ""

    def __init__(self) -> None:
        self._writing = threading.Lock()

    @abc.abstractmethod
    def current(self) -> Table: ...

    @abc.abstractmethod
    def _store(self, table: Table) -> None: ...

    def role(self, key: str) -> str:
        """The role of `key` (Z85), or '' where it is not enrolled."""
        entry = self.current().keys.get(key)
        return entry[1] if entry else ""

    def name(self, key: str) -> str:
        entry = self.current().keys.get(key)
        return entry[0] if entry else ""

    @property
    def version(self) -> int:
        return self.current().version

    def write(self, table: Table) -> None:
        """From now on this one is in force; the same again changes nothing. Raises OlderTable, OSError."""
        with self._writing:
            known = self.current()
            if table.version < known.version:
                raise OlderTable(f"this table of keys is version {table.version}, the one here is {known.version}")
            if table.version == known.version and table.keys != known.keys:
                raise OlderTable(f"another table of keys of version {table.version} is here")
            if table != known:
                self._store(table)


class Admins(_Known):
    """The table, asked for every message so that taking a key out cuts its open connections too.

    A file that is missing or broken admits nobody; one that could not be opened this time is tried again the next.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._seen: Optional[Tuple[int, int, int]] = None
        self._table = NOBODY

    def current(self) -> Table:
        try:
            stat = os.stat(self._path)
        except OSError as bad:
            self._seen, self._table, self.fault = None, NOBODY, f"{self._path}: {bad.strerror}"
            return self._table
        seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        if seen != self._seen:
            self._read(seen)
        return self._table

    def _read(self, seen: Tuple[int, int, int]) -> None:
        try:
            with open(self._path, encoding="utf-8") as file:
                self._table, self.fault = parse(file.read()), ""
            self._seen = seen
        except BadAdmins as bad:
            self._seen, self._table, self.fault = seen, NOBODY, f"{self._path}: {bad}"
        except OSError as bad:
            self._seen, self._table, self.fault = None, NOBODY, f"{self._path}: {bad.strerror}"

    def _store(self, table: Table) -> None:
        write_private(self._path, text_of(table))
        self._seen = None


class FixedAdmins(_Known):
    """A table in memory, for many agents in one process."""

    def __init__(self, keys: Keys, version: int = 0) -> None:
        super().__init__()
        self._table = Table(version, keys)

    def current(self) -> Table:
        return self._table

    def _store(self, table: Table) -> None:
        self._table = table
