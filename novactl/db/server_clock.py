"""The time of the database's own machine, as SQL: one clock for all who share the database, whatever theirs say."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Double
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement


class server_time(FunctionElement):  # noqa: N801 - it is used as a function of SQL
    """Seconds since the epoch (UTC). SQLite's machine is the caller's own: there it is the one argument."""

    type = Double()
    inherit_cache = True
    name = "server_time"


@compiles(server_time)
def _given(element: Any, compiler: Any, **kw: Any) -> str:
    return compiler.process(element.clauses, **kw)


@compiles(server_time, "postgresql")
def _postgresql(element: Any, compiler: Any, **kw: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"


@compiles(server_time, "mysql", "mariadb")
def _mariadb(element: Any, compiler: Any, **kw: Any) -> str:
    """Not UNIX_TIMESTAMP(), which reads local time, where an hour comes twice a year."""
    return "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) / 1e6"
