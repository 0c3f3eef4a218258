from __future__ import annotations

from dataclasses import dataclass, field

from novactl.model.project import DEFAULT_PROJECT
from novactl.model.secret import SECRET
from novactl.model.wants import NOTHING_SPECIAL, Wants
from novactl.states import PowerState, ServerState, TaskState, VmState


@dataclass(frozen=True, kw_only=True)
class Server:
    """A virtual machine as its user sees it. The flavor's and image's facts are copied in at creation.

    `epoch` is raised whenever `node_id` changes. `operation_id` is the operation under way, "" when idle.
    `disk_gb` is the root disk as claimed. `fault` is why it is in ERROR, or was never built.
    `group_id` is its server group, "" for none; `wants` is what else it asks of its node.
    """

    id: str
    name: str
    vm_state: VmState
    task_state: TaskState
    power_state: PowerState
    node_id: str
    node_name: str
    epoch: int
    operation_id: str
    flavor_name: str
    vcpus: int
    memory_mb: int
    disk_gb: int
    image_id: str
    image_name: str
    image_sha256: str
    architecture: str
    keypair_name: str
    public_key: str
    user_data: str = field(metadata=SECRET)
    zone: str
    mac: str
    addresses: tuple[str, ...]
    fault: str
    created_at: float
    updated_at: float
    launched_at: float | None
    deleted_at: float | None
    project_id: str = DEFAULT_PROJECT
    group_id: str = ""
    wants: Wants = NOTHING_SPECIAL
    ha: bool = False
    """Started elsewhere when its node has been fenced."""

    @property
    def state(self) -> ServerState:
        return ServerState(self.vm_state, self.task_state, self.power_state)

    @property
    def status(self) -> str:
        return self.state.status
