"""What the ledger's laws are tested with: a cluster on a real database, rows to claim for, and the books kept beside it."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from novactl.api import cluster as api_cluster
from novactl.cluster import Cluster
from novactl.config import load_config
from novactl.db import groups, inventories, nodes, placement, projects, quotas, servers
from novactl.db.placement import Claim
from novactl.db.statements import Tx
from novactl.model.group import Policy, ServerGroup
from novactl.model.node import Node, NodeState
from novactl.model.project import DEFAULT_PROJECT, Project
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU, Inventory, shortage
from novactl.model.server import Server
from novactl.states import PowerState, TaskState, VmState
from tests import databases

HOT = (VCPU, MEMORY_MB, DISK_GB)
GPU = "CUSTOM_GPU"


def made(folder: Path, url: str = "") -> Cluster:
    env = {"HOME": str(folder), "NOVACTL_DATA_DIR": str(folder / "data")} | ({"NOVACTL_DATABASE_URL": url} if url else {})
    cluster = Cluster(load_config(env=env), actor="tester@ledger")
    api_cluster.init(cluster)
    return cluster


@contextlib.contextmanager
def kept() -> Iterator[Callable[[str], Cluster]]:
    """`of(kind)` is an empty cluster on such a database; there is one of each kind, made when it is first asked for."""
    found: dict[str, Cluster] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="novactl-ledger-")))

        def of(kind: str) -> Cluster:
            if kind not in found:
                found[kind] = made(folder / kind, stack.enter_context(databases.database(kind)))
                stack.callback(found[kind].close)
            with found[kind].db.write() as tx:
                empty(tx)
            return found[kind]

        yield of


def empty(tx: Tx) -> None:
    """Nothing is claimed and nothing is there; servers that were stay as history."""
    for row in placement.all_(tx):
        placement.release(tx, row.consumer_id, row.node_id)
    for one in servers.all_(tx):
        servers.gone(tx, one.id, 1.0)
    for of in nodes.all_(tx):
        nodes.delete(tx, of.id)
    for of in groups.all_(tx):
        groups.delete(tx, of.id)
    for whose in ("", *(of.id for of in projects.all_(tx))):
        for resource in quotas.own(tx, whose):
            quotas.set_(tx, whose, resource, None)
        if whose not in ("", DEFAULT_PROJECT):
            projects.delete(tx, whose)


def node(name: str, **fields: Any) -> Node:
    return dataclasses.replace(Node(
        id=name, name=name, state=NodeState.ENABLED, address="", public_key="", ssh="", host_key="", zone="", architecture="x86_64",
        agent_version="", generation=0, created_at=0.0), **fields)


def server(name: str, *, project: str = DEFAULT_PROJECT, group: str = "") -> Server:
    return Server(
        id=name, name=name, vm_state=VmState.BUILDING, task_state=TaskState.SCHEDULING, power_state=PowerState.NOSTATE, node_id="",
        node_name="", epoch=0, operation_id="", flavor_name="f", vcpus=1, memory_mb=1, disk_gb=1, image_id="", image_name="",
        image_sha256="", architecture="x86_64", keypair_name="", public_key="", user_data="", zone="", mac="", addresses=(), fault="",
        created_at=0.0, updated_at=0.0, launched_at=None, deleted_at=None, project_id=project, group_id=group)


def group(name: str, policy: Policy, *, scope: str = "", most: int = 1) -> ServerGroup:
    return ServerGroup(
        id=name, name=name, project_id=DEFAULT_PROJECT, policy=policy, scope=scope, max_per_domain=most, created_at=0.0)


def project(name: str) -> Project:
    return Project(id=name, name=name, description="", created_at=0.0)


@dataclasses.dataclass
class Books:
    """The same state as the database's, kept the simplest way, and the rules said once more over it."""

    nodes: dict[str, Node] = dataclasses.field(default_factory=dict)
    stock: dict[str, dict[str, Inventory]] = dataclasses.field(default_factory=dict)
    claims: dict[str, Claim] = dataclasses.field(default_factory=dict)
    limits: dict[tuple[str, str], int] = dataclasses.field(default_factory=dict)
    groups: dict[str, ServerGroup] = dataclasses.field(default_factory=dict)

    def used(self, node_id: str, name: str) -> int:
        pool = self.nodes[node_id].shared_disk if name == DISK_GB else ""
        return sum(
            claim.amounts.get(name, 0) for claim in self.claims.values()
            if claim.node_id == node_id or (pool and self.nodes[claim.node_id].shared_disk == pool))

    def usage(self, project_id: str) -> dict[str, int]:
        held = [claim.amounts for claim in self.claims.values() if claim.kind == "server" and claim.project_id == project_id]

        def total(name: str) -> int:
            return sum(amounts.get(name, 0) for amounts in held)

        return {"servers": len(held), "cores": total(VCPU), "ram_mb": total(MEMORY_MB), "disk_gb": total(DISK_GB)}

    def limit(self, project_id: str, resource: str) -> int:
        return self.limits.get((project_id, resource), self.limits.get(("", resource), -1))

    def within_quota(self, claim: Claim) -> bool:
        if claim.kind != "server":
            return True
        now = self.usage(claim.project_id)
        more = {"servers": 1, "cores": claim.amounts.get(VCPU, 0), "ram_mb": claim.amounts.get(MEMORY_MB, 0),
                "disk_gb": claim.amounts.get(DISK_GB, 0)}
        return all(not more[name] or self.limit(claim.project_id, name) < 0 or now[name] + more[name] <= self.limit(claim.project_id, name)
                   for name in more)

    def fits(self, claim: Claim) -> bool:
        stock = self.stock[claim.node_id]
        return not any(shortage(stock.get(name), name, self.used(claim.node_id, name), amount) for name, amount in claim.amounts.items())

    def domain(self, of: ServerGroup, node_id: str) -> str:
        return self.nodes[node_id].labels.get(of.scope, "") if of.scope else node_id

    def group_allows(self, claim: Claim) -> bool:
        of = self.groups.get(claim.group_id)
        if of is None or not of.policy.is_hard:
            return True
        there = [self.domain(of, other.node_id) for other in self.claims.values() if other.group_id == of.id and other.kind == "server"]
        here = there.count(self.domain(of, claim.node_id))
        return here < of.max_per_domain if of.policy is Policy.ANTI_AFFINITY else not there or here > 0


def sums(tx: Tx) -> dict[str, Mapping[str, int]]:
    """Node id -> its sums as its row has them."""
    found = {}
    for row in nodes.lean_rows(tx):
        capacity, used, most = row[6::3], row[7::3], row[8::3]
        found[row[0]] = {"generation": row[2], "servers": row[5], "odd": row[3] >> 2 & 1} | {
            f"{what} {name}": value for what, values in (("capacity", capacity), ("used", used), ("most", most))
            for name, value in zip(HOT, values, strict=True)}
    return found


def recomputed(tx: Tx) -> dict[str, dict[str, int]]:
    """The same from inventories and claims, row by row."""
    stock, rows = inventories.inventories(tx), placement.all_(tx)
    pools = {row.id: row.shared_disk for row in nodes.rows(tx)}
    found: dict[str, dict[str, int]] = {}
    for node_id, pool in pools.items():
        mine = [row for row in rows if row.node_id == node_id]
        shared = [row for row in rows if pool and pools[row.node_id] == pool and row.resource_class == DISK_GB]
        held = [row for row in mine if not pool or row.resource_class != DISK_GB] + shared
        there = stock.get(node_id, {})
        odd = bool(pool) or any(name not in HOT or one.min_unit > 1 or one.step_size > 1 for name, one in there.items())
        found[node_id] = {
            "servers": len({row.consumer_id for row in mine if row.consumer_kind == "server"}),
            "odd": int(odd or any(row.resource_class not in HOT for row in mine)),
        }
        for name in HOT:
            one = there.get(name)
            found[node_id] |= {
                f"capacity {name}": one.capacity if one else 0, f"most {name}": one.max_unit if one else 0,
                f"used {name}": sum(row.amount for row in held if row.resource_class == name)}
    return found
