"""Which of several conductors leads: the holder of a lease in the database, whose epoch fences the ones before it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from novactl.cluster import Cluster
from novactl.conductor import owner
from novactl.db import leases
from novactl.db.leases import Lease
from novactl.db.statements import Tx
from novactl.errors import Conflict, NovaError, Superseded

LEADER = "conductor"
PRESENT = "conductor."
"""With a suffix of its own: a conductor that runs, whether it leads or waits."""


def _none(tx: Tx, lease: Lease) -> None:
    """Nothing more is written when the lease is taken."""


class Leadership:
    """Taken, renewed and let go. It is lost when it cannot be renewed in time; its holder then no longer acts.

    Whatever its holder writes goes through `write`, which looks at the lease in that very transaction: one who was stopped,
    and comes back after another took over, changes nothing. `held` is the cheap question, asked before beginning anything.
    """

    def __init__(self, cluster: Cluster, *, name: str = LEADER, on_taken: Callable[[Tx, Lease], None] = _none) -> None:
        self.cluster, self.name, self._on_taken = cluster, name, on_taken
        self.lease_s: float = cluster.config["conductor.lease_s"]
        self.lease: Lease | None = None
        self._good_until_s = 0.0

    @property
    def held(self) -> bool:
        """By this process's own reckoning, which began before the database's."""
        return self.lease is not None and self.cluster.clock.monotonic() < self._good_until_s

    def take(self) -> bool:
        """Lead, if nobody does: nobody has it, its time is over, or its holder died on this machine. Raises DatabaseFailed."""
        began_s = self.cluster.clock.monotonic()
        try:
            with self.cluster.db.write() as tx:
                now, seen = leases.now(tx, self.cluster.clock.now()), leases.read(tx, self.name)
                if seen is not None and not is_free(seen, now):
                    return False
                taken = leases.take(tx, self.name, owner.this_process(), now + self.lease_s, seen)
                if taken is None:
                    return False
                self._on_taken(tx, taken)
        except Conflict:
            return False                                      # two were the first at once
        self.lease, self._good_until_s = taken, began_s + self.lease_s
        return True

    def renew(self) -> bool:
        """False once it is lost for good. A database that does not answer is asked again until the lease's own end."""
        began_s, lease = self.cluster.clock.monotonic(), self.lease
        if lease is None:
            return False
        try:
            with self.cluster.db.write() as tx:
                kept = leases.renew(tx, lease, leases.now(tx, self.cluster.clock.now()) + self.lease_s)
        except NovaError:
            return self.held
        if not kept:
            if self.lease is lease:                           # or it was taken anew meanwhile
                self.lease = None
            return False
        if self.lease is lease:
            self._good_until_s = began_s + self.lease_s
        return True

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Renewed three times in its length while the block runs, and let go after it."""
        def again() -> bool:
            try:
                return self.renew()
            finally:
                self.cluster.db.close()

        try:
            with self.cluster.clock.every(self.lease_s / 3, again):
                yield
        finally:
            self.release()

    def release(self) -> None:
        """The next one need not wait. Where the database does not answer, it waits for the lease's end."""
        lease, self.lease = self.lease, None
        if lease is not None:
            with contextlib.suppress(NovaError), self.cluster.db.write() as tx:
                leases.release(tx, lease)

    @contextlib.contextmanager
    def write(self) -> Iterator[Tx]:
        """A write transaction of the leader's. Raises Superseded when it leads no more."""
        lease = self.lease
        if lease is None or not self.held:
            raise Superseded(f"the lease {self.name!r} is not held any more", command="novactl conductor show")
        with self.cluster.db.write() as tx:
            leases.fence(tx, lease)
            yield tx


def is_free(lease: Lease, now: float) -> bool:
    """Whether another may take it. That its holder lives does not keep it: one that hangs must not lead for ever."""
    return not lease.owner or lease.until <= now or owner.is_alive(lease.owner) is False


@contextlib.contextmanager
def present(cluster: Cluster) -> Iterator[None]:
    """This process is listed among the conductors that run while the block does."""
    name, me, lease_s = f"{PRESENT}{cluster.ids.uuid()}", owner.this_process(), cluster.config["conductor.lease_s"]
    mine: list[Lease] = []

    def again() -> bool:
        try:
            with cluster.db.write() as tx:
                until = leases.now(tx, cluster.clock.now()) + lease_s
                if not mine or not leases.renew(tx, mine[0], until):
                    _sweep(tx, until - lease_s)
                    mine[:] = [found for found in [leases.take(tx, name, me, until, leases.read(tx, name))] if found]
        except NovaError:
            pass                                              # it is only a list; the next round writes it
        finally:
            cluster.db.close()
        return True

    again()
    try:
        with cluster.clock.every(lease_s / 3, again):
            yield
    finally:
        with contextlib.suppress(NovaError), cluster.db.write() as tx:
            for lease in mine:
                leases.release(tx, lease)
                leases.forget(tx, lease, 1.0)


def _sweep(tx: Tx, now: float) -> None:
    """Rows of conductors that ended without taking theirs away."""
    for lease in leases.beginning(tx, PRESENT):
        if is_free(lease, now):
            leases.forget(tx, lease, now + 1e9)


def running(tx: Tx, now: float) -> list[Lease]:
    """The conductors that run, this moment by the database's clock: see `leases.now`."""
    return [lease for lease in leases.beginning(tx, PRESENT) if not is_free(lease, now)]
