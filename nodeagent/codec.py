"""Dataclasses to JSON and back, every type checked. Standard library only; nothing here knows what the messages are.

What JSON allows and we do not: a key twice in one object, NaN and Infinity, integers beyond 64 bits.
"""

import dataclasses
import json
import typing
from typing import Any, Dict, Mapping, Tuple, Type, TypeVar

MAX_INT = (1 << 63) - 1
MAX_COUNT = 1 << 53
"""No number of an operation and no epoch is higher."""
FAR_COUNT = 1 << 52
"""Nor does counting lead so far: what is beyond came from elsewhere, and an adoption forgets it."""
FAR_EPOCH = 1000
"""Likewise of a server's epoch before the one that its domain was defined at."""

SHOWN_CHARS = 60

T = TypeVar("T")


class BadMessage(ValueError):
    """What came is not a message of this protocol; the text says why."""


def shown(value: Any) -> str:
    """A value that came, for an error's text: of a long one the beginning, of a list or an object what it is."""
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    text = repr(value[:SHOWN_CHARS] if isinstance(value, str) else value)
    whole = len(text) <= SHOWN_CHARS and (not isinstance(value, str) or len(value) <= SHOWN_CHARS)
    return text if whole else f"{text[:SHOWN_CHARS]}..."


def to_plain(value: Any) -> Any:
    """A message dataclass -> what JSON can hold. Tuples become lists."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is dict:
        return {str(key): item if type(item) in _PLAIN else to_plain(item) for key, item in value.items()}
    if dataclasses.is_dataclass(kind):
        plain = {}
        for name, _, _ in _fields(kind):
            item = getattr(value, name)
            plain[name] = item if type(item) in _PLAIN else to_plain(item)
        return plain
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    return value


_PLAIN = frozenset({str, int, float, bool, type(None)})
_FIELDS: Dict[type, Tuple[Tuple[str, Any, bool], ...]] = {}


def _fields(cls: type) -> Tuple[Tuple[str, Any, bool], ...]:
    found = _FIELDS.get(cls)
    if found is None:
        hints = typing.get_type_hints(cls)
        found = tuple(
            (f.name, hints[f.name], f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING)
            for f in dataclasses.fields(cls)
        )
        _FIELDS[cls] = found
    return found


def from_plain(cls: Type[T], value: Any) -> T:
    """What JSON gave -> a message dataclass, every field's type checked. Raises BadMessage.

    Unknown fields are ignored, so that a newer peer can say more; a missing field without a default is an error.
    """
    if not isinstance(value, dict):
        raise BadMessage(f"{cls.__name__} must be an object, not {type(value).__name__}")
    given = {}
    for name, kind, needed in _fields(cls):
        if name in value:
            item = value[name]
            given[name] = item if kind is str and type(item) is str else _checked(kind, item, f"{cls.__name__}.{name}")
        elif needed:
            raise BadMessage(f"{cls.__name__}.{name} is missing")
    return cls(**given)


def _checked(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return value
    if kind is str or kind is bool:
        if type(value) is kind:
            return value
    elif kind is int:
        if type(value) is int and -MAX_INT <= value <= MAX_INT:
            return value
    elif kind is float:
        if type(value) in (int, float) and abs(value) <= 1e300:
            return float(value)
    elif dataclasses.is_dataclass(kind):
        return from_plain(kind, value)
    else:
        return _checked_generic(kind, value, where)
    raise BadMessage(f"{where} must be {kind.__name__}, not {shown(value)}")


def _checked_generic(kind: Any, value: Any, where: str) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_checked(inner[0], item, where) for item in value)
    if origin in (dict, getattr(typing.Mapping, "__origin__", None)) and isinstance(value, dict):
        return {k: _checked(inner[1], v, f"{where}[{shown(k)}]") for k, v in value.items()}
    if origin is typing.Union and type(None) in inner:
        return None if value is None else _checked(inner[0], value, where)
    raise BadMessage(f"{where} must be {kind}, not {shown(value)}")


def _pairs(pairs: Any) -> Dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadMessage("an object names a key twice")
    return found


def _no_constant(text: str) -> Any:
    raise BadMessage(f"{text} is not JSON")


def _bounded_int(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > MAX_INT:
        raise BadMessage("an integer is out of range")
    return int(text)


loads = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_no_constant, parse_int=_bounded_int).decode
dumps = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode
