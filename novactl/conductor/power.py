"""server.start, server.stop, server.reboot: one step each; undone, the server is again what it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from novactl.agents import wire
from novactl.conductor.domain import HeldOff, ensure_defined, node_of, power_off, power_on, server_in, server_of, starting_on
from novactl.conductor.history import note
from novactl.conductor.saga import Run, Saga, Step
from novactl.db import servers
from novactl.db.statements import Tx
from novactl.errors import AgentRefused, NovaError
from novactl.states import Event, PowerState, advance


@dataclass(frozen=True, kw_only=True)
class Power:
    server: str
    node: str
    epoch: int
    grace_s: float = 30.0
    hard: bool = False


def start(run: Run, record: Power) -> Power:
    power_on(run, record)
    return record


def stop(run: Run, record: Power) -> Power:
    args = wire.Stop(record.server, record.epoch, record.grace_s)
    run.call(node_of(run, record.node), "domain.stop", args, timeout_s=record.grace_s + 60)
    return record


def power_on_again(run: Run, record: Power) -> None:
    """A domain that is no longer there, or on a node that counts as off, has no power to give back."""
    try:
        power_on(run, record)
    except HeldOff:
        return
    except AgentRefused as refused:
        if refused.details["code"] != wire.Code.NOT_FOUND:
            raise


def reboot(run: Run, record: Power) -> Power:
    node = starting_on(run, record.node)
    if record.hard:                                           # the universal repair: the domain is defined anew first
        ensure_defined(run, record)
    args = wire.Reboot(record.server, record.epoch, record.hard, record.grace_s)
    run.call(node, "domain.reboot", args, timeout_s=record.grace_s + 120)
    return record


def power_as_it_was(run: Run, record: Power) -> None:
    """Half a reboot leaves a guest off. And the node hears of the operation's new epoch: whoever was overtaken is refused there."""
    if server_of(run, record).power_state is PowerState.RUNNING:
        power_on_again(run, record)
    else:
        power_off(run, record)


def _finish(event: Event) -> Callable[[Run, Tx, Power], None]:
    def finish(run: Run, tx: Tx, record: Power) -> None:
        server = server_in(tx, record.server)
        servers.move_state(
            tx, server, advance(server.state, event, server.name), operation_id="", at=run.cluster.clock.now(), fault="")
        note(run, tx, event)

    return finish


def aborted(run: Run, tx: Tx, record: Power, error: NovaError) -> None:
    server = server_in(tx, record.server)
    if server.operation_id == run.operation.id:
        servers.move_state(
            tx, server, advance(server.state, Event.ABORTED, server.name), operation_id="", at=run.cluster.clock.now())
        note(run, tx, Event.ABORTED, error.message)


def _saga(kind: str, step: Step[Power], ends: Event) -> Saga[Power]:
    return Saga(kind=kind, record=Power, steps=(step,), finish=_finish(ends), fail=aborted, resumes=True,
        timeout=f"timeout.{kind.removeprefix('server.')}_s")


START = _saga("server.start", Step("start", do=start, undo=power_off), Event.STARTED)
STOP = _saga("server.stop", Step("stop", do=stop, undo=power_on_again), Event.STOPPED)
REBOOT = _saga("server.reboot", Step("reboot", do=reboot, undo=power_as_it_was), Event.REBOOTED)
SAGAS = {saga.kind: saga for saga in (START, STOP, REBOOT)}
