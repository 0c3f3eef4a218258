"""A deletion has the server's next epoch: what was given up for it is refused on the node, and a server that is kept is as before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from novactl.agents import wire
from novactl.api import adoption, rebuild
from novactl.api import operations as api_operations
from novactl.api import power as act
from novactl.api import servers as api
from novactl.api import verify as verifying
from novactl.conductor import background, delete_server, node_file, power
from novactl.conductor.driver import Driver
from novactl.conductor.recover import find, resume, take_over
from novactl.conductor.saga import Run
from novactl.db import nodes, servers
from novactl.errors import AgentRefused, NovaError, Stuck
from novactl.model.operation import Operation, OperationState
from novactl.model.server import Server
from tests.sagas.scenarios import SCENARIOS
from tests.sagas.test_laws import altered
from tests.unit.test_rebuild import backup, lose, restore
from tests.world import World, small_world


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(background, "hand_over", lambda cluster, ids: None)
    with small_world(tmp_path) as made:
        yield made


def failing(inner: Any, run: Run, record: Any) -> Any:
    raise NovaError("as the test wants it")


def row(world: World) -> Server:
    return api.show(world.cluster, "web", refresh=False)


def stuck_start(world: World) -> Operation:
    """It has begun to start the server, and no message of it has come to the node yet."""
    operation = SCENARIOS["server.start"].start(world, SCENARIOS["server.start"].prepare(world))
    with pytest.raises(Stuck):
        Driver(world.cluster, altered(power.START, 0, do=failing, undo=failing), operation).drive()
    return operation


def begun_deletion(world: World, step: int | None = None, *, do: Any = None) -> Operation:
    """Nobody drives it yet; or, with `step`, it got stuck there, where `do` took the place of what it does."""
    id_ = api.delete(world.cluster, "web", wait=False)
    assert isinstance(id_, str)
    if step is not None:
        driver = take_over(world.cluster, find(world.cluster, id_), forward=True)
        driver.saga = altered(delete_server.DELETE, step, do=do or failing)
        with pytest.raises(Stuck):
            driver.drive()
    return find(world.cluster, id_)


@pytest.mark.parametrize("step", [2, 3])
def test_what_was_given_up_is_refused_once_the_deletion_has_touched_the_node(world: World, step: int) -> None:
    """A start that was given up arrives after the deletion's first message: nothing runs, neither before nor after the domain is gone."""
    given_up = stuck_start(world)
    server = row(world)
    late = Run(world.cluster, given_up)
    late.step = "start"
    said: list[AgentRefused] = []

    def meanwhile(inner: Any, run: Run, record: Any) -> Any:
        with world.cluster.db.read() as tx:
            node = nodes.by_id(tx, server.node_id)
        with pytest.raises(AgentRefused) as refused:
            late.call(node, "domain.start", wire.DomainRef(server.id, server.epoch))
        said.append(refused.value)
        assert "RUNNING" not in world.domains().values()
        return inner(run, record)

    deletion = begun_deletion(world)
    assert find(world.cluster, given_up.id).state is OperationState.FAILED and row(world).epoch == server.epoch + 1
    driver = take_over(world.cluster, deletion, forward=True)
    driver.saga = altered(delete_server.DELETE, step, do=meanwhile)
    driver.drive()
    assert [error.details["code"] for error in said] == [wire.Code.STALE] and world.leftovers() == []
    assert f"server {server.id} is at epoch {server.epoch + 1}" in said[0].message


def test_giving_up_and_deleting_are_one_transaction(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the deletion cannot begin, what was stuck is stuck as before; so it is after a dry run, which is not refused."""
    given_up = stuck_start(world)
    before = row(world)
    assert api.delete(world.cluster, "web", dry_run=True).id == before.id  # type: ignore[union-attr]
    monkeypatch.setattr(servers, "place", lambda *_: failing(None, None, None))  # type: ignore[arg-type]
    with pytest.raises(NovaError, match="as the test wants it"):
        api.delete(world.cluster, "web", wait=False)
    assert find(world.cluster, given_up.id).state is OperationState.STUCK and row(world) == before
    assert [one.id for one in api_operations.list_operations(world.cluster)] == [given_up.id]


def test_a_server_that_is_kept_has_the_epoch_of_its_domain(world: World) -> None:
    """Undone before the node has heard of it, a deletion leaves nothing: the next command is obeyed, and all agrees."""
    SCENARIOS["server.delete"].prepare(world)
    before = row(world)
    deletion = begun_deletion(world)
    assert row(world).epoch == before.epoch + 1
    assert verifying.verify(world.cluster) == (), "its domain is no copy of it, and not behind"
    assert api.show(world.cluster, "web").status == "ACTIVE"
    api_operations.undo(world.cluster, [deletion.id])
    assert row(world).epoch == before.epoch and verifying.verify(world.cluster) == ()
    api.stop(world.cluster, "web")
    assert api.start(world.cluster, "web").status == "ACTIVE"  # type: ignore[union-attr]
    api.delete(world.cluster, "web")
    assert world.leftovers() == []


def test_a_deletion_stuck_half_way_is_gone_on_with(world: World) -> None:
    """While it is stuck nothing takes the node's own domain for a superseded one, and it ends as it began."""
    SCENARIOS["server.delete"].prepare(world)
    deletion = begun_deletion(world, 2)
    assert {drift.kind for drift in verifying.verify(world.cluster)} == {"operation"}
    assert api.show(world.cluster, "web").epoch == 2
    ended = resume(world.cluster, take_over(world.cluster, deletion, forward=True))
    assert ended.state is OperationState.OK and world.leftovers() == []


def test_half_deleted_and_given_up_for_lost_it_keeps_the_newer_epoch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node may have heard of it: a row of the older epoch would have no command obeyed."""
    SCENARIOS["server.delete"].prepare(world)
    begun_deletion(world, 2)
    monkeypatch.setattr(act, "_refuse_living", lambda cluster, server: None)
    id_ = api.delete(world.cluster, "web", lost=True, wait=False)
    assert row(world).epoch == 3
    api_operations.undo(world.cluster, [str(id_)])
    assert row(world).epoch == 2


@pytest.mark.parametrize("way", ["lost", "restored"])
def test_without_the_deletion_s_journal_the_row_is_what_the_node_obeys(world: World, way: str) -> None:
    """The database was lost, or fell behind, while a server was half deleted: it is told, and one command mends it."""
    SCENARIOS["server.delete"].prepare(world)
    kept = backup(world)
    node_file.remember(world.cluster)
    begun_deletion(world, 2)
    if way == "lost":
        lose(world)
        assert rebuild.rebuild(world.cluster).servers == ("web",)
    else:
        restore(world, kept)
        assert row(world).epoch == 1 and rebuild.adopt(world.cluster).raised == ("web",)
    cluster = world.cluster
    assert row(world).epoch == 2
    assert ("outdated", "novactl server reboot --hard web") in [(drift.kind, drift.command) for drift in verifying.verify(cluster)]
    api.reboot(cluster, "web", hard=True)
    assert row(world).status == "ACTIVE" and verifying.verify(cluster) == ()
    api.delete(cluster, "web")
    assert world.leftovers() == []


def test_a_domain_that_was_a_server_of_a_lost_database_is_adopted_again(world: World) -> None:
    """The node remembers the epoch at which it was deleted, and the new server begins above it."""
    SCENARIOS["server.adopt"].prepare(world)
    node_file.remember(world.cluster)
    first = adoption.adopt(world.cluster, "n1", "legacy")
    api.delete(world.cluster, "legacy")
    SCENARIOS["server.adopt"].prepare(world)
    lose(world)
    rebuild.rebuild(world.cluster)
    assert adoption.adopt(world.cluster, "n1", "legacy").epoch == first.epoch + 2
    assert api.stop(world.cluster, "legacy").status == "SHUTOFF"  # type: ignore[union-attr]
