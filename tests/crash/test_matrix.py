"""The matrix itself: it reaches every saga and every point, and finds what it is there to find."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.cases import WAYS, Case, Counted, doubles, singles, spread
from tests.crash.mutants import MUTANTS
from tests.crash.programs import lacking, programs

COUNTED = Counted("server.stop", "sqlite", ("a", "b", "c", "d"), {"n1": ("e", "f", "g")})
HOME = Path(__file__).parents[2]


def test_every_saga_is_in_the_matrix() -> None:
    """A saga without a scenario would be killed nowhere."""
    assert lacking() == set() and len(programs()) >= 5


@pytest.mark.parametrize("text", [
    "server.create/sqlite/killed@17/next@4", "node.fence/postgresql/paused@1/undo", "server.stop/sqlite/spoilt-n2@3/next@9"])
def test_a_case_is_what_it_is_written_as(text: str) -> None:
    """What is printed with a violation plays that case again."""
    assert str(Case.parse(text)) == text
    with pytest.raises(ValueError, match="is not a case"):
        Case.parse(text.replace("@", "#"))


@pytest.mark.parametrize("full", [False, True])
def test_each_point_is_died_at(full: bool) -> None:
    """Every point of the command is killed and paused at, and at every point of an agent it dies; with `full` in every way."""
    cases = list(singles(COUNTED, full=full))
    assert len(cases) == len(set(cases))
    for at in range(1, 5):
        assert {"killed", "paused"} == {case.kind for case in cases if not case.node and case.at == at}
        assert not full or {case.way for case in cases if case.kind == "killed" and case.at == at} == set(WAYS)
    for at in range(1, 4):
        assert {case.kind for case in cases if case.node and case.at == at} & {"agent", "both", "late"}
    assert full or {case.kind for case in cases if case.node} == {"agent", "both", "late", "silent"}


def test_on_other_databases_each_point_is_died_at_once() -> None:
    """And paused at, where the database is what matters."""
    points = ("x: before BEGIN", "x: before COMMIT", "y do: before")
    cases = list(singles(Counted("s", "postgresql", points, {}), full=False))
    assert [case.at for case in cases if case.kind == "killed"] == [1, 2, 3]
    assert [case.at for case in cases if case.kind == "paused"] == [1, 2]


def test_double_deaths_are_at_each_point_of_some_and_some_points_of_each() -> None:
    """As `doubles` says."""
    first, second = Case("s", "sqlite", "killed", 5), Case("s", "sqlite", "killed", 2)
    assert [case.again for case in doubles(first, 7, 9, full=False)] == [1, 2, 3, 4, 5, 6, 7]
    assert [case.again for case in doubles(second, 7, 9, full=False)] == [3]
    assert [case.again for case in doubles(second, 7, 9, full=True)] == [1, 2, 3, 4, 5, 6, 7]
    assert list(spread(1, 3)) == [1] and list(spread(100, 3)) == [1, 51, 100]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_protection_less_is_found(name: str) -> None:
    """With any one of them switched off the matrix finds a violation."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash", "--mutant", name, "--first", "--database", "sqlite"], cwd=HOME, capture_output=True,
        text=True, stdin=subprocess.DEVNULL, timeout=1100)
    assert done.returncode == 1 and "VIOLATION" in done.stdout, done.stdout + done.stderr
    assert "the harness" not in done.stdout
