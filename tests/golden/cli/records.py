"""One small cluster, as records."""

from typing import Any

from novactl.api.aggregates import AggregateView
from novactl.api.capacity import FlavorCapacity
from novactl.api.cluster import ClassSums, ClusterView, DefaultQuota
from novactl.api.explanation import Explanation
from novactl.api.groups import GroupShown, MemberRow
from novactl.api.keys import KeyView
from novactl.api.node_views import InventoryRow, NodeShown
from novactl.api.nodes import NodeView
from novactl.api.operations import view
from novactl.api.placement import ClaimRow
from novactl.api.projects import ProjectView
from novactl.api.quotas import QuotaRow
from novactl.api.scheduler import Part, PartRow
from novactl.api.simulation import Placed
from novactl.api.traits import ClassRow, TraitRow
from novactl.api.zones import ZoneRow
from novactl.cli import columns
from novactl.cli.table import Table
from novactl.cli.targets import Outcome
from novactl.db.servers import ServerRow
from novactl.model.finding import Finding
from novactl.model.flavor import Flavor
from novactl.model.image import Image
from novactl.model.keypair import Keypair
from novactl.model.operation import EventRecord, Operation, OperationState
from novactl.model.server import Server
from novactl.scheduler.capacity import NodeRoom, Stop
from novactl.scheduler.replay import Replay
from novactl.scheduler.telling import ExplainRow
from novactl.states import PowerState, TaskState, VmState

THEN = 1_700_000_000.0


def uuid(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-000000000000"


FLAVORS = (
    Flavor(id=uuid(1), name="tiny", vcpus=1, memory_mb=192, disk_gb=0, created_at=THEN),
    Flavor(id=uuid(2), name="m1.large", vcpus=4, memory_mb=8192, disk_gb=80, created_at=THEN, description="for databases",
           specs={"hw:cpu_policy": "dedicated", "resources:CUSTOM_GPU": "1"}),
)
IMAGES = (
    Image(id=uuid(3), name="debian-12", sha256="9f86d081884c7d65" * 4, disk_format="qcow2", size_bytes=345_000_000,
          virtual_size_bytes=3 << 30, architecture="x86_64", source="https://example.org/debian-12.qcow2", created_at=THEN,
          properties={"os_distro": "debian"}),
)
KEYPAIRS = (
    Keypair(id=uuid(4), name="alice", key_type="ssh-ed25519", public_key="ssh-ed25519 AAAAC3Nza alice", fingerprint="SHA256:w1ruQS",
            created_at=THEN),
)
KEYS = (
    KeyView(id=uuid(40), name="alice", role="admin", status="active", public_key="rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7",
            created_at=THEN, created_by="alice@laptop", used_at=THEN + 60, revoked_at=None, is_own=True),
    KeyView(id=uuid(41), name="bob", role="operator", status="revoked", public_key="Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID",
            created_at=THEN, created_by="alice@laptop", used_at=None, revoked_at=THEN + 90, is_own=False,
            unreached={"n1": "node n1 does not answer"}),
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
OPERATION_VIEWS = tuple(view(operation, THEN + 3600) for operation in OPERATIONS)
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
        id=uuid(9), name="n1", status="up", status_since=THEN, state="enabled", state_by="ann@ops", reason="", zone="rack1",
        labels={"rack": "r1"}, architecture="x86_64",
        virt_type="kvm", agent_version="0.1.0", address="tcp://10.0.0.1:7766", ssh="root@10.0.0.1:22", servers=2, vcpu_used=0.25,
        vcpu_allocated=5, vcpu_capacity=128, memory_used_mb=3100, memory_allocated_mb=8384, memory_capacity_mb=257024, disk_used_gb=12,
        disk_allocated_gb=83, disk_capacity_gb=900, report_age_s=3.2, silent_since=None, cpu_model="EPYC-Rome",
        versions={"libvirt": "9.0.0", "qemu": "7.2.0"}, created_at=THEN, foreign_domains=1),
    NodeView(
        id=uuid(10), name="n2", status="drained", status_since=THEN, state="disabled", state_by="ann@ops", reason="new kernel", zone="",
        labels={}, architecture="", virt_type="",
        agent_version="", address="tcp://10.0.0.2:7766", ssh="local", servers=0, vcpu_used=None, vcpu_allocated=0, vcpu_capacity=None,
        memory_used_mb=None, memory_allocated_mb=0, memory_capacity_mb=None, disk_used_gb=None, disk_allocated_gb=0,
        disk_capacity_gb=None, report_age_s=None, silent_since=THEN, cpu_model="",
        created_at=THEN),
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

AGGREGATES = (
    AggregateView(id=uuid(11), name="rack1", zone="z1", nodes=("n1", "n2"), created_at=THEN,
                  metadata={"availability_zone": "z1", "ssd": "true"}),
    AggregateView(id=uuid(12), name="fast", zone="", nodes=(), metadata={}, created_at=THEN),
)
ZONES = (ZoneRow("z1", 2, 17, ("rack1",)), ZoneRow("z2", 1, 0, ()))
GROUPS = (
    GroupShown(id=uuid(13), name="web", project="shop", policy="anti-affinity", max_per_host=2, scope="rack", created_at=THEN,
               members=(MemberRow(uuid(5), "web1", "n1"), MemberRow(uuid(6), "web2", ""))),
    GroupShown(id=uuid(14), name="cache", project="default", policy="soft-affinity", max_per_host=None, scope="", members=(),
               created_at=THEN),
)
PROJECTS = (
    ProjectView(id="default", name="default", description="", servers=0, cores=0, ram_mb=0, disk_gb=0, created_at=THEN),
    ProjectView(id=uuid(15), name="shop", description="web shop", servers=2, cores=8, ram_mb=16384, disk_gb=160, created_at=THEN),
)
QUOTAS = (
    QuotaRow("shop", "servers", 2, 10, "project"), QuotaRow("shop", "ram_mb", 16384, 65536, "default"),
    QuotaRow("shop", "disk_gb", 160, -1, "none"),
)
TRAITS = (TraitRow("CUSTOM_NVLINK", 1, "custom"), TraitRow("HW_CPU_X86_AVX2", 12, "reported"))
CLASSES = (ClassRow("VCPU", "standard", 2, 64, 256, 5), ClassRow("CUSTOM_GPU", "custom", 1, 4, 4, 1))
NODE_SHOWN = NodeShown(
    **{**vars(NODES[0]), "aggregates": ("fast", "rack1")}, shared_disk="", dedicated_cpus="2-7", failed_builds=0,
    traits=("COMPUTE_VIRT_KVM", "CUSTOM_NVLINK"), inventories=(
        InventoryRow("VCPU", 32, 0, "4.0", 128, 5, 123, 0, 1, 32, 1),
        InventoryRow("DISK_GB", 920, 10, "1.0", 900, 83, 817, 10, 1, 920, 1),
        InventoryRow("CUSTOM_GPU", 4, 0, "1.0", 4, 1, 3, 0, 1, 2, 1),
    ))
CLUSTER = ClusterView(
    cluster_id=uuid(16), database="/var/lib/novactl/novactl.db", schema=2, n_plus_1=True, nodes={"enabled": 2, "disabled": 1}, servers=3,
    projects=2, resources=(ClassSums("VCPU", 64, 256, 5, 251), ClassSums("MEMORY_MB", 257536, 257024, 8384, 248640)),
    quotas=(DefaultQuota("servers", 10), DefaultQuota("ram_mb", 65536), DefaultQuota("disk_gb", -1)))

_MEMORY = Stop("MEMORY_MB", 28, 30, "memory: needs 8.0 GiB; 37.5 GiB left on 30 nodes, at most 5.9 GiB on one")
_LOSS = Stop("n_plus_1", 2, 30, "N+1: losing n1 would leave db3 (memory 32.0 GiB) without a place")
CAPACITY = (
    FlavorCapacity(flavor="m1.large", fits=38, n_plus_1=None, limited_by="memory (28 of 30 nodes)", limit=_MEMORY, next_to_fill="n7",
                   before=None, changes="", per_node=(NodeRoom(uuid(9), "n7", 1), NodeRoom(uuid(10), "n8", 37))),
    FlavorCapacity(flavor="r1.large", fits=131, n_plus_1=29, limited_by=_LOSS.text, limit=_LOSS, next_to_fill="n7", before=11,
                   changes="adding 2x64c/256G/2T", per_node=(NodeRoom(uuid(9), "n7", 131),)),
    FlavorCapacity(flavor="huge", fits=0, n_plus_1=0, limited_by="zone (30 of 30 nodes)",
                   limit=Stop("zone", 30, 30, "n1: zone: needs z2, is in z1"), next_to_fill="", before=None, changes="", per_node=()),
)
PARTS = (
    PartRow("profile", "pack", True, None, "built-in", "weighs imbalance -1, balance -0.25"),
    PartRow("filter", "retiring", True, None, "novactl-example 1.0", "A node takes no servers from the day on that its label names"),
    PartRow("weigher", "balance", True, -0.25, "built-in", "What would be left of the resource the server makes scarcest"),
    PartRow("weigher", "gpu", False, None, "sad 2.1", "weigher 'gpu' of sad 2.1 cannot be loaded from sad:gpu: SyntaxError"),
)
PART = Part(
    kind="weigher", name="balance", enabled=True, source="built-in", about="What would be left.\n\nThe dominant share.", multiplier=1.0,
    multiplier_key="balance_weight_multiplier", node=("inventories", "used"), request=("amounts",), columns=True)
PLACED = (
    Placed(server="web-1", flavor="m1.large", node="n1", score=0.71, detail="3 nodes, 2 possible."),
    Placed(server="web-2", flavor="m1.large", node="", score=None, detail="3 nodes, 0 possible. Nodes rejected by: resources 3"),
)
REPLAYED = Replay(
    workload="mixed-fit-n100-s1", profile="pack", hosts=100, decisions=3169, placed=2792, rejects=377, first_fail=2784,
    first_fail_utilisation={"vcpus": 0.93, "ram_mb": 0.96, "disk_gb": 0.44},
    utilisation={"vcpus": 0.9315, "ram_mb": 0.9611, "disk_gb": 0.4416}, seconds=0.155, per_s=20445.2, p50_ms=0.0526, p95_ms=0.055,
    p99_ms=0.0741, results={"vm1": "host1", "vm2": None})

TABLES: dict[str, tuple[Table, Any]] = {
    "server": (columns.SERVERS, SERVER_ROWS),
    "flavor": (columns.FLAVORS, FLAVORS),
    "image": (columns.IMAGES, IMAGES),
    "keypair": (columns.KEYPAIRS, KEYPAIRS),
    "key": (columns.KEYS, KEYS),
    "operation": (columns.OPERATIONS, OPERATION_VIEWS),
    "node": (columns.NODES, NODES),
    "explanation": (columns.EXPLANATION, EXPLANATION),
    "claim": (columns.CLAIMS, CLAIMS),
    "event": (columns.EVENTS, EVENTS),
    "finding": (columns.FINDINGS, FINDINGS),
    "outcome": (columns.OUTCOMES, OUTCOMES),
    "aggregate": (columns.AGGREGATES, AGGREGATES),
    "zone": (columns.ZONES, ZONES),
    "server-group": (columns.SERVER_GROUPS, GROUPS),
    "project": (columns.PROJECTS, PROJECTS),
    "quota": (columns.QUOTAS, QUOTAS),
    "quotas-of-all": (columns.QUOTAS_OF_ALL, QUOTAS),
    "trait": (columns.TRAITS, TRAITS),
    "resource-class": (columns.RESOURCE_CLASSES, CLASSES),
    "capacity": (columns.CAPACITY, CAPACITY),
    "scheduler": (columns.PARTS, PARTS),
    "placed": (columns.PLACED, PLACED),
    "replay": (columns.REPLAY, (REPLAYED,)),
}
RECORDS: dict[str, Any] = {
    "server": SERVER, "flavor": FLAVORS[0], "image": IMAGES[0], "keypair": KEYPAIRS[0], "key": KEYS[1], "operation": OPERATION_VIEWS[0],
    "node": NODE_SHOWN, "aggregate": AGGREGATES[0], "server-group": GROUPS[0], "project": PROJECTS[1], "cluster": CLUSTER,
    "scheduler": PART,
}
