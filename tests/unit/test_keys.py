"""Admins' keys: who may do what, and that every agent knows it before it does anything else."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from novactl.agents import keys as files
from novactl.agents import wire
from novactl.agents.client import Agents
from novactl.agents.link import Fence
from novactl.api import cluster as api_cluster
from novactl.api import keys as api
from novactl.api import nodes as api_nodes
from novactl.api import operations as api_operations
from novactl.api import recovery
from novactl.api import servers as api_servers
from novactl.cluster import Cluster
from novactl.conductor import keyring
from novactl.conductor.driver import Driver
from novactl.conductor.node_file import recall, remember
from novactl.conductor.progress import Progress
from novactl.conductor.recover import find
from novactl.conductor.saga import Run, Step, nothing
from novactl.conductor.sagas import SAGAS
from novactl.db import keys, nodes, operations
from novactl.errors import AgentRefused, AlreadyExists, BadConfig, Conflict, Denied, NovaError, UsageError
from novactl.model.key import Role
from novactl.model.node import Node
from novactl.model.operation import OperationStep, StepState
from tests import databases
from tests.sagas.scenarios import SCENARIOS
from tests.unit.cli_world import Prompt
from tests.world import World, small_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with small_world(tmp_path) as made:
        yield made
        while OPEN:
            OPEN.pop().close()


@pytest.fixture(params=databases.SHARED)
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """On a database that several machines can use."""
    with databases.database(request.param) as url, small_world(tmp_path, url=url) as made:
        yield made
        while OPEN:
            OPEN.pop().close()


OPEN: list[Cluster | Agents] = []
"""What a test has opened beside its world."""


def node(world: World, name: str = "n1") -> Node:
    with world.cluster.db.read() as tx:
        found = nodes.by_name(tx, name)
    assert found is not None
    return found


def versions(world: World) -> dict[str, int]:
    """By name: what the agents have, and under 'cluster' what they should have."""
    with world.cluster.db.read() as tx:
        return {"cluster": keys.version(tx)} | {name: agent.admins.version for name, agent in world.agents.items()}


def joined(world: World, name: str, role: Role) -> Cluster:
    """Another admin's cluster: the same database, a data directory and key of their own."""
    secret = world.folder / f"{name}.secret"
    api.create(world.cluster, name=name, role=role, secret_file=secret)
    return opened(world, name, secret)


def opened(world: World, name: str, secret: Path | None = None) -> Cluster:
    from novactl.config import load_config

    url = f"sqlite:///{world.folder}/data/novactl.db"
    env = {"NOVACTL_DATABASE_URL": url} | world.env | {"NOVACTL_DATA_DIR": str(world.folder / name)}
    made = Cluster(load_config(env=env), actor=f"{name}@desk")
    OPEN.append(made)
    api_cluster.init(made, key=secret)
    (made.config.data_dir / "images").symlink_to(world.config.data_dir / "images")
    return made


def away(world: World, name: str) -> None:
    """The node is where nobody reaches it."""
    with world.cluster.db.write() as tx:
        nodes.update(tx, dataclasses.replace(node_in(tx, name), address="tcp://127.0.0.1:9"))


def back(world: World, name: str) -> None:
    with world.cluster.db.write() as tx:
        nodes.update(tx, dataclasses.replace(node_in(tx, name), address=world.endpoints[name].address))


def node_in(tx: Any, name: str) -> Node:
    found = nodes.by_name(tx, name)
    assert found is not None
    return found


# ---- the first key, and others


def test_the_first_key_is_an_admins(world: World) -> None:
    """`init` records it under the user's name, once."""
    (first,) = api.list_keys(world.cluster)
    assert (first.name, first.role, first.is_own, first.public_key) == ("tester", "admin", True, world.cluster.key)
    assert api_cluster.init(world.cluster).role == "admin" and len(api.list_keys(world.cluster)) == 1


def test_a_new_key_is_known_to_every_node_at_once(world: World) -> None:
    """Creating one tells all nodes; its admin, with a data directory of their own, is served by them as what they are."""
    bob = joined(world, "bob", Role.OPERATOR)
    assert len(set(versions(world).values())) == 1
    assert bob.agents.call(node(world), "agent.hello").body.role == "operator"
    assert [s.name for s in api_servers.create(bob, api_servers.CreateServer(name="w", flavor="small", image="guest")).servers] == ["w"]


def test_the_secret_half_is_in_a_private_file_and_nowhere_else(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    """0600 whatever the umask, never over another file; neither what is returned nor the journal holds it."""
    from novactl.db import operations

    path = world.folder / "bob.secret"
    before = os.umask(0)
    try:
        made = api.create(world.cluster, name="bob", role=Role.READER, secret_file=path)
    finally:
        os.umask(before)
    secret = files.read(path).secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with world.cluster.db.read() as tx:
        journal = repr(operations.recent(tx, ended=True))
    assert secret not in repr(made) + journal + "".join(capfd.readouterr())
    with pytest.raises(UsageError, match="exists already"):
        api.create(world.cluster, name="carol", role=Role.READER, secret_file=path)
    (world.folder / "link").symlink_to(world.folder / "elsewhere")
    with pytest.raises(UsageError, match="exists already"):
        api.create(world.cluster, name="carol", role=Role.READER, secret_file=world.folder / "link")
    assert files.read(path).secret == secret and [key.name for key in api.list_keys(world.cluster)] == ["bob", "tester"]


def test_a_key_that_was_not_made_leaves_no_file(world: World) -> None:
    """The transaction fails after the secret half was written: the file is gone with the row, and the same command can be given again."""
    secret = world.folder / "bob.secret"
    database = sqlite3.connect(world.folder / "data" / "novactl.db")
    database.execute("CREATE TRIGGER refuse BEFORE INSERT ON operation BEGIN SELECT RAISE(ABORT, 'refused'); END")
    with pytest.raises(NovaError, match="refused"):
        api.create(world.cluster, name="bob", role=Role.READER, secret_file=secret)
    assert not secret.exists() and [key.name for key in api.list_keys(world.cluster)] == ["tester"]
    database.execute("DROP TRIGGER refuse")
    database.close()
    assert api.create(world.cluster, name="bob", role=Role.READER, secret_file=secret).name == "bob" and secret.exists()


def test_what_cannot_be_a_key(world: World) -> None:
    """A name twice, a key twice, no Z85, and no way to write the file: each is refused, and nothing is made."""
    public = files.new().public
    api.create(world.cluster, name="bob", role=Role.READER, public_key=public)
    with pytest.raises(AlreadyExists):
        api.create(world.cluster, name="bob", role=Role.READER, public_key=files.new().public)
    with pytest.raises(Conflict, match="is bob's"):
        api.create(world.cluster, name="bobby", role=Role.READER, public_key=public)
    with pytest.raises(UsageError, match="40 characters"):
        api.create(world.cluster, name="carol", role=Role.READER, public_key="short")
    with pytest.raises(UsageError, match="cannot write"):
        api.create(world.cluster, name="carol", role=Role.READER, secret_file=world.folder / "no" / "where")
    assert [key.name for key in api.list_keys(world.cluster)] == ["bob", "tester"]


def test_joining_twice_changes_nothing(world: World) -> None:
    """`init --key` may be repeated; where another key is in use, it is refused; a damaged file is said to be so."""
    bob = joined(world, "bob", Role.READER)
    assert api_cluster.init(bob, key=world.folder / "bob.secret").role == "reader"
    with pytest.raises(Conflict, match="another admin key is in use"):
        api_cluster.init(world.cluster, key=world.folder / "bob.secret")
    broken = world.folder / "broken.secret"
    files.write(broken, files.KeyPair(files.new().public, files.new().secret))
    with pytest.raises(BadConfig, match="do not belong together"):
        api_cluster.init(Cluster(bob.config), key=broken)


# ---- who may


def test_a_key_that_is_not_there_reads_nothing(world: World) -> None:
    """Whoever opens the database with a key of their own making is told how to be let in (exit 8)."""
    stranger = opened(world, "mallory")
    with pytest.raises(Denied, match="is not one of this cluster's") as denied:
        api_nodes.list_nodes(stranger)
    assert denied.value.exit_status == 8 and "tester" in denied.value.hint and stranger.key in denied.value.command


@pytest.mark.parametrize(("role", "may"), [(Role.READER, set()), (Role.OPERATOR, {"server"}), (Role.ADMIN, {"server", "node", "key"})])
def test_what_each_role_may(world: World, role: Role, may: set[str]) -> None:
    """Readers read, operators change servers, admins nodes and keys too; a refusal names key, role, needed role, and the way."""
    cluster = joined(world, "bob", role)
    assert len(api_nodes.list_nodes(cluster)) == 2
    acts = {
        "server": lambda: api_servers.create(cluster, api_servers.CreateServer(name="w", flavor="small", image="guest")),
        "node": lambda: api_nodes.disable(cluster, "n2"),
        "key": lambda: api.create(cluster, name="carol", role=Role.READER, public_key=files.new().public)}
    for noun, act in acts.items():
        if noun in may:
            act()
            continue
        with pytest.raises(Denied, match=rf"needs the role \w+; key bob has {role}") as denied:
            act()
        assert denied.value.exit_status == 8 and denied.value.command.startswith("novactl key set bob --role ")


def test_agents_check_the_role_themselves(world: World) -> None:
    """Past our own api, an operator's key is denied what an admin's may, by the agent, and so is the next key's table."""
    bob = joined(world, "bob", Role.OPERATOR)
    with world.cluster.db.read() as tx:
        sent = keyring.table(tx)
    for method, args in (("node.prepare", wire.Prepare()), ("keys.write", sent), ("keys.next", None)):
        with pytest.raises(AgentRefused, match="needs the role admin") as refused:
            bob.agents.call(node(world), method, args, fence=Fence(f"r-{method}", "o", 1))
        assert refused.value.details["code"] == wire.Code.DENIED


# ---- revoking


def test_a_revoked_key_is_refused_on_what_it_has_open(world: World) -> None:
    """The next message on an open connection is denied, an open stream is cut and says nothing more; the database is closed too."""
    bob = joined(world, "bob", Role.OPERATOR)
    assert bob.agents.call(node(world), "agent.ping")
    stream = bob.agents.stream(node(world), "inventory.watch")
    assert stream.read(60) is not None
    revoked = api.revoke(world.cluster, "bob")
    assert (revoked.status, revoked.unreached) == ("revoked", {})
    with pytest.raises(AgentRefused, match="not enrolled here"):
        bob.agents.call(node(world), "agent.ping")
    world.agents["n1"].changes.notify()                       # a report to all who may hear it
    with pytest.raises(AgentRefused, match="no longer enrolled"):
        while stream.read(60) is not None:
            raise AssertionError("a report reached a revoked key")
    stream.close()
    with pytest.raises(Denied, match="key bob was revoked"):
        api_servers.delete(bob, "w")
    fresh = Agents(bob.agents.keys, actor="bob", connect_s=3)
    OPEN.append(fresh)
    with pytest.raises(Denied, match="does not admit this admin's key"):
        fresh.call(node(world), "agent.ping")


def test_a_lesser_role_cuts_what_needs_more(world: World) -> None:
    """Made a reader, an operator loses the open console and keeps the open reports."""
    bob = joined(world, "bob", Role.OPERATOR)
    server = api_servers.create(bob, api_servers.CreateServer(name="w", flavor="small", image="guest")).servers[0]
    where = next(name for name, agent in world.agents.items() if agent.driver.specs())
    console = bob.agents.stream(node(world, where), "console.open", wire.DomainRef(server.id))
    watch = bob.agents.stream(node(world, where), "inventory.watch")
    assert console.read(60) is not None and watch.read(10) is not None
    api.set_(world.cluster, "bob", role=Role.READER)
    deadline = time.monotonic() + 60
    with pytest.raises(AgentRefused, match="no longer as what it was"):
        while time.monotonic() < deadline:
            console.read(1)
    world.agents[where].changes.notify()
    assert watch.read(60) is not None
    for stream in (console, watch):
        stream.close()


def test_the_last_admin_and_oneself_are_kept(world: World) -> None:
    """One's own key needs --force, the last admin's cannot go at all, nor be given a lesser role."""
    with pytest.raises(Conflict, match="the one you use"):
        api.revoke(world.cluster, "tester")
    for act in (lambda: api.revoke(world.cluster, "tester", force=True), lambda: api.set_(world.cluster, "tester", role=Role.OPERATOR)):
        with pytest.raises(Conflict, match="last admin's"):
            act()
    api.create(world.cluster, name="carol", role=Role.ADMIN, public_key=files.new().public)
    gone = api.revoke(world.cluster, "tester", force=True)
    assert (gone.status, gone.unreached) == ("revoked", {}) and len({agent.admins.version for agent in world.agents.values()}) == 1
    with pytest.raises(Denied, match="was revoked"):
        api.revoke(world.cluster, "carol")


def test_a_revoked_name_is_free(world: World) -> None:
    """A revoked key gives its name up, and stays in the list of all."""
    api.create(world.cluster, name="bob", role=Role.READER, public_key=files.new().public)
    api.revoke(world.cluster, "bob")
    assert api.revoke(world.cluster, "bob").status == "revoked"
    api.create(world.cluster, name="bob", role=Role.OPERATOR, public_key=files.new().public)
    assert [(key.name.partition(".")[0], key.status) for key in api.list_keys(world.cluster, all=True)] == [
        ("bob", "active"), ("bob", "revoked"), ("tester", "active")]


# ---- nodes that were away


def test_a_node_that_was_away_is_told_before_anything_else(world: World) -> None:
    """It is named, and its first mutation brings it the table: what the revoked key still could there ends with it."""
    bob = joined(world, "bob", Role.OPERATOR)
    away(world, "n1")
    revoked = api.revoke(world.cluster, "bob")
    assert list(revoked.unreached) == ["n1"] and "does not answer" in revoked.unreached["n1"]
    back(world, "n1")
    assert bob.agents.call(node(world), "agent.ping")
    world.cluster.agents.call(node(world), "node.prepare", wire.Prepare(), fence=Fence("o:1", "o", 1))
    with pytest.raises(AgentRefused, match="not enrolled here"):
        bob.agents.call(node(world), "agent.ping")
    assert len(set(versions(world).values())) == 1 and node(world).admins_version == versions(world)["cluster"]


def test_a_report_brings_the_table_too(world: World) -> None:
    """An admin's refresh tells a node that has an older table; a reader's does not."""
    bob = joined(world, "bob", Role.READER)
    away(world, "n1")
    api.create(world.cluster, name="carol", role=Role.READER, public_key=files.new().public)
    back(world, "n1")
    bob_config = bob.config
    assert bob_config["placement.refresh_s"] > 0
    from novactl.conductor import fleet

    fleet.refresh(bob, max_age_s=0.0)
    assert versions(world)["n1"] < versions(world)["cluster"] and node(world).admins_version == versions(world)["n1"]
    fleet.refresh(world.cluster, max_age_s=0.0)
    assert len(set(versions(world).values())) == 1


def test_who_may_not_tell_says_who_may(world: World) -> None:
    """An operator's change on a node with an older table is refused, naming the role and what helps."""
    bob = joined(world, "bob", Role.OPERATOR)
    away(world, "n1")
    api.create(world.cluster, name="carol", role=Role.READER, public_key=files.new().public)
    back(world, "n1")
    with pytest.raises(Denied, match=r"n1 has an older table of admins' keys, and key bob \(operator\) may not"):
        bob.agents.call(node(world), "image.delete", wire.ImageRef("0" * 64), fence=Fence("o:1", "o", 1))


def test_an_agent_takes_no_older_table(world: World) -> None:
    """Of a restored database the older table is refused, and so is another one of the same version."""
    with world.cluster.db.read() as tx:
        now = keyring.table(tx)
    api.create(world.cluster, name="bob", role=Role.READER, public_key=files.new().public)
    other = wire.KeysTable(now.version + 1, now.keys)
    for sent in (now, other):
        with pytest.raises(AgentRefused, match="table of keys") as refused:
            world.cluster.agents.call(node(world), "keys.write", sent, fence=Fence(f"o:{sent.version}", "o", 1))
        assert refused.value.details["code"] == wire.Code.CONFLICT and "cluster adopt" in refused.value.hint
    assert world.agents["n1"].admins.role(api.show(world.cluster, "bob").public_key) == "reader"


# ---- changing one's own key


def test_rotating_replaces_the_key_everywhere(world: World) -> None:
    """The same name and role, another key; the old one is refused by every node, and its secret is gone."""
    old = world.cluster.agents.keys()
    new = api.rotate(world.cluster)
    assert (new.name, new.role, new.unreached) == ("tester", "admin", {}) and new.public_key == world.cluster.key != old.public
    former = Agents(lambda: old, actor="thief", connect_s=3)
    OPEN.append(former)
    with pytest.raises(Denied, match="does not admit"):
        former.call(node(world), "agent.ping")
    assert world.cluster.agents.call(node(world), "agent.hello").body.role == "admin"
    assert [path.name for path in (world.folder / "data" / "keys").iterdir()] == ["admin.secret"]
    assert [(key.name.partition(".")[0], key.status) for key in api.list_keys(world.cluster, all=True)] == [
        ("tester", "active"), ("tester", "revoked")]


def test_a_node_that_missed_a_rotation_is_told_with_the_old_key(world: World) -> None:
    """Away meanwhile, it knows only the old key: that is kept until it has heard of the new one, and then thrown away."""
    folder = world.folder / "data" / "keys"
    away(world, "n1")
    new = api.rotate(world.cluster)
    assert list(new.unreached) == ["n1"] and (folder / "admin.secret.former").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Conflict, match="the rotation before is not over: n1"):
        api.rotate(world.cluster)
    back(world, "n1")
    assert world.cluster.agents.call(node(world), "node.prepare", wire.Prepare(), fence=Fence("o:1", "o", 1))
    assert len(set(versions(world).values())) == 1 and not (folder / "admin.secret.former").exists()
    assert api.rotate(world.cluster).unreached == {}


POINTS = ("next_pair", "_introduce", "promote", "forget_key", "rekey")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", POINTS)
def test_a_rotation_killed_anywhere_leaves_a_key_that_works(
    world: World, monkeypatch: pytest.MonkeyPatch, point: str, when: str,
) -> None:
    """The process dies before or after any of its acts: the next one can change nodes, and the same command ends the rotation."""
    homes = {"next_pair": files, "promote": files, "_introduce": api, "forget_key": Cluster, "rekey": Agents}
    home, act = homes[point], getattr(homes[point], point)

    class Killed(BaseException):
        pass

    def dying(*args: Any) -> Any:
        if when == "after":
            act(*args)
        raise Killed

    before = world.cluster.key
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(home, point, dying)
        api.rotate(world.cluster)
    again = Cluster(world.config, actor="tester@world")
    OPEN.append(again)
    again.agents.call(node(world), "node.prepare", wire.Prepare(), fence=Fence(f"o:{point}", "o", 1))
    new = api.rotate(again)
    assert new.public_key == again.key != before and new.name == "tester"
    assert [key.status for key in api.list_keys(again, all=True)] == ["active", "revoked"]
    assert [path.name for path in (world.folder / "data" / "keys").iterdir()] == ["admin.secret"]


def test_other_processes_of_the_admin_go_on(world: World) -> None:
    """One that has the old key open, and began before the rotation, goes on with the new one."""
    service = Cluster(world.config, actor="tester@world")
    OPEN.append(service)
    assert service.agents.call(node(world), "agent.ping")
    api.rotate(world.cluster)
    assert service.agents.call(node(world), "agent.hello").body.role == "admin"
    assert api_nodes.disable(service, "n1").state == "disabled"


def test_on_a_shared_database(shared: World) -> None:
    """Two admins with a PostgreSQL or MariaDB between them: the same roles, the same revoking, the same rotation."""
    bob = joined(shared, "bob", Role.ADMIN)
    assert api_nodes.disable(bob, "n1").state == "disabled"
    old = shared.cluster.key
    assert api.rotate(bob).unreached == {} and api.rotate(shared.cluster).public_key != old
    assert api.revoke(shared.cluster, "bob").unreached == {}
    with pytest.raises(Denied, match="key bob was revoked"):
        api_nodes.enable(bob, "n1")
    assert [(key.name.partition(".")[0], key.status) for key in api.list_keys(shared.cluster, all=True)] == [
        ("bob", "revoked"), ("bob", "revoked"), ("tester", "active"), ("tester", "revoked")]


def test_of_two_who_revoke_each_other_one_is_left(shared: World) -> None:
    """At the same moment: the table is locked, so the second finds its own key revoked, and an admin is left."""
    bob = joined(shared, "bob", Role.ADMIN)
    assert len(api.list_keys(bob)) == 2
    ends: list[Any] = []
    ready = threading.Barrier(2)

    def act(cluster: Cluster, ref: str) -> None:
        ready.wait(60)
        try:
            ends.append(api.revoke(cluster, ref).status)
        except (Denied, Conflict) as refused:
            ends.append(type(refused).__name__)
        cluster.db.close()

    threads = [threading.Thread(target=act, args=pair) for pair in ((bob, "tester"), (shared.cluster, "bob"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(ends) == ["Denied", "revoked"]


# ---- on the command line


def test_keys_on_the_command_line(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The secret goes to a file and never to the screen, JSON and --debug included; revoking asks for the name; what is missing is said."""
    monkeypatch.chdir(world.folder)
    prompt = Prompt(world.env)
    made = prompt.run("key", "create", "bob", "--role", "operator", "-o", "json", "--debug")
    secret = files.read(world.folder / "bob.secret").secret
    assert made.status == 0 and made.json["role"] == "operator" and made.json["secret_file"] == str(world.folder / "bob.secret")
    listed = prompt.run("key", "list", "-o", "json")
    assert secret not in made.out + made.err + listed.out and world.cluster.agents.keys().secret not in made.out + listed.out
    again = prompt.run("key", "create", "carol", "--role", "reader", "--out", "bob.secret", "--debug")
    assert again.status == 2 and "exists already" in again.err and secret not in again.err
    assert prompt.run("key", "create", "bob", "--role", "chief").status == 2
    assert prompt.run("key", "revoke", "bob").status == 2 and prompt.run("key", "revoke", "nosuch").status == 3
    assert prompt.run("key", "revoke", "bob", tty=True, stdin="bobby\n").status == 2
    away(world, "n1")
    partly = prompt.run("key", "revoke", "bob", tty=True, stdin="bob\n")
    assert partly.status == 7 and "node n1 has not been told yet: node n1 (tcp://127.0.0.1:9) does not answer" in partly.err
    assert [key["name"] for key in prompt.run("key", "list", "-o", "json").json["items"]] == ["tester"]


def test_doctor_tells_who_has_an_older_table(world: World) -> None:
    """Of a node that is behind, and of a rotation that is not over; and nothing once all know."""
    away(world, "n1")
    api.rotate(world.cluster)
    found = {finding.check: finding for finding in api_cluster.doctor(world.cluster)}
    assert found["admin key"].verdict == "warn" and "its rotation is not over on n1" in found["admin key"].detail
    back(world, "n1")
    world.cluster.agents.call(node(world), "node.prepare", wire.Prepare(), fence=Fence("o:1", "o", 1))
    assert "tester (admin)" in {finding.check: finding for finding in api_cluster.doctor(world.cluster)}["admin key"].detail
    with world.cluster.db.write() as tx:
        keys.raise_version(tx)
    behind = {finding.check: finding for finding in api_cluster.doctor(world.cluster)}["node n2"]
    assert behind.verdict == "warn" and "table of admins' keys is version" in behind.detail and behind.fix == "novactl node list"


def _open_to_all(file: Path) -> None:
    file.chmod(0o644)


def _damaged(file: Path) -> None:
    file.write_text("x" * 81)


@pytest.mark.parametrize(("spoil", "says", "mend"), [
    (_open_to_all, "can be read by others (mode 0644)", "chmod 600"),
    (_damaged, "is damaged", "restore it from a backup"),
    (lambda file: file.write_bytes(b""), "is damaged", "restore it from a backup"),
    (lambda file: file.write_bytes(b"\xff" * 82), "it is not text", ""),
])
def test_a_key_that_cannot_be_used_is_not_told_as_none(world: World, spoil: Callable[[Path], object], says: str, mend: str) -> None:
    """What is wrong with its file is said, and how to mend it, by every command and by `doctor`: `init` would not."""
    spoil(world.config.data_dir / "keys" / "admin.secret")
    prompt = Prompt(world.env)
    for line in ("node list", "server list", "db backup b.nova"):
        ran = prompt.run(*line.split())
        assert ran.status == 2 and says in ran.err and mend in ran.err and "try: novactl init" not in ran.err
    (found,) = prompt.run("doctor", "-o", "json").json["items"]
    assert (found["check"], found["verdict"]) == ("admin key", "fail") and says in found["detail"] and mend in found["fix"]


# ---- what is left by a stronger role

STRONG = sorted(kind for kind, scenario in SCENARIOS.items() if scenario.saga.role is Role.ADMIN)


@pytest.mark.parametrize("dead", [False, True], ids=["", "dead-node"])
@pytest.mark.parametrize("kind", STRONG)
def test_what_an_admin_left_waits_for_an_admin(world: World, kind: str, dead: bool) -> None:
    """An operator's commands leave it exactly as it is, saying so, also where its node does not answer; an admin's end it."""
    oper, scenario = joined(world, "oper", Role.OPERATOR), SCENARIOS[kind]
    operation = scenario.start(world, scenario.prepare(world))
    driver = Driver(world.cluster, scenario.saga, operation)
    with pytest.raises(KeyboardInterrupt):
        driver.run.watch = Once()
        driver.drive()
    world.abandon(operation)
    left, short = find(world.cluster, operation.id), operation.id[:8]
    if dead:
        world.loop.stop()
    with pytest.raises(Denied, match=f"ending operation {short} .* needs the role admin; key oper has operator"):
        api_operations.resume(oper, [short])
    for act in (api_operations.undo, api_operations.cancel, lambda *args: api_operations.watch(*args, timeout_s=5)):
        with pytest.raises(Denied, match="needs the role admin"):
            act(oper, [short])
    said = recovery.settle(oper)
    assert len(said) == 1 and f"operation {short}" in said[0] and "cannot be ended yet" in said[0] and "needs the role admin" in said[0]
    assert find(world.cluster, operation.id) == left
    if not dead:
        assert [line.partition("been ended")[1] for line in recovery.settle(world.cluster)] == ["been ended"]
        assert find(world.cluster, operation.id).state.ended


def test_who_ends_what_another_began_remembers_where_nodes_are(world: World) -> None:
    """The process that began it is gone, or has not waited: the file beside the key has the node as it is when another has ended it."""
    scenario = SCENARIOS["node.rotate_key"]
    keyed = lambda: {one.name: one.public_key for one in recall(world.cluster).nodes}  # noqa: E731
    remember(world.cluster)
    for end in (lambda ref: recovery.settle(world.cluster), lambda ref: api_operations.resume(world.cluster, [ref])):
        before = keyed()
        operation = scenario.start(world, None)
        driver = Driver(world.cluster, scenario.saga, operation)
        driver.run.watch = Once("verify")
        with pytest.raises(KeyboardInterrupt):
            driver.drive()
        with world.cluster.db.write() as tx:                  # past the point of no return: there is only forward
            last = [step.name for step in scenario.saga.steps].index("commit")
            operations.step(tx, OperationStep(operation_id=operation.id, attempt=0, position=last, name="commit", state=StepState.STARTED,
                                              started_at=0.0, ended_at=None))
        world.abandon(operation)
        end(operation.id)
        assert keyed()["n1"] == node(world).public_key != before["n1"] and keyed()["n2"] == before["n2"]


def test_of_many_who_remember_at_once_the_last_word_is_true(world: World) -> None:
    """Threads and rows change side by side; whatever was read first is not written last, and the file is whole at every moment."""
    first = node(world)

    failed: list[Exception] = []

    def change(number: int) -> None:
        try:
            for turn in range(8):
                with world.cluster.db.write() as tx:
                    nodes.update(tx, dataclasses.replace(first, labels={f"k{number}-{turn}": "x" * 400 * number}))
                remember(world.cluster)
                recall(world.cluster)
        except Exception as error:  # noqa: BLE001 - told below
            failed.append(error)
        finally:
            world.cluster.db.close()

    crew = [threading.Thread(target=change, args=(number,)) for number in range(12)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    assert not failed
    assert {one.name: one.labels for one in recall(world.cluster).nodes}["n1"] == node(world).labels != {}


def test_a_saga_has_the_role_that_its_messages_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Done and undone, no saga sends what its role may not."""
    sent: dict[str, set[str]] = {}
    call = Run.call

    def noted(run: Run, peer: Any, method: str, *args: Any, **more: Any) -> Any:
        sent.setdefault(run.operation.kind, set()).add(method)
        return call(run, peer, method, *args, **more)

    monkeypatch.setattr(Run, "call", noted)
    for kind, scenario in SCENARIOS.items():
        for turned in (False, True):
            with small_world(tmp_path / f"{kind}-{turned}") as made:
                operation = scenario.start(made, scenario.prepare(made))
                saga = scenario.saga
                if turned:
                    saga = dataclasses.replace(saga, steps=(*saga.steps, Step("fail", refuse, nothing("it has done nothing"))),
                                               point_of_no_return="")
                with contextlib.suppress(NovaError):
                    Driver(made.cluster, saga, operation).drive()
    for kind, methods in sent.items():
        needed = {method for method in methods if not SAGAS[kind].role.allows(Role(wire.METHODS[method].role))}
        assert not needed, (kind, needed)
    assert {kind for kind, methods in sent.items() if any(wire.METHODS[method].role == Role.ADMIN for method in methods)} >= {
        "node.rotate_key", "server.adopt"}


def refuse(run: Run, record: Any) -> Any:
    raise UsageError("no")


class Once:
    """A watcher that interrupts when a step (or the first that it is told of) has been done."""

    def __init__(self, step: str = "") -> None:
        self.step = step

    def __call__(self, told: Progress) -> None:
        if told.state == "done" and self.step in ("", told.step):
            raise KeyboardInterrupt
