"""The cluster as a whole: making it, and asking whether it is well."""

from __future__ import annotations

from dataclasses import dataclass

from novactl.cluster import Cluster
from novactl.db import meta, nodes, operations
from novactl.errors import Conflict, NovaError, SchemaNewer, SchemaOlder
from novactl.model.finding import Finding
from novactl.model.node import Node
from novactl.model.operation import Operation


@dataclass(frozen=True)
class Initialised:
    """`created` is False when the cluster was there already. `admin_key` is the public half, Z85."""

    created: bool
    data_dir: str
    database: str
    cluster_id: str
    admin_key: str
    schema: int


def init(cluster: Cluster, *, upgrade: bool = False, dry_run: bool = False) -> Initialised:
    """Make the database, the cluster's id and this admin's key; what is there stays.

    Raises SchemaOlder unless `upgrade`, SchemaNewer always.
    """
    from novactl.agents import keys
    from novactl.db.engine import SCHEMA

    config, database = cluster.config, cluster.unchecked_db()
    found = database.schema()
    if found > SCHEMA:
        raise SchemaNewer(database.where, found, SCHEMA)
    if 0 < found < SCHEMA and not upgrade:
        raise SchemaOlder(database.where, found, SCHEMA)
    if dry_run:
        return Initialised(found == 0, str(config.data_dir), database.where, "", "", found)
    config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if config.data_dir.stat().st_mode & 0o077:
        raise Conflict(
            f"{config.data_dir} can be read by others; it holds the cluster's keys", command=f"chmod 700 {config.data_dir}")
    if found < SCHEMA:
        from novactl.db.migrate import upgrade as migrate

        migrate(database, config.database_url, cluster.ids.uuid())
    pair = keys.ensure(config.data_dir / "keys")
    with cluster.db.read() as tx:
        cluster_id = meta.cluster_id(tx)
    return Initialised(found == 0, str(config.data_dir), database.where, cluster_id, pair.public, SCHEMA)


def doctor(cluster: Cluster) -> tuple[Finding, ...]:
    """Database, key, operations, and each agent: what is right and what is wrong, each fault with its mend."""
    findings: list[Finding] = []
    try:
        with cluster.db.read() as tx:
            everyone, open_operations = nodes.all_(tx), operations.recent(tx, ended=False)
    except NovaError as error:
        return (Finding("database", "fail", error.message, error.command or error.hint),)
    findings.append(Finding("database", "ok", cluster.db.where))
    findings.append(_keys(cluster))
    findings.extend(_operations(cluster, open_operations))
    if not everyone:
        findings.append(Finding("nodes", "warn", "no node is enrolled", "novactl node enroll [user@]HOST"))
    if findings[1].verdict != "fail":
        findings.extend(_nodes(cluster, everyone))
    return tuple(findings)


def _keys(cluster: Cluster) -> Finding:
    from novactl.agents import keys

    try:
        pair = keys.load(cluster.config.data_dir / "keys")
    except NovaError as error:
        return Finding("admin key", "fail", error.message, error.command or error.hint)
    return Finding("admin key", "ok", pair.public)


def _operations(cluster: Cluster, found: tuple[Operation, ...]) -> list[Finding]:
    from novactl.conductor.saga import owned_by_the_living

    now = cluster.clock.now()
    left = [op for op in found if not owned_by_the_living(op, now)]
    if not left:
        return [Finding("operations", "ok", f"{len(found)} under way")]
    return [
        Finding("operations", "warn", f"{op.id[:8]} {op.kind} {op.object_name}: {op.state.value}, nobody drives it",
                f"novactl operation resume {op.id[:8]}")
        for op in left
    ]


def _nodes(cluster: Cluster, everyone: tuple[Node, ...]) -> list[Finding]:
    """Each agent: does it answer, is it of this cluster, is it of our version."""
    from novactl import __version__

    asked_at = cluster.clock.now()
    answers = cluster.agents.fan_out(everyone, "agent.hello", timeout_s=cluster.config["agent.connect_s"])
    with cluster.db.read() as tx:
        cluster_id = meta.cluster_id(tx)
    findings = []
    for node in everyone:
        answer = answers[node.id]
        if isinstance(answer, NovaError):
            findings.append(Finding(f"node {node.name}", "fail", answer.message, f"novactl node check {node.name}"))
        elif answer.body.cluster_id != cluster_id or answer.body.node_id != node.id:
            findings.append(Finding(
                f"node {node.name}", "fail", "its agent belongs to another cluster", node.enroll_again))
        elif answer.body.agent_version != __version__:
            findings.append(Finding(
                f"node {node.name}", "warn",
                f"agent {answer.body.agent_version}, novactl {__version__}", node.enroll_again))
        else:
            took_ms = (cluster.clock.now() - asked_at) * 1000
            findings.append(Finding(f"node {node.name}", "ok", f"agent {answer.body.agent_version}, answered within {took_ms:.0f} ms"))
    return findings
