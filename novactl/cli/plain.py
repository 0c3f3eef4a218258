"""Records as JSON-able values: raw units, RFC 3339 times, enums by value. The shape of `-o json`."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

from novactl.model.secret import HIDDEN

SCHEMA_VERSION = 1
_TIME_SUFFIXES = ("_at", "_until", "_since")
DERIVED: Mapping[str, tuple[str, ...]] = {"Server": ("status",), "Image": ("min_disk_gb",)}
"""Properties shown like fields, by the record's class."""


def is_time(field: str) -> bool:
    """Whether a field holds seconds since the epoch, which its name says."""
    return field == "at" or field.endswith(_TIME_SUFFIXES)


def rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def fields_of(record: Any) -> dict[str, Any] | None:
    """The record's fields and values in their order, secret ones hidden; None if it is no record."""
    if isinstance(record, Mapping):
        return {str(key): value for key, value in record.items()}
    if hasattr(record, "_fields"):
        return dict(zip(record._fields, record, strict=True))
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        fields = dataclasses.fields(record)
        names = [field.name for field in fields]
        names[2:2] = DERIVED.get(type(record).__name__, ())
        shown = {name: getattr(record, name) for name in names}
        return shown | {field.name: HIDDEN for field in fields if field.metadata.get("secret") and shown[field.name]}
    return None


def plain(value: Any, field: str = "") -> Any:
    """`value` in dicts, lists, strings, numbers, booleans and None. `field` is the name it stands under."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, int | float):
        return _number(value, field)
    if isinstance(value, str | PurePath):
        return str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    fields = fields_of(value)
    if fields is not None:
        return {name: plain(item, name) for name, item in fields.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return [plain(item) for item in items]
    return str(value)


def _number(value: float, field: str) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return rfc3339(value) if is_time(field) else value


def document(value: Any) -> dict[str, Any]:
    """What `-o json` prints: a record's fields, or `items`; always with `schema_version`."""
    shown = plain(value)
    body = {"items": shown} if isinstance(shown, list) else shown
    return {"schema_version": SCHEMA_VERSION, **body}
