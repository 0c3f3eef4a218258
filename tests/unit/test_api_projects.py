"""Projects, quotas and server groups: what they are, what they refuse, and what a limit holds."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from novactl.api import groups, keypairs, projects, quotas
from novactl.api.groups import CreateGroup
from novactl.api.keypairs import CreateKeypair
from novactl.api.quotas import BelowUsage, QuotaRow
from novactl.cluster import Cluster
from novactl.db import servers
from novactl.db.quotas import check
from novactl.errors import AlreadyExists, Conflict, ExitStatus, InUse, NotFound, NovaError, QuotaExceeded, UsageError
from tests.unit.nouns_world import put_server, quiet_world
from tests.unit.test_keypair_parsing import ED25519
from tests.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = quiet_world(tmp_path)
    yield made
    made.stop()


def row(cluster: Cluster, project: str, resource: str) -> QuotaRow:
    return next(one for one in quotas.show(cluster, project) if one.resource == resource)


def test_the_life_of_a_project(world: World) -> None:
    """Created, described, used, emptied, deleted with its quotas; the default one was there and stays."""
    cluster = world.cluster
    assert [one.name for one in projects.list_projects(cluster)] == ["default"]
    made = projects.create(cluster, name="shop", description="web shop")
    assert projects.show(cluster, made.id[:8]) == projects.show(cluster, "shop") == made
    assert projects.set_(cluster, "shop", description="").description == ""
    put_server(world, "web", "n1", project=made.id)
    shown = projects.show(cluster, "shop")
    assert (shown.servers, shown.cores, shown.ram_mb, shown.disk_gb) == (1, 2, 1024, 4)
    with pytest.raises(InUse, match=r"project shop still has servers \(1\)"):
        projects.delete(cluster, "shop")
    with pytest.raises(Conflict, match="the default project cannot be deleted"):
        projects.delete(cluster, "default")
    quotas.set_(cluster, "shop", {"servers": "5"})
    empty = projects.create(cluster, name="empty")
    projects.delete(cluster, "empty", dry_run=True)
    assert projects.show(cluster, "empty") == empty
    projects.delete(cluster, "empty")
    assert [one.name for one in projects.list_projects(cluster)] == ["default", "shop"]


def test_a_project_with_keys_or_groups_stays(world: World) -> None:
    """What belongs to a project keeps it, and is named with its number."""
    cluster = world.cluster
    projects.create(cluster, name="shop")
    keypairs.create(cluster, CreateKeypair(name="alice", public_key=ED25519, project="shop"))
    groups.create(cluster, CreateGroup(name="web", policy="affinity", project="shop"))
    with pytest.raises(InUse, match=r"project shop still has keypairs \(1\), groups \(1\)"):
        projects.delete(cluster, "shop")


@pytest.mark.parametrize("name,description,error", [
    ("default", "", AlreadyExists), ("a b", "", UsageError), ("a", "x" * 256, UsageError), ("a", "a\nb", UsageError),
])
def test_what_a_project_cannot_be(world: World, name: str, description: str, error: type[NovaError]) -> None:
    """Bad names, descriptions and doubles are refused."""
    with pytest.raises(error):
        projects.create(world.cluster, name=name, description=description)


def test_limits_of_a_project_and_of_all(world: World) -> None:
    """A project's own limit counts, else the default, else none; sizes are read with their units; `default` gives back."""
    cluster = world.cluster
    projects.create(cluster, name="shop")
    assert row(cluster, "shop", "servers") == ("shop", "servers", 0, -1, "none")
    quotas.set_(cluster, None, {"servers": "10", "ram": "64G"})
    assert row(cluster, "shop", "servers") == ("shop", "servers", 0, 10, "default")
    set_now = quotas.set_(cluster, "shop", {"servers": "20", "ram_mb": "unlimited", "disk": "1T", "cores": "-1"})
    assert set_now == quotas.show(cluster, "shop")
    assert [(one.resource, one.limit, one.source) for one in set_now][:4] == [
        ("servers", 20, "project"), ("cores", -1, "project"), ("ram_mb", -1, "project"), ("disk_gb", 1024, "project")]
    assert row(cluster, "default", "ram_mb").limit == 65536
    back = quotas.set_(cluster, "shop", {"servers": "default"}, dry_run=True)
    assert back[0] == ("shop", "servers", 0, 10, "default") and row(cluster, "shop", "servers").limit == 20
    quotas.set_(cluster, "shop", {"servers": "default"})
    assert row(cluster, "shop", "servers").source == "default"
    assert [one.project for one in quotas.list_quotas(cluster)] == ["default"] * 8 + ["shop"] * 8


def test_a_limit_below_what_is_used(world: World) -> None:
    """It is refused naming project, usage and limit, for one project and for all; by force it holds, and nothing more is given."""
    cluster = world.cluster
    shop = projects.create(cluster, name="shop")
    for name in ("a", "b"):
        put_server(world, name, "n1", project=shop.id)
    with pytest.raises(BelowUsage, match="project shop uses 2 of servers, the limit would be 1") as refused:
        quotas.set_(cluster, "shop", {"servers": "1"})
    assert refused.value.exit_status is ExitStatus.CONFLICT
    with pytest.raises(BelowUsage) as refused:
        quotas.set_(cluster, None, {"servers": "0", "ram": "1G"})
    assert refused.value.reasons == (
        "project shop uses 2 of servers, the limit would be 0", "project shop uses 2.0 GiB of ram_mb, the limit would be 1.0 GiB")
    assert row(cluster, "shop", "servers").limit == -1
    quotas.set_(cluster, "shop", {"servers": "2"})
    quotas.set_(cluster, None, {"servers": "0"})
    with pytest.raises(BelowUsage):
        quotas.set_(cluster, "shop", {"servers": "default"})
    assert quotas.set_(cluster, "shop", {"servers": "1"}, force=True)[0][2:] == (2, 1, "project")
    assert quotas.set_(cluster, None, {"servers": "5"})[0].limit == 5, "a limit of its own is not the default's concern"
    with pytest.raises(QuotaExceeded):
        put_server(world, "c", "n1", project=shop.id)


@pytest.mark.parametrize("texts,said", [
    ({"frobs": "1"}, "one of servers, cores, ram, disk, volumes, networks, keypairs, groups"), ({"servers": "-2"}, "a whole number"),
    ({"servers": "1.5"}, "a whole number"), ({"servers": "many"}, "unlimited, or default"), ({"ram": "lots"}, "'512M'"),
    ({"servers": "9999999999"}, "too large"), ({"ram": "8P", "ram_mb": "1"}, "given twice"), ({"servers": "٤"}, "a whole number"),
])
def test_what_a_limit_cannot_be(world: World, texts: dict[str, str], said: str) -> None:
    """An unknown resource or a bad limit is refused saying what is accepted."""
    with pytest.raises(UsageError) as refused:
        quotas.set_(world.cluster, "default", texts)
    assert said in f"{refused.value.message} {refused.value.hint}"


def test_the_defaults_have_no_default(world: World) -> None:
    """`default` is no limit for all: there is nothing it could give back to."""
    with pytest.raises(UsageError, match="this is no limit"):
        quotas.set_(world.cluster, None, {"servers": "default"})


def test_keys_and_groups_count(world: World) -> None:
    """A key pair or a group beyond the limit is refused with exit 8, and makes nothing, not even a private key's file."""
    cluster = world.cluster
    quotas.set_(cluster, None, {"keypairs": "1", "groups": "1"})
    keypairs.create(cluster, CreateKeypair(name="alice", public_key=ED25519))
    groups.create(cluster, CreateGroup(name="web", policy="affinity"))
    file = world.folder / "bob.key"
    for act in (
        lambda: keypairs.create(cluster, CreateKeypair(name="bob", private_key_path=file)),
        lambda: keypairs.create(cluster, CreateKeypair(name="bob", public_key=ED25519)),
        lambda: keypairs.create(cluster, CreateKeypair(name="bob", public_key=ED25519), dry_run=True),
        lambda: groups.create(cluster, CreateGroup(name="db", policy="affinity")),
    ):
        with pytest.raises(QuotaExceeded, match="1 of 1 used, 1 more asked") as refused:
            act()
        assert refused.value.exit_status is ExitStatus.DENIED
    assert not file.exists()
    projects.create(cluster, name="shop")
    keypairs.create(cluster, CreateKeypair(name="bob", public_key=ED25519, project="shop"))
    assert [key.name for key in keypairs.list_keypairs(cluster, project="shop")] == ["bob"]


def test_the_last_key_is_made_once(world: World) -> None:
    """Of eight who take the last key pair of a quota at once, one gets it."""
    quotas.set_(world.cluster, None, {"keypairs": "1"})
    outcomes, together = [], threading.Barrier(8)

    def take(number: int) -> None:
        mine = Cluster(world.config, actor="tester")
        together.wait()
        try:
            keypairs.create(mine, CreateKeypair(name=f"k{number}", public_key=ED25519))
            outcomes.append("made")
        except QuotaExceeded:
            outcomes.append("refused")
        finally:
            mine.close()

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["made"] + ["refused"] * 7


def test_the_life_of_a_group(world: World) -> None:
    """Created with its policy, joined, shown with its members' nodes, kept while it has members, deleted by force."""
    cluster = world.cluster
    made = groups.create(cluster, CreateGroup(name="web", policy="anti-affinity", scope="rack", max_per_host=2))
    assert (made.max_per_host, made.scope, made.project, made.members) == (2, "rack", "default", ())
    assert groups.create(cluster, CreateGroup(name="cache", policy="soft-affinity")).max_per_host is None
    put_server(world, "web2", "n2", group=made.id)
    put_server(world, "web1", "n1", group=made.id)
    assert [member.line for member in groups.show(cluster, "web").members] == ["web1 on n1", "web2 on n2"]
    assert {one.name: len(one.members) for one in groups.list_groups(cluster, project="default")} == {"web": 2, "cache": 0}
    with pytest.raises(InUse, match="server group web has 2 members: web1, web2"):
        groups.delete(cluster, "web")
    groups.delete(cluster, "web", force=True, dry_run=True)
    assert len(groups.show(cluster, "web").members) == 2
    groups.delete(cluster, "web", force=True)
    with cluster.db.read() as tx:
        assert servers.by_name(tx, "web1").group_id == ""
    with pytest.raises(NotFound, match="no server-group 'web'"):
        groups.show(cluster, "web")


@pytest.mark.parametrize("wanted,error,said", [
    (CreateGroup(name="g", policy="near"), UsageError, "one of affinity, anti-affinity, soft-affinity, soft-anti-affinity"),
    (CreateGroup(name="g", policy="affinity", max_per_host=2), UsageError, "--max-per-host belongs to anti-affinity"),
    (CreateGroup(name="g", policy="anti-affinity", max_per_host=0), UsageError, "1 to 10000"),
    (CreateGroup(name="g", policy="affinity", scope="a b"), UsageError, "not the name of a node label"),
    (CreateGroup(name="a b", policy="affinity"), UsageError, "server group name"),
    (CreateGroup(name="g", policy="affinity", project="nobody"), NotFound, "no project 'nobody'"),
    (CreateGroup(name="there", policy="affinity"), AlreadyExists, "exists already"),
])
def test_what_a_group_cannot_be(world: World, wanted: CreateGroup, error: type[NovaError], said: str) -> None:
    """Policies, limits, scopes and names that cannot be are refused, saying what is accepted."""
    groups.create(world.cluster, CreateGroup(name="there", policy="affinity"))
    with pytest.raises(error) as refused:
        groups.create(world.cluster, wanted)
    assert said in f"{refused.value.message} {refused.value.hint}"
    with world.cluster.db.read() as tx:
        check(tx, "default", "groups", 1)
