"""The state machine: what may follow what."""

from __future__ import annotations

import itertools

import pytest

from novactl.errors import Conflict
from novactl.states import BUILDING, STATUSES, TRANSITIONS, Event, PowerState, ServerState, TaskState, VmState, advance

EVERY = [ServerState(vm, task, PowerState.NOSTATE) for vm, task in itertools.product(VmState, TaskState)]


def test_a_life() -> None:
    """Built, stopped, started, rebooted, deleted: each begun and ended, with the status Nova shows."""
    state, seen = BUILDING, []
    for event in (
        Event.BUILT, Event.BEGIN_STOP, Event.STOPPED, Event.BEGIN_START, Event.STARTED, Event.BEGIN_REBOOT, Event.REBOOTED,
        Event.BEGIN_DELETE, Event.DELETED,
    ):
        state = advance(state, event, "web")
        seen.append(state.status)
    assert seen == ["ACTIVE", "ACTIVE", "SHUTOFF", "SHUTOFF", "ACTIVE", "REBOOT", "ACTIVE", "ACTIVE", "DELETED"]


@pytest.mark.parametrize("event", [e for e in Event if e.name.startswith("BEGIN_")])
def test_the_busy_accept_nothing_new(event: Event) -> None:
    """While a task is set no other change begins, whatever the state."""
    for state in EVERY:
        if state.task_state:
            with pytest.raises(Conflict):
                advance(state, event, "web")


@pytest.mark.parametrize("event", list(Event))
def test_the_gone_stay_gone(event: Event) -> None:
    """Nothing leads out of deleted."""
    with pytest.raises(Conflict):
        advance(ServerState(VmState.DELETED, TaskState.NONE, PowerState.NOSTATE), event, "web")


def test_every_begun_change_can_be_aborted_to_where_it_was() -> None:
    """BEGIN then ABORTED is the state before, so an undone operation leaves no trace."""
    for event in Event:
        if not event.name.startswith("BEGIN_"):
            continue
        for vm in TRANSITIONS[event].vm:
            before = ServerState(vm, TaskState.NONE, PowerState.RUNNING)
            assert advance(advance(before, event, "web"), Event.ABORTED, "web") == before


def test_every_state_has_a_status() -> None:
    """No combination is without a word."""
    assert {state.status for state in EVERY} == set(STATUSES)


def test_a_refusal_names_server_states_and_way() -> None:
    """The message has the server, what was asked, and what it is; the hint what would be allowed."""
    with pytest.raises(Conflict) as refused:
        advance(ServerState(VmState.STOPPED, TaskState.NONE, PowerState.SHUTDOWN), Event.BEGIN_STOP, "web")
    assert refused.value.message == "cannot stop server web while it is stopped"
    assert "active" in refused.value.hint
