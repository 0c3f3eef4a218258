"""The server state machine: Nova's vm_state, task_state and power_state, and the only rules about them.

Source: nova/compute/{vm_states,task_states,power_state}.py and the decorators of nova/compute/api.py. Pure: nothing
here reads a clock or a database.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace

from novactl.errors import Conflict


class VmState(enum.StrEnum):
    BUILDING = "building"
    ACTIVE = "active"
    STOPPED = "stopped"
    ERROR = "error"
    DELETED = "deleted"


class TaskState(enum.StrEnum):
    NONE = ""
    SCHEDULING = "scheduling"
    POWERING_OFF = "powering-off"
    POWERING_ON = "powering-on"
    REBOOTING = "reboot_started"
    REBOOTING_HARD = "reboot_started_hard"
    DELETING = "deleting"
    REBUILDING = "rebuilding"


class PowerState(enum.StrEnum):
    """What libvirt says of the domain (nova/compute/power_state.py)."""

    NOSTATE = "NOSTATE"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    SHUTDOWN = "SHUTDOWN"
    CRASHED = "CRASHED"
    SUSPENDED = "SUSPENDED"


class Event(enum.StrEnum):
    """What happens to a server. `BEGIN_…` is asked for by a user; the others end what was begun."""

    BUILT = "built"
    BUILD_FAILED = "build_failed"
    ADOPTED_OFF = "adopted_off"
    BEGIN_STOP = "stop"
    STOPPED = "stopped"
    BEGIN_START = "start"
    STARTED = "started"
    BEGIN_REBOOT = "reboot"
    BEGIN_REBOOT_HARD = "reboot_hard"
    REBOOTED = "rebooted"
    BEGIN_DELETE = "delete"
    DELETED = "deleted"
    BEGIN_EVACUATE = "evacuate"
    EVACUATED = "evacuated"
    EVACUATED_OFF = "evacuated_off"
    ABORTED = "aborted"
    """A begun change was undone: the server is again what it was."""
    FOUND_OFF = "found_off"
    FOUND_ON = "found_on"
    FOUND_GONE = "found_gone"
    FOUND_CRASHED = "found_crashed"
    FOUND_PAUSED = "found_paused"
    FOUND_DOWN = "found_down"
    FOUND_FENCED = "found_fenced"
    """The node says otherwise than the record: the guest shut itself down, QEMU died or stopped for want of space,
    the host lost power (`found_down`: it is to run again) or has no lease (`found_fenced`: not before it has), somebody used virsh."""
    BEGIN_REVIVE = "revive"
    REVIVED = "revived"
    STILL_DOWN = "still_down"
    """It could not be started there now, and is tried again."""


@dataclass(frozen=True)
class ServerState:
    vm_state: VmState
    task_state: TaskState
    power_state: PowerState

    @property
    def waits_for_its_node(self) -> bool:
        """It is to run, and its node runs nothing now, for it fences itself and has no lease, or could not start it: it is started again
        there, or elsewhere."""
        return self.vm_state is VmState.ACTIVE and self.power_state is PowerState.SHUTDOWN

    @property
    def is_to_run(self) -> bool:
        """Its admin wants it to run, whether or not it does: what is in ERROR died, or could not be started again."""
        return self.vm_state in (VmState.ACTIVE, VmState.ERROR)

    @property
    def status(self) -> str:
        """The one word shown to users, as Nova derives it."""
        shown = VmState.ERROR if self.waits_for_its_node else self.vm_state
        return _BUSY_STATUS.get((self.vm_state, self.task_state)) or _STATUS[shown]


BUILDING = ServerState(VmState.BUILDING, TaskState.SCHEDULING, PowerState.NOSTATE)

_STATUS: Mapping[VmState, str] = {
    VmState.BUILDING: "BUILD", VmState.ACTIVE: "ACTIVE", VmState.STOPPED: "SHUTOFF", VmState.ERROR: "ERROR",
    VmState.DELETED: "DELETED",
}
_BUSY_STATUS: Mapping[tuple[VmState, TaskState], str] = {
    (VmState.ACTIVE, TaskState.REBOOTING): "REBOOT",
    (VmState.ACTIVE, TaskState.REBUILDING): "REBUILD",
    (VmState.STOPPED, TaskState.REBUILDING): "REBUILD",
    (VmState.ERROR, TaskState.REBUILDING): "REBUILD",
    (VmState.ACTIVE, TaskState.REBOOTING_HARD): "HARD_REBOOT",
    (VmState.STOPPED, TaskState.REBOOTING_HARD): "HARD_REBOOT",
    (VmState.ERROR, TaskState.REBOOTING_HARD): "HARD_REBOOT",
    (VmState.ERROR, TaskState.POWERING_ON): "REBOOT",
    (VmState.ACTIVE, TaskState.POWERING_ON): "REBOOT",
}
STATUSES: tuple[str, ...] = tuple(dict.fromkeys([*_STATUS.values(), *_BUSY_STATUS.values()]))

_IDLE = frozenset({TaskState.NONE})
_ANY_VM = frozenset(VmState) - {VmState.DELETED}
_ANY_TASK = frozenset(TaskState)


@dataclass(frozen=True)
class Transition:
    """From any of `vm` × `task`, to the fields given (None: as it was)."""

    vm: frozenset[VmState]
    task: frozenset[TaskState]
    to_vm: VmState | None = None
    to_task: TaskState | None = None
    to_power: PowerState | None = None


TRANSITIONS: Mapping[Event, Transition] = {
    Event.BUILT: Transition(
        frozenset({VmState.BUILDING}), _ANY_TASK, VmState.ACTIVE, TaskState.NONE, PowerState.RUNNING),
    Event.BUILD_FAILED: Transition(
        frozenset({VmState.BUILDING}), _ANY_TASK, VmState.DELETED, TaskState.NONE, PowerState.NOSTATE),
    Event.ADOPTED_OFF: Transition(
        frozenset({VmState.BUILDING}), _ANY_TASK, VmState.STOPPED, TaskState.NONE, PowerState.SHUTDOWN),
    Event.BEGIN_STOP: Transition(frozenset({VmState.ACTIVE, VmState.ERROR}), _IDLE, None, TaskState.POWERING_OFF),
    Event.STOPPED: Transition(
        frozenset({VmState.ACTIVE, VmState.ERROR}), frozenset({TaskState.POWERING_OFF}),
        VmState.STOPPED, TaskState.NONE, PowerState.SHUTDOWN),
    Event.BEGIN_START: Transition(frozenset({VmState.STOPPED}), _IDLE, None, TaskState.POWERING_ON),
    Event.STARTED: Transition(
        frozenset({VmState.STOPPED}), frozenset({TaskState.POWERING_ON}),
        VmState.ACTIVE, TaskState.NONE, PowerState.RUNNING),
    Event.BEGIN_REBOOT: Transition(frozenset({VmState.ACTIVE}), _IDLE, None, TaskState.REBOOTING),
    Event.BEGIN_REBOOT_HARD: Transition(
        frozenset({VmState.ACTIVE, VmState.STOPPED, VmState.ERROR}), _IDLE, None, TaskState.REBOOTING_HARD),
    Event.REBOOTED: Transition(
        frozenset({VmState.ACTIVE, VmState.STOPPED, VmState.ERROR}),
        frozenset({TaskState.REBOOTING, TaskState.REBOOTING_HARD}), VmState.ACTIVE, TaskState.NONE, PowerState.RUNNING),
    Event.BEGIN_DELETE: Transition(_ANY_VM, _IDLE, None, TaskState.DELETING),
    Event.DELETED: Transition(
        _ANY_VM, _ANY_TASK, VmState.DELETED, TaskState.NONE, PowerState.NOSTATE),
    Event.BEGIN_EVACUATE: Transition(
        frozenset({VmState.ACTIVE, VmState.STOPPED, VmState.ERROR}), _IDLE, None, TaskState.REBUILDING),
    Event.EVACUATED: Transition(
        frozenset({VmState.ACTIVE, VmState.ERROR}), frozenset({TaskState.REBUILDING}), VmState.ACTIVE, TaskState.NONE, PowerState.RUNNING),
    Event.EVACUATED_OFF: Transition(
        frozenset({VmState.STOPPED}), frozenset({TaskState.REBUILDING}), None, TaskState.NONE, PowerState.SHUTDOWN),
    Event.ABORTED: Transition(_ANY_VM, _ANY_TASK - _IDLE, None, TaskState.NONE),
    Event.FOUND_OFF: Transition(frozenset({VmState.ACTIVE}), _IDLE, VmState.STOPPED, None, PowerState.SHUTDOWN),
    Event.FOUND_GONE: Transition(
        frozenset({VmState.ACTIVE, VmState.STOPPED}), _IDLE, VmState.ERROR, None, PowerState.NOSTATE),
    Event.FOUND_ON: Transition(
        frozenset({VmState.ACTIVE, VmState.STOPPED, VmState.ERROR}), _IDLE, VmState.ACTIVE, None, PowerState.RUNNING),
    Event.FOUND_CRASHED: Transition(frozenset({VmState.ACTIVE}), _IDLE, VmState.ERROR, None, PowerState.CRASHED),
    Event.FOUND_PAUSED: Transition(
        frozenset({VmState.ACTIVE, VmState.STOPPED}), _IDLE, VmState.ACTIVE, None, PowerState.PAUSED),
    Event.FOUND_DOWN: Transition(frozenset({VmState.ACTIVE}), _IDLE, VmState.ERROR, None, PowerState.SHUTDOWN),
    Event.FOUND_FENCED: Transition(frozenset({VmState.ACTIVE}), _IDLE, None, None, PowerState.SHUTDOWN),
    Event.BEGIN_REVIVE: Transition(frozenset({VmState.ACTIVE, VmState.ERROR}), _IDLE, None, TaskState.POWERING_ON),
    Event.REVIVED: Transition(
        frozenset({VmState.ACTIVE, VmState.ERROR}), frozenset({TaskState.POWERING_ON}), VmState.ACTIVE, TaskState.NONE, PowerState.RUNNING),
    Event.STILL_DOWN: Transition(
        frozenset({VmState.ACTIVE, VmState.ERROR}), frozenset({TaskState.POWERING_ON}),
        VmState.ACTIVE, TaskState.NONE, PowerState.SHUTDOWN),
}
"""What may follow what. A server that is busy (task_state set) accepts nothing new: its operation ends first."""


def advance(state: ServerState, event: Event, server: str) -> ServerState:
    """The state after `event`. Raises Conflict naming the server and both states when the table has no such row."""
    rule = TRANSITIONS[event]
    if state.vm_state not in rule.vm or state.task_state not in rule.task:
        busy = f" and {state.task_state}" if state.task_state else ""
        allowed = ", ".join(sorted(rule.vm))
        raise Conflict(
            f"cannot {event.value.replace('_', ' ')} server {server} while it is {state.vm_state}{busy}",
            hint=f"allowed while {allowed}" + (", once it is not busy" if busy else ""),
            command=f"novactl server show {server}",
        )
    return replace(
        state,
        vm_state=rule.to_vm or state.vm_state,
        task_state=state.task_state if rule.to_task is None else rule.to_task,
        power_state=rule.to_power or state.power_state,
    )


ABSENT = "ABSENT"
"""What a node says of a server that it has no domain of."""
_FOUND: Mapping[tuple[VmState, str], Event] = {
    (VmState.ACTIVE, PowerState.SHUTDOWN): Event.FOUND_OFF, (VmState.ACTIVE, PowerState.CRASHED): Event.FOUND_CRASHED,
    (VmState.ACTIVE, PowerState.PAUSED): Event.FOUND_PAUSED, (VmState.STOPPED, PowerState.PAUSED): Event.FOUND_PAUSED,
    (VmState.STOPPED, PowerState.RUNNING): Event.FOUND_ON, (VmState.ERROR, PowerState.RUNNING): Event.FOUND_ON,
    (VmState.ACTIVE, PowerState.RUNNING): Event.FOUND_ON,
    (VmState.ACTIVE, ABSENT): Event.FOUND_GONE, (VmState.STOPPED, ABSENT): Event.FOUND_GONE,
}


def found(state: ServerState, power: str) -> Event | None:
    """What it means that the node of a server in `state` tells `power` (a PowerState or ABSENT); None: nothing new."""
    if state.task_state is not TaskState.NONE or (state.vm_state is VmState.ACTIVE and power == state.power_state):
        return None
    return _FOUND.get((state.vm_state, power))
