"""The formats that machines read give back what was written."""

import csv
import io
import json
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from novactl.cli.formats import as_csv, as_json, as_tsv, as_yaml, visible
from novactl.cli.plain import document, plain

TEXT = st.text(st.characters(blacklist_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12)
CELLS = st.lists(st.lists(TEXT, min_size=2, max_size=2), max_size=5)


@given(st.dictionaries(TEXT, VALUES, max_size=5))
def test_yaml_is_read_back_as_written(value: dict) -> None:
    """Any JSON-able document printed as YAML is read back equal by a YAML reader, and never as another type."""
    assert yaml.safe_load(as_yaml(value)) == value


@pytest.mark.parametrize("word", [
    "no", "on", "null", "1e3", "0x10", "2024-01-01", "~", "- x", "a: b", "#c", "", " x", "\u2028", "\x85", "😀",
])
def test_yaml_keeps_strings_that_look_like_something_else(word: str) -> None:
    """Strings and keys that YAML would read as another type or as syntax stay strings."""
    assert yaml.safe_load(as_yaml({word: [word, {word: word}]})) == {word: [word, {word: word}]}


@given(CELLS)
def test_tsv_has_one_line_a_row(rows: list[list[str]]) -> None:
    """Tabs, newlines, backslashes and control characters in a cell are escaped: lines and tabs separate rows and cells."""
    back = {"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}

    def unescaped(cell: str) -> str:
        return re.sub(r"\\(x..|u....|.)", lambda found: back.get(found[1]) or chr(int(found[1][1:], 16)), cell)

    text = as_tsv((), rows)
    assert [[unescaped(cell) for cell in line.split("\t")] for line in text.split("\n")[:-1]] == rows


@given(CELLS)
def test_csv_is_read_back_as_written(rows: list[list[str]]) -> None:
    """A CSV reader finds the cells that were printed."""
    assert list(csv.reader(io.StringIO(as_csv(("a", "b"), rows), newline=""))) == [["a", "b"], *rows]


def test_control_characters_are_spelled_out() -> None:
    """What a node or a guest wrote cannot move the cursor or set the title of the reader's terminal."""
    assert visible("a\x1b]0;x\x07b\x9bc\td\u202e") == "a\\x1b]0;x\\x07b\\x9bc\td\\u202e"
    assert as_tsv((), [["\x1b[2J", "\u202e"]]) == "\\x1b[2J\t\\u202e\n"
    told = as_json({"a": "\x1b\x9b\u202eé"})
    assert told.isascii() is False and json.loads(told) == {"a": "\x1b\x9b\u202eé"} and "\x9b" not in told and "\u202e" not in told


def test_times_are_rfc_3339_and_units_are_raw() -> None:
    """Fields that end in _at are RFC 3339 in UTC; other numbers keep their value, and infinity is null."""
    assert plain({"created_at": 1.5, "memory_mb": 4096, "score": float("inf"), "ended_at": None}) == {
        "created_at": "1970-01-01T00:00:01.500Z", "memory_mb": 4096, "score": None, "ended_at": None}


def test_a_list_is_items_and_a_record_is_fields() -> None:
    """The document of a list has `items`, that of a record its fields, both with the schema's version."""
    assert document(()) == {"schema_version": 1, "items": []}
    assert document({"name": "web1"}) == {"schema_version": 1, "name": "web1"}
