"""The database: the compiled text, the migrations, and many writers at once."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from novactl.api import cluster as api_cluster
from novactl.api import flavors as api_flavors
from novactl.cluster import Cluster
from novactl.config import load_config
from novactl.db import compile as db_compile
from novactl.db import engine, flavors, meta, nodes, operations, placement
from novactl.db.placement import Claim
from novactl.errors import AlreadyExists, Conflict, DatabaseFailed, NotInitialised, SchemaNewer, SchemaOlder
from novactl.model.flavor import Flavor
from novactl.model.node import Node, NodeState
from novactl.model.resources import Inventory
from tests import databases


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(load_config(env={"HOME": str(tmp_path), "NOVACTL_DATA_DIR": str(tmp_path / "data")}), actor="tester@db")
    api_cluster.init(made)
    yield made
    made.close()


def flavor(number: int) -> Flavor:
    return Flavor(id=f"{number:08d}-0000-4000-8000-000000000000", name=f"f{number}", vcpus=1, memory_mb=1, disk_gb=0, created_at=0.5)


def test_the_compiled_text_is_that_of_the_core_queries() -> None:
    """compiled.py is what `python -m novactl.db.compile` writes today."""
    assert db_compile.TARGET.read_text() == db_compile.source()


def test_every_statement_runs_on_the_schema(cluster: Cluster) -> None:
    """SQLite accepts every compiled statement against the migrated schema: no column or table is misnamed."""
    from novactl.db.compiled import SQLITE

    db_compile.source()
    assert set(SQLITE) == set(db_compile.REGISTRY)
    connection = sqlite3.connect(cluster.config.sqlite_path)
    for text in SQLITE.values():
        connection.execute(f"EXPLAIN {text}", dict.fromkeys(re.findall(r":(\w+)", text), 1))
    connection.close()


@pytest.mark.parametrize("kind", databases.EACH)
def test_migrations_lead_to_the_schema(tmp_path: Path, kind: str) -> None:
    """Alembic finds no difference between a migrated database and schema.py, and its newest revision is SCHEMA."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    from novactl.db import migrate, schema

    with databases.database(kind) as given:
        url = given or f"sqlite:///{tmp_path / 'x.db'}"
        database = engine.open_database(url)
        migrate.upgrade(database, url, "c")
        with migrate.migrating(database, url) as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, schema.metadata) == []
            head = ScriptDirectory.from_config(migrate.alembic_config(connection)).get_current_head()
    assert int(head or 0) == engine.SCHEMA


def test_init_is_safe_to_repeat_and_private(cluster: Cluster) -> None:
    """A second init changes nothing; files are 0600 in a 0700 directory."""
    again = api_cluster.init(cluster)
    assert not again.created
    data = cluster.config.data_dir
    assert data.stat().st_mode & 0o777 == 0o700
    for path in data.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_no_cluster_is_said_so(tmp_path: Path) -> None:
    """Without `init` every use names it."""
    made = Cluster(load_config(env={"HOME": str(tmp_path)}))
    with pytest.raises(NotInitialised) as refused, made.db.read():
        pass
    assert refused.value.command == "novactl init"
    assert not (tmp_path / ".local").exists()


@pytest.mark.parametrize(("found", "error"), [(engine.SCHEMA + 1, SchemaNewer), (-1, SchemaOlder)])
def test_another_schema_is_refused(cluster: Cluster, found: int, error: type[Exception]) -> None:
    """A newer schema is refused and left alone; an older one names the upgrade."""
    with cluster.db.write() as tx:
        meta.put(tx, "schema", str(found))
    other = Cluster(cluster.config)
    with pytest.raises(error), other.db.read():
        pass
    if error is SchemaNewer:
        with pytest.raises(SchemaNewer):
            api_cluster.init(other, upgrade=True)


def test_a_damaged_file_is_said_so(tmp_path: Path) -> None:
    """What is not a database gets a clear error."""
    (tmp_path / "novactl.db").write_bytes(b"not a database, but long enough to be looked at" * 100)
    database = engine.open_database(f"sqlite:///{tmp_path / 'novactl.db'}")
    with pytest.raises(DatabaseFailed, match="not a database"):
        database.schema()


def test_an_exception_leaves_no_trace(cluster: Cluster) -> None:
    """What a transaction wrote before it failed is gone."""
    with pytest.raises(RuntimeError), cluster.db.write() as tx:
        flavors.insert(tx, flavor(1))
        raise RuntimeError
    with cluster.db.read() as tx:
        assert flavors.all_(tx) == ()


def test_names_are_unique(cluster: Cluster) -> None:
    """The second flavor of one name is refused, and the first stays."""
    api_flavors.create(cluster, api_flavors.CreateFlavor(name="m1", vcpus=1, memory_mb=64, disk_gb=1))
    with pytest.raises(AlreadyExists):
        api_flavors.create(cluster, api_flavors.CreateFlavor(name="m1", vcpus=2, memory_mb=64, disk_gb=1))
    assert [f.vcpus for f in api_flavors.list_flavors(cluster)] == [1]


def test_a_lost_race_for_a_name_is_a_conflict(cluster: Cluster) -> None:
    """When the check before has not seen the other's row, the constraint has: exit 4, and nothing is written."""
    import dataclasses

    with cluster.db.write() as tx:
        flavors.insert(tx, flavor(1))
    with pytest.raises(Conflict) as lost, cluster.db.write() as tx:
        flavors.insert(tx, dataclasses.replace(flavor(2), name="f1"))
    assert lost.value.exit_status == 4


WRITER = """
import sys
from pathlib import Path
from novactl.cluster import Cluster
from novactl.config import load_config
from novactl.db import meta
cluster = Cluster(load_config(env={"HOME": "/nonexistent", "NOVACTL_DATA_DIR": sys.argv[1]}))
for _ in range(int(sys.argv[2])):
    with cluster.db.write() as tx:
        meta.put(tx, "count", str(int(meta.get(tx, "count") or 0) + 1))
"""


def test_eight_processes_writing_lose_nothing_and_see_no_lock(cluster: Cluster) -> None:
    """Read-modify-write from 8 processes at once: no update is lost, and nobody sees "database is locked"."""
    command = [sys.executable, "-c", WRITER, str(cluster.config.data_dir), "25"]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(8)]
    errors = [process.communicate(timeout=300)[1] for process in running]
    assert [process.returncode for process in running] == [0] * 8, errors
    with cluster.db.read() as tx:
        assert meta.get(tx, "count") == "200"


def test_a_reader_does_not_wait_for_a_writer(cluster: Cluster) -> None:
    """WAL: a list is answered while another thread holds the write lock."""
    holding, release = threading.Event(), threading.Event()

    def writer() -> None:
        with cluster.db.write():
            holding.set()
            release.wait(60)
        cluster.db.close()

    thread = threading.Thread(target=writer)
    thread.start()
    assert holding.wait(60)
    with cluster.db.read() as tx:
        assert flavors.all_(tx) == ()
    release.set()
    thread.join(60)


def node(cluster: Cluster, name: str) -> Node:
    made = Node(
        id=cluster.ids.uuid(), name=name, state=NodeState.ENABLED, address="tcp://127.0.0.1:1", public_key="x" * 40, ssh="",
        host_key="", zone="", architecture="x86_64", agent_version="", generation=0, created_at=0.0)
    with cluster.db.write() as tx:
        nodes.insert(tx, made)
        nodes.ensure_inventory(tx, made.id, {"VCPU": Inventory("VCPU", total=2, ratio_milli=1500)})
    return made


def test_an_interruption_leaves_no_transaction_open(cluster: Cluster) -> None:
    """Ctrl-C when a transaction has just begun, before its first line: the next one begins, and what is left of that one ends nothing."""
    left = cluster.db.write()
    left.__enter__()                                          # interrupted there: nobody ends it

    with cluster.db.write() as tx:
        meta.put(tx, "count", "1")
        del left                                              # it is collected in the middle of the next one
        meta.put(tx, "more", "2")
    with cluster.db.read() as tx:
        assert (meta.get(tx, "count"), meta.get(tx, "more")) == ("1", "2")


@pytest.mark.parametrize("kind", databases.EACH)
def test_a_reader_sees_one_moment(tmp_path: Path, kind: str) -> None:
    """What another writes in the middle of a reading transaction is seen by the next one, and by a writer."""
    with databases.cluster(kind) as url:
        env = {"HOME": str(tmp_path), "NOVACTL_DATA_DIR": str(tmp_path / "data"), **({"NOVACTL_DATABASE_URL": url} if url else {})}
        made = Cluster(load_config(env=env), actor="tester@db")
        if not url:
            api_cluster.init(made)

        def writer() -> None:
            with made.db.write() as tx:
                meta.put(tx, "count", "2")
            made.db.close()

        with made.db.write() as tx:
            meta.put(tx, "count", "1")
        with made.db.read() as tx:
            assert meta.get(tx, "count") == "1"
            thread = threading.Thread(target=writer)
            thread.start()
            thread.join(10)
            assert meta.get(tx, "count") == "1" and not thread.is_alive()
        with made.db.write() as tx:
            assert meta.get(tx, "count") == "2"
        made.close()


def test_of_two_claims_for_the_last_room_one_is_refused(cluster: Cluster) -> None:
    """2 CPUs x 1.5 = 3: claims of 2 and 1 fit exactly, one more does not, and the refused one leaves no trace."""
    made = node(cluster, "n1")
    for consumer, amount in (("a", 2), ("b", 1)):
        with cluster.db.write() as tx:
            placement.claim(tx, Claim(consumer, made.id, {"VCPU": amount}))
    with pytest.raises(placement.OverCapacity, match="short by 1"), cluster.db.write() as tx:
        placement.claim(tx, Claim("c", made.id, {"VCPU": 1}))
    with cluster.db.read() as tx:
        assert placement.used_on(tx, made.id) == {"VCPU": 3}


def test_a_claim_repeated_changes_nothing(cluster: Cluster) -> None:
    """The same consumer's same claim is success, and the generation stays; other amounts are a conflict."""
    made = node(cluster, "n1")
    generations = []
    for _ in range(2):
        with cluster.db.write() as tx:
            placement.claim(tx, Claim("a", made.id, {"VCPU": 2}))
            generations.append((nodes.lock(tx, made.id) or {"generation": 0})["generation"])
    assert generations[0] == generations[1]
    with cluster.db.write() as tx:
        placement.release(tx, "a", made.id)
        placement.release(tx, "a", made.id)
        assert placement.used_on(tx, made.id) == {}


def test_a_disabled_node_takes_no_claim(cluster: Cluster) -> None:
    """Eligibility is checked in the claim's transaction, not only when nodes were looked at."""
    import dataclasses

    made = node(cluster, "n1")
    with cluster.db.write() as tx:
        nodes.update(tx, dataclasses.replace(made, state=NodeState.DISABLED))
    with pytest.raises(placement.Moved), cluster.db.write() as tx:
        placement.claim(tx, Claim("a", made.id, {"VCPU": 1}))


def test_a_prefix_is_not_a_pattern(cluster: Cluster) -> None:
    """'%' and '_' in a prefix stand for themselves."""
    api_flavors.create(cluster, api_flavors.CreateFlavor(name="m1", vcpus=1, memory_mb=64, disk_gb=1))
    with cluster.db.read() as tx:
        assert flavors.names(tx, "%") == [] and flavors.names(tx, "_1") == [] and flavors.names(tx, "m") == ["m1"]
        assert operations.names(tx, "%") == []


def test_a_connection_that_lay_idle_and_died_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database server that was restarted in a pause is no failure of the next command."""
    import sqlalchemy

    from novactl.db import core

    with databases.database("postgresql") as url:
        env = {"HOME": str(tmp_path), "NOVACTL_DATA_DIR": str(tmp_path / "data"), "NOVACTL_DATABASE_URL": url}
        made = Cluster(load_config(env=env), actor="tester@db")
        api_cluster.init(made)
        with made.db.read() as tx:
            assert flavors.all_(tx) == ()
        other = sqlalchemy.create_engine(url)
        with other.begin() as connection:
            connection.execute(sqlalchemy.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"))
        other.dispose()
        monkeypatch.setattr(core, "IDLE_S", 0.0)
        with made.db.read() as tx:
            assert flavors.all_(tx) == ()
        made.close()


def test_operations_are_found_without_reading_the_whole_history(cluster: Cluster) -> None:
    """Those under way, which commands ask for before anything else, and the newest: each by an index, with no sort of all there are."""
    from novactl.db.compiled import SQLITE

    plain = sqlite3.connect(cluster.config.data_dir / "novactl.db")
    asked = dict.fromkeys(("by_kind", "by_state", "by_object_kind", "by_object"), "") | {"limit": 10}
    for query, index in ((operations.q_recent, "ix_operation_created_at"), (operations.q_recent_open, "ix_operation_ended_at")):
        plan = " ".join(row[3] for row in plain.execute(f"EXPLAIN QUERY PLAN {SQLITE[query.name]}", asked))
        assert index in plan and ("TEMP B-TREE FOR ORDER BY" not in plan or query is operations.q_recent_open), plan
    plain.close()


@pytest.mark.parametrize(("url", "hint"), [
    ("bogus", "postgresql+psycopg://USER"), ("postgresql+nope://h/n", "postgresql+psycopg://USER"), ("oracle://h/n", "sqlite, postgresql"),
    ("sqlite:x", "sqlite:////absolute/path"),
])
def test_a_url_that_is_none_names_those_that_are(url: str, hint: str) -> None:
    """What is misspelt is not a package that is missing."""
    with pytest.raises(DatabaseFailed, match=r"^database\.url: ") as refused:
        engine.open_database(url)
    assert refused.value.hint.startswith(hint)
