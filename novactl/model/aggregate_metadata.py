"""The metadata keys of aggregates that placement reads, and the check of what is set. Other keys are free: flavors ask for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from novactl.errors import UsageError
from novactl.model.aggregate import FLAVORS, MAX_IO_OPS, MAX_SERVERS, REQUIRED, TENANTS, TRAIT, ZONE_KEY
from novactl.model.extra_specs import check_trait
from novactl.model.ids import check_name
from novactl.model.resources import MAX_INT
from novactl.model.units import whole

MAX_KEYS, MAX_CHARS = 128, 255
MULTIPLIER = "_weight_multiplier"


class BadMetadata(UsageError):
    code = "metadata"


class Key(NamedTuple):
    """A key as help shows it, what it takes, what it does."""

    key: str
    takes: str
    help: str


KEYS: tuple[Key, ...] = (
    Key(ZONE_KEY, "ZONE", "its nodes are this availability zone (--zone sets it)"),
    Key(MAX_SERVERS, "N", "at most so many servers on one of its nodes"),
    Key(MAX_IO_OPS, "N", "at most so many operations under way on one of its nodes"),
    Key(FLAVORS, "FLAVOR[,...]", "only servers of these flavors"),
    Key(f"{TENANTS[0]}*", "PROJECT[,...]", "only servers of these projects; what all keys that begin so say, together"),
    Key(f"WEIGHER{MULTIPLIER}", "NUMBER", "that weigher's multiplier on its nodes; the least of several aggregates holds"),
    Key("trait:TRAIT", "required", "only servers that require the trait"),
    Key("os_type, custom_WORD ...", "VALUE[,...]", "an image that has this property has it with one of these values"),
)
_WHOLE = (MAX_SERVERS, MAX_IO_OPS)
_MOVED = {
    "cpu_allocation_ratio": "--cpu-ratio", "ram_allocation_ratio": "--ram-ratio", "disk_allocation_ratio": "--disk-ratio",
}


def check(metadata: Mapping[str, str]) -> None:
    """Raises BadMetadata naming the key and what it takes."""
    if len(metadata) > MAX_KEYS:
        raise BadMetadata(f"{len(metadata)} keys are too many: at most {MAX_KEYS}", hint="take away what is not needed")
    for key, value in metadata.items():
        if len(key) > MAX_CHARS or len(value) > MAX_CHARS or not key.strip() or not value.strip() or not (key + value).isprintable():
            raise BadMetadata(f"{key[:MAX_CHARS]!r}: key and value are printable text of 1 to {MAX_CHARS} characters")
        if key in _MOVED:
            raise BadMetadata(
                f"{key} is not read of aggregates: a ratio is a node's", command=f"novactl node set NODE... {_MOVED[key]} {value}")
        if key == ZONE_KEY:
            check_name("zone", value)
        if key in _WHOLE and whole(value, MAX_INT) is None:
            raise BadMetadata(f"{key} takes a whole number, not {value!r}", hint="0 or more, such as 20")
        if key.endswith(MULTIPLIER):
            _number(key, value)
        if key.startswith(TRAIT):
            check_trait(key[len(TRAIT):])
            if value != REQUIRED:
                raise BadMetadata(f"{key} takes {REQUIRED}, not {value!r}")


def _number(key: str, value: str) -> None:
    try:
        finite = math.isfinite(float(value))
    except ValueError:
        finite = False
    if not finite:
        raise BadMetadata(f"{key} takes a number, not {value!r}", hint="such as 2, 0.5 or -1")
