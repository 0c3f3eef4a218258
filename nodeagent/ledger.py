"""What was done already, so that asking twice does it once: answers by request id, and the epochs seen.

One SQLite file in the agent's state directory (mode 0600), each write on disk before it counts. Answers are kept
`KEEP_S` seconds and at most `KEEP_ROWS` of them; epochs of servers stay, as the floor under which nothing is obeyed.
"""

import json
import os
import sqlite3
import threading
from typing import Any, Mapping, NamedTuple, Optional, Tuple

KEEP_S = 14 * 86400
KEEP_ROWS = 200_000
SCHEMA = 1

_CREATE = """
CREATE TABLE answer (id TEXT PRIMARY KEY, args_hash TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL, at_s REAL NOT NULL)
    WITHOUT ROWID;
CREATE INDEX answer_at ON answer (at_s);
CREATE TABLE note (id TEXT PRIMARY KEY, text TEXT NOT NULL, at_s REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE operation (id TEXT PRIMARY KEY, epoch INTEGER NOT NULL, at_s REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE server (id TEXT PRIMARY KEY, epoch INTEGER NOT NULL, at_s REAL NOT NULL) WITHOUT ROWID;
"""


class BadLedger(RuntimeError):
    """The file cannot be used: damaged, or of a newer agent."""


class Given(NamedTuple):
    """An answer given before."""

    args_hash: str
    kind: str
    body: Mapping[str, Any]


class Ledger:
    """Safe to call from several threads. `path` may be ':memory:'; the file is opened at the first use.

    `at_s` arguments are wall-clock seconds and decide only when rows are old enough to drop.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._opened: Optional[sqlite3.Connection] = None

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
        return (one[0] if one else 0), (two[0] if two else None)

    def raise_epochs(self, operation: str, epoch: int, server: str, server_epoch: int, at_s: float) -> None:
        """On disk before anything is done in their name. Never lowers one."""
        with self._lock, self._db() as db:
            for table, name, value in (("operation", operation, epoch), ("server", server, server_epoch)):
                if name:
                    db.execute(
                        f"INSERT INTO {table} VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET at_s = excluded.at_s, "
                        f"epoch = max(epoch, excluded.epoch)",
                        (name, value, at_s),
                    )

    def prune(self, now_s: float) -> None:
        """Drop answers, notes and operation epochs older than KEEP_S, and the oldest answers beyond KEEP_ROWS."""
        with self._lock, self._db() as db:
            for table in ("answer", "note", "operation"):
                db.execute(f"DELETE FROM {table} WHERE at_s < ?", (now_s - KEEP_S,))
            oldest = "SELECT id FROM answer ORDER BY at_s DESC LIMIT -1 OFFSET ?"
            db.execute(f"DELETE FROM answer WHERE id IN ({oldest})", (KEEP_ROWS,))

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
        if version == 0:
            db.executescript(f"BEGIN; {_CREATE} PRAGMA user_version = {SCHEMA}; COMMIT;")
        elif version != SCHEMA:
            raise BadLedger(f"{path}: schema {version} is not {SCHEMA}: this agent is older than the one that wrote it")
        return db
    except sqlite3.DatabaseError as bad:
        raise BadLedger(f"{path}: {bad}") from None
