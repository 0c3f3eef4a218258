"""One small cluster, as records."""

from typing import Any

from novactl.api.explanation import Explanation
from novactl.api.nodes import NodeView
from novactl.api.placement import ClaimRow
from novactl.cli import columns
from novactl.cli.targets import Outcome
from novactl.db.servers import ServerRow
from novactl.model.finding import Finding
from novactl.model.flavor import Flavor
from novactl.model.image import Image
from novactl.model.keypair import Keypair
from novactl.model.operation import EventRecord, Operation, OperationState
from novactl.model.server import Server
from novactl.scheduler.telling import ExplainRow
from novactl.states import PowerState, TaskState, VmState

THEN = 1_700_000_000.0


def uuid(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-000000000000"


FLAVORS = (
    Flavor(id=uuid(1), name="tiny", vcpus=1, memory_mb=192, disk_gb=0, created_at=THEN),
    Flavor(id=uuid(2), name="m1.large", vcpus=4, memory_mb=8192, disk_gb=80, created_at=THEN),
)
IMAGES = (
    Image(id=uuid(3), name="debian-12", sha256="9f86d081884c7d65" * 4, disk_format="qcow2", size_bytes=345_000_000,
          virtual_size_bytes=3 << 30, architecture="x86_64", source="https://example.org/debian-12.qcow2", created_at=THEN),
)
KEYPAIRS = (
    Keypair(id=uuid(4), name="alice", key_type="ssh-ed25519", public_key="ssh-ed25519 AAAAC3Nza alice", fingerprint="SHA256:w1ruQS",
            created_at=THEN),
)
SERVER = Server(
    id=uuid(5), name="web1", vm_state=VmState.ACTIVE, task_state=TaskState.NONE, power_state=PowerState.RUNNING, node_id=uuid(9),
    node_name="n1", epoch=1, operation_id="", flavor_name="m1.large", vcpus=4, memory_mb=8192, disk_gb=80, image_id=uuid(3),
    image_name="debian-12", image_sha256="9f86d081884c7d65" * 4, architecture="x86_64", keypair_name="alice",
    public_key="ssh-ed25519 AAAAC3Nza alice", user_data="#cloud-config\n", zone="", mac="52:54:00:12:34:56",
    addresses=("192.168.122.10",), fault="", created_at=THEN, updated_at=THEN + 60, launched_at=THEN + 5.25, deleted_at=None,
)
SERVER_ROWS = (
    ServerRow(uuid(5), "web1", "ACTIVE", "n1", "m1.large", "debian-12", ("192.168.122.10", "10.0.0.7"), THEN),
    ServerRow(uuid(6), "web2", "ERROR", "", "tiny", "debian-12", (), THEN + 3000),
)
OPERATIONS = (
    Operation(id=uuid(7), kind="create_server", object_kind="server", object_id=uuid(6), object_name="web2",
              state=OperationState.FAILED, epoch=2, attempt=1, owner="cli:alice@laptop:412", lease_until=THEN + 30, actor="alice@laptop",
              record={"node_id": uuid(9)}, error={"code": "no_valid_host", "message": "no node can take server web2"},
              created_at=THEN, ended_at=THEN + 2),
    Operation(id=uuid(8), kind="stop_server", object_kind="server", object_id=uuid(5), object_name="web1",
              state=OperationState.RUNNING, epoch=1, attempt=0, owner="", lease_until=THEN + 30, actor="alice@laptop", record={},
              error=None, created_at=THEN + 3500, ended_at=None),
)
EVENTS = (
    EventRecord(at=THEN, object_kind="server", object_id=uuid(5), object_name="web1", operation_id=uuid(7), event="create",
                actor="alice@laptop", detail="placed on n1"),
)
FINDINGS = (
    Finding("database", "ok", "schema 1"),
    Finding("clock of n2", "warn", "3.2 s behind", "install chrony on n2"),
    Finding("agent of n3", "fail", "no answer", "novactl node check n3"),
)
OUTCOMES = (
    Outcome("web1", True, SERVER, None),
    Outcome("web9", False, None, {"code": "not_found", "message": "no server 'web9'"}),
)

NODES = (
    NodeView(
        id=uuid(9), name="n1", status="up", state="enabled", reason="", zone="rack1", labels={"rack": "r1"}, architecture="x86_64",
        virt_type="kvm", agent_version="0.1.0", address="tcp://10.0.0.1:7766", ssh="root@10.0.0.1:22", servers=2, vcpu_used=0.25,
        vcpu_allocated=5, vcpu_capacity=128, memory_used_mb=3100, memory_allocated_mb=8384, memory_capacity_mb=257024, disk_used_gb=12,
        disk_allocated_gb=83, disk_capacity_gb=900, report_age_s=3.2, cpu_model="EPYC-Rome",
        versions={"libvirt": "9.0.0", "qemu": "7.2.0"}, created_at=THEN, foreign_domains=1),
    NodeView(
        id=uuid(10), name="n2", status="disabled", state="disabled", reason="new kernel", zone="", labels={}, architecture="", virt_type="",
        agent_version="", address="tcp://10.0.0.2:7766", ssh="local", servers=0, vcpu_used=None, vcpu_allocated=0, vcpu_capacity=None,
        memory_used_mb=None, memory_allocated_mb=0, memory_capacity_mb=None, disk_used_gb=None, disk_allocated_gb=0,
        disk_capacity_gb=None, report_age_s=None, cpu_model="", created_at=THEN),
)
EXPLANATION = Explanation(
    request="4 VCPU, 8.0 GiB, 80 GiB on x86_64",
    rows=(
        ExplainRow("n3", "chosen", (), {"balance": 0.71}, 0.71),
        ExplainRow("n1", "2nd", (), {"balance": 0.58}, 0.58),
        ExplainRow("n5", "rejected", ("MEMORY_MB: needs 8192, free 5900: short by 2292", "zone: is a, wanted b"), {}, None),
    ),
    summary="3 nodes, 2 possible.", decided_at=THEN, operation=uuid(7),
)
CLAIMS = (ClaimRow("server", "web1", "n1", 4, 8192, 80),)

TABLES: dict[str, tuple[columns.Table, Any]] = {
    "server": (columns.SERVERS, SERVER_ROWS),
    "flavor": (columns.FLAVORS, FLAVORS),
    "image": (columns.IMAGES, IMAGES),
    "keypair": (columns.KEYPAIRS, KEYPAIRS),
    "operation": (columns.OPERATIONS, OPERATIONS),
    "node": (columns.NODES, NODES),
    "explanation": (columns.EXPLANATION, EXPLANATION),
    "claim": (columns.CLAIMS, CLAIMS),
    "event": (columns.EVENTS, EVENTS),
    "finding": (columns.FINDINGS, FINDINGS),
    "outcome": (columns.OUTCOMES, OUTCOMES),
}
RECORDS: dict[str, Any] = {
    "server": SERVER, "flavor": FLAVORS[0], "image": IMAGES[0], "keypair": KEYPAIRS[0], "operation": OPERATIONS[0], "node": NODES[0],
}
