"""Upgrading a database that an older novactl made."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from sqlalchemy.dialects.mysql.mariadb import MariaDBDialect
from sqlalchemy.schema import CreateTable

from novactl.db import (
    aggregates,
    compile,
    derived,
    engine,
    flavors,
    images,
    keypairs,
    meta,
    migrate,
    nodes,
    operations,
    placement,
    projects,
    quotas,
    schema,
    servers,
)
from novactl.model.facts import Facts
from novactl.model.project import DEFAULT_PROJECT, UNLIMITED
from novactl.model.wants import NOTHING_SPECIAL
from novactl.states import PowerState, TaskState, VmState
from tests import databases

REPORT = {
    "node_id": "n1", "agent_version": "0.1", "boot_id": "b", "taken_s": 5.0, "age_s": 0.5, "hostname": "h1", "architecture": "x86_64",
    "cpu_model": "EPYC", "cpu_features": ["sse4_2", "svm"], "virt_types": ["kvm", "qemu"], "virt_type": "kvm", "vcpus": 8,
    "memory_mb": 4096, "memory_used_mb": 700, "disk_gb": 100, "disk_used_gb": 9, "load_1m": 0.25, "versions": {"hypervisor": "7.2.17"},
    "domains": [], "images": [], "foreign_domains": 2,
}
NODE = {
    "state": "enabled", "reason": "", "address": "tcp://h:7766", "public_key": "k" * 40, "ssh": "root@h:22", "host_key": "ssh-ed25519 A",
    "zone": "z1", "architecture": "x86_64", "agent_version": "0.1", "labels": '{"rack":"r1"}', "generation": 7, "reported_at": 9.5,
    "silent_since": None, "created_at": 1.0,
}
SERVER = {
    "vm_state": VmState.ACTIVE.value, "task_state": TaskState.NONE.value, "power_state": PowerState.RUNNING.value, "epoch": 1,
    "operation_id": "", "flavor_name": "m1", "vcpus": 2, "memory_mb": 512, "disk_gb": 10, "image_id": "i1", "image_name": "debian",
    "image_sha256": "0" * 64, "architecture": "x86_64", "keypair_name": "", "public_key": "", "user_data": "", "zone": "",
    "mac": "52:54:00:00:00:01", "addresses": "[]", "fault": "", "created_at": 1.0, "updated_at": 1.0, "launched_at": 1.0,
    "deleted_at": None,
}
STOCK = {"reserved": 0, "ratio_milli": 1000, "min_unit": 1, "step_size": 1}
ROWS: Mapping[str, list[dict[str, Any]]] = {
    "meta": [{"key": "schema", "value": "1"}, {"key": "cluster_id", "value": "c1"}],
    "node": [
        {"id": "n1", "name": "h1", **NODE, "report": json.dumps(REPORT), "undo": '{"machine_id":"m"}'},
        {"id": "n2", "name": "h2", **NODE, "state": "disabled", "reported_at": None, "report": None, "undo": "{}"},
    ],
    "inventory": [
        {"node_id": "n1", "resource_class": "VCPU", "total": 8, "max_unit": 8, **STOCK, "ratio_milli": 4000},
        {"node_id": "n1", "resource_class": "MEMORY_MB", "total": 4096, "max_unit": 4096, **STOCK, "reserved": 512},
        {"node_id": "n1", "resource_class": "DISK_GB", "total": 100, "max_unit": 100, **STOCK},
        {"node_id": "n2", "resource_class": "VCPU", "total": 1, "max_unit": 1, **STOCK},
    ],
    "server": [
        {"id": "s1", "name": "web", "live_name": "web", "node_id": "n1", **SERVER},
        {"id": "s2", "name": "db", "live_name": "db", "node_id": "n1", **SERVER},
        {"id": "s0", "name": "old", "live_name": None, "node_id": None, **SERVER, "deleted_at": 2.0},
    ],
    "claim": [
        {"consumer_id": consumer, "node_id": "n1", "resource_class": name, "consumer_kind": kind, "amount": amount}
        for consumer, kind in (("s1", "server"), ("s2", "server"), ("o1", "operation"))
        for name, amount in (("VCPU", 2), ("MEMORY_MB", 512), ("DISK_GB", 10))
    ],
    "flavor": [{"id": "f1", "name": "m1", "vcpus": 2, "memory_mb": 512, "disk_gb": 10, "created_at": 1.0}],
    "image": [{
        "id": "i1", "name": "debian", "sha256": "0" * 64, "disk_format": "qcow2", "size_bytes": 1, "virtual_size_bytes": 1,
        "architecture": "x86_64", "source": "x", "created_at": 1.0}],
    "keypair": [{"id": "k1", "name": "me", "key_type": "ssh-ed25519", "public_key": "x", "fingerprint": "f", "created_at": 1.0}],
    "operation": [{
        "id": "o1", "kind": "server.create", "object_kind": "server", "object_id": "s1", "open_object_id": None, "object_name": "web",
        "state": "ok", "epoch": 1, "attempt": 0, "owner": "", "lease_until": 0.0, "actor": "a", "record": "{}", "error": None,
        "decision": None, "created_at": 1.0, "ended_at": 2.0}],
    "operation_step": [{
        "operation_id": "o1", "attempt": 0, "position": 0, "name": "place", "state": "done", "started_at": 1.0, "ended_at": 2.0}],
    "event": [{
        "id": 1, "at": 1.0, "object_kind": "server", "object_id": "s1", "object_name": "web", "operation_id": "o1", "event": "built",
        "actor": "a", "detail": ""}],
}


TWO: Mapping[str, list[dict[str, Any]]] = {
    "aggregate": [{"id": "a1", "name": "fast", "metadata": '{"ssd":"true"}', "created_at": 1.0}],
    "aggregate_node": [{"aggregate_id": "a1", "node_id": "n1"}],
    "quota": [{"project_id": "default", "resource": "keypairs", "max_amount": 7}],
    "server_group": [{
        "id": "g1", "name": "apart", "project_id": "default", "policy": "anti-affinity", "scope": "", "max_per_domain": 1, "version": 3,
        "created_at": 1.0}],
    "fitting": [{"consumer_id": "s2", "node_id": "n1", "body": '{"cells":[]}'}],
}
"""What schema 2 has beside them."""
CHANGED = {
    "node": {"report", "undo", "generation", "shape", "servers", "odd", *derived.SUMS},
    "project": {f"{name}_{what}" for name in projects.COUNTED for what in ("used", "max")},
}
"""What an upgrade moves, or writes anew."""


def content(url: str) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table there is."""
    with migrate.migrating(engine.open_database(url), url) as connection:
        tables = sa.MetaData()
        tables.reflect(connection)
        return {
            name: [dict(row) for row in connection.execute(sa.select(table)).mappings()] for name, table in tables.tables.items()
            if name != "alembic_version"}


@pytest.fixture(params=[(kind, number) for kind in databases.EACH for number in ("0001", "0002")], ids="-".join)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database of an older schema with rows in every table."""
    kind, number = request.param
    with databases.database(kind) as url:
        yield _filled(url or f"sqlite:///{tmp_path / 'x.db'}", number)


def _filled(url: str, number: str) -> str:
    database = engine.open_database(url)
    if isinstance(database, engine.SqliteDatabase):
        database.create()
    with migrate.migrating(database, url) as connection:
        command.upgrade(migrate.alembic_config(connection), "0001")
        _insert(connection, ROWS)
        if connection.dialect.name == "postgresql":           # whose numbers do not follow those that were given
            connection.execute(sa.text("SELECT setval(pg_get_serial_sequence('event', 'id'), 1)"))
        if number == "0002":
            command.upgrade(migrate.alembic_config(connection), number)
            _insert(connection, TWO)
            connection.execute(sa.text("UPDATE meta SET value = '2' WHERE value = '1'"))
    database.close()
    return url


def _insert(connection: sa.Connection, rows: Mapping[str, list[dict[str, Any]]]) -> None:
    tables = sa.MetaData()
    tables.reflect(connection)
    for name, these in rows.items():
        connection.execute(sa.insert(tables.tables[name]), these)


def test_an_upgrade_loses_nothing(old: str) -> None:
    """Every row is there afterwards with what it said; a node's report and undo have a table of their own."""
    before = content(old)
    database = engine.open_database(old)
    migrate.upgrade(database, old, "another")
    after = content(old)
    for table, rows in before.items():
        key = [column.name for column in schema.metadata.tables[table].primary_key]
        now = {tuple(row[name] for name in key): row for row in after[table]}
        for row in rows:
            kept = {name: value for name, value in row.items() if name not in CHANGED.get(table, ())}
            if row.get("key") == "schema":
                kept["value"] = str(engine.SCHEMA)
            assert kept.items() <= now[tuple(row[name] for name in key)].items()
    assert {row["node_id"]: (row["report"], row["undo"]) for row in after["node_file"]} == {
        row["id"]: (row["report"], row["undo"]) for row in ROWS["node"]}
    database.close()


def test_an_upgraded_database_has_its_sums_and_facts(old: str) -> None:
    """What follows from the rows is filled in: sums, shapes, usage; and everything belongs to the default project."""
    database, two = engine.open_database(old), "quota" in content(old)
    migrate.upgrade(database, old, "another")
    database.check_schema()
    with database.read() as tx:
        rows = {row[0]: row for row in nodes.lean_rows(tx)}
        assert rows["n1"][3:] == (3, 9.5, 2, 32, 6, 8, 3584, 1536, 4096, 100, 30, 100)
        assert rows["n2"][3:] == (1, None, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0)
        assert rows["n1"][2] > 7, "what was decided on before rests on nothing now"
        assert dataclasses.replace(nodes.facts_of(tx, "n1"), aggregates=()) == Facts(
            architecture="x86_64", zone="z1", labels={"rack": "r1"}, virt_type="kvm", virt_types=("kvm", "qemu"),
            hypervisor_version=7002017, cpu_model="EPYC", traits=frozenset({
                "HW_CPU_X86_SSE42", "HW_CPU_X86_SVM", "HW_CPU_X86_AMD_SVM", "HW_ARCH_X86_64", "COMPUTE_VIRT_KVM", "COMPUTE_VIRT_QEMU"}))
        node = nodes.by_name(tx, "h1")
        assert node is not None and node.undo == {"machine_id": "m"} and node.report == REPORT
        assert projects.usage(tx, DEFAULT_PROJECT) | {"keypairs": 0} == {
            "servers": 2, "cores": 4, "ram_mb": 1024, "disk_gb": 20, "volumes": 0, "networks": 0, "keypairs": 0, "groups": int(two)}
        assert set(quotas.limits(tx, DEFAULT_PROJECT).values()) == ({UNLIMITED, 7} if two else {UNLIMITED})
        assert [project.name for project in projects.all_(tx)] == [DEFAULT_PROJECT]
        assert [one.name for one in aggregates.all_(tx)] == [one.name for one in nodes.facts_of(tx, "n1").aggregates] == ["fast"] * two
        server = servers.by_name(tx, "web")
        assert server is not None and (server.project_id, server.group_id, server.wants) == (DEFAULT_PROJECT, "", NOTHING_SPECIAL)
        assert [f.specs for f in flavors.all_(tx)] == [i.properties for i in images.all_(tx)] == [{}]
        assert [k.project_id for k in keypairs.all_(tx)] == [DEFAULT_PROJECT]
        assert meta.cluster_id(tx) == "c1" and operations.by_id(tx, "o1") is not None
    with database.write() as tx:
        placement.release(tx, "s1", "n1")
        assert projects.usage(tx, DEFAULT_PROJECT)["servers"] == 1
        assert placement.used(tx)["n1"] == {"VCPU": 4, "MEMORY_MB": 1024, "DISK_GB": 20}
    database.close()


def test_upgrading_twice_changes_nothing(old: str) -> None:
    """The second upgrade finds all as it should be."""
    database = engine.open_database(old)
    migrate.upgrade(database, old, "another")
    once = content(old)
    migrate.upgrade(database, old, "another")
    twice = content(old)
    for table in ("node", "node_file", "project", "claim", "shape"):
        assert [{**row, "generation": 0} for row in twice[table]] == [{**row, "generation": 0} for row in once[table]]
    database.close()


@pytest.mark.parametrize(("kind", "number", "stride"), [
    ("sqlite", "0001", 30), ("postgresql", "0001", 30), ("mariadb", "", 40), ("mariadb", "0001", 40)])
def test_an_upgrade_may_be_interrupted(tmp_path: Path, kind: str, number: str, stride: int) -> None:
    """Cut off after any statement (after some of them), in a new database or an older one, it ends as one that was let through."""
    let_through: Any = None
    for cut in itertools.count():
        with databases.database(kind) as given:
            url = given or f"sqlite:///{tmp_path / str(cut)}"
            if number:
                _filled(url, number)
            with interrupted(after=cut * stride - 1) as passed:
                migrate.upgrade(engine.open_database(url), url, "c")
            if let_through is not None and passed:
                assert cut > 1
                return
            migrate.upgrade(engine.open_database(url), url, "c")
            engine.open_database(url).check_schema()
            varying = {"generation": 0, "created_at": 0.0}
            now = {name: sorted(str({**row, **varying}) for row in rows) for name, rows in content(url).items()}
            let_through = let_through or now
            assert now == let_through


class Cut(Exception):
    """The process dies here."""


@contextlib.contextmanager
def interrupted(*, after: int) -> Iterator[list[bool]]:
    """What changes a database is cut off after so many statements (never where that is negative). The list is empty if it was."""
    count, passed = itertools.count(), list[bool]()

    def cut(*_statement: Any) -> None:
        if next(count) == after:
            raise Cut

    sa.event.listen(sa.Engine, "after_cursor_execute", cut)
    try:
        yield passed
        passed.append(True)
    except Cut:
        pass
    finally:
        sa.event.remove(sa.Engine, "after_cursor_execute", cut)


@pytest.mark.parametrize("kind", databases.EACH)
def test_two_upgrades_at_once(tmp_path: Path, kind: str) -> None:
    """Of two who begin at the same moment each finds it done."""
    with databases.database(kind) as given:
        url = _filled(given or f"sqlite:///{tmp_path / 'x.db'}", "0001")
        found: list[BaseException] = []

        def upgrade() -> None:
            try:
                migrate.upgrade(engine.open_database(url), url, "c")
            except BaseException as failed:  # noqa: BLE001 - told by the thread that asks
                found.append(failed)

        threads = [threading.Thread(target=upgrade) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert found == []
        engine.open_database(url).check_schema()


def test_nothing_rules_mariadb_out() -> None:
    """Every table and statement can be said in its dialect, and every column in a key has a length."""
    compile.source()
    for table in schema.metadata.tables.values():
        assert str(CreateTable(table).compile(dialect=MariaDBDialect()))
        keys = [*table.primary_key, *(column for index in table.indexes for column in index.columns)]
        assert not [column for column in keys if isinstance(column.type, sa.Text)], table.name
    for query in compile.REGISTRY.values():
        assert str(query.build(sa, schema).compile(dialect=MariaDBDialect()))
