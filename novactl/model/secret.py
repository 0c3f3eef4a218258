"""What of a request is written down: all of it, but for the fields that say they are secret."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

SECRET: Mapping[str, Any] = {"secret": True}
"""The metadata of a dataclass field whose value is never written down: `field(default="", metadata=SECRET)`."""
HIDDEN = "(secret)"
MAX_CHARS = 4096
"""Longer texts are cut in what is recorded."""


def recorded(value: Any) -> Any:
    """`value` in JSON's types. A secret field is HIDDEN where it holds anything; what is no data (a callable) is left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: HIDDEN if field.metadata.get("secret") and getattr(value, field.name) else recorded(getattr(value, field.name))
            for field in dataclasses.fields(value) if not callable(getattr(value, field.name))}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): recorded(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [recorded(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}..."
