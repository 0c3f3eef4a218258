"""The cluster as a whole: making it, what it has, what holds for all of it, and asking whether it is well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from novactl.api.authority import Role, needs
from novactl.api.trial import changing
from novactl.cluster import Cluster
from novactl.conductor.history import note_cluster
from novactl.config import Config
from novactl.db import keys, meta, nodes, operations
from novactl.db.statements import Tx
from novactl.errors import BadConfig, Conflict, NovaError, SchemaNewer, SchemaOlder, UsageError
from novactl.model.finding import Finding
from novactl.model.node import Node, NodeState
from novactl.model.operation import Operation
from novactl.model.resources import amount_text


@dataclass(frozen=True)
class Initialised:
    """`created` is False when the cluster was there already. `admin_key` is the public half, Z85; `role` what it may do, "" where it
    is not one of the cluster's."""

    created: bool
    data_dir: str
    database: str
    cluster_id: str
    admin_key: str
    schema: int
    role: str = ""


def init(cluster: Cluster, *, upgrade: bool = False, key: Path | None = None, dry_run: bool = False) -> Initialised:
    """Make the database, the cluster's id and this admin's key; what is there stays. The first key is an admin's.

    `key` is a file that another admin made (`novactl key create`): it becomes this data directory's. Raises SchemaOlder unless
    `upgrade`, SchemaNewer always, and BadConfig or Conflict about the file.
    """
    from novactl.agents import keys as files
    from novactl.conductor.keyring import record_first
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

        migrate(database, config.database_url, cluster.ids.uuid(), lambda tx: note_cluster(
            cluster, tx, "db.upgrade" if found else "init", f"schema {found} -> {SCHEMA}" if found else f"schema {SCHEMA}"))
    pair = files.adopt(key, config.data_dir / "keys") if key else files.ensure(config.data_dir / "keys")
    cluster.forget_key()
    with database.write() as tx:
        mine = record_first(cluster, tx, pair.public)
        role = mine.role.value if mine and mine.revoked_at is None else ""
        return Initialised(found == 0, str(config.data_dir), database.where, meta.cluster_id(tx), pair.public, SCHEMA, role)


class ClassSums(NamedTuple):
    """What all nodes have together of a class, in its own unit; a disk that several share counts once."""

    resource_class: str
    total: int
    capacity: int
    used: int
    free: int

    @property
    def line(self) -> str:
        """For people."""
        total, capacity, used, free = (amount_text(self.resource_class, amount) for amount in self[1:])
        return f"{self.resource_class}: total {total}, may be claimed {capacity}, used {used}, free {free}"


class DefaultQuota(NamedTuple):
    """`limit` -1 is none."""

    resource: str
    limit: int

    @property
    def line(self) -> str:
        """For people."""
        from novactl.api.quotas import told

        return f"{self.resource}: {told(self.resource, self.limit)}"


@dataclass(frozen=True, kw_only=True)
class ClusterView:
    """`nodes` counts them by state. `quotas` are the limits of projects that have none of their own."""

    cluster_id: str
    database: str
    schema: int
    n_plus_1: bool
    nodes: Mapping[str, int]
    servers: int
    projects: int
    resources: tuple[ClassSums, ...]
    quotas: tuple[DefaultQuota, ...]


def show(cluster: Cluster) -> ClusterView:
    """What it has, what is free, and what holds for all of it. Asks no agent."""
    with cluster.db.read() as tx:
        return _view(cluster, tx)


class Itself(NamedTuple):
    """The cluster, as what is changed."""

    id: str
    name: str = "cluster"


@needs(Role.ADMIN)
def set_(cluster: Cluster, *, n_plus_1: bool | None = None, dry_run: bool = False) -> ClusterView:
    """Change what holds for all of it; None stays. Raises UsageError where there is nothing to set."""
    if n_plus_1 is None:
        raise UsageError("nothing to set", hint="--n-plus-1 or --no-n-plus-1")
    with changing(cluster, "cluster.set", {"n_plus_1": n_plus_1}, dry_run=dry_run) as tx:
        meta.put(tx, meta.N_PLUS_1, str(int(n_plus_1)))
        tx.on(Itself(meta.cluster_id(tx)), detail=f"n+1 {'on' if n_plus_1 else 'off'}")
        return _view(cluster, tx)


def _view(cluster: Cluster, tx: Tx) -> ClusterView:
    from novactl.api.quotas import defaults
    from novactl.api.traits import class_rows
    from novactl.conductor.residents import is_guarded
    from novactl.db import projects, servers

    states: dict[str, int] = {}
    for node in nodes.rows(tx):
        states[node.state] = states.get(node.state, 0) + 1
    return ClusterView(
        cluster_id=meta.cluster_id(tx), database=cluster.db.where, schema=meta.schema_number(tx),
        n_plus_1=is_guarded(tx), nodes=states, servers=len(servers.list_rows(tx)), projects=len(projects.all_(tx)),
        resources=tuple(
            ClassSums(row.name, row.total, row.capacity, row.used, row.capacity - row.used)
            for row in class_rows(tx) if row.total or row.used),
        quotas=tuple(DefaultQuota(*item) for item in defaults(tx).items()))


def doctor(cluster: Cluster) -> tuple[Finding, ...]:
    """Database, key, operations, and each agent: what is right and what is wrong, each fault with its mend."""
    findings: list[Finding] = []
    try:
        with cluster.db.read() as tx:
            everyone, open_operations = nodes.all_(tx), operations.recent(tx, ended=False)
    except NovaError as error:
        about = "admin key" if isinstance(error, BadConfig) else "database"
        return (Finding(about, "fail", error.message, error.command or error.hint),)
    findings.append(_database(cluster))
    findings.extend(_private(cluster.config))
    key = _keys(cluster)
    findings.append(key)
    findings.extend(_operations(cluster, open_operations))
    if not everyone:
        findings.append(Finding("nodes", "warn", "no node is enrolled", "novactl node enroll [user@]HOST"))
    if key.verdict != "fail":
        findings.extend(_nodes(cluster, everyone))
    return tuple(findings)


def _database(cluster: Cluster) -> Finding:
    from novactl.db.engine import free_bytes, is_full

    where = cluster.db.where
    if cluster.config.database_url.startswith("sqlite:///") and is_full(where):
        return Finding("database", "fail", f"{where}: its file system has {free_bytes(where)} bytes free, nothing can be changed",
                       f"df -h {Path(where).parent}; make room there")
    return Finding("database", "ok", cluster.db.where)


def _private(config: Config) -> list[Finding]:
    """What is for its owner only and is not: who can write the database is an admin, whatever their key."""
    private = [(config.data_dir, "700")]
    on_file = config.database_url.startswith("sqlite:///")
    if on_file:
        private.append((Path(config.database_url.removeprefix("sqlite:///")), "600"))
    findings = []
    for path, wanted in private:
        mode = path.stat().st_mode & 0o777 if path.exists() else 0
        if mode & 0o077:
            verdict, done = ("fail", "written") if mode & 0o022 else ("warn", "read")
            findings.append(Finding(
                "private files", verdict, f"{path} can be {done} by others (mode {mode:04o})", f"chmod {wanted} {path}"))
    folder = private[-1][0].parent                            # elsewhere than the keys others may look, but put no other file in its place
    if on_file and folder != config.data_dir and folder.exists() and folder.stat().st_mode & 0o022:
        findings.append(Finding(
            "private files", "fail", f"{folder}, where the database is, can be written by others", f"chmod go-w {folder}"))
    return findings


def _keys(cluster: Cluster) -> Finding:
    from novactl.agents import keys as files
    from novactl.conductor import keyring

    try:
        pair = files.load(cluster.config.data_dir / "keys")
    except NovaError as error:
        return Finding("admin key", "fail", error.message, error.command or error.hint)
    with cluster.db.read() as tx:
        mine = keyring.own(tx, cluster)
        behind = [node.name for node in keyring.behind(tx)]
    if mine is None:
        return Finding("admin key", "warn", f"{pair.public} is not recorded", "novactl init")
    former = files.former(cluster.config.data_dir / "keys")
    if former is not None and former != pair:
        return Finding(
            "admin key", "warn", f"{mine.name} ({mine.role}): its rotation is not over" + (f" on {', '.join(behind)}" if behind else ""),
            "novactl node list" if behind else "novactl key rotate")
    return Finding("admin key", "ok", f"{mine.name} ({mine.role}), {pair.public}")


def _operations(cluster: Cluster, found: tuple[Operation, ...]) -> list[Finding]:
    from novactl.conductor.holding import owned_by_the_living

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
        cluster_id, version = meta.cluster_id(tx), keys.version(tx)
    findings = []
    for node in everyone:
        answer = answers[node.id]
        if isinstance(answer, NovaError):
            findings.append(Finding(f"node {node.name}", "fail", answer.message, answer.command or f"novactl node check {node.name}"))
        elif answer.body.cluster_id != cluster_id or answer.body.node_id != node.id:
            findings.append(Finding(
                f"node {node.name}", "fail", "its agent belongs to another cluster", node.enroll_again))
        elif node.lacks_lease(asked_at) and node.state in (NodeState.ENABLED, NodeState.DISABLED):
            findings.append(Finding(
                f"node {node.name}", "fail", "it fences itself and has no lease: nothing runs there until it has", "novactl conductor run"))
        elif node.armed_s is not None and node.fencing.get("method") != "self" and node.state in (NodeState.ENABLED, NodeState.DISABLED):
            findings.append(Finding(
                f"node {node.name}", "fail", "its agent stops all servers when it has no lease, which it is not to do any more (no --fence"
                " self): a conductor tells it", "novactl conductor run"))
        elif answer.body.agent_version != __version__:
            findings.append(Finding(
                f"node {node.name}", "warn",
                f"agent {answer.body.agent_version}, novactl {__version__}", node.enroll_again))
        elif answer.body.admins_version != version:
            there = answer.body.admins_version
            findings.append(Finding(
                f"node {node.name}", "warn" if there < version else "fail",
                f"its table of admins' keys is version {there}, the database's {version}",
                "novactl node list" if there < version else "novactl cluster adopt"))
        else:
            took_ms = (cluster.clock.now() - asked_at) * 1000
            findings.append(Finding(f"node {node.name}", "ok", f"agent {answer.body.agent_version}, answered within {took_ms:.0f} ms"))
    return findings
