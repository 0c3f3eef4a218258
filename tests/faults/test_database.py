"""Faults of the controller's database: held by another, full, read-only, damaged, its server killed in the middle of things."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from novactl.api import aggregates, nodes, quotas, rebuild, zones
from novactl.api import database as api_database
from novactl.api import servers as api
from novactl.api.servers import CreateServer
from novactl.cluster import Cluster
from novactl.conductor.recover import recover
from novactl.db import meta, operations, projects, servers
from novactl.db import nodes as db_nodes
from novactl.db.core import CROSSED, CoreDatabase
from novactl.db.statements import Tx
from novactl.errors import DatabaseFailed, DatabaseLost, DatabaseUnavailable, NovaError, Uncertain
from novactl.model.project import DEFAULT_PROJECT
from tests import databases
from tests.contract.kit import until
from tests.world import World, small_world

ROOT = Path(__file__).resolve().parents[2]
WANTED = CreateServer(name="web", flavor="small", image="guest")


@contextlib.contextmanager
def held(cluster: Cluster, *, for_s: float | None) -> Iterator[None]:
    """Another admin's transaction that keeps what every claim needs: on SQLite the whole database. With None until the block ends."""
    holding, over, other = threading.Event(), threading.Event(), Cluster(cluster.config, actor="other")

    def hold() -> None:
        with other.db.write() as tx:
            projects.lock(tx, DEFAULT_PROJECT)
            holding.set()
            over.wait(for_s)
        other.close()

    thread = threading.Thread(target=hold)
    thread.start()
    assert holding.wait(60)
    try:
        yield
    finally:
        if for_s is None:
            over.set()
        thread.join()


@pytest.mark.parametrize("kind", databases.EACH)
def test_a_database_that_is_held_for_a_while_is_waited_for(tmp_path: Path, kind: str) -> None:
    """Ten seconds of another one's transaction, and the server is created."""
    with databases.cluster(kind) as url, small_world(tmp_path, url=url) as world:
        with held(world.cluster, for_s=10 if kind == "sqlite" else 3):
            assert api.create(world.cluster, WANTED).servers[0].status == "ACTIVE"
        api.delete(world.cluster, "web")
        assert world.leftovers() == []


@pytest.mark.parametrize("kind", databases.EACH)
def test_a_database_that_stays_held_is_said_so(tmp_path: Path, kind: str) -> None:
    """Longer than the busy timeout: an error that says how long it was held, in that time, and nothing half done."""
    with databases.cluster(kind) as url, small_world(tmp_path, url=url) as world:
        hasty = Cluster(world.config.replace(database__busy_timeout_s=1.0), actor="hasty")
        with held(world.cluster, for_s=None):
            begun = time.monotonic()
            with pytest.raises(DatabaseUnavailable, match="another process has held the database .* for 1 s"):
                api.create(hasty, WANTED)
            assert time.monotonic() - begun < 30
        hasty.close()
        assert world.leftovers() == []
        assert api.create(world.cluster, WANTED).servers[0].status == "ACTIVE"


# ---------------------------------------------------------------- the file system

def alone(tmp_path: Path, script: str) -> str:
    """What a script says that has mounts of its own, `data` being a small file system."""
    (tmp_path / "data").mkdir(mode=0o700)
    mount = f"mount -t tmpfs -o size=6m,mode=700 novactl {tmp_path}/data && exec {sys.executable} -c \"$1\" {tmp_path}"
    argv = ["unshare", "-m", "--propagation", "private", "sh", "-c", mount, "sh", script]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


BEGIN = """
import os, subprocess, sys
from pathlib import Path
from novactl.api import database, servers as api
from novactl.api.servers import CreateServer
from novactl.cluster import Cluster
from novactl.conductor.recover import recover
from novactl.db import operations
from novactl.errors import DatabaseFailed, DatabaseUnavailable
from tests.world import World
folder = Path(sys.argv[1])
world = World(folder)
world.add_node("n1"); world.add_flavor(); world.add_image(content=b"x" * 4096); world.start()
def create(name):
    return api.create(world.cluster, CreateServer(name=name, flavor="small", image="guest")).servers[0]
"""

FULL = BEGIN + """
ballast, refused, there = folder / "data" / "ballast", 0, []
for turn, leave in enumerate((0, 0, 20, 60, 100, 150, 250, 400, 900)):
    stat = os.statvfs(folder / "data")
    with open(ballast, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, stat.f_bavail * stat.f_frsize - leave * 1024 - 4096))
    try:
        create(f"s{turn}")
        there.append(f"s{turn}")
    except DatabaseFailed as error:
        assert isinstance(error, DatabaseUnavailable) and "no space left for the database" in error.message and error.hint, error.message
        refused += 1
    ballast.unlink()
    with world.cluster.db.read() as tx:
        left = operations.recent(tx, ended=False)
    for operation in left:
        world.abandon(operation)
    assert all(error is None for _, error in recover(world.cluster))
    assert sorted(row.name for row in api.list_servers(world.cluster)) == sorted(there)
    assert len(world.domains()) == len(there), (turn, there, world.domains())
assert refused >= 2 and there, (refused, there)
create("last")
for name in (*there, "last"):
    api.delete(world.cluster, name)
assert world.leftovers() == [], world.leftovers()
assert {finding.verdict for finding in database.check(world.cluster)} == {"ok"}
print("refused", refused, "created", len(there))
world.stop()
"""

READ_ONLY = BEGIN + """
create("web")
world.cluster.db.close()
data = str(folder / "data")
subprocess.run(["mount", "--bind", data, data], check=True)
subprocess.run(["mount", "-o", "remount,ro,bind", data], check=True)
other = Cluster(world.config, actor="other")
try:
    api.create(other, CreateServer(name="web2", flavor="small", image="guest"))
except DatabaseFailed as error:
    print(error.message, "|", error.hint)
found = database.check(Cluster(world.config))
print([f"{finding.check}: {finding.detail}" for finding in found if finding.verdict == "fail"])
other.close()
subprocess.run(["umount", "-l", data], check=True)
create("web2")
assert {finding.verdict for finding in database.check(world.cluster)} == {"ok"}
print("again")
world.stop()
"""


def test_a_full_disk(tmp_path: Path) -> None:
    """At whatever point space runs out: what was said to be created is there, what was refused leaves nothing, and all goes on with
    space again."""
    assert alone(tmp_path, FULL).startswith("refused ")


def test_a_read_only_file_system(tmp_path: Path) -> None:
    """It is said so, with what to look at; nothing is changed, and all goes on afterwards."""
    said = alone(tmp_path, READ_ONLY).splitlines()
    assert "cannot write the database" in said[0] and "check its owner, mode and file system" in said[0]
    assert said[-1] == "again"


def test_a_damaged_page(tmp_path: Path) -> None:
    """`db check` finds it, a command that meets it says so, and a backup brings it back."""
    with small_world(tmp_path) as world:
        api.create(world.cluster, WANTED)
        api_database.backup(world.cluster, tmp_path / "b.nova")
        path = world.config.sqlite_path
        with contextlib.closing(sa.create_engine(f"sqlite:///{path}").raw_connection()) as raw:
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            (root,) = raw.execute("SELECT rootpage FROM sqlite_master WHERE name = 'event'").fetchone()
            (size,) = raw.execute("PRAGMA page_size").fetchone()
        world.cluster.db.close()
        with path.open("r+b") as file:
            file.seek((root - 1) * size)
            file.write(b"\xa5" * size)
        found = [finding for finding in api_database.check(Cluster(world.config)) if finding.verdict == "fail"]
        assert found and found[0].check == "file" and found[0].fix
        with pytest.raises(DatabaseFailed, match="malformed"):
            api.delete(Cluster(world.config, actor="tester@world"), "web")
        for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
            (path.parent / name).unlink(missing_ok=True)
        mended = Cluster(world.config, actor="tester@world")
        api_database.restore(mended, tmp_path / "b.nova")
        assert {finding.verdict for finding in api_database.check(mended)} == {"ok"}
        assert not rebuild.adopt(mended).waits
        api.delete(mended, "web")
        assert world.leftovers() == []
        mended.close()


# ---------------------------------------------------------------- the server

class Killer:
    """Kills the database's server at one moment of what a cluster does, and has it back after a second."""

    def __init__(self, server: databases.Server, cluster: Cluster) -> None:
        assert isinstance(cluster.db, CoreDatabase)
        self._server, self._engine = server, cluster.db.engine
        self._back = threading.Thread()

    @contextlib.contextmanager
    def at(self, how: str, number: int) -> Iterator[list[str]]:
        """`how`: before the change of this number is told to it; before the commit of so many transactions that changed something;
        after that commit, whose answer is then lost. The list says whether it has happened."""
        seen, happened = 0, list[str]()

        def strike(connection: sa.Connection, _cursor: Any = None, statement: str = "", *_more: Any) -> None:
            nonlocal seen
            changes = statement.startswith(("INSERT", "UPDATE", "DELETE"))
            if statement:
                connection.info["wrote"] = changes or connection.info.get("wrote", False)
            counted = changes if how == "statement" else not statement and connection.info.pop("wrote", False)
            seen += counted
            if counted and seen == number:
                happened.append(how)
                wire: Any = connection.connection.dbapi_connection
                if how == "answer":
                    wire.commit()
                self._server.kill()
                if how == "answer":
                    wire.close()
                self._back = threading.Timer(0.3, self._server.start)
                self._back.start()

        for event in ("before_cursor_execute", "commit"):
            sa.event.listen(self._engine, event, strike)
        try:
            yield happened
        finally:
            for event in ("before_cursor_execute", "commit"):
                sa.event.remove(self._engine, event, strike)
            if happened:
                self._back.join()


POINTS = {"create": (("answer", 1), ("statement", 12), ("answer", 5)), "delete": (("commit", 1), ("statement", 3), ("answer", 2))}


@pytest.mark.parametrize("verb", ["create", "delete"])
@pytest.mark.parametrize("kind", databases.SHARED)
def test_a_server_killed_in_the_middle(tmp_path: Path, kind: str, verb: str) -> None:
    """Whenever it dies, and whether the commit was written or not: the operation ends, or the next command ends it; nothing is left,
    and nothing that was said to be done is undone."""
    ends: list[str] = []
    with databases.server(kind) as server, small_world(tmp_path, url=server.create()) as world:
        killer = Killer(server, world.cluster)
        for how, number in POINTS[verb]:
            if verb == "delete":
                api.create(world.cluster, WANTED)
            with killer.at(how, number) as happened:
                ends.append(_outcome(world, verb))
            with world.cluster.db.read() as tx:
                left = operations.recent(tx, ended=False)
            for operation in left:
                world.abandon(operation)
            assert all(error is None for _, error in recover(world.cluster)), (how, number)
            with world.cluster.db.read() as tx:
                there = [one.status for one in servers.all_(tx)]
            if ends[-1] == "ok":
                assert there == (["ACTIVE"] if verb == "create" else []), (how, number)
            assert happened, (how, number)
            if there:
                api.delete(world.cluster, "web")
            assert world.leftovers() == [], (how, number, ends)
    assert ends[0] == "uncertain" and ends[-1] == "ok", ends


def _outcome(world: World, verb: str) -> str:
    act: Callable[[], Any] = (
        (lambda: api.create(world.cluster, WANTED)) if verb == "create" else (lambda: api.delete(world.cluster, "web")))
    try:
        act()
    except Uncertain as error:
        assert "lost the database" in error.message and error.command == "novactl operation list --all"
        return "uncertain"
    except DatabaseLost as error:
        assert "the database" in error.message and error.hint
        return "lost"
    except NovaError as error:
        return f"{type(error).__name__}: {error.message}"
    return "ok"


@pytest.mark.parametrize("kind", databases.SHARED)
def test_a_server_that_is_not_there(tmp_path: Path, kind: str) -> None:
    """It is said at once that it cannot be reached, without its password, and that nothing was changed; afterwards all goes on."""
    with databases.server(kind) as server:
        url = server.create()
        with small_world(tmp_path, url=url, count=1) as world:
            server.kill()
            begun = time.monotonic()
            with pytest.raises(DatabaseLost) as lost:
                api.create(world.cluster, WANTED)
            assert time.monotonic() - begun < 20 and "the database" in lost.value.message   # half a minute is what a server may be away
            with pytest.raises(DatabaseLost, match="cannot reach the database"):
                api.list_servers(Cluster(world.config, actor="tester@world"))
            server.start()
            assert api.create(world.cluster, WANTED).servers[0].status == "ACTIVE"


# ---------------------------------------------------------------- two that wait for each other

def _the_node(tx: Tx) -> None:
    for node in db_nodes.all_(tx):
        db_nodes.lock(tx, node.id)


CROSSINGS: dict[str, tuple[Callable[[Tx], Any], Callable[[Tx], Any], Callable[[Cluster], Any]]] = {
    "aggregate add-node": (_the_node, zones.hold, lambda cluster: aggregates.add_nodes(cluster, "rack", ["n1"])),
    "node set": (_the_node, zones.hold, lambda cluster: nodes.set_(cluster, "n1", nodes.SetNode(shared_disk="pool"))),
}
"""A command, what it locks late, and what it has locked before that."""


@contextlib.contextmanager
def crossings(cluster: Cluster) -> Iterator[list[object]]:
    """Of this cluster's transactions, those that the database ended for another's."""
    assert isinstance(cluster.db, CoreDatabase)
    found: list[object] = []

    def failed(context: Any) -> None:
        if {getattr(context.original_exception, "sqlstate", None), *context.original_exception.args[:1]} & CROSSED:
            found.append(context.statement)

    sa.event.listen(cluster.db.engine, "handle_error", failed)
    try:
        yield found
    finally:
        sa.event.remove(cluster.db.engine, "handle_error", failed)


def _looking_after(url: str, delay: str) -> str:
    """PostgreSQL ends the one of two that has waited for so long first; MariaDB looks at once."""
    return f"{url}&options=-cdeadlock_timeout%3D{delay}" if url.startswith("postgresql") else url


WAITING = {
    "postgresql": "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database()",
    "mariadb": "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
}


def _waits(cluster: Cluster, kind: str) -> bool:
    """Whether somebody waits for another's lock. What MariaDB tells is as old as the first question of those less than 0.1 s apart."""
    assert isinstance(cluster.db, CoreDatabase)
    time.sleep(0.2)
    with cluster.db.engine.connect() as connection:
        return bool(connection.execute(sa.text(WAITING[kind])).scalar())


@pytest.mark.parametrize("command", CROSSINGS)
@pytest.mark.parametrize("kind", databases.SHARED)
def test_a_command_whose_transaction_the_database_ends_is_begun_anew(tmp_path: Path, kind: str, command: str) -> None:
    """Another transaction holds what the command wants next, and then wants what it holds: both come to their ends."""
    late, early, act = CROSSINGS[command]
    with databases.cluster(kind) as url, small_world(tmp_path, url=_looking_after(url, "3s"), count=1) as world:
        aggregates.create(world.cluster, name="rack")
        holding = threading.Event()
        other = Cluster(world.config.replace(database__url=_looking_after(url, "600s")), actor="other")

        def cross() -> None:
            with other.db.write() as tx:
                for number in range(200):                     # MariaDB ends the one that has written less
                    meta.put(tx, f"ballast-{number}", "x")
                late(tx)
                holding.set()
                until(lambda: _waits(world.cluster, kind))
                early(tx)

        thread = threading.Thread(target=cross)
        with crossings(world.cluster) as ended:
            thread.start()
            assert holding.wait(60)
            act(world.cluster)
            thread.join()
        assert len(ended) == 1
        with world.cluster.db.read() as tx:
            done = [op for op in operations.recent(tx, ended=True) if op.kind == command.replace(" ", ".")]
            assert meta.get(tx, "ballast-199") == "x"
        assert len(done) == 1
        other.close()


@pytest.mark.parametrize("kind", databases.SHARED)
def test_admins_who_change_everything_at_once_are_not_told_to_try_again(tmp_path: Path, kind: str) -> None:
    """Quotas in opposite orders, aggregates, a node that moves between disk pools, servers made and deleted: nobody sees a deadlock."""
    limits = [("cores", "90"), ("ram", "90G"), ("servers", "50"), ("disk", "900G")]
    wrong: list[Exception] = []
    with databases.cluster(kind) as url, small_world(tmp_path, url=url) as world:
        aggregates.create(world.cluster, name="rack")

        def quota(cluster: Cluster, turn: int) -> None:
            quotas.set_(cluster, "default", dict(limits))

        def atouq(cluster: Cluster, turn: int) -> None:
            quotas.set_(cluster, "default", dict(reversed(limits)))

        def rack(cluster: Cluster, turn: int) -> None:
            (aggregates.remove_nodes if turn % 2 else aggregates.add_nodes)(cluster, "rack", ["n2", "n1"])

        def pool(cluster: Cluster, turn: int) -> None:
            nodes.set_(cluster, f"n{turn % 2 + 1}", nodes.SetNode(shared_disk=f"pool{turn % 3}"))

        def guest(cluster: Cluster, turn: int) -> None:
            api.create(cluster, CreateServer(name=f"web{turn}", flavor="small", image="guest"))
            api.delete(cluster, f"web{turn}")

        def admin(act: Callable[[Cluster, int], None]) -> None:
            own = Cluster(world.config, actor=act.__name__)
            try:
                for turn in range(6):
                    act(own, turn)
            except Exception as error:  # noqa: BLE001 - it would end the thread alone
                wrong.append(error)
            own.close()

        crew = [threading.Thread(target=admin, args=(act,)) for act in (quota, atouq, rack, pool, guest)]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
        assert not wrong, wrong
        assert world.leftovers() == []
