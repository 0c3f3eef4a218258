"""The tables. Imported only where SQLAlchemy is: by other databases, by migrations and by the generator of `compiled.py`.

Times are seconds since the epoch in UTC. JSON is text of our own making. A name that must be unique among the
living is kept twice: `name`, and `live_name`, which becomes NULL when the row's object is deleted; in the same way
`open_object_id` lets an object have one operation that has not ended.

Some columns are derived from other rows, so that hot reads and claims touch one row: of a node its sums (`servers`,
`vcpu_…`, `memory_mb_…`, `disk_gb_…`, `odd`) and its `shape`, of a project its usage (`…_used`) and its limits (`…_max`).
Whoever changes the rows they follow from changes them in the same transaction; `novactl.db.derived` says how they follow.
"""

from sqlalchemy import BigInteger, CheckConstraint, Column, Double, ForeignKey, Index, Integer, MetaData, String, Table, Text

from novactl.model.project import DEFAULT_PROJECT

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s", "fk": "fk_%(table_name)s_%(column_0_name)s", "pk": "pk_%(table_name)s",
}
metadata = MetaData(naming_convention=NAMING)

_ID = String(36)
_NAME = String(64)


def _id(name: str = "id", **kwargs: object) -> Column:
    return Column(name, _ID, primary_key=True, **kwargs)


def _count(name: str, default: str = "0") -> Column:
    return Column(name, BigInteger, nullable=False, server_default=default)


def _project() -> Column:
    """Whose it is. What was there before there were projects is the default one's."""
    return Column("project_id", _ID, ForeignKey("project.id"), nullable=False, server_default=DEFAULT_PROJECT)


meta = Table(
    "meta", metadata,
    Column("key", _NAME, primary_key=True),
    Column("value", Text, nullable=False),
)
node = Table(
    "node", metadata, _id(),
    # What every placement reads of every node comes first: SQLite finds a column by walking over those before it.
    Column("state", String(16), nullable=False),
    Column("shape", String(40), nullable=False, index=True, server_default=""),
    _count("generation"),
    Column("reported_at", Double),
    Column("silent_since", Double),
    _count("servers"),
    _count("failed_builds"),
    *(_count(f"{name}_{what}") for name in ("vcpu", "memory_mb", "disk_gb") for what in ("capacity", "used", "max_unit")),
    Column("odd", Integer, nullable=False, server_default="0"),
    Column("shared_disk", _NAME, nullable=False, server_default=""),
    Column("name", _NAME, nullable=False, unique=True),
    Column("reason", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("public_key", String(40), nullable=False),
    Column("ssh", Text, nullable=False),
    Column("host_key", Text, nullable=False),
    Column("zone", _NAME, nullable=False),
    Column("architecture", String(32), nullable=False),
    Column("agent_version", String(32), nullable=False),
    Column("labels", Text, nullable=False),
    Column("traits", Text, nullable=False, server_default="[]"),
    Column("dedicated_cpus", Text, nullable=False, server_default=""),
    Column("load_1m", Double),
    Column("memory_used_mb", BigInteger),
    Column("disk_used_gb", BigInteger),
    Column("report_key", String(40), nullable=False, server_default=""),
    Column("created_at", Double, nullable=False),
    Column("state_since", Double),
    Column("state_by", Text, nullable=False, server_default=""),
    Column("boot_id", _NAME, nullable=False, server_default=""),
    _count("admins_version"),
    Column("next_public_key", String(40), nullable=False, server_default=""),
    Column("lease_until", Double),
    Column("armed_s", Double),
    Column("fenced_at", Double),
)
node_file = Table(
    "node_file", metadata,
    Column("node_id", _ID, ForeignKey("node.id", ondelete="CASCADE"), primary_key=True),
    Column("report", Text),
    Column("undo", Text, nullable=False),
    Column("hardware", Text),
    Column("fencing", Text, nullable=False, server_default="{}"),
)
shape = Table(
    "shape", metadata,
    Column("id", String(40), primary_key=True),
    Column("facts", Text, nullable=False),
)
aggregate = Table(
    "aggregate", metadata, _id(),
    Column("name", _NAME, nullable=False, unique=True),
    Column("metadata", Text, nullable=False),
    Column("created_at", Double, nullable=False),
)
aggregate_node = Table(
    "aggregate_node", metadata,
    Column("aggregate_id", _ID, ForeignKey("aggregate.id", ondelete="CASCADE"), primary_key=True),
    Column("node_id", _ID, ForeignKey("node.id", ondelete="CASCADE"), primary_key=True, index=True),
)
project = Table(
    "project", metadata, _id(),
    Column("name", _NAME, nullable=False, unique=True),
    Column("description", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    *(_count(f"{name}_used") for name in ("servers", "cores", "ram_mb", "disk_gb")),
    *(_count(f"{name}_max", "-1") for name in ("servers", "cores", "ram_mb", "disk_gb")),
)
quota = Table(
    "quota", metadata,
    Column("project_id", _ID, primary_key=True),
    Column("resource", _NAME, primary_key=True),
    Column("max_amount", BigInteger, nullable=False),
)
server_group = Table(
    "server_group", metadata, _id(),
    Column("name", _NAME, nullable=False, unique=True),
    Column("project_id", _ID, ForeignKey("project.id"), nullable=False),
    Column("policy", String(32), nullable=False),
    Column("scope", _NAME, nullable=False),
    Column("max_per_domain", BigInteger, nullable=False),
    _count("version"),
    Column("created_at", Double, nullable=False),
)
inventory = Table(
    "inventory", metadata,
    Column("node_id", _ID, ForeignKey("node.id", ondelete="CASCADE"), primary_key=True),
    Column("resource_class", _NAME, primary_key=True),
    Column("total", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False),
    Column("ratio_milli", BigInteger, nullable=False),
    Column("min_unit", BigInteger, nullable=False),
    Column("max_unit", BigInteger, nullable=False),
    Column("step_size", BigInteger, nullable=False),
    _count("cached"),
)
claim = Table(
    "claim", metadata,
    Column("consumer_id", _ID, primary_key=True),
    Column("node_id", _ID, ForeignKey("node.id"), primary_key=True, index=True),
    Column("resource_class", _NAME, primary_key=True),
    Column("consumer_kind", String(16), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("project_id", _ID, nullable=False, server_default=DEFAULT_PROJECT),
    CheckConstraint("amount > 0", name="amount"),
)
fitting = Table(
    "fitting", metadata,
    Column("consumer_id", _ID, primary_key=True),
    Column("node_id", _ID, ForeignKey("node.id"), primary_key=True, index=True),
    Column("body", Text, nullable=False),
)
flavor = Table(
    "flavor", metadata, _id(),
    Column("name", _NAME, nullable=False, unique=True),
    Column("vcpus", BigInteger, nullable=False),
    Column("memory_mb", BigInteger, nullable=False),
    Column("disk_gb", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("specs", Text, nullable=False, server_default="{}"),
    Column("description", Text, nullable=False, server_default=""),
)
image = Table(
    "image", metadata, _id(),
    Column("name", _NAME, nullable=False, unique=True),
    Column("sha256", String(64), nullable=False),
    Column("disk_format", String(16), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("virtual_size_bytes", BigInteger, nullable=False),
    Column("architecture", String(32), nullable=False),
    Column("source", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("properties", Text, nullable=False, server_default="{}"),
)
keypair = Table(
    "keypair", metadata, _id(),
    Column("name", _NAME, nullable=False, unique=True),
    Column("key_type", _NAME, nullable=False),
    Column("public_key", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    _project(),
)
server = Table(
    "server", metadata, _id(),
    Column("name", _NAME, nullable=False),
    Column("live_name", _NAME, unique=True),
    Column("vm_state", String(16), nullable=False),
    Column("task_state", String(32), nullable=False),
    Column("power_state", String(16), nullable=False),
    Column("node_id", _ID, ForeignKey("node.id"), index=True),
    Column("epoch", BigInteger, nullable=False),
    Column("operation_id", _ID, nullable=False),
    Column("flavor_name", _NAME, nullable=False),
    Column("vcpus", BigInteger, nullable=False),
    Column("memory_mb", BigInteger, nullable=False),
    Column("disk_gb", BigInteger, nullable=False),
    Column("image_id", _ID, nullable=False),
    Column("image_name", _NAME, nullable=False),
    Column("image_sha256", String(64), nullable=False),
    Column("architecture", String(32), nullable=False),
    Column("keypair_name", _NAME, nullable=False),
    Column("public_key", Text, nullable=False),
    Column("user_data", Text, nullable=False),
    Column("zone", _NAME, nullable=False),
    Column("mac", String(17), nullable=False),
    Column("addresses", Text, nullable=False),
    Column("fault", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("launched_at", Double),
    Column("deleted_at", Double),
    Column("project_id", _ID, nullable=False, server_default=DEFAULT_PROJECT),
    Column("group_id", _ID, nullable=False, index=True, server_default=""),
    Column("wants", Text, nullable=False, server_default="{}"),
    Column("ha", Integer, nullable=False, server_default="0"),
    Index("ix_server_live_created", "deleted_at", "created_at"),
)
operation = Table(
    "operation", metadata, _id(),
    Column("kind", _NAME, nullable=False),
    Column("object_kind", String(16), nullable=False),
    Column("object_id", _ID, nullable=False, index=True),
    Column("open_object_id", _ID, unique=True),
    Column("object_name", _NAME, nullable=False),
    Column("state", String(16), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("owner", Text, nullable=False),
    Column("lease_until", Double, nullable=False),
    Column("actor", Text, nullable=False),
    Column("record", Text, nullable=False),
    Column("error", Text),
    Column("decision", Text),
    Column("created_at", Double, nullable=False, index=True),
    Column("ended_at", Double, index=True),
    Column("reason", Text, nullable=False, server_default=""),
    Column("actor_key", String(40), nullable=False, server_default=""),
    Column("deadline", Double),
    Column("progress", Text, nullable=False, server_default=""),
    _count("seq"),
)
ticket = Table(
    "ticket", metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("operation_id", _ID, nullable=False, unique=True),
    sqlite_autoincrement=True,
)
lease = Table(
    "lease", metadata,
    Column("name", _NAME, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("until", Double, nullable=False),
    Column("epoch", BigInteger, nullable=False),
)
admin_key = Table(
    "admin_key", metadata, _id(),
    Column("name", _NAME, nullable=False, unique=True),
    Column("public_key", String(40), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("revoked_at", Double),
)
operation_step = Table(
    "operation_step", metadata,
    Column("operation_id", _ID, ForeignKey("operation.id", ondelete="CASCADE"), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("name", _NAME, nullable=False),
    Column("state", String(16), nullable=False),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double),
)
event = Table(
    "event", metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False),
    Column("object_kind", String(16), nullable=False),
    Column("object_id", _ID, nullable=False, index=True),
    Column("object_name", _NAME, nullable=False),
    Column("operation_id", _ID, nullable=False),
    Column("event", _NAME, nullable=False),
    Column("actor", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
)
