"""A whole database in one file, and back from it into a database of any kind.

The file is gzip of lines of JSON: a header (what, when, how many rows), then for each table its name and columns and a line for
each row, and last the SHA-256 of all that is before it. It says nothing of the kind of database it came from.

What is read is first put into an SQLite file of its own, by the migrations of the schema it was taken with, and brought to
today's there: what a database would refuse is found before anything is changed, and an older backup is no special case.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa
from alembic import command

from novactl.db import meta, migrate, schema
from novactl.db.core import CoreTx
from novactl.db.engine import SCHEMA, Database, SqliteDatabase
from novactl.db.statements import Tx
from novactl.errors import BadBackup, Conflict, NovaError, UsageError

FORMAT, VERSION = "novactl-backup", 1
LINE_MAX = 64 << 20
BATCH = 500


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a backup is of. `counters`: of tables that number their rows, the last number given."""

    schema: int
    cluster_id: str
    at: float
    novactl: str
    rows: Mapping[str, int]
    counters: Mapping[str, int]


# ---------------------------------------------------------------- out

def save(database: Database, url: str, file: Path, *, at: float, version: str, force: bool = False, dry_run: bool = False) -> Header:
    """Write all of it, as it is at one moment, into `file`: whole, lasting and for its owner only, or not at all.

    A database of an older schema is written as it is. Raises Conflict where the file exists, unless `force`; UsageError where it
    cannot be written; DatabaseFailed. With `dry_run` the file is written, and taken away again.
    """
    if file.exists() and not force:
        raise _exists(file)
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        with open(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600), "wb") as raw:
            os.fchmod(raw.fileno(), 0o600)
            with gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed, migrate.transaction(database, url, reads=True) as connection:
                header = _write(connection, packed, at, version)
            raw.flush()
            os.fsync(raw.fileno())
        if dry_run:
            return header
        if force:
            os.replace(part, file)
        else:
            os.link(part, file)                               # a rename would replace what came there meanwhile
        _lasting(file.parent)
    except FileExistsError:
        raise _exists(file) from None
    except OSError as failed:
        raise UsageError(f"cannot write {file}: {failed.strerror}") from failed
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return header


def _exists(file: Path) -> Conflict:
    return Conflict(f"{file} exists already", hint="add --force to replace it")


def _lasting(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(connection: sa.Connection, packed: IO[bytes], at: float, version: str) -> Header:
    sum_ = hashlib.sha256()

    def line(value: Any) -> None:
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode() + b"\n"
        sum_.update(text)
        packed.write(text)

    tables = _tables(connection)
    tx = CoreTx(connection, {})
    header = Header(
        schema=meta.schema_number(tx), cluster_id=meta.cluster_id(tx), at=at, novactl=version, counters=_counters(connection, tables),
        rows={name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() for name, table in tables.items()})
    line({"format": FORMAT, "version": VERSION, **vars(header)})
    for name, table in tables.items():
        line({"table": name, "columns": table.c.keys()})
        rows = connection.execution_options(yield_per=BATCH).execute(sa.select(table))
        for row in rows:
            line(list(row))
    packed.write(json.dumps({"sha256": sum_.hexdigest()}).encode() + b"\n")
    return header


def _tables(connection: sa.Connection) -> dict[str, sa.Table]:
    """Ours, as they are there, by name. Columns have no types, so that values come as the driver gives them."""
    asked = sa.inspect(connection)
    there = set(asked.get_table_names())
    return {
        name: sa.table(name, *map(sa.column, sorted(column["name"] for column in asked.get_columns(name))))  # type: ignore[misc]
        for name in sorted(schema.metadata.tables.keys() & there)}


# ---------------------------------------------------------------- numbers

def _numbered(names: Any) -> list[sa.Table]:
    found = (schema.metadata.tables[name] for name in names)
    return [table for table in found if table.autoincrement_column is not None]


def _counters(connection: sa.Connection, names: Any) -> dict[str, int]:
    """The last number given in each table that numbers its rows, also where that row is gone."""
    found = {}
    for table in _numbered(names):
        key = table.autoincrement_column
        last = connection.execute(sa.select(sa.func.coalesce(sa.func.max(key), 0))).scalar_one()
        match connection.dialect.name:
            case "sqlite":
                asked = "SELECT seq FROM sqlite_sequence WHERE name = :name" if table.dialect_options["sqlite"]["autoincrement"] else ""
            case "postgresql":
                asked = "SELECT last_value FROM pg_sequences WHERE schemaname || '.' || sequencename = pg_get_serial_sequence(:name, 'id')"
            case _:
                asked = "SELECT auto_increment - 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = :name"
        given = connection.execute(sa.text(asked), {"name": table.name}).scalar() if asked else 0
        found[table.name] = max(int(last), int(given or 0))
    return found


def _count_on(connection: sa.Connection, counters: Mapping[str, int]) -> None:
    """Let no number be given twice."""
    for table in _numbered(counters):
        last = max(counters[table.name], _counters(connection, [table.name])[table.name])
        if connection.dialect.name == "postgresql" and last:
            connection.execute(sa.text("SELECT setval(pg_get_serial_sequence(:name, 'id'), :last)"), {"name": table.name, "last": last})
        elif last > connection.execute(sa.select(sa.func.coalesce(sa.func.max(table.c.id), 0))).scalar_one():
            filler = {column.name: "" if isinstance(column.type, sa.String) else 0 for column in table.c if not column.nullable}
            connection.execute(sa.insert(table), filler | {"id": last})
            connection.execute(sa.delete(table).where(table.c.id == last))


def _told_last(connection: sa.Connection, before: int) -> None:
    """The newest event has a number above those that followers have seen. SQLite counts on from what is there, and gave it a lower one."""
    key = schema.event.c.id
    newest = connection.execute(sa.select(sa.func.max(key))).scalar_one() or 0
    if newest <= before:
        connection.execute(sa.update(schema.event).where(key == newest).values(id=before + 1))


# ---------------------------------------------------------------- in

@dataclass(frozen=True)
class Staged:
    """A backup that was found whole, in a database of today's schema."""

    header: Header
    url: str

    @property
    def database(self) -> SqliteDatabase:
        return SqliteDatabase(Path(self.url.removeprefix("sqlite:///")), 60.0)


@contextlib.contextmanager
def staged(file: Path) -> Iterator[Staged]:
    """The backup in `file`, checked in full. Raises BadBackup."""
    with tempfile.TemporaryDirectory(prefix="novactl-restore-") as folder:
        url = f"sqlite:///{folder}/staged.db"
        database = SqliteDatabase(Path(folder) / "staged.db", 60.0)
        database.create()
        try:
            with open(file, "rb") as raw:
                header = _checked(raw, file)
                raw.seek(0)
                _stage(raw, file, header, database, url)
        except OSError as failed:
            if isinstance(failed, gzip.BadGzipFile):
                raise BadBackup(f"{file} is damaged, or no backup: {failed}", hint=_OTHER) from failed
            raise BadBackup(f"cannot read {file}: {failed.strerror or failed}") from failed
        except (EOFError, zlib.error) as failed:
            raise BadBackup(f"{file} is truncated or damaged: {failed}", hint=_OTHER) from failed
        if header.schema < SCHEMA:
            migrate.upgrade(database, url, header.cluster_id)
        database.close()
        yield Staged(header, url)


_OTHER = "nothing was changed; use another backup"


def _checked(raw: IO[bytes], file: Path) -> Header:
    """What a whole file says that it is."""
    lines = _lines(raw, file)
    header = _header(next(lines, b""), file)
    for _ in lines:
        pass
    return header


def _stage(raw: IO[bytes], file: Path, header: Header, database: Database, url: str) -> None:
    lines = _lines(raw, file)
    next(lines)
    with migrate.migrating(database, url) as connection:
        command.upgrade(migrate.alembic_config(connection), f"{header.schema:04d}")
        tables = sa.MetaData()
        tables.reflect(connection)
        for table in tables.tables.values():
            if table.name != "alembic_version":
                connection.execute(sa.delete(table))
        counted = _fill(connection, tables, lines, file)
        if counted != dict(header.rows):
            wrong = next(name for name in sorted(counted.keys() | header.rows.keys()) if counted.get(name) != header.rows.get(name))
            raise BadBackup(
                f"{file} is damaged: {counted.get(wrong, 0)} rows of {wrong}, {header.rows.get(wrong, 0)} were written", hint=_OTHER)
        for name, _row, parent, _key in connection.exec_driver_sql("PRAGMA foreign_key_check"):
            raise BadBackup(f"{file} is damaged: a row of {name} refers to one of {parent} that is not there", hint=_OTHER)
        if meta.get(CoreTx(connection, {}), "cluster_id") != header.cluster_id:
            raise BadBackup(f"{file} is damaged: it is not of the cluster that it names", hint=_OTHER)


def _lines(raw: IO[bytes], file: Path) -> Iterator[bytes]:
    """All lines but the last, which says their sum. Raises BadBackup after them, where theirs is another."""
    sum_, last = hashlib.sha256(), b""
    with gzip.GzipFile(fileobj=raw) as packed:
        while line := packed.readline(LINE_MAX):
            if last:
                sum_.update(last)
                yield last
            last = line
    said = _json(last, file)
    if not isinstance(said, dict) or "sha256" not in said:
        raise BadBackup(f"{file} is truncated: it has no end", hint=_OTHER)
    if said["sha256"] != sum_.hexdigest():
        raise BadBackup(f"{file} is damaged: its checksum is another", hint=_OTHER)


def _json(line: bytes, file: Path) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise BadBackup(f"{file} is damaged, or no backup: {line[:40]!r} is no line of one", hint=_OTHER) from None


def _header(line: bytes, file: Path) -> Header:
    said = _json(line, file)
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise BadBackup(f"{file} is no backup of novactl")
    try:
        header = Header(
            schema=int(said["schema"]), cluster_id=str(said["cluster_id"]), at=float(said["at"]), novactl=str(said["novactl"]),
            rows={str(name): int(count) for name, count in said["rows"].items()},
            counters={str(name): int(count) for name, count in said["counters"].items() if name in schema.metadata.tables})
        newer = int(said["version"]) > VERSION or header.schema > SCHEMA
    except (KeyError, TypeError, ValueError, AttributeError) as bad:
        raise BadBackup(f"{file} is damaged: its header lacks {bad}", hint=_OTHER) from None
    if newer:
        raise BadBackup(
            f"{file} has schema {header.schema}; this novactl knows {SCHEMA}",
            hint=f"it was made by novactl {header.novactl}: restore it with that")
    if header.schema < 1:
        raise BadBackup(f"{file} has schema {header.schema}: there is none such")
    return header


def _fill(connection: sa.Connection, tables: sa.MetaData, lines: Iterator[bytes], file: Path) -> dict[str, int]:
    """Insert what the lines say; how many rows each table got."""
    counted: dict[str, int] = {}
    table: sa.Table | None = None
    columns: list[str] = []
    rows: list[dict[str, Any]] = []

    def insert() -> None:
        if rows and table is not None:
            counted[table.name] += len(rows)
            try:
                connection.execute(sa.insert(table), rows)
            except sa.exc.IntegrityError as failed:
                raise BadBackup(f"{file} is damaged: {failed.orig}", hint=_OTHER) from failed
            rows.clear()

    for line in lines:
        said = _json(line, file)
        if isinstance(said, dict):
            insert()
            table, columns = _opened(tables, said, counted, file)
        elif table is None or not isinstance(said, list) or len(said) != len(columns):
            raise BadBackup(f"{file} is damaged: {line[:40]!r} is no row", hint=_OTHER)
        else:
            rows.append(_row(table, columns, said, file))
            if len(rows) == BATCH:
                insert()
    insert()
    return counted


def _opened(tables: sa.MetaData, said: Mapping[str, Any], counted: dict[str, int], file: Path) -> tuple[sa.Table, list[str]]:
    name, columns = said.get("table"), said.get("columns")
    table = tables.tables.get(name) if isinstance(name, str) and name in schema.metadata.tables else None
    if table is None or name in counted or not isinstance(columns, list) or set(columns) != set(table.c.keys()):
        raise BadBackup(f"{file} is damaged: a table {name!r} with columns {columns!r}"[:300], hint=_OTHER)
    counted[table.name] = 0
    return table, columns


def _row(table: sa.Table, columns: list[str], values: list[Any], file: Path) -> dict[str, Any]:
    """Raises BadBackup where a value is not of its column's kind: SQLite would take it, others not."""
    for name, value in zip(columns, values, strict=True):
        kind = table.c[name].type
        if value is None:
            fits = table.c[name].nullable
        elif isinstance(kind, sa.Integer):
            fits = type(value) is int and abs(value) < 1 << 63
        elif isinstance(kind, sa.Float):
            fits = type(value) in (int, float)
        else:
            fits = type(value) is str and len(value) <= (getattr(kind, "length", None) or LINE_MAX) and "\0" not in value
        if not fits:
            raise BadBackup(f"{file} is damaged: {table.name}.{name} is {str(value)[:40]!r}", hint=_OTHER)
    return dict(zip(columns, values, strict=True))


def refusal(database: Database, url: str) -> NovaError | None:
    """Why a backup may not replace what is in the database: it has nodes or servers. None where it may."""
    if database.schema() == 0:
        return None
    database.check_schema()
    with migrate.transaction(database, url, reads=True) as connection:
        return _in_use(connection, database.where)


def restore(
    database: Database, url: str, source: Staged, *, force: bool = False, note: Callable[[Tx], None] = lambda tx: None,
) -> None:
    """Replace all that is in the database by the backup, in one transaction, making the tables where there are none.

    (On MariaDB making tables ends transactions: one that had none may be left with empty ones.) `note` is the last that is written with it.
    Who leads has to begin anew, and numbers go on above those that either had.
    Raises Conflict where the database has nodes or servers, unless `force`.
    """
    if isinstance(database, SqliteDatabase):
        database.create()
    with migrate.transaction(source.database, source.url, reads=True) as backup, migrate.migrating(database, url) as target:
        command.upgrade(migrate.alembic_config(target), "head")
        why = None if force else _in_use(target, database.where)
        if why is not None:
            raise why
        given = _counters(target, [table.name for table in _numbered(source.header.counters)])
        newest_epoch = sa.select(sa.func.coalesce(sa.func.max(schema.lease.c.epoch), 0))
        epoch = target.execute(newest_epoch).scalar_one()
        for table in reversed(schema.metadata.sorted_tables):
            target.execute(sa.delete(table))
        for table in schema.metadata.sorted_tables:
            rows = backup.execution_options(yield_per=BATCH).execute(sa.select(table)).mappings()
            for batch in rows.partitions(BATCH):
                target.execute(sa.insert(table), [dict(row) for row in batch])
        _count_on(target, {name: max(last, given.get(name, 0)) for name, last in source.header.counters.items()})
        epoch = max(epoch, target.execute(newest_epoch).scalar_one())
        target.execute(sa.update(schema.lease).values(owner="", until=0.0, epoch=epoch + 1))
        note(CoreTx(target, {}))
        _told_last(target, given.get(schema.event.name, 0))


def _in_use(connection: sa.Connection, where: str) -> Conflict | None:
    counts = [
        connection.execute(sa.select(sa.func.count()).select_from(table).where(*living)).scalar_one()
        for table, living in ((schema.node, ()), (schema.server, (schema.server.c.live_name.is_not(None),)))]
    if not any(counts):
        return None
    return Conflict(
        f"the database {where} has {counts[0]} nodes and {counts[1]} servers, which the backup would replace",
        hint="take a backup of it (novactl db backup FILE), then add --force")
