"""Every verb that changes something asks for a role, and every function of the api that asks for one refuses without it."""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import novactl.api
from novactl.api import keys as api_keys
from novactl.cli.root import NOUNS
from novactl.cli.tree import Spec
from novactl.cluster import Cluster
from novactl.errors import Denied
from novactl.model.key import Role
from tests.unit.test_keys import OPEN, joined
from tests.world import World, small_world

READING = {"list", "show", "check", "verify", "watch", "wait", "why", "why-not", "explain", "events", "console-log", "export", "simulate"}
"""Verbs that change nothing anywhere."""
TOP = {"doctor", "capacity", "events", "version", "help", "completion", "batch"}
"""Likewise; each line of a batch is a command of its own."""
WITHOUT = {
    ("", "init"): "makes the database that would be asked",
    ("db", "upgrade"): "changes a database that cannot be asked before",
    ("db", "restore"): "replaces the database that would be asked",
}


def verbs() -> list[tuple[str, Spec]]:
    found = []
    for noun, entry in NOUNS.items():
        module = importlib.import_module(entry.module).NOUN
        found += [(module.name, spec) for name, spec in module.verbs.items() if module.name or name == noun]
    return found


def called(function: Callable[..., Any], seen: frozenset[Any] = frozenset()) -> Iterator[Any]:
    """The functions of the api that a verb's source names, by way of its own module's helpers, and of what it wraps."""
    seen |= {function}
    for cell in function.__closure__ or ():
        if inspect.isfunction(cell.cell_contents) and cell.cell_contents not in seen:
            yield from called(cell.cell_contents, seen)
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    aliases = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("novactl.api")
        for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
            try:
                yield getattr(importlib.import_module(aliases[node.value.id]), node.attr, None)
            except ModuleNotFoundError:
                continue
        elif isinstance(node, ast.Name) and node.id in aliases:
            home, _, name = aliases[node.id].rpartition(".")
            yield getattr(importlib.import_module(home), name, None)
        elif isinstance(node, ast.Name) and node.id != function.__name__:
            helper = getattr(inspect.getmodule(function), node.id, None)
            if inspect.isfunction(helper) and helper.__module__ == function.__module__ and helper not in seen:
                yield from called(helper, seen)


def needed(thing: Any) -> Role | None:
    role = getattr(thing, "needs", None)
    return role if isinstance(role, Role) else None


CHANGING = [(noun, spec) for noun, spec in verbs() if not (spec.name in READING and noun or not noun and spec.name in TOP)]


@pytest.mark.parametrize(("noun", "spec"), CHANGING, ids=[f"{noun} {spec.name}".strip() for noun, spec in CHANGING])
def test_every_verb_that_changes_something_asks_for_a_role(noun: str, spec: Spec) -> None:
    """Whatever is no reading verb calls a function of the api that needs operator or admin; the exceptions have a reason."""
    asked = {role for function in called(spec.function) if (role := needed(function))}
    if (noun, spec.name) in WITHOUT:
        assert not asked
    else:
        assert asked and asked <= {Role.OPERATOR, Role.ADMIN}


@pytest.mark.parametrize(("noun", "spec"), [pair for pair in verbs() if pair not in CHANGING], ids=lambda part: getattr(part, "name", part))
def test_reading_verbs_ask_for_none(noun: str, spec: Spec) -> None:
    """To read, any key of the cluster will do."""
    assert not [function for function in called(spec.function) if needed(function)] and not spec.changes


def guarded() -> list[Any]:
    folder = Path(novactl.api.__file__).parent
    modules = [importlib.import_module(f"novactl.api.{path.stem}") for path in sorted(folder.glob("[a-z]*.py"))]
    return [
        function for module in modules for function in vars(module).values()
        if needed(function) and hasattr(function, "__wrapped__") and function.__module__ == module.__name__]


@pytest.fixture(scope="module")
def clusters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Role, Cluster]]:
    with small_world(tmp_path_factory.mktemp("authority")) as world:
        yield {role: joined(world, role.value, role) for role in Role}
        while OPEN:
            OPEN.pop().close()


@pytest.mark.parametrize("function", guarded(), ids=lambda f: f"{f.__module__.rpartition('.')[2]}.{f.__name__}")
def test_without_the_role_nothing_is_looked_at(clusters: dict[Role, Cluster], function: Any) -> None:
    """Each guarded function refuses every lesser role before it looks at its arguments, naming the role it needs."""
    lesser = [role for role in Role if not role.allows(function.needs)]
    assert lesser
    for role in lesser:
        with pytest.raises(Denied, match=f"needs the role {function.needs}; key {role} has {role}"):
            function(clusters[role])


def test_the_noun_of_keys_is_for_admins() -> None:
    """Who could give keys could take every role."""
    assert {function.needs for function in guarded() if function.__module__ == api_keys.__name__} == {Role.ADMIN}


def test_a_readers_commands_end_no_operations(tmp_path: Path) -> None:
    """What a dead process left behind is ended by the next command of somebody who may."""
    from novactl.api import recovery
    from novactl.api import servers as api
    from tests.sagas.scenarios import SCENARIOS

    with small_world(tmp_path) as world:
        scenario = SCENARIOS["server.stop"]
        world.abandon(scenario.start(world, scenario.prepare(world)))
        reader = joined(world, "bob", Role.READER)
        assert recovery.settle(reader) == ()
        assert len(recovery.settle(world.cluster)) == 1
        assert api.show(world.cluster, "web", refresh=False).status == "SHUTOFF"
        reader.close()


def test_where_no_key_was_ever_recorded_all_may(tmp_path: Path) -> None:
    """A database of an older novactl is open to whoever could open it then; `init --upgrade` records the one who runs it."""
    world = World(tmp_path)
    try:
        with world.cluster.db.write() as tx:
            import sqlite3

            connection: sqlite3.Connection = tx._connection  # type: ignore[attr-defined]
            connection.execute("DELETE FROM admin_key")
        from novactl.api import cluster as api_cluster
        from novactl.api import projects

        again = Cluster(world.config, actor="alice@desk")
        projects.create(again, name="shop")
        assert api_cluster.init(again).role == "admin"
        assert [key.name for key in api_keys.list_keys(again)] == ["alice"]
        again.close()
    finally:
        world.stop()


def test_who_upgrades_an_older_database_is_its_first_admin(tmp_path: Path) -> None:
    """Schema 2 knew no keys: the key that lies in the data directory is recorded, by `init --upgrade` or by `db upgrade`."""
    from alembic import command

    from novactl.agents import keys as files
    from novactl.api import cluster as api_cluster
    from novactl.api import database
    from novactl.config import load_config
    from novactl.db import migrate
    from novactl.db.engine import open_database
    from novactl.errors import SchemaOlder

    for name, upgrade in (("a", lambda cluster: api_cluster.init(cluster, upgrade=True)), ("b", database.upgrade)):
        cluster = Cluster(load_config(env={"HOME": str(tmp_path), "NOVACTL_DATA_DIR": str(tmp_path / name)}), actor="alice@desk")
        cluster.config.data_dir.mkdir(mode=0o700)
        mine, url = files.ensure(cluster.config.data_dir / "keys"), cluster.config.database_url
        cluster.unchecked_db().create()  # type: ignore[attr-defined]
        with migrate.migrating(open_database(url), url) as connection:
            command.upgrade(migrate.alembic_config(connection), "0002")
            connection.exec_driver_sql("INSERT INTO meta (key, value) VALUES ('schema', '2'), ('cluster_id', 'c')")
        with pytest.raises(SchemaOlder):
            api_keys.list_keys(cluster)
        upgrade(cluster)
        assert [(key.name, key.role, key.public_key) for key in api_keys.list_keys(cluster)] == [("alice", "admin", mine.public)]
        cluster.close()
