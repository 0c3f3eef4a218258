"""The database itself: upgrading it, checking it, taking it away in a file and bringing it back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from novactl.api.authority import Role, allow
from novactl.cluster import Cluster
from novactl.conductor.history import note_cluster
from novactl.errors import DatabaseFailed, NotInitialised, NovaError, SchemaNewer
from novactl.model.finding import Finding

if TYPE_CHECKING:
    from novactl.db import dump
    from novactl.db.statements import Tx


@dataclass(frozen=True)
class Upgraded:
    """`was` is the schema it had; with a dry run it still has it."""

    database: str
    was: int
    schema: int


@dataclass(frozen=True)
class Backup:
    """A backup in a file: of which cluster, taken when, and how much is in it. `database` is where it came from, or went to."""

    file: str
    database: str
    cluster_id: str
    schema: int
    taken_at: float
    nodes: int
    servers: int
    rows: int
    missing_keys: tuple[str, ...] = ()
    """Where the key of this data directory is not one of the backup's admins: their names."""


def upgrade(cluster: Cluster, *, rewrite: bool = False, dry_run: bool = False) -> Upgraded:
    """Bring the database to this version's schema, writing anew what follows from other rows; one that has it is left alone, but for
    that where `rewrite`. Raises NotInitialised, SchemaNewer."""
    from novactl.api import cluster as api
    from novactl.db.engine import SCHEMA

    database = cluster.unchecked_db()
    was = database.schema()
    if was == 0:
        raise NotInitialised(database.where)
    if was > SCHEMA:
        raise SchemaNewer(database.where, was, SCHEMA)
    if was < SCHEMA:
        api.init(cluster, upgrade=True, dry_run=dry_run)
    elif rewrite:
        allow(cluster, Role.ADMIN, "database.upgrade")
        if not dry_run:
            from novactl.db import migrate

            migrate.upgrade(
                database, cluster.config.database_url, cluster.ids.uuid(),
                lambda tx: note_cluster(cluster, tx, "db.upgrade", f"schema {was}: sums and limits written anew"))
    return Upgraded(database.where, was, SCHEMA)


def backup(cluster: Cluster, file: Path, *, force: bool = False, dry_run: bool = False) -> Backup:
    """Write all of the database, as it is at one moment, into `file` (0600). Also of a database of an older schema.

    Raises Conflict where the file exists, unless `force`.
    """
    from novactl import __version__
    from novactl.db import dump
    from novactl.db.engine import SCHEMA

    database, url = cluster.unchecked_db(), cluster.config.database_url
    found = database.schema()
    if found == 0:
        raise NotInitialised(database.where)
    if found > SCHEMA:
        raise SchemaNewer(database.where, found, SCHEMA)
    if found == SCHEMA:
        allow(cluster, Role.ADMIN, "database.backup")
    header = dump.save(
        database, url, file, at=cluster.clock.now(), version=__version__, force=force, dry_run=dry_run)
    return _told(header, file, database.where)


backup.needs = Role.ADMIN  # type: ignore[attr-defined] # asked where there are keys: in an older schema there may be none


def restore(cluster: Cluster, file: Path, *, force: bool = False, dry_run: bool = False) -> Backup:
    """Replace all that is in the database by the backup in `file`, whichever kind of database it came from.

    Everything is checked before anything is written, and it is one transaction; who did it stands in the history that comes with it.
    Raises BadBackup for a file that is not whole; Conflict where the database has nodes or servers, unless `force`; SchemaNewer always.
    """
    from novactl.db import dump, meta
    from novactl.db.engine import SCHEMA

    database, url = cluster.unchecked_db(), cluster.config.database_url
    found = database.schema()
    if found > SCHEMA:                                        # nobody here knows what else is in it
        raise SchemaNewer(database.where, found, SCHEMA)
    if found == SCHEMA:
        allow(cluster, Role.ADMIN, "database.restore")
    with dump.staged(file) as source:
        if dry_run:
            why = None if force else dump.refusal(database, url)
            if why is not None:
                raise why
        else:
            header = source.header

            def note(tx: Tx) -> None:
                if header.rows.get("node"):                   # nothing is begun on them before it is adopted
                    meta.put(tx, meta.RESTORED, f"a backup of {_iso(header.at)}")
                note_cluster(cluster, tx, "db.restore", f"{file}, taken {_iso(header.at)}: schema {header.schema} -> {SCHEMA}")

            dump.restore(database, url, source, force=force, note=note)
        return replace(_told(source.header, file, database.where), missing_keys=_missing_keys(cluster, source))


def _missing_keys(cluster: Cluster, source: dump.Staged) -> tuple[str, ...]:
    from novactl.db import keys

    with source.database.read() as tx:
        admins = [key for key in keys.active(tx) if key.role is Role.ADMIN]
    return () if cluster.key in {key.public_key for key in admins} else tuple(key.name for key in admins)


def check(cluster: Cluster) -> tuple[Finding, ...]:
    """What the database alone can show: its file, the sums it keeps, and whether its rows agree. Asks no agent, changes nothing."""
    from novactl.db import checks, migrate

    database, url = cluster.unchecked_db(), cluster.config.database_url
    database.check_schema()
    with contextlib.suppress(DatabaseFailed):                 # a damaged file is for the checks to find
        allow(cluster, Role.READER, "database.check")

    def reading(of: Callable[[Any], Iterator[str]]) -> Callable[[], Iterator[str]]:
        def found() -> Iterator[str]:
            with migrate.transaction(database, url, reads=True) as connection:
                yield from list(of(connection))

        return found

    asked: tuple[tuple[str, Callable[[], Iterator[str]], str, str, str], ...] = (
        ("file", lambda: checks.pages(database, url), "whole", "fail", "novactl db restore FILE, from the last backup"),
        ("sums", lambda: checks.sums(database, url), "as they follow from claims, inventories and reports", "fail",
         "novactl db upgrade --rewrite"),
        ("claims", reading(checks.claims), "each has its server or its operation", "fail", "novactl placement list"),
        ("room", reading(checks.room), "no node has more claimed than may be", "warn", "novactl node show NODE"),
        ("servers", reading(checks.servers), "each is held by what is under way on it", "fail", "novactl server show SERVER"),
        ("operations", reading(checks.operations), "each is under way, stuck or at its end", "fail", "novactl operation list --all"),
    )
    findings: list[Finding] = []
    for name, found, good, verdict, fix in asked:
        try:
            wrong = [Finding(name, verdict, text, fix) for text in found()]
        except NovaError as failed:
            wrong = [Finding(name, "fail", failed.message, failed.hint or fix)]
        findings += wrong or [Finding(name, "ok", good)]
    return tuple(findings)


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _told(header: Any, file: Path, where: str) -> Backup:
    return Backup(
        str(file), where, header.cluster_id, header.schema, header.at, header.rows.get("node", 0), header.rows.get("server", 0),
        sum(header.rows.values()))
