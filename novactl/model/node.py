from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from novactl.model.resources import Inventory

METRICS = ("load_1m", "memory_used_mb", "disk_used_gb")
"""What reports measure of a host's real load. It changes all the time, and nothing follows from it but the weight of a node."""


class NodeState(enum.StrEnum):
    """ENROLLING: known, not yet checked end to end, takes no servers. REMOVING: on its way out. FENCING: it is being
    switched off. FENCED: made sure that nothing of it runs; its servers may be started elsewhere."""

    ENROLLING = "enrolling"
    ENABLED = "enabled"
    DISABLED = "disabled"
    FENCING = "fencing"
    FENCED = "fenced"
    REMOVING = "removing"


@dataclass(frozen=True, kw_only=True)
class Node:
    """An enrolled hypervisor host. Times are seconds since the epoch (UTC), None where it never happened.

    `address` is the agent's endpoint (`tcp://host:port`), `public_key` its CURVE key in Z85. `ssh` is
    `user@host:port`, or `local`. `reported_at` is when `report` (nodeagent.wire.Report as JSON) was taken in;
    `silent_since` is when a call first got no answer, None while it answers. `generation` counts the changes of
    the node's state, facts, inventory and claims. `undo` is what enrolment did, for `node remove`. `traits` are those an
    admin gave it. `dedicated_cpus` ("2-7") are the host's CPUs kept for pinned servers. `shared_disk` names the pool that its
    disk belongs to together with other nodes' ("" when it is its own).
    """

    id: str
    name: str
    state: NodeState
    address: str
    public_key: str
    ssh: str
    host_key: str
    zone: str
    architecture: str
    agent_version: str
    generation: int
    created_at: float
    reason: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    report: Mapping[str, Any] | None = None
    reported_at: float | None = None
    silent_since: float | None = None
    undo: Mapping[str, Any] = field(default_factory=dict)
    traits: tuple[str, ...] = ()
    dedicated_cpus: str = ""
    shared_disk: str = ""
    failed_builds: int = 0
    """Creations that failed on it since the last that did not."""
    state_since: float | None = None
    state_by: str = ""
    """When `state` was last changed, and by whom (as an operation's actor)."""
    boot_id: str = ""
    """The boot of its host whose guests have been looked after: another one means that the host has started anew since."""
    admins_version: int = 0
    """The newest table of admins' keys that its agent has."""
    next_public_key: str = ""
    """The key its agent is about to change to, "" for none."""
    lease_until: float | None = None
    """Until then at most its agent, which has answered that it fences itself, may run guests without hearing from us; None where it has
    not answered so since that was last asked of it."""
    armed_s: float | None = None
    """The longest delay after a lease that its agent may still have been told to stop its guests after; None: it has none."""
    fenced_at: float | None = None
    """When it was made sure that nothing of it runs any more; None: it was not, or it has come back since."""
    fencing: Mapping[str, Any] = field(default_factory=dict)
    """How it is fenced: `method` and what that method needs (never a secret: a file's name)."""

    def stamped(self, before: Node, at: float, by: str) -> Node:
        """Itself with `state_since` and `state_by` as they follow from what it was before: a new state, or another reason for it."""
        if self.state is before.state:
            return self if self.reason == before.reason else dataclasses.replace(self, state_by=by)
        return dataclasses.replace(self, state_since=at, state_by=by)

    def lacks_lease(self, now: float) -> bool:
        """Its agent fences itself, nobody renews its lease, and it stops what runs there and refuses to start anything."""
        return self.lease_until is not None and self.lease_until <= now

    @property
    def enroll_again(self) -> str:
        """The command that brings its machine to what enrolment makes of it."""
        return f"novactl node enroll {'--local' if self.ssh == 'local' else self.ssh or '[user@]HOST'} --name {self.name}"


@dataclass(frozen=True, kw_only=True)
class NodeUsage:
    """A node with its ledger: per resource class what it has and what is claimed."""

    node: Node
    inventories: Mapping[str, Inventory]
    allocated: Mapping[str, int]
    servers: int
