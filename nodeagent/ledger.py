"""What was done already, so that asking twice does it once: answers by request id, the epochs and numbers seen, what should run.

One SQLite file in the agent's state directory (mode 0600), each write on disk before it counts. Answers are kept
`KEEP_S` seconds and at most `KEEP_ROWS` of them; epochs of servers stay, as the floor under which nothing is obeyed. Of the
operations that have a number the newest `KEEP_ROWS` stay, and the highest number dropped is the floor of what is taken.
"""

import json
import os
import sqlite3
import threading
from typing import Any, Dict, Iterable, Mapping, NamedTuple, Optional, Tuple

from nodeagent.codec import FAR_COUNT, FAR_EPOCH

KEEP_S = 14 * 86400
KEEP_ROWS = 200_000
WINDOW = 1_000_000
"""Numbers of operations come in any order, but not so far behind the highest: then another database gave them."""
SCHEMA = 2

_CREATE = """
CREATE TABLE answer (id TEXT PRIMARY KEY, args_hash TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL, at_s REAL NOT NULL)
    WITHOUT ROWID;
CREATE INDEX answer_at ON answer (at_s);
CREATE TABLE note (id TEXT PRIMARY KEY, text TEXT NOT NULL, at_s REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE operation (id TEXT PRIMARY KEY, epoch INTEGER NOT NULL, at_s REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE server (id TEXT PRIMARY KEY, epoch INTEGER NOT NULL, at_s REAL NOT NULL) WITHOUT ROWID;
"""
_UPGRADES = {1: """
ALTER TABLE operation ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX operation_seq ON operation (seq) WHERE seq > 0;
ALTER TABLE server ADD COLUMN runs INTEGER NOT NULL DEFAULT 0;
ALTER TABLE server ADD COLUMN run TEXT NOT NULL DEFAULT '';
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""}
"""What brings a file of that schema to the next."""


class BadLedger(RuntimeError):
    """The file cannot be used: damaged, or of a newer agent."""


class Given(NamedTuple):
    """An answer given before."""

    args_hash: str
    kind: str
    body: Mapping[str, Any]


class Wanted(NamedTuple):
    """Whether a server should run, and the run of it that we started last ('' for none)."""

    runs: bool
    run: str


class Numbered(Exception):
    """Another operation has had the number (`other`), or it lies below what is remembered (`other` is '')."""

    def __init__(self, other: str) -> None:
        super().__init__(other)
        self.other = other


class Ledger:
    """Safe to call from several threads. `path` may be ':memory:'; the file is opened at the first use.

    `at_s` arguments are wall-clock seconds and decide only when rows are old enough to drop.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._opened: Optional[sqlite3.Connection] = None
        self._highest: Optional[Tuple[int, str]] = None

    def close(self) -> None:
        with self._lock:
            if self._opened:
                self._opened.close()
                self._opened = None

    def answer(self, request_id: str) -> Optional[Given]:
        """What was answered to `request_id`, if anything."""
        with self._lock:
            row = self._db().execute("SELECT args_hash, kind, body FROM answer WHERE id = ?", (request_id,)).fetchone()
        return Given(row[0], row[1], json.loads(row[2])) if row else None

    def record(self, request_id: str, given: Given, at_s: float) -> None:
        """Keep the answer; what was noted under the same id has served its turn."""
        with self._lock, self._db() as db:
            db.execute(
                "INSERT OR REPLACE INTO answer VALUES (?, ?, ?, ?, ?)",
                (request_id, given.args_hash, given.kind, json.dumps(given.body), at_s),
            )
            db.execute("DELETE FROM note WHERE id = ?", (request_id,))

    def note(self, request_id: str, text: str, at_s: float) -> str:
        """What stood before the effect of `request_id`: the first text noted under it, which is `text` the first time."""
        with self._lock, self._db() as db:
            db.execute("INSERT OR IGNORE INTO note VALUES (?, ?, ?)", (request_id, text, at_s))
            return db.execute("SELECT text FROM note WHERE id = ?", (request_id,)).fetchone()[0]

    def epochs(self, operation: str, server: str) -> Tuple[int, Optional[int]]:
        """(newest epoch seen of the operation, of the server); 0 and None where none was seen."""
        with self._lock:
            db = self._db()
            one = db.execute("SELECT epoch FROM operation WHERE id = ?", (operation,)).fetchone()
            two = db.execute("SELECT epoch FROM server WHERE id = ?", (server,)).fetchone() if server else None
        return (one[0] if one else 0), (two[0] or None if two else None)

    def raise_epochs(self, operation: str, epoch: int, server: str, server_epoch: int, at_s: float, seq: int = 0) -> None:
        """On disk before anything is done in their name. Never lowers one. `seq` is the operation's number, 0 for none.

        Raises Numbered, and writes nothing, where that number is not this operation's.
        """
        with self._lock:
            with self._db() as db:
                new = self._number(db, operation, seq)
                for table, name, value in (("operation", operation, epoch), ("server", server, server_epoch)):
                    if name:
                        db.execute(
                            f"INSERT INTO {table} (id, epoch, at_s) VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
                            f"at_s = excluded.at_s, epoch = max(epoch, excluded.epoch)",
                            (name, value, at_s),
                        )
                if new:
                    db.execute("UPDATE operation SET seq = ? WHERE id = ?", (new, operation))
            if new and self._highest is not None and new > self._highest[0]:
                self._highest = new, operation

    def _number(self, db: sqlite3.Connection, operation: str, seq: int) -> int:
        """The number to write: 0 where there is none, or it is there.

        An operation that was open when its database was adopted has a new one, further ahead than any other way leads.
        """
        if not seq or not operation:
            return 0
        had = db.execute("SELECT id, seq FROM operation WHERE seq = ? OR id = ?", (seq, operation)).fetchall()
        for other, number in had:
            if other != operation or (number not in (0, seq) and seq < number + WINDOW):
                raise Numbered(other)
        if (operation, seq) in had:
            return 0
        if not had:
            highest = db.execute("SELECT coalesce(max(seq), 0) FROM operation").fetchone()[0]
            if seq <= max(int(self._fact(db, "floor") or 0), highest - WINDOW):
                raise Numbered("")
        return seq

    def forget_far(self, own: int, epochs: Mapping[str, int]) -> None:
        """What is beyond FAR_COUNT, and beyond the number `own` of an adoption, nobody has counted: it bars no other number and no
        epoch any more. `epochs` are those that servers were defined at here.

        That is left to an adoption, as a number cannot be held against what its node has seen, which may be years behind.
        """
        bound = max(FAR_COUNT, own)
        with self._lock, self._db() as db:
            db.execute("UPDATE operation SET seq = 0 WHERE seq > ?", (bound,))
            db.execute("UPDATE operation SET epoch = 1 WHERE epoch > ?", (FAR_COUNT,))
            db.execute("UPDATE server SET epoch = 0 WHERE epoch > ?", (FAR_COUNT,))
            db.executemany(
                "UPDATE server SET epoch = 0 WHERE id = ? AND epoch > ?",
                [(server, epoch + FAR_EPOCH) for server, epoch in epochs.items()])
            if int(self._fact(db, "floor") or 0) > bound:
                db.execute("DELETE FROM fact WHERE name = 'floor'")
            self._highest = None

    def highest(self) -> Tuple[int, str]:
        """The highest number seen, and its operation; (0, '') for none. Does not wait for writers once it was asked."""
        highest = self._highest
        if highest is None:
            with self._lock:
                row = self._db().execute("SELECT seq, id FROM operation ORDER BY seq DESC LIMIT 1").fetchone()
                highest = self._highest = (row[0], row[1]) if row and row[0] else (0, "")
        return highest

    def of_cluster(self, cluster_id: str) -> None:
        """The numbers of another cluster's operations say nothing: forgotten where the file was one's."""
        with self._lock, self._db() as db:
            known = self._fact(db, "cluster")
            if known == cluster_id:
                return
            if known:
                db.execute("UPDATE operation SET seq = 0")
                db.execute("DELETE FROM fact WHERE name = 'floor'")
                self._highest = None
            self._put(db, "cluster", cluster_id)

    # ------------------------------------------------------------ what should run

    def should_run(self, server: str, runs: bool, run: Optional[str] = None) -> None:
        """Remember whether the server is to run after the next boot of the host; `run` names the run that we started."""
        with self._lock, self._db() as db:
            db.execute("INSERT OR IGNORE INTO server (id, epoch, at_s) VALUES (?, 0, 0)", (server,))
            db.execute("UPDATE server SET runs = ?, run = coalesce(?, run) WHERE id = ?", (int(runs), run, server))

    def forget_runs(self, servers: Iterable[str]) -> None:
        """They are gone: only their epochs stay."""
        with self._lock, self._db() as db:
            db.executemany("UPDATE server SET runs = 0, run = '' WHERE id = ?", [(server,) for server in servers])

    def wanted(self) -> Dict[str, Wanted]:
        """Of every server that should run, or was started by us."""
        with self._lock:
            rows = self._db().execute("SELECT id, runs, run FROM server WHERE runs = 1 OR run != ''").fetchall()
        return {server: Wanted(bool(runs), run) for server, runs, run in rows}

    def boot(self) -> str:
        """The boot whose guests have been seen to ('' for none)."""
        with self._lock:
            return self._fact(self._db(), "boot")

    def set_boot(self, boot_id: str) -> None:
        with self._lock, self._db() as db:
            self._put(db, "boot", boot_id)

    # ------------------------------------------------------------ the file

    def prune(self, now_s: float) -> None:
        """Drop answers, notes and numberless operations older than KEEP_S, and the oldest answers and numbers beyond KEEP_ROWS."""
        with self._lock, self._db() as db:
            for table in ("answer", "note"):
                db.execute(f"DELETE FROM {table} WHERE at_s < ?", (now_s - KEEP_S,))
            db.execute("DELETE FROM operation WHERE seq = 0 AND at_s < ?", (now_s - KEEP_S,))
            oldest = "SELECT id FROM answer ORDER BY at_s DESC LIMIT -1 OFFSET ?"
            db.execute(f"DELETE FROM answer WHERE id IN ({oldest})", (KEEP_ROWS,))
            row = db.execute("SELECT seq FROM operation ORDER BY seq DESC LIMIT 1 OFFSET ?", (KEEP_ROWS,)).fetchone()
            if row and row[0]:
                db.execute("DELETE FROM operation WHERE seq BETWEEN 1 AND ?", (row[0],))
                self._put(db, "floor", str(row[0]))

    @staticmethod
    def _fact(db: sqlite3.Connection, name: str) -> str:
        row = db.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        return row[0] if row else ""

    @staticmethod
    def _put(db: sqlite3.Connection, name: str, value: str) -> None:
        db.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (name, value))

    def _db(self) -> sqlite3.Connection:
        if self._opened is None:
            self._opened = _open(self._path)
        return self._opened


def _open(path: str) -> sqlite3.Connection:
    if path != ":memory:":
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    try:
        db = sqlite3.connect(path, check_same_thread=False, timeout=5)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA cache_size = -256")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA:
            raise BadLedger(f"{path}: schema {version} is not {SCHEMA}: this agent is older than the one that wrote it")
        if version < SCHEMA:
            steps = "".join(([] if version else [_CREATE]) + [_UPGRADES[number] for number in range(max(1, version), SCHEMA)])
            db.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {SCHEMA}; COMMIT;")
        return db
    except sqlite3.DatabaseError as bad:
        raise BadLedger(f"{path}: {bad}") from None
