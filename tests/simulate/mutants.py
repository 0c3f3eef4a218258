"""The protections of which each is necessary, and for each what the code would be without it.

A simulation that does not see the difference proves nothing: `tests/run simulate --mutants` fails when one survives.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from nodeagent.dispatch import Dispatcher
from nodeagent.ledger import Ledger
from nodeagent.refusal import Refused
from nodeagent.workers import Pool
from novactl.conductor import driver, saga
from novactl.db import leases, operations, placement
from novactl.model.operation import OperationState, StepState
from tests.simulate import world


class Mutant(NamedTuple):
    """`change` gives (who holds it, attribute, what it is without the protection); `also` holds the same under that name."""

    name: str
    lacks: str
    change: Callable[[], tuple[Any, str, Any]]
    also: Any = None

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        holder, name, value = self.change()
        before = getattr(holder, name)
        holders = [one for one in (holder, self.also) if one is not None]
        for one in holders:
            setattr(one, name, value)
        try:
            yield
        finally:
            for one in holders:
                setattr(one, name, before)


def _effect_first() -> tuple[Any, str, Any]:
    """A step is written to the journal once it is done."""
    step = operations.step

    def unannounced(tx: Any, one: Any) -> None:
        if one.state is not StepState.STARTED:
            step(tx, one)

    return operations, "step", unannounced


def _no_dedupe() -> tuple[Any, str, Any]:
    """What was answered before is done again when it comes again."""
    return Ledger, "answer", lambda self, request_id: None


def _marked_after() -> tuple[Any, str, Any]:
    """What stood before an effect is not kept: only its answer is, afterwards."""
    return Ledger, "note", lambda self, request_id, text, at_s: text


def _two_transactions() -> tuple[Any, str, Any]:
    """Whether there is room is asked in one transaction, and the room is taken in another."""
    claim, whole = placement.claim, placement._take

    def take(tx: Any, wanted: Any, amounts: Any) -> int:
        tx.run(placement.q_take, by_id=wanted.node_id, **placement._sums(amounts, True))
        return 0

    def torn(tx: Any, wanted: Any) -> int:
        placement._check_room(tx, wanted, {name: amount for name, amount in wanted.amounts.items() if amount},
                              placement._eligible(tx, wanted, ""))
        world.between_two_transactions(tx)
        placement._take = take
        try:
            return claim(tx, wanted)
        finally:
            placement._take = whole

    return placement, "claim", torn


def _no_database_fence() -> tuple[Any, str, Any]:
    """A process that was overtaken goes on writing."""
    write = operations.write

    class Unfenced:
        """`operations` as saga.py and driver.py see it."""

        def __getattr__(self, name: str) -> Any:
            return getattr(operations, name)

        @staticmethod
        def fence(tx: Any, operation: Any) -> None: ...

        @staticmethod
        def write(tx: Any, operation: Any) -> None:
            now = operations.by_id(tx, operation.id)
            write(tx, dataclasses.replace(operation, epoch=now.epoch if now else operation.epoch))

    return saga, "operations", Unfenced()


def _no_agent_fence() -> tuple[Any, str, Any]:
    """The agent obeys whatever epoch comes; expiry is still looked at."""
    fence = Dispatcher._fence

    def lenient(self: Any, request: Any, args: Any) -> None:
        try:
            fence(self, request, args)
        except Refused as refused:
            if " is at epoch " not in refused.failure.message:
                raise

    return Dispatcher, "_fence", lenient


def _same_epoch_back() -> tuple[Any, str, Any]:
    """Who turns back goes on under the epoch it went forward with."""
    take = driver.taken

    def taken(cluster: Any, tx: Any, operation: Any, state: Any) -> Any:
        if state is OperationState.UNWINDING and operation.owner == driver.owner.this_process():
            return dataclasses.replace(operation, state=state)
        return take(cluster, tx, operation, state)

    return driver, "taken", taken


def _no_order() -> tuple[Any, str, Any]:
    """Calls for one server run beside each other."""
    submit = Pool.submit
    return Pool, "submit", lambda self, key, *rest: submit(self, "", *rest)


def _no_leader_fence() -> tuple[Any, str, Any]:
    """A conductor that was overtaken goes on writing as the leader."""
    return leases, "fence", lambda tx, lease: None


MUTANTS: tuple[Mutant, ...] = (
    Mutant("intent", "the journal says what is about to be done", _effect_first),
    Mutant("dedupe", "a request id is answered from the ledger", _no_dedupe),
    Mutant("mark", "an effect and its mark are one", _marked_after),
    Mutant("claim", "room is checked and taken in one transaction", _two_transactions),
    Mutant("database-fence", "each write of an operation asks for its epoch", _no_database_fence, driver),
    Mutant("agent-fence", "the agent refuses older epochs", _no_agent_fence),
    Mutant("unwind-epoch", "turning back raises the epoch", _same_epoch_back),
    Mutant("server-lock", "the agent does one thing at a time with a server", _no_order),
    Mutant("leader-fence", "each write of the leader asks for its lease", _no_leader_fence),
)
