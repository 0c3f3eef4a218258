"""A domain that was somebody else's becomes a server, and may be given up again: its guest and its files are never touched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from novactl.api import adoption, power
from novactl.api import servers as api
from novactl.api import verify as verifying
from novactl.db import placement, servers
from novactl.db.refusals import OverCapacity
from novactl.errors import AlreadyExists, Conflict, NotFound
from tests.sagas.scenarios import LEGACY
from tests.world import World, small_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with small_world(tmp_path) as made:
        made.agents["n1"].driver._wild[LEGACY["uuid"]] = dict(LEGACY)  # type: ignore[attr-defined]
        yield made


def wild(world: World) -> list[str]:
    return [one.name for one in world.agents["n1"].driver.states().wild]


def test_a_domain_becomes_a_server(world: World) -> None:
    """By name: it runs on, has a row, a claim and no image, all agrees, and it is powered as any other."""
    tried = adoption.adopt(world.cluster, "n1", "legacy", dry_run=True)
    assert (tried.name, tried.vcpus, tried.memory_mb) == ("legacy", 2, 1024) and wild(world) == ["legacy"]
    server = adoption.adopt(world.cluster, "n1", "legacy", name="db1")
    assert (server.id, server.name, server.status, server.node_name, server.epoch) == (LEGACY["uuid"], "db1", "ACTIVE", "n1", 1)
    assert (server.image_id, server.image_name, server.flavor_name) == ("", "", "")
    guest: Any = world.agents["n1"].driver._guests[server.id]  # type: ignore[attr-defined]
    assert guest.runs == 1 and wild(world) == [] and verifying.verify(world.cluster) == ()
    with world.cluster.db.read() as tx:
        assert placement.used_on(tx, server.node_id) == {"VCPU": 2, "MEMORY_MB": 1024, "DISK_GB": 1}
    power.stop(world.cluster, "db1")
    power.start(world.cluster, "db1")
    power.reboot(world.cluster, "db1", hard=True)
    assert api.show(world.cluster, "db1").status == "ACTIVE" and guest.spec.adopted == "legacy"


def test_one_that_is_off_is_taken_in_as_it_is(world: World) -> None:
    """It is not started: the server is SHUTOFF."""
    world.agents["n1"].driver._wild[LEGACY["uuid"]]["power_state"] = "SHUTDOWN"  # type: ignore[attr-defined]
    assert adoption.adopt(world.cluster, "n1", LEGACY["uuid"]).status == "SHUTOFF"
    assert verifying.verify(world.cluster) == ()


def test_deleting_it_takes_away_the_domain_alone(world: World) -> None:
    """No file is removed, the claim is given back, and nothing of it is left."""
    adoption.adopt(world.cluster, "n1", "legacy")
    foreign = world.folder / "n1" / "pool" / "legacy.img"
    foreign.write_text("not ours")
    api.delete(world.cluster, "legacy")
    assert foreign.read_text() == "not ours"
    foreign.unlink()
    assert world.leftovers() == [] and verifying.verify(world.cluster) == ()


def test_what_does_not_fit_is_refused_and_forced(world: World) -> None:
    """More than the node has is refused with the numbers and left wild; --force claims it all the same."""
    world.agents["n1"].driver._wild[LEGACY["uuid"]]["memory_mb"] = 900_000  # type: ignore[attr-defined]
    with pytest.raises(OverCapacity, match="memory: needs 878.9 GiB"):
        adoption.adopt(world.cluster, "n1", "legacy")
    assert wild(world) == ["legacy"] and world.leftovers() == []
    server = adoption.adopt(world.cluster, "n1", "legacy", force=True)
    with world.cluster.db.read() as tx:
        assert placement.used_on(tx, server.node_id)["MEMORY_MB"] == 900_000
        again = servers.by_id(tx, server.id)
    assert again is not None and (again.status, again.epoch) == ("ACTIVE", 2)


def test_refusals_name_what_there_is(world: World) -> None:
    """No such domain, a name that is taken, a flavor of another size, one that is a server already."""
    with pytest.raises(NotFound, match="no domain 'lega'") as refused:
        adoption.adopt(world.cluster, "n1", "lega")
    assert "legacy" in refused.value.hint
    with pytest.raises(Conflict, match="2 vcpus and 1024 MiB, flavor small 1 and 512"):
        adoption.adopt(world.cluster, "n1", "legacy", flavor="small")
    adoption.adopt(world.cluster, "n1", "legacy")
    with pytest.raises(Exception, match="no domain"):
        adoption.adopt(world.cluster, "n1", LEGACY["uuid"])
    other = {**LEGACY, "uuid": "3f0a8a86-35a5-4a6a-9a52-8c6c6ff8b0aa"}
    world.agents["n1"].driver._wild[other["uuid"]] = other  # type: ignore[attr-defined]
    with pytest.raises(AlreadyExists):
        adoption.adopt(world.cluster, "n1", "legacy")
