"""SECURITY.md says what is tested, and what is tested is in it. `--regen` writes its tables anew."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.attacks.table import ABSENT, ATTACKS

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "nodeagent" / "SECURITY.md"
NUMBER = re.compile(r"CVE-(\d{4})-(\d{4,6})")


def published() -> dict[str, str]:
    """Every test function that is named after an attack, and the file it is in."""
    found = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for item in ast.parse(path.read_text()).body:
            if isinstance(item, ast.FunctionDef) and re.match(r"test_(cve|ghsa|ganeti)_", item.name):
                assert item.name not in found, f"two tests are called {item.name}"
                found[item.name] = str(path.relative_to(ROOT))
    return found


def tables() -> dict[str, str]:
    where = published()
    return {
        "| attack | what happened | what stands against it |": "".join(
            f"| {row.attacks} | {row.happened} | {row.defence} | {'; '.join(f'`{where[name]}` {name}' for name in row.tests)} |\n"
            for row in ATTACKS),
        "| attack | what happened | why not here |": "".join(f"| {row.attacks} | {row.happened} | {row.because} |\n" for row in ABSENT)}


def test_every_row_has_its_test_and_every_test_its_row() -> None:
    """A test named after an attack is in the table, and a row names tests that exist, the first attack's number in their names."""
    assert {name for row in ATTACKS for name in row.tests} == set(published())
    for row in ATTACKS:
        number = NUMBER.match(row.attacks)
        for name in row.tests:
            assert not number or re.match(rf"test_cve_{number[1]}_{number[2]}(_|\Z)", name), f"{name} is not named after {row.attacks}"


def test_no_attack_is_listed_twice() -> None:
    """Each number is in one row."""
    numbers = [number for row in (*ATTACKS, *ABSENT) for number in re.findall(r"CVE-\d+-\d+", row.attacks)]
    assert len(numbers) == len(set(numbers)) > 60


def test_the_tables_are_those_of_the_tests(request: pytest.FixtureRequest) -> None:
    """SECURITY.md has these rows and no others."""
    text = DOCUMENT.read_text()
    for heading, rows in tables().items():
        pattern = re.compile(rf"({re.escape(heading)}[^\n]*\n\|[-|]+\n)((?:\|[^\n]*\n)*)")
        assert pattern.search(text), heading
        text = pattern.sub(lambda found, rows=rows: found.group(1) + rows, text)
    if request.config.getoption("--regen", default=False):
        DOCUMENT.write_text(text)
    assert DOCUMENT.read_text() == text
