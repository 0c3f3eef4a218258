"""What MariaDB needs beyond SQLAlchemy: how its sessions are to be, and how changes of tables are said to it."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy.ext.compiler import compiles
from sqlalchemy.types import Text

COLLATION = "utf8mb4_nopad_bin"
"""Names are compared as they are: case, accents and a blank at the end count."""
_MODE = "STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,SIMULTANEOUS_ASSIGNMENT"
"""The last one: in `SET a = a + 1, b = a` both read the old row, as the standard has it."""


def session(busy_timeout_s: float, idle_s: float) -> str:
    """The statement that each connection begins with."""
    return (
        f"SET NAMES utf8mb4 COLLATE {COLLATION}, sql_mode='{_MODE}', innodb_lock_wait_timeout={max(1, round(busy_timeout_s))},"
        f" idle_transaction_timeout={round(idle_s)}")


@compiles(Text, "mariadb")
def _long_text(_type: Any, _compiler: Any, **_how: Any) -> str:
    return "LONGTEXT"                                         # TEXT ends at 64 KiB


_AGAIN = (
    (r"^\s*CREATE TABLE (?!IF )", "CREATE TABLE IF NOT EXISTS "),
    (r"^\s*CREATE (UNIQUE )?INDEX (?!IF )", r"CREATE \1INDEX IF NOT EXISTS "),
    (r"^(\s*ALTER TABLE \S+) ADD COLUMN (?!IF )", r"\1 ADD COLUMN IF NOT EXISTS "),
    (r"^(\s*ALTER TABLE \S+) DROP COLUMN (?!IF )", r"\1 DROP COLUMN IF EXISTS "),
    (r"^(\s*ALTER TABLE \S+ ADD CONSTRAINT (\S+) FOREIGN KEY) ?\(", r"\1 IF NOT EXISTS \2 ("),
)


def repeatable(statement: str) -> str:
    """A change of tables that may have been made already, because it ended its transaction. Other statements stay as they are."""
    for pattern, said in _AGAIN:
        statement = re.sub(pattern, said, statement)
    if statement.lstrip().startswith("CREATE TABLE"):
        statement = f"{statement.rstrip()} ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE={COLLATION}"
    return statement
