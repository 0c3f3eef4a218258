"""Sizes and durations: text is parsed here, at the edge, and turned back into text for people. Pure."""

from __future__ import annotations

import re

from novactl.errors import UsageError

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:([kmgtp])(?:i?b)?|(b))?\s*\Z", re.IGNORECASE)
_POWER = {"k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)(ms|s|m|h|d))", re.IGNORECASE)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
MAX_BYTES = (1 << 63) - 1
MAX_DURATION_S = 365 * 86400.0
_MAX_LETTERS = 64


class BadSize(UsageError):
    code = "size"


class BadDuration(UsageError):
    code = "duration"


def mib(text: str) -> int:
    """'512M', '4G', '1.5GiB' or '4096' (MiB) -> MiB.

    Units are powers of 1024. Raises BadSize naming the accepted forms, also where the size is not a whole number of MiB.
    """
    return _units(text, power=2, unit="MiB", forms="'512M', '4G' or '4096' (MiB)")


def gib(text: str) -> int:
    """'20G', '1T' or '20' (GiB) -> GiB. Raises BadSize naming the accepted forms."""
    return _units(text, power=3, unit="GiB", forms="'20G', '1T' or '20' (GiB)")


def _units(text: str, *, power: int, unit: str, forms: str) -> int:
    """`text` in 1024**power bytes, exactly: the decimal point is moved in integers, no float is rounded."""
    found = _SIZE.match(text) if text.isascii() and len(text) <= _MAX_LETTERS else None
    if not found:
        raise BadSize(f"{text!r} is not a size", hint=f"write {forms}")
    before, _, decimals = found[1].partition(".")
    letter = "b" if found[3] else (found[2] or "").lower()
    unit_bytes = 1 if letter == "b" else 1024 ** _POWER.get(letter, power)
    numerator, scale = int(before + decimals) * unit_bytes, 10 ** len(decimals)
    if numerator > MAX_BYTES * scale:
        raise BadSize(f"{text!r} is too large a size", hint=f"write {forms}")
    amount, rest = divmod(numerator, scale * 1024 ** power)
    if rest:
        raise BadSize(f"{text!r} is not a whole number of {unit}", hint=f"write {forms}")
    return amount


def whole(text: str, most: int) -> int | None:
    """'12' -> 12; None for what is not written in digits, or is more than `most`."""
    if not (text.isascii() and text.isdigit()) or len(text.lstrip("0")) > len(str(most)) or int(text) > most:
        return None
    return int(text)


def duration_s(text: str) -> float:
    """'90', '90s', '2m', '1h30m' or '500ms' -> seconds, at most 365 days. Raises BadDuration naming the accepted forms."""
    bare = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", bare, re.ASCII):
        bare += "s"
    parts = _DURATION.findall(bare)
    if not parts or not bare.isascii() or "".join(n + u for n, u in parts) != bare:
        raise BadDuration(f"{text!r} is not a duration", hint="write '90' (seconds), '90s', '2m', '1h30m' or '500ms'")
    seconds = sum(float(number) * _SECONDS[unit.lower()] for number, unit in parts)
    if seconds > MAX_DURATION_S:
        raise BadDuration(f"{text!r} is too long", hint="write at most '365d'")
    return seconds


def human_bytes(count: int) -> str:
    """1536 -> '1.5 KiB': one decimal from KiB on, powers of 1024."""
    size, unit = float(abs(count)), "B"
    for bigger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if size < 1023.95:
            break
        size, unit = size / 1024, bigger
    sign = "-" if count < 0 else ""
    return f"{sign}{size:.0f} B" if unit == "B" else f"{sign}{size:.1f} {unit}"


def human_mib(count: int) -> str:
    """512 -> '512 MiB', 8192 -> '8.0 GiB'."""
    return f"{count} MiB" if abs(count) < 1024 else human_bytes(count << 20)


def human_gib(count: int) -> str:
    """20 -> '20 GiB', 2048 -> '2.0 TiB'."""
    return f"{count} GiB" if abs(count) < 1024 else human_bytes(count << 30)


def human_rate(bytes_per_s: float) -> str:
    return f"{human_bytes(round(bytes_per_s))}/s"


def human_seconds(seconds: float) -> str:
    """An age or a wait in at most two units: '0.4 s', '42 s', '3 min', '2 h 5 min', '12 d'."""
    if seconds < 0:
        return f"-{human_seconds(-seconds)}"
    if seconds < 9.95:
        return f"{seconds:.1f} s" if seconds % 1 else f"{seconds:.0f} s"
    rounded = round(seconds)
    if rounded < 120:
        return f"{rounded} s"
    if rounded < 7200:
        return f"{rounded // 60} min" if rounded >= 3600 or rounded % 60 == 0 else f"{rounded // 60} min {rounded % 60} s"
    if rounded < 172_800:
        minutes = rounded % 3600 // 60
        return f"{rounded // 3600} h {minutes} min" if minutes else f"{rounded // 3600} h"
    return f"{rounded // 86_400} d"
