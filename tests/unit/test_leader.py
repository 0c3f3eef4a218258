"""Of several conductors one leads, and one that was overtaken changes nothing."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from novactl.api import cluster as api_cluster
from novactl.cluster import Cluster, SystemClock
from novactl.conductor.leader import LEADER, Leadership, present, running
from novactl.config import load_config
from novactl.db import leases, meta
from novactl.db.leases import Lease
from novactl.db.statements import Tx
from novactl.errors import NovaError, Superseded
from tests import databases

LEASE_S = 3.0


class Clock(SystemClock):
    """A wall clock and a stop watch that stand still until they are moved; nothing is renewed by itself."""

    def __init__(self) -> None:
        self.wall, self.watch = 1_800_000_000.0, 0.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.watch

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.watch += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cluster(tmp_path: Path, clock: Clock) -> Iterator[Cluster]:
    config = load_config(env={
        "HOME": str(tmp_path), "NOVACTL_DATA_DIR": str(tmp_path / "data"), "NOVACTL_CONDUCTOR_LEASE_S": str(LEASE_S)})
    made = Cluster(config, clock=clock, actor="tester@here")
    api_cluster.init(made)
    yield made
    made.close()


def test_one_of_two_leads_until_its_time_is_over(cluster: Cluster, clock: Clock) -> None:
    """The second is refused while the first renews, and leads with a new epoch as soon as the first has not for a lease's length."""
    first, second = Leadership(cluster), Leadership(cluster)
    assert first.take() and not second.take()
    for _ in range(5):
        clock.pass_(LEASE_S / 3)
        assert first.renew() and first.held and not second.take()
    clock.pass_(LEASE_S + 0.1)
    assert not first.held and second.take()
    assert second.lease.epoch == first.lease.epoch + 1


def test_who_was_overtaken_writes_nothing(cluster: Cluster, clock: Clock) -> None:
    """A leader whose own stop watch stood still (it was stopped) still believes it leads; its write is refused all the same."""
    first, second = Leadership(cluster), Leadership(cluster)
    assert first.take()
    clock.wall += LEASE_S + 1
    assert second.take() and first.held
    with pytest.raises(Superseded, match="taken over"), first.write() as tx:
        meta.put(tx, "mark", "first")
    with second.write() as tx:
        meta.put(tx, "mark", "second")
    assert not first.renew() and not first.held
    with cluster.db.read() as tx:
        assert meta.get(tx, "mark") == "second"


def test_who_could_not_renew_stops_by_itself(cluster: Cluster, clock: Clock) -> None:
    """With its time over a leader does not even ask the database: nobody may have taken the lease, yet it acts no more."""
    leader = Leadership(cluster)
    assert leader.take()
    clock.watch += LEASE_S
    with pytest.raises(Superseded, match="not held"), leader.write():
        raise AssertionError("the block must not run")


def test_who_renews_in_time_is_not_taken_from(cluster: Cluster) -> None:
    """Between another's look at a lease that had ended and its taking of it, the holder renewed: one of the two has it."""
    with cluster.db.write() as tx:
        held = leases.take(tx, "x", "holder", 100.0, None)
    with cluster.db.write() as tx:
        seen = leases.read(tx, "x")
    assert held is not None
    with cluster.db.write() as tx:
        assert leases.renew(tx, held, 111.0)
    with cluster.db.write() as tx:
        assert leases.take(tx, "x", "taker", 111.0, seen) is None
        assert leases.take(tx, "x", "taker", 122.0, leases.read(tx, "x")) is not None


def test_a_renewal_of_before_does_not_end_what_was_taken_since(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that renews is not waited for when a leadership ends: what it finds out late is of the lease of then."""
    leader, renew = Leadership(cluster), leases.renew
    assert leader.take()

    def late(tx: Tx, lease: Lease, until: float) -> bool:
        monkeypatch.setattr(leases, "renew", renew)
        leases.release(tx, lease)
        seen = leases.read(tx, lease.name)
        leader.lease = leases.take(tx, lease.name, lease.owner, until, seen)
        return renew(tx, lease, until)

    monkeypatch.setattr(leases, "renew", late)
    assert not leader.renew() and leader.held
    with leader.write():
        pass


def test_a_lease_let_go_is_free_at_once(cluster: Cluster) -> None:
    """After `holding` nobody waits for the lease's end."""
    first, second = Leadership(cluster), Leadership(cluster)
    assert first.take()
    with first.holding():
        assert not second.take()
    assert second.take()


def test_a_holder_that_died_here_is_known_to_be_dead(cluster: Cluster) -> None:
    """A killed process of this machine does not keep the lease until its end."""
    import subprocess

    from novactl.conductor import owner

    with subprocess.Popen(["sleep", "60"]) as child:
        me = owner.this_process().split(" ")
        gone = " ".join([me[0], str(child.pid), owner._stat(child.pid)[1], *me[3:]])
        with cluster.db.write() as tx:
            leases.take(tx, LEADER, gone, cluster.clock.now() + 1000, None)
        assert not Leadership(cluster).take()
        child.kill()
    assert Leadership(cluster).take()


def test_the_next_one_takes_over_in_the_transaction_that_says_so(cluster: Cluster) -> None:
    """What `on_taken` writes is there exactly when the lease was taken; when it fails, nobody leads."""
    def fail(tx: object, lease: object) -> None:
        raise NovaError("no")

    with pytest.raises(NovaError):
        Leadership(cluster, on_taken=fail).take()
    leader = Leadership(cluster, on_taken=lambda tx, lease: meta.put(tx, "since", f"epoch {lease.epoch}"))
    assert leader.take()
    with cluster.db.read() as tx:
        assert meta.get(tx, "since") == "epoch 1"


def test_conductors_that_run_are_listed(cluster: Cluster, clock: Clock) -> None:
    """One is listed while it runs; of one that ended without a word the row goes when the next one comes."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(present(cluster))
        with cluster.db.read() as tx:
            assert len(running(tx, clock.now())) == 1
        clock.pass_(LEASE_S * 2)
        with present(cluster), cluster.db.read() as tx:
            assert len(running(tx, clock.now())) == len(leases.beginning(tx, "conductor.")) == 1
    with cluster.db.read() as tx:
        assert leases.beginning(tx, "conductor.") == []


def _race(clusters: list[Cluster], rounds: int) -> list[int]:
    """Every cluster's leader takes the lease when it can, marks its epoch, and forgets that it leads. The marks, as committed."""
    marks: list[int] = []
    guard = threading.Lock()

    def act(cluster: Cluster) -> None:
        for _ in range(rounds):
            leader = Leadership(cluster)
            if leader.take():
                with contextlib.suppress(Superseded), leader.write() as tx:
                    before = int(meta.get(tx, "mark") or 0)
                    assert before < leader.lease.epoch
                    meta.put(tx, "mark", str(leader.lease.epoch))
                    with guard:
                        marks.append(leader.lease.epoch)
                leader.release()
        cluster.db.close()

    threads = [threading.Thread(target=act, args=(cluster,)) for cluster in clusters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return marks


@pytest.mark.parametrize("kind", databases.EACH)
def test_no_two_ever_lead_at_once(kind: str, tmp_path: Path) -> None:
    """However many take and let go, every act was done under an epoch of its own, larger than all before."""
    with databases.database(kind) as url:
        config = load_config(env={"HOME": str(tmp_path), "NOVACTL_DATA_DIR": str(tmp_path / "data"), "NOVACTL_DATABASE_URL": url})
        clusters = [Cluster(config, actor="tester@here") for _ in range(4)]
        api_cluster.init(clusters[0])
        try:
            marks = _race(clusters, 25)
            assert len(marks) == len(set(marks)) > 4
        finally:
            for cluster in clusters:
                cluster.close()


@pytest.mark.parametrize("kind", databases.SHARED)
def test_leases_are_reckoned_by_the_database(kind: str, tmp_path: Path) -> None:
    """A machine whose clock is a day ahead neither takes a lease that holds, nor gives away its own."""
    with databases.database(kind) as url:
        config = load_config(env={"HOME": str(tmp_path), "NOVACTL_DATA_DIR": str(tmp_path / "data"), "NOVACTL_DATABASE_URL": url})
        ahead = Clock()
        ahead.wall = SystemClock.now() + 86400
        right, wrong = Cluster(config, actor="a@right"), Cluster(config, clock=ahead, actor="b@wrong")
        api_cluster.init(right)
        try:
            first, second = Leadership(right), Leadership(wrong)
            assert first.take() and not second.take()
            first.release()
            assert second.take() and not first.take()
            with right.db.read() as tx:
                left_s = leases.read(tx, LEADER).until - leases.now(tx, 0.0)
            assert 0 < left_s <= config["conductor.lease_s"]
        finally:
            right.close()
            wrong.close()
