"""Who ends what was left behind, when, and what it leaves to others."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from novactl.api.recovery import settle
from novactl.cluster import Cluster, SystemClock
from novactl.conductor import background, lease, owner, recover
from novactl.conductor.clean_server import CLEAN, CleanServer
from novactl.conductor.holding import owned_by_the_living
from novactl.conductor.saga import begin
from novactl.config import load_config
from novactl.db import nodes, operations
from novactl.db.refusals import Crossed
from novactl.db.statements import Tx
from novactl.errors import AgentRefused, Unreachable
from novactl.model.operation import Operation, OperationState
from tests import databases
from tests.world import World, small_world

REFUSED = AgentRefused("n1", "disk.delete", {"message": "its disk is full", "code": "internal"})
ELSEWHERE = "elsewhere 1 1 another-boot another-namespace"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with small_world(tmp_path, count=1) as made:
        yield made


def begun(world: World, cluster: Cluster | None = None) -> Operation:
    cluster, server = cluster or world.cluster, world.cluster.ids.uuid()
    with cluster.db.write() as tx:
        node = nodes.by_name(tx, "n1")
        return begin(cluster, tx, CLEAN, CleanServer(server=server, node=node.id if node else "", epoch=1), ("server", server, "x"))


def altered(world: World, operation: Operation, **changes: object) -> Operation:
    with world.cluster.db.write() as tx:
        operations.write(tx, dataclasses.replace(operation, **changes))  # type: ignore[arg-type]
    return recover.find(world.cluster, operation.id)


def test_what_another_has_taken_meanwhile_is_not_handed_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a command's look and the end of its patience another took it over, and lives: it keeps it."""
    handed: list[str] = []
    monkeypatch.setattr(background, "hand_over", lambda cluster, ids: handed.extend(ids))
    operation = begun(world)
    world.abandon(operation)
    seen = recover.find(world.cluster, operation.id)
    with world.cluster.db.write() as tx:
        operations.take(tx, seen, state=seen.state, owner=ELSEWHERE, lease_until=world.cluster.clock.now() + 30)
    recover._hand_over(world.cluster, [seen])
    assert recover.find(world.cluster, operation.id).owner == ELSEWHERE and not handed


def test_a_record_that_nobody_can_read_keeps_no_other_waiting(world: World) -> None:
    """One of two left behind is damaged: it is told, the other is ended."""
    broken, sound = begun(world), begun(world)
    altered(world, broken, record={**broken.record, "epoch": "no number"})
    for operation in (broken, sound):
        world.abandon(operation)
    told = " ".join(settle(world.cluster))
    assert f"{broken.id[:8]} (server.clean x), left by a process that died, cannot be ended yet" in told
    assert recover.find(world.cluster, sound.id).state.ended and not recover.find(world.cluster, broken.id).state.ended


@pytest.mark.parametrize(("error", "again"), [(REFUSED, False), (Unreachable("node n1 does not answer"), True)])
def test_a_stuck_operation_is_tried_when_that_may_help(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception, again: bool,
) -> None:
    """At once where its node was silent and answers by now; where it refused, once a lease's length, or each command would wait."""
    monkeypatch.setattr(recover, "PROBE_S", 60.0)             # it answers, however late on this machine
    operation = begun(world)
    now = world.cluster.clock.now()
    altered(world, operation, state=OperationState.STUCK, error=error.as_dict(), lease_until=now + 30)  # type: ignore[attr-defined]
    told = settle(world.cluster)
    assert recover.find(world.cluster, operation.id).state.ended is again
    if not again:
        assert told == (f"operation {operation.id[:8]} (server.clean x), stuck, cannot be ended yet: {REFUSED.message}",)
        altered(world, recover.find(world.cluster, operation.id), lease_until=now - 1)
        settle(world.cluster)
        assert recover.find(world.cluster, operation.id).state.ended


def test_a_deadlock_does_not_end_the_renewing_of_leases(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database ended one renewal for another transaction: the next one is made."""
    operation, renew, failed = begun(world), operations.renew, []
    rounds: list[bool] = []

    def crossed(tx: Tx, held: Operation, until: float) -> bool:
        if not failed:
            failed.append(held)
            raise Crossed("ended for another")
        return renew(tx, held, until)

    class Clock(SystemClock):
        def every(self, seconds, act):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
            rounds.extend(act() for _ in range(2))
            return super().every(3600, act)

    monkeypatch.setattr(operations, "renew", crossed)
    world.cluster.clock = Clock()
    with lease.keeping(world.cluster, [operation.id]):
        assert failed and rounds == [True, True]
    assert recover.find(world.cluster, operation.id).lease_until > operation.lease_until


@pytest.mark.parametrize("kind", [kind for kind in databases.EACH if kind != "sqlite"])
@pytest.mark.parametrize("ahead_s", [-3600, 3600])
def test_machines_need_not_agree_what_time_it_is(tmp_path: Path, kind: str, ahead_s: float) -> None:
    """An admin's machine whose clock is an hour off takes nothing from those that live, and what it begins is not taken from it."""
    class Off(SystemClock):
        now = staticmethod(lambda: SystemClock.now() + ahead_s)  # type: ignore[assignment]

    with databases.cluster(kind) as url:
        env = {"HOME": str(tmp_path), "NOVACTL_DATA_DIR": str(tmp_path / "data"), "NOVACTL_DATABASE_URL": url}
        right, wrong = (Cluster(load_config(env=env), actor="a@b", clock=clock) for clock in (SystemClock(), Off()))
        for begins, looks in ((right, wrong), (wrong, right)):
            server = begins.ids.uuid()
            with begins.db.write() as tx:
                operation = begin(begins, tx, CLEAN, CleanServer(server=server, node="", epoch=1), ("server", server, "x"))
                held = operations.by_id(tx, operation.id)
                assert held is not None
                operations.take(tx, held, state=held.state, owner=ELSEWHERE, lease_until=held.lease_until)
            assert owner.is_alive(ELSEWHERE) is None
            assert owned_by_the_living(recover.find(looks, operation.id), looks.clock.now())
            assert recover.recover(looks) == ()
            for cluster in (begins, looks):
                assert -5 < cluster.clock.now() - SystemClock.now() < 5
        right.close()
        wrong.close()
