"""What the tables show: for each noun its columns, as data. A new column is a new row here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from novactl.cli.table import (
    DATA,
    MISSING,
    TABLE,
    UNKNOWN,
    WIDE,
    Column,
    Table,
    age,
    bytes_,
    clock_time,
    gibibytes,
    mebibytes,
    seconds,
)
from novactl.model import units


def _either(*names: str) -> Callable[[Any], Any]:
    return lambda record: next((getattr(record, name) for name in names if hasattr(record, name)), None)


def _three(used: str, allocated: str, capacity: str, scale: int = 1) -> Callable[[Any], str]:
    def get(record: Any) -> str:
        numbers = [getattr(record, name) for name in (used, allocated, capacity)]
        return "/".join(UNKNOWN if n is None else f"{n / scale:.1f}".removesuffix(".0") if scale > 1 else f"{n:g}" for n in numbers)

    return get


SERVERS = Table((
    Column("name", "NAME"),
    Column("id", "ID", where=WIDE, firm=True),
    Column("status", "STATUS", firm=True),
    Column("node", "NODE", _either("node", "node_name")),
    Column("addresses", "ADDRESSES"),
    Column("flavor", "FLAVOR", _either("flavor", "flavor_name")),
    Column("image", "IMAGE", _either("image", "image_name")),
    Column("created_at", "AGE", human=age, firm=True),
))

NODES = Table((
    Column("name", "NAME"),
    Column("id", "ID", where=WIDE, firm=True),
    Column("status", "STATUS", firm=True, absent=UNKNOWN),
    Column("status_since", "SINCE", human=age, firm=True),
    Column("zone", "ZONE"),
    Column("vcpu", "VCPU", _three("vcpu_used", "vcpu_allocated", "vcpu_capacity"), where=TABLE, firm=True),
    Column("memory", "MEMORY GiB",
           _three("memory_used_mb", "memory_allocated_mb", "memory_capacity_mb", 1024), where=TABLE, firm=True),
    Column("disk", "DISK GiB", _three("disk_used_gb", "disk_allocated_gb", "disk_capacity_gb"), where=TABLE, firm=True),
    *(Column(f"{name}_{part}{unit}", f"{name}_{part}{unit}".upper(), where=DATA, absent=UNKNOWN)
      for name, unit in (("vcpu", ""), ("memory", "_mb"), ("disk", "_gb")) for part in ("used", "allocated", "capacity")),
    Column("servers", "SERVERS"),
    Column("agent_version", "AGENT", absent=UNKNOWN),
    Column("report_age_s", "REPORT", human=seconds, absent=UNKNOWN, firm=True),
    Column("architecture", "ARCH", where=WIDE, absent=UNKNOWN),
    Column("virt_type", "VIRT", where=WIDE, absent=UNKNOWN),
    Column("address", "ADDRESS", where=WIDE),
    Column("ssh", "SSH", where=WIDE),
    Column("labels", "LABELS", where=WIDE),
    Column("reason", "REASON", where=WIDE),
    Column("state_by", "BY", where=WIDE),
    Column("aggregates", "AGGREGATES", where=WIDE),
), footer=lambda nodes: "VCPU, MEMORY, DISK: used/allocated/capacity" if nodes else "")

FLAVORS = Table((
    Column("name", "NAME"),
    Column("id", "ID", where=WIDE, firm=True),
    Column("vcpus", "VCPUS"),
    Column("memory_mb", "MEMORY", human=mebibytes),
    Column("disk_gb", "DISK", human=lambda value, now: units.human_gib(value) if value else "as the image"),
    Column("specs", "EXTRA SPECS"),
    Column("description", "DESCRIPTION", where=WIDE),
    Column("created_at", "AGE", human=age, firm=True, where=WIDE),
))

IMAGES = Table((
    Column("name", "NAME"),
    Column("id", "ID", where=WIDE, firm=True),
    Column("disk_format", "FORMAT"),
    Column("size_bytes", "SIZE", human=bytes_),
    Column("virtual_size_bytes", "DISK", human=bytes_),
    Column("architecture", "ARCH"),
    Column("sha256", "SHA256", human=lambda value, now: value[:12]),
    Column("source", "SOURCE", where=WIDE),
    Column("properties", "PROPERTIES", where=WIDE),
    Column("created_at", "AGE", human=age, firm=True),
))

KEYS = Table((
    Column("name", "NAME"),
    Column("id", "ID", where=WIDE, firm=True),
    Column("role", "ROLE", firm=True),
    Column("status", "STATUS", firm=True),
    Column("own", "YOURS", lambda key: "yes" if key.is_own else "", where=TABLE),
    Column("public_key", "PUBLIC KEY", firm=True),
    Column("created_at", "AGE", human=age, firm=True),
    Column("used_at", "LAST CHANGE", human=age, firm=True),
    Column("created_by", "BY", where=WIDE),
    Column("revoked_at", "REVOKED", human=age, where=WIDE),
))

KEYPAIRS = Table((
    Column("name", "NAME"),
    Column("id", "ID", where=WIDE, firm=True),
    Column("key_type", "TYPE"),
    Column("fingerprint", "FINGERPRINT", firm=True),
    Column("project_id", "PROJECT", where=WIDE),
    Column("created_at", "AGE", human=age, firm=True),
))

AGGREGATES = Table((
    Column("name", "NAME"),
    Column("id", "ID", where=WIDE, firm=True),
    Column("zone", "ZONE"),
    Column("size", "NODES", lambda aggregate: len(aggregate.nodes), where=TABLE),
    Column("metadata", "METADATA"),
    Column("nodes", "MEMBERS", where=WIDE),
    Column("created_at", "AGE", human=age, firm=True, where=WIDE),
))

ZONES = Table((
    Column("name", "ZONE"),
    Column("nodes", "NODES"),
    Column("servers", "SERVERS"),
    Column("aggregates", "AGGREGATES"),
))

SERVER_GROUPS = Table((
    Column("name", "NAME"),
    Column("id", "ID", where=WIDE, firm=True),
    Column("project", "PROJECT"),
    Column("policy", "POLICY", firm=True),
    Column("max_per_host", "MAX/HOST", absent=MISSING),
    Column("scope", "SCOPE"),
    Column("size", "SERVERS", lambda group: len(group.members), where=TABLE),
    Column("members", "MEMBERS", lambda group: tuple(member.name for member in group.members), where=WIDE),
    Column("created_at", "AGE", human=age, firm=True, where=WIDE),
))

PROJECTS = Table((
    Column("name", "NAME"),
    Column("id", "ID", where=WIDE, firm=True),
    Column("servers", "SERVERS"),
    Column("cores", "CORES"),
    Column("ram_mb", "RAM", human=mebibytes),
    Column("disk_gb", "DISK", human=gibibytes),
    Column("description", "DESCRIPTION"),
    Column("created_at", "AGE", human=age, firm=True, where=WIDE),
))

_QUOTA_COLUMNS = (
    Column("resource", "RESOURCE"),
    Column("used", "USED", where=DATA),
    Column("limit", "LIMIT", where=DATA),
    Column("used_text", "USED", where=TABLE),
    Column("limit_text", "LIMIT", where=TABLE),
    Column("source", "FROM"),
)
QUOTAS = Table(_QUOTA_COLUMNS)
QUOTAS_OF_ALL = Table((Column("project", "PROJECT"), *_QUOTA_COLUMNS))

TRAITS = Table((
    Column("name", "TRAIT"),
    Column("nodes", "NODES"),
    Column("origin", "FROM"),
))

RESOURCE_CLASSES = Table((
    Column("name", "CLASS"),
    Column("origin", "KIND"),
    Column("nodes", "NODES"),
    Column("total", "TOTAL"),
    Column("capacity", "CAPACITY"),
    Column("used", "USED"),
))


OPERATIONS = Table((
    Column("id", "ID", firm=True),
    Column("kind", "KIND", firm=True),
    Column("object_kind", "OBJECT"),
    Column("object_name", "NAME"),
    Column("state", "STATE", firm=True),
    Column("error", "ERROR", lambda operation: (operation.error or {}).get("message", "")),
    Column("attempt", "ATTEMPT", where=WIDE),
    Column("owner", "OWNER", where=WIDE),
    Column("actor", "ACTOR", where=WIDE),
    Column("reason", "REASON", where=WIDE),
    Column("created_at", "AGE", human=age, firm=True),
    Column("ended_at", "ENDED", human=clock_time, where=WIDE),
))

_EVENT = (
    Column("event", "EVENT", firm=True),
    Column("detail", "DETAIL"),
    Column("actor", "ACTOR"),
    Column("reason", "REASON"),
)
EVENTS = Table((
    Column("at", "TIME", human=clock_time, firm=True),
    *_EVENT,
    Column("operation_id", "OPERATION", firm=True),
    Column("object_name", "NAME", where=WIDE),
))
EVENTS_OF_ALL = Table((
    Column("at", "TIME", human=clock_time, firm=True),
    Column("object_kind", "OBJECT"),
    Column("object_name", "NAME"),
    *_EVENT,
    Column("operation_id", "OPERATION", where=WIDE, firm=True),
))

CLAIMS = Table((
    Column("node", "NODE"),
    Column("consumer_kind", "KIND"),
    Column("consumer", "CONSUMER"),
    Column("vcpus", "VCPUS"),
    Column("memory_mb", "MEMORY", human=mebibytes),
    Column("disk_gb", "DISK", human=gibibytes),
    Column("others", "OTHERS"),
))

PARTS = Table((
    Column("kind", "KIND", firm=True),
    Column("name", "NAME", firm=True),
    Column("enabled", "IN FORCE"),
    Column("multiplier", "MULTIPLIER"),
    Column("source", "FROM"),
    Column("about", "ABOUT"),
))


def _next_to_fill(row: Any) -> str:
    """'n7 (adding 2x64c/256G/2T: 29 -> 131)'."""
    now = row.fits if row.n_plus_1 is None else row.n_plus_1
    return f"{row.next_to_fill or MISSING} ({row.changes}: {row.before} -> {now})" if row.changes else row.next_to_fill


CAPACITY = Table((
    Column("flavor", "FLAVOR"),
    Column("fits", "FITS", firm=True),
    Column("n_plus_1", "N+1-SAFE", firm=True),
    Column("limited_by", "LIMITED BY"),
    Column("next_to_fill", "NEXT TO FILL", where=DATA),
    Column("next", "NEXT TO FILL", _next_to_fill, where=TABLE),
    Column("before", "BEFORE", where=DATA),
    Column("changes", "CHANGES", where=DATA),
))

REPLAY = Table((
    Column("workload", "WORKLOAD"),
    Column("profile", "PROFILE"),
    Column("hosts", "HOSTS"),
    Column("decisions", "CREATES"),
    Column("placed", "PLACED"),
    Column("rejects", "REJECTS"),
    Column("first_fail", "FIRST REJECT AFTER"),
    Column("utilisation", "USED", human=lambda value, now: " ".join(f"{name}={share:.0%}" for name, share in value.items())),
    Column("per_s", "PER SECOND"),
    Column("p50_ms", "P50 MS"),
    Column("p95_ms", "P95 MS"),
    Column("p99_ms", "P99 MS"),
))

PLACED = Table((
    Column("server", "SERVER"),
    Column("flavor", "FLAVOR"),
    Column("node", "NODE"),
    Column("score", "SCORE", human=lambda value, now: f"{value:.2f}"),
    Column("detail", "DETAIL"),
))

FINDINGS = Table((
    Column("verdict", "VERDICT", firm=True),
    Column("check", "CHECK"),
    Column("detail", "DETAIL"),
    Column("fix", "FIX"),
))

_DRIFT = (
    Column("kind", "KIND", firm=True),
    Column("object", "OBJECT"),
    Column("node", "NODE"),
    Column("what", "WHAT"),
)
DRIFTS = Table((
    *_DRIFT,
    Column("repair", "REPAIR"),
    Column("command", "COMMAND", firm=True),
))
MENDED = Table((
    *_DRIFT,
    Column("repair", "REPAIR"),
    Column("result", "RESULT"),
    Column("command", "COMMAND", firm=True),
))

EXPLANATION = Table((
    Column("node", "NODE"),
    Column("verdict", "VERDICT", firm=True),
    Column("reasons", "REASON", human=lambda value, now: "; ".join(value) or MISSING),
    Column("weights", "WEIGHTS", human=lambda value, now: " ".join(f"{k}={v:.2f}" for k, v in value.items() if v) or MISSING),
    Column("score", "SCORE", human=lambda value, now: f"{value:.2f}"),
), rows=lambda explanation: explanation.rows, footer=lambda explanation: explanation.summary)

OUTCOMES = Table((
    Column("target", "TARGET"),
    Column("ok", "RESULT", human=lambda value, now: "ok" if value else "failed"),
    Column("detail", "DETAIL"),
))

BEGUN = Table((Column("id", "OPERATION", lambda row: row["id"], firm=True),), bare=True)
"""What --async prints: ids, and nothing else."""

RECORD = Table(())
"""For values that are only ever shown field by field."""
