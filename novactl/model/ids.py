"""How names, ids and descriptions look."""

from __future__ import annotations

import re

from novactl.errors import UsageError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
MAX_DESCRIPTION = 255
MIN_PREFIX = 4
"""The shortest id prefix that names an object."""


def check_name(noun: str, name: str) -> str:
    """The name, if it is safe everywhere a name goes (host names, XML, a shell). Raises UsageError."""
    if not NAME.match(name) or ".." in name:
        raise UsageError(
            f"{noun} name {name!r} is not valid",
            hint="letters, digits, '_', '.' and '-', at most 63, starting with a letter or digit",
        )
    if UUID.match(name):
        raise UsageError(f"{noun} name {name!r} looks like an id", hint="choose a name that is not a UUID")
    return name


def check_description(text: str) -> None:
    """Raises UsageError for what is no line of text."""
    if len(text) > MAX_DESCRIPTION or (text and not text.isprintable()):
        raise UsageError(f"a description is printable text of at most {MAX_DESCRIPTION} characters")
