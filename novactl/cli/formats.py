"""The output formats. Each takes what it prints and returns text that ends in a newline (or is empty)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

Rows = Sequence[Sequence[str]]

_TURNS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
"""What makes a terminal write from right to left, so that text reads as another."""
_CONTROL = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f{_TURNS}]")
_NOT_IN_JSON = re.compile(rf"[\x7f-\x9f{_TURNS}]")
_CSV_SPECIAL = re.compile(r"[\",\r\n]")
_TSV_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*\Z")
_YAML_WORDS = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"])
_NOT_YAML_PRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff\ufffe\uffff]")


def visible(text: str) -> str:
    """`text` with control characters spelled out: what a guest or a node wrote cannot drive the reader's terminal."""
    return _CONTROL.sub(lambda found: _spelled(found[0]), text)


def _spelled(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"


def as_json(document: Any, *, indent: int | None = 2) -> str:
    """JSON escapes the first 32 control characters by itself; the others are escaped here."""
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    return _NOT_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


def as_tsv(titles: Sequence[str], rows: Rows) -> str:
    lines = [titles, *rows] if titles else rows
    return "".join("\t".join(visible(cell.translate(_TSV_ESCAPES)) for cell in line) + "\n" for line in lines)


def as_csv(titles: Sequence[str], rows: Rows) -> str:
    """RFC 4180, but for line ends: a newline alone. (The csv module with that line end leaves a lone CR unquoted.)"""
    lines = [titles, *rows] if titles else rows
    return "".join(",".join(map(_csv_cell, line)) + "\n" for line in lines)


def _csv_cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if not text or _CSV_SPECIAL.search(text) else text


def as_tabulated(titles: Sequence[str], rows: Rows, style: str) -> str:
    from tabulate import tabulate

    body = [[visible(cell) for cell in row] for row in rows]
    text = tabulate(body, headers=list(titles), tablefmt=style, disable_numparse=True)
    return text + "\n" if text else ""


def as_yaml(value: Any) -> str:
    """YAML 1.2 (and 1.1) for JSON-able values: block mappings and sequences, every string quoted as in JSON."""
    return "\n".join(_yaml_lines(value)) + "\n"


def _yaml_lines(value: Any) -> Iterable[str]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _yaml_entry(f"{_yaml_key(key)}:", item, "  ")
    elif isinstance(value, list) and value:
        for item in value:
            yield from _yaml_entry("-", item, "  ")
    else:
        yield _yaml_scalar(value)


def _yaml_entry(lead: str, item: Any, indent: str) -> Iterable[str]:
    lines = list(_yaml_lines(item))
    if not isinstance(item, dict | list) or not item:
        yield f"{lead} {lines[0]}"
    elif lead == "-":
        yield f"- {lines[0]}"
        yield from (indent + line for line in lines[1:])
    else:
        yield lead
        yield from (indent + line for line in lines)


def _yaml_key(key: str) -> str:
    plain = _PLAIN_KEY.match(key) and key.lower() not in _YAML_WORDS
    return key if plain else _yaml_scalar(key)


def _yaml_scalar(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and "e" in text and "." not in text:
        text = text.replace("e", ".0e")                      # YAML 1.1 takes 1e+16 for a string
    return _NOT_YAML_PRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
