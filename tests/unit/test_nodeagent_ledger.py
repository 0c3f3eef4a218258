"""The ledger: what was answered and seen stays so."""

import os
import sqlite3
from pathlib import Path

import pytest

from nodeagent import ledger as ledger_file
from nodeagent.ledger import _CREATE, KEEP_S, WINDOW, BadLedger, Given, Ledger, Numbered, Wanted


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


def test_a_number_is_one_operations(path: str) -> None:
    """A number comes with one operation and an operation with one number, across restarts; what is refused leaves no epoch."""
    ledger = Ledger(path)
    ledger.raise_epochs("o", 1, "s", 3, 1.0, seq=7)
    ledger.raise_epochs("late", 1, "s", 3, 1.0, seq=5)
    for operation, seq in (("p", 7), ("o", 8)):
        with pytest.raises(Numbered) as refused:
            ledger.raise_epochs(operation, 2, "t", 9, 2.0, seq=seq)
        assert refused.value.other == "o"
    ledger.raise_epochs("o", 2, "s", 3, 2.0, seq=7)
    assert ledger.highest() == (7, "o")
    ledger.close()
    second = Ledger(path)
    assert second.highest() == (7, "o")
    assert second.epochs("p", "t") == (0, None) and second.epochs("o", "s") == (2, 3)
    with pytest.raises(Numbered):
        second.raise_epochs("p", 1, "s", 3, 3.0, seq=5)


def test_an_adopted_database_gives_open_operations_new_numbers(path: str) -> None:
    """A number so far ahead is the operation's from then on: the copy of the database that has its old one is refused."""
    ledger = Ledger(path)
    ledger.raise_epochs("o", 1, "s", 3, 1.0, seq=7)
    ledger.raise_epochs("o", 1001, "s", 3, 2.0, seq=7 + 2 * WINDOW)
    assert ledger.highest() == (7 + 2 * WINDOW, "o") and ledger.epochs("o", "s") == (1001, 3)
    ledger.raise_epochs("o", 1002, "s", 3, 3.0, seq=7 + 2 * WINDOW)
    for operation, seq in (("o", 7), ("p", 7), ("p", 7 + 2 * WINDOW)):
        with pytest.raises(Numbered):
            ledger.raise_epochs(operation, 1003, "s", 3, 4.0, seq=seq)


def test_below_what_is_remembered_nothing_is_taken(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers are kept by count, not by age; one below the highest that was dropped is refused, a known one is not."""
    monkeypatch.setattr(ledger_file, "KEEP_ROWS", 2)
    ledger = Ledger(path)
    for seq in (1, 2, 3, 4):
        ledger.raise_epochs(f"o{seq}", 1, "", 0, 0.0, seq=seq)
    ledger.prune(KEEP_S * 9)
    with pytest.raises(Numbered) as refused:
        ledger.raise_epochs("new", 1, "", 0, 1.0, seq=2)
    assert refused.value.other == ""
    ledger.raise_epochs("o3", 2, "", 0, 1.0, seq=3)
    ledger.raise_epochs("o5", 1, "", 0, 1.0, seq=5)


def test_what_is_far_behind_is_not_taken(path: str) -> None:
    """A number a million behind the highest is another database's; one that is less behind may be late."""
    ledger = Ledger(path)
    ledger.raise_epochs("o", 1, "", 0, 1.0, seq=WINDOW + 10)
    with pytest.raises(Numbered):
        ledger.raise_epochs("p", 1, "", 0, 1.0, seq=10)
    ledger.raise_epochs("p", 1, "", 0, 1.0, seq=11)


def test_numbers_are_of_one_cluster(path: str) -> None:
    """In a file that served another cluster, that one's numbers are forgotten; its epochs are not."""
    ledger = Ledger(path)
    ledger.of_cluster("one")
    ledger.raise_epochs("o", 1, "s", 4, 1.0, seq=9)
    ledger.of_cluster("one")
    assert ledger.highest() == (9, "o")
    ledger.of_cluster("two")
    assert ledger.highest() == (0, "") and ledger.epochs("o", "s") == (1, 4)
    ledger.raise_epochs("p", 1, "s", 4, 1.0, seq=9)


def test_what_should_run_is_remembered(path: str) -> None:
    """Per server, with the run that we started, across restarts; what is gone keeps its epoch alone, and no epoch is made up."""
    ledger = Ledger(path)
    ledger.raise_epochs("o", 1, "a", 2, 1.0)
    ledger.should_run("a", True, "boot:1")
    ledger.should_run("b", True)
    ledger.should_run("a", True)
    ledger.set_boot("boot")
    ledger.close()
    second = Ledger(path)
    assert second.wanted() == {"a": Wanted(True, "boot:1"), "b": Wanted(True, "")} and second.boot() == "boot"
    assert second.epochs("o", "b") == (1, None)
    second.should_run("b", False)
    second.forget_runs(["a"])
    assert second.wanted() == {} and second.epochs("", "a") == (0, 2)


def test_an_older_file_is_brought_up_to_date(path: str) -> None:
    """A ledger of schema 1 keeps its answers and epochs, and takes numbers."""
    old = sqlite3.connect(path)
    old.executescript(f"BEGIN; {_CREATE} PRAGMA user_version = 1; COMMIT;")
    old.execute("INSERT INTO operation VALUES ('o', 4, 1.0)")
    old.execute("INSERT INTO server VALUES ('s', 6, 1.0)")
    old.execute("INSERT INTO answer VALUES ('r', 'h', 'result', '{}', 1.0)")
    old.commit()
    old.close()
    ledger = Ledger(path)
    assert ledger.epochs("o", "s") == (4, 6) and ledger.answer("r") == Given("h", "result", {})
    ledger.raise_epochs("o", 5, "s", 6, 2.0, seq=3)
    assert ledger.highest() == (3, "o")
