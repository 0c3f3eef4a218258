"""What others do while a node is enrolled again is not undone by it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from novactl.api import nodes as api
from novactl.api.nodes import SetNode
from novactl.conductor import enroll_node, enrolment
from novactl.conductor.enrolment import EnrollRecord
from novactl.conductor.progress import unwatched
from novactl.db import nodes
from novactl.enroll import paths, steps
from novactl.enroll.access import Access
from novactl.enroll.goal import Goal, admins_text, config_text
from novactl.enroll.shell import LocalShell
from novactl.enroll.site import Before, Site
from novactl.model.node import Node
from tests.world import World, small_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """One node, whose agent says that it drives libvirt."""
    with small_world(tmp_path, count=1) as made:
        made.agents["n1"].driver.name = "libvirt"  # type: ignore[misc]
        yield made


def row(world: World) -> Node:
    with world.cluster.db.read() as tx:
        found = nodes.by_name(tx, "n1")
    assert found is not None
    return found


def goal_of(world: World, version: int = 1, keys: tuple[str, ...] = ()) -> Goal:
    config = world.agents["n1"].config
    return Goal(
        node_id=config.node_id, cluster_id=config.cluster_id, name="n1", version="1", bundle_folder="f", bundle_sha256="0" * 64,
        admins={key * 40: {"name": key, "role": "admin"} for key in keys}, admins_version=version)


def record_of(world: World, node: Node, **changes: object) -> EnrollRecord:
    """As an enrolment that has nothing to do on the machine makes it of what it read at its beginning."""
    record = EnrollRecord(
        node_id=node.id, name=node.name, zone="", labels={}, address=node.address, new=False, access=Access(host="h", user="root"),
        goal=goal_of(world), before=Before(), origin=Before(), changes=(), machine_id="m", admins="", public_key=node.public_key)
    return dataclasses.replace(record, **changes)  # type: ignore[arg-type]


def test_what_is_set_of_a_node_meanwhile_stays(world: World) -> None:
    """Zone and labels that were not asked for are those that the row has when the enrolment ends; those asked for are written."""
    began = row(world)
    record = record_of(world, began)
    api.set_(world.cluster, "n1", SetNode(zone="east", labels={"rack": "r1"}))
    enroll_node._recheck(world.cluster, began, record, unwatched)
    assert (row(world).zone, dict(row(world).labels)) == ("east", {"rack": "r1"})
    enroll_node._recheck(world.cluster, began, record_of(world, began, zone="west", labels={"rack": "r2"}), unwatched)
    assert (row(world).zone, dict(row(world).labels)) == ("west", {"rack": "r2"})


def test_what_is_set_before_an_enrolment_ends_stays(world: World) -> None:
    """The same of one that had something to do, of its last transaction."""
    record = record_of(world, row(world))
    api.set_(world.cluster, "n1", SetNode(zone="east", labels={"rack": "r1"}))
    after = enrolment.enrolled(row(world), record, world.agents["n1"].report(0))
    assert (after.zone, dict(after.labels)) == ("east", {"rack": "r1"})


def test_a_key_that_was_rotated_meanwhile_stays(world: World) -> None:
    """The row has the key that the agent has now, not the one that the machine had when it was looked at; one that the row never had
    is written."""
    began = row(world)
    record = record_of(world, began)
    api.rotate_key(world.cluster, "n1")
    rotated = row(world).public_key
    assert rotated != began.public_key
    world.cluster.agents.call = _known_as(world, rotated)  # type: ignore[method-assign]
    enroll_node._recheck(world.cluster, began, record, unwatched)
    assert row(world).public_key == rotated
    enroll_node._recheck(world.cluster, row(world), record_of(world, row(world), public_key="k" * 40), unwatched)
    assert row(world).public_key == "k" * 40


def _known_as(world: World, key: str):  # type: ignore[no-untyped-def]
    """Its agent still answered under its former key when it was asked: it does so for a while."""
    call = world.cluster.agents.call
    return lambda peer, *args, **how: call(dataclasses.replace(peer, public_key=key), *args, **how)


# ---------------------------------------------------------------- the table of admins' keys


@pytest.fixture
def site(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A node that has version 1 of the table, with the keys a and b, and is to have it again."""
    folder = tmp_path / "etc"
    for name in ("CONFIG_FILE", "ADMINS_FILE", "FORMER_ADMINS_FILE"):
        monkeypatch.setattr(paths, name, str(folder / name.lower()))
    goal = goal_of(world, 1, ("a", "b"))
    before = Before(config=config_text(goal), admins=admins_text(goal_of(world, 0, ("a",))))
    return Site(LocalShell(), goal, before, admins=admins_text(goal))


def admitted(site: Site) -> tuple[int, set[str]]:
    plain = json.loads(Path(paths.ADMINS_FILE).read_text())
    return plain["version"], {key[0] for key in plain["keys"]}


def test_a_key_revoked_meanwhile_is_not_let_in_again(site: Site, world: World) -> None:
    """Neither by enrolling nor by taking that back: the agent's newer table stays. An older one is replaced, whole and readable."""
    steps.write_config(site)
    assert admitted(site) == (1, {"a", "b"}) and Path(paths.ADMINS_FILE).stat().st_mode & 0o777 == 0o644
    Path(paths.ADMINS_FILE).write_text(admins_text(goal_of(world, 2, ("a",))))
    steps.write_config(site)
    assert admitted(site) == (2, {"a"})
    steps.restore_config(site)
    assert admitted(site) == (2, {"a"})
    Path(paths.ADMINS_FILE).write_text("half a tab")
    steps.restore_config(site)
    assert admitted(site) == (0, {"a"})
    steps.write_config(site)
    assert admitted(site) == (1, {"a", "b"})
    assert sorted(path.name for path in Path(paths.ADMINS_FILE).parent.iterdir()) == ["admins_file", "config_file"]


def test_a_machine_of_another_cluster_gets_this_ones_table(site: Site, world: World) -> None:
    """Its versions say nothing about this cluster's; a first enrolment, undone, leaves neither file."""
    other = dataclasses.replace(goal_of(world, 9, ("z",)), cluster_id="0" * 36)
    Path(paths.ADMINS_FILE).parent.mkdir()
    Path(paths.ADMINS_FILE).write_text(admins_text(other))
    steps.write_config(dataclasses.replace(site, before=Before(config=config_text(other), admins=admins_text(other))))
    assert admitted(site) == (1, {"a", "b"})
    steps.restore_config(dataclasses.replace(site, before=Before()))
    assert list(Path(paths.ADMINS_FILE).parent.iterdir()) == []
