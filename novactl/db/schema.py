"""The tables. Imported only where SQLAlchemy is: by other databases, by migrations and by the generator of `compiled.py`.

Times are seconds since the epoch in UTC. JSON is text of our own making. A name that must be unique among the
living is kept twice: `name`, and `live_name`, which becomes NULL when the row's object is deleted; in the same way
`open_object_id` lets an object have one operation that has not ended.
"""

from sqlalchemy import BigInteger, CheckConstraint, Column, Double, ForeignKey, Index, Integer, MetaData, String, Table, Text

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s", "fk": "fk_%(table_name)s_%(column_0_name)s", "pk": "pk_%(table_name)s",
}
metadata = MetaData(naming_convention=NAMING)

_ID = String(36)
_NAME = String(64)


def _id(name: str = "id", **kwargs: object) -> Column:
    return Column(name, _ID, primary_key=True, **kwargs)


meta = Table(
    "meta", metadata,
    Column("key", _NAME, primary_key=True),
    Column("value", Text, nullable=False),
)
node = Table(
    "node", metadata, _id(),
    Column("name", _NAME, nullable=False, unique=True),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("public_key", String(40), nullable=False),
    Column("ssh", Text, nullable=False),
    Column("host_key", Text, nullable=False),
    Column("zone", _NAME, nullable=False),
    Column("architecture", String(32), nullable=False),
    Column("agent_version", String(32), nullable=False),
    Column("labels", Text, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("report", Text),
    Column("reported_at", Double),
    Column("silent_since", Double),
    Column("undo", Text, nullable=False),
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
)
claim = Table(
    "claim", metadata,
    Column("consumer_id", _ID, primary_key=True),
    Column("node_id", _ID, ForeignKey("node.id"), primary_key=True),
    Column("resource_class", _NAME, primary_key=True),
    Column("consumer_kind", String(16), nullable=False),
    Column("amount", BigInteger, nullable=False),
    CheckConstraint("amount > 0", name="amount"),
)
flavor = Table(
    "flavor", metadata, _id(),
    Column("name", _NAME, nullable=False, unique=True),
    Column("vcpus", BigInteger, nullable=False),
    Column("memory_mb", BigInteger, nullable=False),
    Column("disk_gb", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
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
)
keypair = Table(
    "keypair", metadata, _id(),
    Column("name", _NAME, nullable=False, unique=True),
    Column("key_type", _NAME, nullable=False),
    Column("public_key", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("created_at", Double, nullable=False),
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
    Column("created_at", Double, nullable=False),
    Column("ended_at", Double, index=True),
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
)
