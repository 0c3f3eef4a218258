"""What ended long ago is forgotten, and what is still needed is not, on each kind of database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from novactl.api import servers as api
from novactl.api.servers import CreateServer
from novactl.cluster import SystemClock
from novactl.conductor.journal import Journal
from novactl.conductor.leader import Leadership
from novactl.conductor.service import _forget
from novactl.db import events, operations, servers
from novactl.errors import NovaError, Superseded
from novactl.model.operation import EventRecord
from tests import databases
from tests.world import World, small_world

DAY_S = 86400


class Later(SystemClock):
    def __init__(self) -> None:
        self.ahead_s = 0.0

    def now(self) -> float:
        return SystemClock.now() + self.ahead_s


@pytest.fixture(params=databases.EACH)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A server that lives, and one that was deleted."""
    with databases.database(request.param) as url, small_world(tmp_path, url=url) as made:
        made.cluster.clock = Later()
        for name in ("lives", "gone"):
            api.create(made.cluster, CreateServer(name=name, flavor="small", image="guest"))
        api.delete(made.cluster, "gone")
        yield made


def happen(world: World, after_days: float) -> None:
    with world.cluster.db.write() as tx:
        events.record(tx, EventRecord(
            at=SystemClock.now() + after_days * DAY_S, object_kind="conductor", object_id="", object_name="", operation_id="",
            event="leads", actor="", detail="", reason=""))


def forget(world: World, after_days: float, *, last_event_days: float = 2.0) -> list[str]:
    """So long after the servers were made, and after something else happened."""
    happen(world, after_days - last_event_days)
    world.cluster.clock.ahead_s = after_days * DAY_S
    lines: list[str] = []
    leadership = Leadership(world.cluster)
    assert leadership.take()
    try:
        _forget(leadership, Journal(lines.append, world.cluster.clock))
    finally:
        leadership.release()
    return lines


def there(world: World) -> tuple[set[str], bool, int]:
    """The operations by what they did to what, whether the deleted server's row is there, and the living one's events."""
    with world.cluster.db.read() as tx:
        ended = {f"{one.kind} {one.object_name}" for one in operations.recent(tx, ended=True) if one.object_kind == "server"}
        lives = servers.by_name(tx, "lives")
        return ended, servers.past(tx, "gone") is not None, len(events.of(tx, lives.id))


def test_young_rows_stay(world: World) -> None:
    """A day before its retention ends nothing is forgotten, and nothing is said."""
    before = there(world)
    assert forget(world, 89) == [] and there(world) == before


def test_old_rows_go_but_for_what_answers_why(world: World) -> None:
    """After 90 days operations and deleted servers go, but neither the decision that put a living server where it is, nor the newest
    operation, whose number tells copies of the database apart; after a year events."""
    _, _, told = there(world)
    assert told > 0
    assert len(forget(world, 91)) == 2
    assert there(world) == ({"server.create lives", "server.delete gone"}, False, told)
    assert api.why(world.cluster, "lives").rows
    assert forget(world, 92) == []
    assert len(forget(world, 366)) == 1 and there(world)[2] == 0


@pytest.mark.parametrize("last_event_days", [0.0, 30.0], ids=["only the one who forgets", "nothing for long"])
def test_nothing_is_forgotten_by_a_clock_that_jumped(world: World, last_event_days: float) -> None:
    """Events of now are no witness: they are written by the clock that jumped. A day later it is what everybody goes by."""
    before = there(world)
    with pytest.raises(NovaError, match="may have jumped ahead"):
        forget(world, 63 * 365, last_event_days=last_event_days)
    assert there(world) == before
    assert len(forget(world, 63 * 365 + 2)) == 3


def test_one_who_leads_no_more_forgets_nothing(world: World) -> None:
    """The lease is looked at in the transaction that deletes."""
    world.cluster.clock.ahead_s = 400 * DAY_S
    before = there(world)
    leadership = Leadership(world.cluster)
    assert leadership.take()
    world.cluster.clock.ahead_s += 3600
    other = Leadership(world.cluster)
    if world.cluster.db.where.startswith("/"):
        assert other.take()
    else:
        Leadership.release(leadership)                        # the database's clock stands for itself
        assert other.take()
    with pytest.raises(Superseded):
        _forget(leadership, Journal(lambda line: None, world.cluster.clock))
    assert there(world) == before
