"""A whole database in one file, and back into any kind of database; and what `db check` finds."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import itertools
import json
import os
import random
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from novactl.api import cluster as api_cluster
from novactl.api import database as api
from novactl.api import events
from novactl.api import servers as api_servers
from novactl.api.servers import CreateServer
from novactl.cluster import Cluster
from novactl.config import load_config
from novactl.db import dump, engine, meta, migrate, operations, placement, schema, servers
from novactl.db.events import Asked
from novactl.errors import BadBackup, Conflict, DatabaseFailed, Denied, NotInitialised, NovaError, SchemaNewer, SchemaOlder, UsageError
from tests import databases
from tests.unit import test_db_upgrade as older
from tests.unit.cli_world import Prompt
from tests.world import World, small_world


def cluster_in(folder: Path, url: str = "", *, keys_of: Cluster | None = None) -> Cluster:
    env = {"HOME": str(folder), "NOVACTL_DATA_DIR": str(folder / "data")} | ({"NOVACTL_DATABASE_URL": url} if url else {})
    if keys_of is not None:
        (folder / "data").mkdir(mode=0o700, parents=True)
        shutil.copytree(keys_of.config.data_dir / "keys", folder / "data" / "keys")
    return Cluster(load_config(env=env), actor="tester@backup")


MADE = ("init", "db.upgrade", "db.restore")


def content(cluster: Cluster) -> dict[str, list[tuple]]:
    """Every row of every table of ours, but for the events of making the tables themselves, and that it was restored."""
    with migrate.transaction(cluster.unchecked_db(), cluster.config.database_url, reads=True) as connection:
        found = {
            name: sorted((tuple(row) for row in connection.execute(sa.select(table))), key=str)
            for name, table in schema.metadata.tables.items()}
    return found | {
        "event": [row for row in found["event"] if not {*MADE} & {*row}],
        "meta": [row for row in found["meta"] if row[0] != meta.RESTORED]}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two servers, one of them deleted, and what that leaves behind."""
    with small_world(tmp_path_factory.mktemp("world")) as made:
        long = "#!/bin/sh\necho ü'\"\\\n" * 2000
        api_servers.create(made.cluster, CreateServer(name="web", flavor="small", image="guest", user_data=long))
        api_servers.create(made.cluster, CreateServer(name="old", flavor="small", image="guest"))
        api_servers.delete(made.cluster, "old")
        yield made


@pytest.fixture(scope="module")
def file(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("backup") / "b.nova"
    told = api.backup(world.cluster, made)
    assert (told.nodes, told.servers) == (2, 2) and told.rows > 20
    return made


@contextlib.contextmanager
def as_kind(kind: str, folder: Path, *, keys_of: Cluster | None = None) -> Iterator[Cluster]:
    with databases.database(kind) as url:
        made = cluster_in(folder, url, keys_of=keys_of)
        yield made
        made.close()


@pytest.mark.parametrize("kind", databases.EACH)
def test_a_backup_is_all_of_it_on_any_kind_of_database(world: World, file: Path, tmp_path: Path, kind: str) -> None:
    """Restored into an empty database, taken again and restored on SQLite: every row of every table is as it was."""
    before = content(world.cluster)
    with as_kind(kind, tmp_path / "there", keys_of=world.cluster) as there:
        told = api.restore(there, file)
        assert content(there) == before and (told.nodes, told.servers, told.cluster_id) == (2, 2, dict(before["meta"])["cluster_id"])
        again = tmp_path / "again.nova"
        api.backup(there, again)
        assert {finding.verdict for finding in api.check(there)} == {"ok"}
        server = servers_of(there)["web"]
        with there.db.write() as tx:                          # numbers go on where they were
            seq = operations.number(tx, "00000000-0000-4000-8000-000000000000")
            placement.release(tx, server.id, server.node_id)
        assert seq == 1 + max(row[0] for row in before["ticket"])
    back = cluster_in(tmp_path / "back", keys_of=world.cluster)
    api.restore(back, again)
    assert content(back) == before
    own = [line for line in sorted(_lines(again)[1:-1]) if b"db.restore" not in line and not line.startswith(b'["restored",')]
    assert len(own) == len(_lines(again)) - 4 and own == sorted(_lines(file)[1:-1]), "a backup does not show which kind it came from"


def test_who_restored_it_stands_in_the_history_that_came(world: World, file: Path, tmp_path: Path) -> None:
    """Who, when, why, from which file, from which schema to which: the newest event, on any kind of database, and only if it was done."""
    for kind in databases.EACH:
        with as_kind(kind, tmp_path / kind, keys_of=world.cluster) as there:
            there.reason = "disk lost"
            api.restore(there, file)
            with pytest.raises(NovaError):
                api.restore(there, file)                      # in use by now
            said = [event for event in events.list_events(there, Asked(), limit=100) if event.event == "db.restore"]
            assert [(e.actor, e.reason, e.object_kind, e.detail.partition(" taken ")[0]) for e in said] == [
                (there.actor, "disk lost", "cluster", f"{file},")], kind
            assert said[0].detail.endswith("Z: schema 3 -> 3")


def servers_of(cluster: Cluster) -> dict[str, Any]:
    with cluster.db.read() as tx:
        return {server.name: server for server in servers.all_(tx)}


def test_numbers_of_operations_that_are_gone_are_not_given_again(world: World, tmp_path: Path) -> None:
    """Agents refuse a number that another operation has had: also where its row was purged before the backup."""
    for kind, target in itertools.pairwise((*databases.EACH, "sqlite")):
        with as_kind(kind, tmp_path / kind) as source:
            api_cluster.init(source)
            with source.db.write() as tx:
                for number in range(5):
                    operations.number(tx, f"0000000{number}-0000-4000-8000-000000000000")
            with migrate.transaction(source.unchecked_db(), source.config.database_url) as connection:
                connection.execute(sa.delete(schema.ticket))
            api.backup(source, tmp_path / f"{kind}.nova")
        with as_kind(target, tmp_path / f"{kind}-{target}", keys_of=source) as there:
            api.restore(there, tmp_path / f"{kind}.nova")
            with there.db.write() as tx:
                assert operations.number(tx, "0000000a-0000-4000-8000-000000000000") == 6, (kind, target)


@pytest.mark.parametrize("number", ["0001", "0002"])
@pytest.mark.parametrize("kind", databases.EACH)
def test_a_backup_of_an_older_schema(tmp_path: Path, kind: str, number: str) -> None:
    """It can be taken before the upgrade, and what is restored from it is what the upgrade makes."""
    with databases.database(kind) as given:
        url = older._filled(given or f"sqlite:///{tmp_path / 'data' / 'novactl.db'}", number)
        source = cluster_in(tmp_path, given)
        with pytest.raises(SchemaOlder, match="needs") as refused, source.db.read():
            pass
        assert refused.value.command == "novactl db upgrade"
        api.backup(source, tmp_path / "old.nova")
        assert api.upgrade(source, dry_run=True).was == int(number) == source.unchecked_db().schema()
        assert api.upgrade(source) == dataclasses.replace(api.upgrade(source), was=int(number))
        there = cluster_in(tmp_path / "there")
        api.restore(there, tmp_path / "old.nova")
        assert _timeless(content(there)) == _timeless(content(source)), url
        assert [f.detail for f in api.check(there) if f.verdict == "fail"] == ["node h1: claimed by operation o1, which is not under way"]


def _timeless(rows: dict[str, list[tuple]]) -> dict[str, list[tuple]]:
    return {name: these for name, these in rows.items() if name not in ("project", "admin_key", "meta")}


# ---------------------------------------------------------------- the file

def test_cve_2014_5247(world: World, tmp_path: Path) -> None:
    """A backup is its owner's only, whatever the umask, and never there in parts."""
    for umask in (0, 0o777):
        before = os.umask(umask)
        try:
            api.backup(world.cluster, tmp_path / f"{umask}.nova")
        finally:
            os.umask(before)
    assert {path.stat().st_mode & 0o7777 for path in tmp_path.iterdir()} == {0o600}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.nova", "511.nova"]


def test_a_backup_replaces_no_file_unasked(world: World, tmp_path: Path) -> None:
    """What is there stays, also with --dry-run; --force replaces it; a place that is not there is said so."""
    file = tmp_path / "b.nova"
    api.backup(world.cluster, file, dry_run=True)
    assert list(tmp_path.iterdir()) == []
    file.write_text("mine")
    with pytest.raises(Conflict, match="exists already") as refused:
        api.backup(world.cluster, file)
    assert "--force" in refused.value.hint and file.read_text() == "mine"
    api.backup(world.cluster, file, force=True)
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(UsageError, match="No such file"):
        api.backup(world.cluster, tmp_path / "nowhere" / "b.nova")
    with pytest.raises(NotInitialised):
        api.backup(cluster_in(tmp_path / "none"), tmp_path / "c.nova")


def _lines(file: Path) -> list[bytes]:
    return gzip.decompress(file.read_bytes()).splitlines(keepends=True)


def _written(to: Path, lines: list[bytes], *, sealed: bool = True) -> Path:
    """A file of these lines; `sealed` with a checksum that is right."""
    if sealed:
        lines = [*lines[:-1], json.dumps({"sha256": hashlib.sha256(b"".join(lines[:-1])).hexdigest()}).encode() + b"\n"]
    to.write_bytes(gzip.compress(b"".join(lines)))
    return to


def _header(lines: list[bytes], **changes: Any) -> list[bytes]:
    return [json.dumps(json.loads(lines[0]) | changes).encode() + b"\n", *lines[1:]]


def _cell(lines: list[bytes], table: str, column: str, value: Any) -> list[bytes]:
    at = next(number for number, line in enumerate(lines) if line.startswith(f'{{"table":"{table}"'.encode()))
    row = json.loads(lines[at + 1])
    row[json.loads(lines[at])["columns"].index(column)] = value
    return [*lines[:at + 1], json.dumps(row).encode() + b"\n", *lines[at + 2:]]


@pytest.mark.parametrize(("damage", "says"), [
    (lambda lines: _header(lines, schema=engine.SCHEMA + 1, novactl="9.9"), f"has schema {engine.SCHEMA + 1}; this novactl knows"),
    (lambda lines: _header(lines, version=2), "knows"),
    (lambda lines: _header(lines, schema=0), "there is none such"),
    (lambda lines: _header(lines, format="tar"), "is no backup"),
    (lambda lines: _header(lines, rows="many"), "its header"),
    (lambda lines: _header(lines, cluster_id="another"), "not of the cluster"),
    (lambda lines: [*lines[:-2], lines[-1]], "were written"),
    (lambda lines: _cell(lines, "server", "vcpus", "2"), "server.vcpus is '2'"),
    (lambda lines: _cell(lines, "server", "vcpus", True), "server.vcpus is 'True'"),
    (lambda lines: _cell(lines, "server", "vcpus", 1 << 70), "server.vcpus"),
    (lambda lines: _cell(lines, "server", "name", "x" * 65), "server.name"),
    (lambda lines: _cell(lines, "server", "name", None), "server.name is 'None'"),
    (lambda lines: _cell(lines, "server", "created_at", [1]), "server.created_at"),
    (lambda lines: _cell(lines, "claim", "node_id", "nowhere"), "refers to one of node that is not there"),
    (lambda lines: _cell(lines, "claim", "amount", 0), "CHECK"),
    (lambda lines: [*lines[:1], b'{"table":"sqlite_master","columns":[]}\n', *lines[1:]], "a table 'sqlite_master'"),
    (lambda lines: [*lines[:1], lines[-2], *lines[1:]], "is no row"),
    (lambda lines: [line.replace(b'"columns":["created_at",', b'"columns":["xx",') for line in lines], "with columns"),
    (lambda lines: [*lines[:3], b"[" * 100_000 + b"\n", *lines[3:]], "is no line of one"),
])
def test_what_cannot_be_right_is_refused(world: World, file: Path, tmp_path: Path, damage: Any, says: str) -> None:
    """A file whose checksum is right and whose content is not: nothing is written."""
    bad = _written(tmp_path / "bad.nova", damage(_lines(file)))
    there = cluster_in(tmp_path / "there")
    with pytest.raises(BadBackup, match=says):
        api.restore(there, bad)
    assert not (tmp_path / "there").exists()


def test_every_cut_and_every_flipped_byte_is_found(file: Path, tmp_path: Path) -> None:
    """Truncated anywhere, or with any byte changed, packed or unpacked, it is refused; and so are other files."""
    whole, chance, bad = file.read_bytes(), random.Random(7), tmp_path / "bad.nova"
    with dump.staged(file) as staged:
        assert staged.header.rows["node"] == 2
    plain = gzip.decompress(whole)
    for at in [0, 1, 9, 10, len(whole) - 1, len(whole) - 8, *(chance.randrange(len(whole)) for _ in range(12))]:
        bad.write_bytes(whole[:at])
        with pytest.raises(BadBackup), dump.staged(bad):
            pass
        flipped = bytes([*whole[:at], whole[at] ^ 0x40, *whole[at + 1:]])
        bad.write_bytes(flipped)
        if gzip_says(flipped) != plain:                       # a byte of gzip's own header may mean nothing
            with pytest.raises(BadBackup), dump.staged(bad):
                pass
    for at in [0, 3, len(plain) - 1, len(plain) - 70, *(chance.randrange(len(plain)) for _ in range(12))]:
        for said in (plain[:at], bytes([*plain[:at], plain[at] ^ 0x01, *plain[at + 1:]])):
            bad.write_bytes(gzip.compress(said))
            if said + b"\n" != plain:
                with pytest.raises(BadBackup), dump.staged(bad):
                    pass
    for other in (b"", b"not gzip", gzip.compress(b""), gzip.compress(b"\xff\xfe\n"), gzip.compress(b"[1]\n[2]\n")):
        bad.write_bytes(other)
        with pytest.raises(BadBackup), dump.staged(bad):
            pass
    with pytest.raises(BadBackup, match="cannot read"), dump.staged(tmp_path / "none.nova"):
        pass


def gzip_says(packed: bytes) -> bytes | None:
    try:
        return gzip.decompress(packed)
    except Exception:  # noqa: BLE001 - any way of being no gzip
        return None


# ---------------------------------------------------------------- into what

@pytest.mark.parametrize("kind", databases.EACH)
def test_a_database_in_use_is_replaced_only_when_forced(world: World, file: Path, tmp_path: Path, kind: str) -> None:
    """One with nodes is kept; a new one is not in use; --dry-run says what would be and changes nothing; a failure leaves all of it."""
    with databases.cluster(kind) as url, small_world(tmp_path / "used", count=1, url=url) as used:
        before = content(used.cluster)
        for dry_run in (True, False):
            with pytest.raises(Conflict, match="has 1 nodes and 0 servers, which the backup would replace"):
                api.restore(used.cluster, file, dry_run=dry_run)
        assert api.restore(used.cluster, file, force=True, dry_run=True).nodes == 2
        assert content(used.cluster) == before
        with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError):
            patch.setattr(dump, "_count_on", _fail)
            api.restore(used.cluster, file, force=True)
        assert content(used.cluster) == before
        assert api.restore(used.cluster, file, force=True).missing_keys == ("tester",)
        assert set(servers_of(used.cluster)) == {"web"}
        with pytest.raises(Denied):                           # its key is not the backup's
            api.restore(used.cluster, file, force=True)
    new = cluster_in(tmp_path / "new", keys_of=world.cluster)
    api_cluster.init(new)
    assert api.restore(new, file).missing_keys == ()
    assert set(servers_of(new)) == {"web"}


def test_replacing_a_cluster_is_asked_for(world: World, file: Path, tmp_path: Path) -> None:
    """--force asks, and where nobody can be asked nothing is changed; a dry run and an empty database do not ask."""
    with small_world(tmp_path, count=1) as used:
        prompt, restore = Prompt(used.env), ("db", "restore", str(file))
        before = content(used.cluster)
        assert prompt.run(*restore, "--force", "--dry-run").status == 0
        refused = prompt.run(*restore, "--force")
        assert refused.status == 2 and "a backup of 2 nodes" in refused.err and "--yes" in refused.err
        assert prompt.run(*restore, "--force", tty=True, stdin="n\n").status == 2
        assert prompt.run(*restore, "--yes").status == 4
        assert content(used.cluster) == before
        assert prompt.run(*restore, "--force", tty=True, stdin="y\n").status == 0 and set(servers_of(used.cluster)) == {"web"}
        assert prompt.run("db", "backup", "-").status == 2 and not Path("-").exists()
    empty = Prompt({"NOVACTL_DATA_DIR": str(tmp_path / "empty"), "HOME": str(tmp_path)})
    assert empty.run(*restore).status == 0


@pytest.mark.parametrize("kind", databases.EACH)
def test_a_newer_database_is_not_replaced(world: World, file: Path, tmp_path: Path, kind: str) -> None:
    """What is in it is not known here: refused, --force and --dry-run or not, naming the way, and left as it is."""
    with as_kind(kind, tmp_path, keys_of=world.cluster) as there:
        api.restore(there, file)
        with migrate.transaction(there.unchecked_db(), there.config.database_url) as connection:
            connection.execute(sa.update(schema.meta).where(schema.meta.c.key == "schema").values(value="99"))
            connection.execute(sa.text("UPDATE alembic_version SET version_num = '0099'"))
        before = content(there)
        for force, dry_run in itertools.product((True, False), repeat=2):
            with pytest.raises(SchemaNewer, match="has schema 99; this novactl knows") as refused:
                api.restore(there, file, force=force, dry_run=dry_run)
            assert "in another place" in refused.value.hint
        assert content(there) == before


def test_a_damaged_database_says_what_brings_it_back(world: World, file: Path, tmp_path: Path) -> None:
    """A schema that is no number, a file that is no database: restored once it is out of the way, as the hint says."""
    there = cluster_in(tmp_path, keys_of=world.cluster)

    def misnumber(path: Path) -> None:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as raw:
            raw.execute("UPDATE meta SET value = 'abc' WHERE key = 'schema'")

    for spoil in (misnumber, lambda path: path.write_bytes(b"no database" * 500)):
        api.restore(there, file)
        there.close()
        spoil(there.config.sqlite_path)
        for asked in (lambda: there.db, lambda: api.restore(there, file, force=True), lambda: api.backup(there, tmp_path / "x")):
            with pytest.raises(DatabaseFailed) as refused:
                asked()
            assert "move it away, then novactl db restore" in refused.value.hint
        (found,) = api_cluster.doctor(there)
        assert found.verdict == "fail" and "move it away" in found.fix
        for left in there.config.data_dir.glob("novactl.db*"):
            left.unlink()
    api.restore(there, file)
    assert set(servers_of(there)) == {"web"}


def _fail(*_given: Any) -> None:
    raise RuntimeError("as the test wants it")


def test_a_backup_is_of_one_moment(tmp_path: Path) -> None:
    """What is written while it is taken is in it whole, or not at all: here not, since it began before."""
    for kind in databases.EACH:
        with as_kind(kind, tmp_path / kind) as there:
            api_cluster.init(there)
            at_work = there.unchecked_db()
            reading = migrate.transaction(at_work, there.config.database_url, reads=True)
            with reading as connection:
                first = connection.execute(sa.select(sa.func.count()).select_from(schema.ticket)).scalar_one()
                with there.db.write() as tx:
                    operations.number(tx, "00000000-0000-4000-8000-000000000000")
                assert connection.execute(sa.select(sa.func.count()).select_from(schema.ticket)).scalar_one() == first == 0, kind


# ---------------------------------------------------------------- check

@pytest.mark.parametrize(("wrong", "check", "says"), [
    ("UPDATE node SET vcpu_used = 7, servers = 9 WHERE servers > 0", "sums", "vcpu_used is 7, and should be 1"),
    ("UPDATE node SET shape = '' WHERE servers > 0", "sums", "shape is , and should be"),
    ("UPDATE project SET ram_mb_used = 1, cores_max = 3", "sums", "project default: cores_max is 3, and should be -1"),
    ("DELETE FROM claim", "claims", "and claims nothing there"),
    ("UPDATE server SET live_name = NULL, deleted_at = 1.0, node_id = NULL WHERE name = 'web'", "claims", "which is not on it"),
    ("UPDATE claim SET consumer_kind = 'operation'", "claims", "claimed by operation"),
    ("UPDATE inventory SET reserved = total WHERE resource_class = 'MEMORY_MB'", "sums", "memory_mb_capacity is"),
    ("UPDATE node SET memory_mb_capacity = 1 WHERE servers > 0", "room", "512 of 1 MEMORY_MB claimed"),
    ("UPDATE server SET operation_id = 'x' WHERE name = 'web'", "servers", "held by operation x"),
    ("UPDATE server SET task_state = 'deleting' WHERE name = 'web'", "servers", "server web is deleting, and no operation is under way"),
    ("UPDATE server SET deleted_at = 1.0 WHERE name = 'web'", "servers", "neither there nor gone"),
    ("UPDATE operation SET state = 'running'", "operations", "is running, and has ended"),
    ("UPDATE operation SET state = 'half'", "operations", "is half, and has ended"),
    ("UPDATE operation SET open_object_id = id", "operations", "is ok, and has ended"),
    ("UPDATE operation SET object_id = 'gone', open_object_id = 'gone', ended_at = NULL, state = 'stuck' WHERE kind = 'server.delete'",
     "operations", "under way on a server that is not there"),
])
def test_check_finds_what_does_not_agree(world: World, file: Path, tmp_path: Path, wrong: str, check: str, says: str) -> None:
    """Each kind of disagreement is found, said with names and numbers, and left as it is."""
    there = cluster_in(tmp_path, keys_of=world.cluster)
    api.restore(there, file)
    with migrate.transaction(there.unchecked_db(), there.config.database_url) as connection:
        connection.execute(sa.text(wrong))
    before = content(there)
    found = api.check(there)
    assert [one for one in found if one.check == check and says in one.detail and one.verdict != "ok" and one.fix], found
    assert content(there) == before


@pytest.mark.parametrize("kind", databases.EACH)
def test_sums_that_are_wrong_can_be_written_anew(world: World, file: Path, tmp_path: Path, kind: str) -> None:
    """On each kind of database, without being changed by the check; a cluster at work is not found wrong."""
    with as_kind(kind, tmp_path, keys_of=world.cluster) as there:
        api.restore(there, file)
        with migrate.transaction(there.unchecked_db(), there.config.database_url) as connection:
            connection.execute(sa.text("UPDATE node SET vcpu_used = 7"))
        found = [finding for finding in api.check(there) if finding.verdict != "ok"]
        assert {finding.check for finding in found} == {"sums"} and found[0].fix == "novactl db upgrade --rewrite"
        api.upgrade(there)
        assert any(finding.verdict == "fail" for finding in api.check(there))
        api.upgrade(there, rewrite=True)
        assert {finding.verdict for finding in api.check(there)} == {"ok"}


def test_a_row_that_refers_to_nothing_is_found(world: World, file: Path, tmp_path: Path) -> None:
    """Foreign keys are asked on SQLite, where a tool that does not switch them on can break them."""
    there = cluster_in(tmp_path, keys_of=world.cluster)
    api.restore(there, file)
    with sqlite3.connect(there.config.sqlite_path) as raw:
        raw.execute("UPDATE aggregate_node SET node_id = 'x'")
        raw.execute("INSERT INTO fitting VALUES ('c', 'nowhere', '{}')")
    assert [f.detail for f in api.check(there) if f.check == "file"] == ["a row of fitting refers to one of node that is not there"]


def test_names(tmp_path: Path) -> None:
    """Names differ in case, in accents and in a blank at the end, and texts are as long as they are, on every kind of database."""
    for kind in databases.EACH:
        with as_kind(kind, tmp_path / kind) as there:
            api_cluster.init(there)
            texts = {"a": "x" * 300_000, "A": "ß€𝄞\\%_'\"\r\n", "á": "", "a ": "\x1b\t"}
            with there.db.write() as tx:
                for name, text in texts.items():
                    tx.run(meta.q_insert, key=name, value=text)
            with there.db.read() as tx:
                assert {name: (tx.one(meta.q_value, by_key=name) or {})["value"] for name in texts} == texts, kind
            with pytest.raises(NovaError), there.db.write() as tx:
                tx.run(meta.q_insert, key="a", value="")
