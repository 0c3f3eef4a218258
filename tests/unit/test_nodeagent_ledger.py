"""The ledger: what was answered and seen stays so."""

import os
import sqlite3
from pathlib import Path

import pytest

from nodeagent import ledger as ledger_file
from nodeagent.ledger import KEEP_S, BadLedger, Given, Ledger


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "ledger.db")


def test_answers_and_epochs_outlive_the_process(path: str) -> None:
    """What was recorded is there for the next one that opens the file."""
    given = Given("hash", "result", {"a": [1, "ü"]})
    first = Ledger(path)
    first.record("o:start:1:do", given, 100.0)
    first.raise_epochs("o", 3, "s", 7, 100.0)
    assert first.note("o:reboot:1:do", "4", 100.0) == "4"
    first.close()
    second = Ledger(path)
    assert second.answer("o:start:1:do") == given
    assert second.answer("o:start:2:do") is None
    assert second.epochs("o", "s") == (3, 7)
    assert second.epochs("p", "t") == (0, None)
    assert second.note("o:reboot:1:do", "5", 101.0) == "4"


def test_epochs_only_rise(path: str) -> None:
    """A lower epoch written later changes nothing."""
    ledger = Ledger(path)
    ledger.raise_epochs("o", 3, "s", 7, 1.0)
    ledger.raise_epochs("o", 2, "s", 6, 2.0)
    assert ledger.epochs("o", "s") == (3, 7)


def test_a_note_ends_with_its_answer(path: str) -> None:
    """Once a request is answered, what stood before its effect is forgotten."""
    ledger = Ledger(path)
    ledger.note("r", "before", 1.0)
    ledger.record("r", Given("h", "result", {}), 2.0)
    assert ledger.note("r", "after", 3.0) == "after"


def test_old_answers_go_and_server_epochs_stay(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pruning drops what is too old and the oldest beyond the bound; the floor of a server's epoch it never drops."""
    monkeypatch.setattr(ledger_file, "KEEP_ROWS", 2)
    ledger = Ledger(path)
    for at_s in range(5):
        ledger.record(f"r{at_s}", Given("h", "result", {}), float(at_s))
    ledger.raise_epochs("o", 1, "s", 1, 0.0)
    ledger.prune(KEEP_S + 1.5)
    assert [ledger.answer(f"r{n}") is not None for n in range(5)] == [False, False, False, True, True]
    assert ledger.epochs("o", "s") == (0, 1)


def test_the_file_is_the_owners(path: str) -> None:
    """Mode 0600 whatever the umask, its journal too."""
    umask = os.umask(0)
    try:
        ledger = Ledger(path)
        ledger.note("r", "x", 1.0)
        modes = {name: os.stat(Path(path).parent / name).st_mode & 0o777 for name in os.listdir(Path(path).parent)}
    finally:
        os.umask(umask)
    assert set(modes.values()) == {0o600} and "ledger.db" in modes


def test_a_file_that_cannot_be_used_is_named(path: str) -> None:
    """A damaged ledger and one of a newer agent raise BadLedger with the path."""
    Path(path).write_bytes(b"this is not a database, and long enough to be seen as none" * 10)
    with pytest.raises(BadLedger, match="ledger.db"):
        Ledger(path).answer("r")
    os.unlink(path)
    sqlite3.connect(path).execute("PRAGMA user_version = 99").connection.close()
    with pytest.raises(BadLedger, match="schema 99"):
        Ledger(path).answer("r")
