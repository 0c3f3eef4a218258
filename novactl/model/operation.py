from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class OperationState(enum.StrEnum):
    """RUNNING forward; UNWINDING back; and the three ends. STUCK waits for `operation resume|undo`."""

    RUNNING = "running"
    UNWINDING = "unwinding"
    OK = "ok"
    FAILED = "failed"
    STUCK = "stuck"

    @property
    def ended(self) -> bool:
        return self in (OperationState.OK, OperationState.FAILED)


class StepState(enum.StrEnum):
    """STARTED is durable before the effect: without DONE it may have happened."""

    STARTED = "started"
    DONE = "done"
    UNDONE = "undone"


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One journalled, resumable change. `record` is the saga's record after the last finished step.

    `epoch` is raised by whoever takes it over, aborts it or turns it back; `owner` drives it until `lease_until`.
    `attempt` counts the nodes tried, from 0. `reason` is what the actor said, `actor_key` the public key they used. After
    `deadline` it is taken over even from an owner that lives (None: never). `progress` is what its step last told (JSON of a
    Progress, "" for nothing). `seq` numbers the operations of this database: agents refuse a number that another
    operation has had, because then there are two copies of the database.
    """

    id: str
    kind: str
    object_kind: str
    object_id: str
    object_name: str
    state: OperationState
    epoch: int
    attempt: int
    owner: str
    lease_until: float
    actor: str
    record: Mapping[str, Any]
    error: Mapping[str, Any] | None
    created_at: float
    ended_at: float | None
    reason: str = ""
    actor_key: str = ""
    deadline: float | None = None
    progress: str = ""
    seq: int = 0


@dataclass(frozen=True, kw_only=True)
class OperationStep:
    operation_id: str
    attempt: int
    position: int
    name: str
    state: StepState
    started_at: float
    ended_at: float | None


@dataclass(frozen=True, kw_only=True)
class EventRecord:
    """One line of an object's history."""

    at: float
    object_kind: str
    object_id: str
    object_name: str
    operation_id: str
    event: str
    actor: str
    detail: str
    reason: str = ""
