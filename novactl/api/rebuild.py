"""Making a lost database again from what the nodes have, and making one the cluster's own after a backup or a copy was used."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from novactl.api.authority import Role, needs
from novactl.api.trial import changing
from novactl.cluster import Cluster
from novactl.conductor import fleet
from novactl.conductor.adopt_cluster import Adopted, highest_of, number_from
from novactl.conductor.adopt_cluster import adopt as _adopt
from novactl.conductor.node_file import recall, remember
from novactl.conductor.take_in import TakenIn, Told, hear, take_in, told_only
from novactl.db import keys, meta, nodes, operations
from novactl.db.statements import Tx
from novactl.errors import Conflict, NovaError, UsageError
from novactl.model.ids import check_name
from novactl.model.node import Node, NodeState


@dataclass(frozen=True, kw_only=True)
class Rebuilt:
    """`nodes` were added or were there, and have answered; `silent` did not: their servers are not known. `added` is what they had."""

    cluster_id: str
    nodes: tuple[str, ...]
    silent: tuple[str, ...]
    servers: tuple[str, ...]
    flavors: tuple[str, ...]
    images: tuple[str, ...]
    without_file: tuple[str, ...]
    unclear: tuple[str, ...]


@needs(Role.ADMIN)
def adopt(cluster: Cluster, *, without: Sequence[str] = (), dry_run: bool = False) -> Adopted:
    """See `novactl.conductor.adopt_cluster`."""
    return _adopt(cluster, without=without, dry_run=dry_run)


def node_of(cluster: Cluster, text: str) -> Node:
    """`NAME=tcp://HOST:PORT,KEY` -> a node that has not been asked yet. Raises UsageError."""
    name, _, rest = text.partition("=")
    address, _, key = rest.partition(",")
    if not address.startswith("tcp://") or len(key) != 40 or not name:
        raise UsageError(
            f"{text!r} is not NAME=tcp://HOST:PORT,KEY", hint="KEY is the agent's: on the node, cat /etc/nodeagent/keys/agent.pub")
    return Node(
        id="", name=check_name("node", name), state=NodeState.ENABLED, address=address, public_key=key, ssh="", host_key="", zone="",
        architecture="", agent_version="", generation=0, created_at=cluster.clock.now())


@needs(Role.ADMIN)
def rebuild(cluster: Cluster, *, extra: Sequence[str] = (), dry_run: bool = False) -> Rebuilt:
    """Add what nodes have and the database does not: the nodes themselves, from the file beside the key or `extra` (`node_of`),
    their servers, claims, flavors and images. What is there is not changed, so that it can be repeated.

    Projects, key pairs, quotas, aggregates, the nodes' ratios and the history are not on the nodes: they are lost.
    Raises UsageError where no node is known, and Conflict for nodes of more than one cluster, or another than the database is of.
    """
    known = recall(cluster)
    given = [node_of(cluster, text) for text in extra]
    with cluster.db.read() as tx:
        there, mine = nodes.all_(tx), meta.cluster_id(tx)
    found = {node.name: node for node in (*known.nodes, *(_asked(cluster, node) for node in given), *there)}
    if not found:
        raise UsageError("no node is known", hint="give them: --node NAME=tcp://HOST:PORT,KEY")
    everyone = [node for node in found.values() if node.id]
    heard = hear(cluster, everyone)
    told = told_only(heard)
    theirs = _cluster_of(cluster, [node for node in everyone if node.id in told])
    if there and theirs not in ("", mine):
        raise Conflict(f"the nodes are of cluster {theirs}, this database of {mine}", hint="rebuild into a database of its own")
    with changing(cluster, "db.rebuild", {}, dry_run=dry_run) as tx:
        if theirs and theirs != mine:
            meta.put(tx, "cluster_id", theirs)
        for node in sorted(everyone, key=lambda node: node.id):
            _add(cluster, tx, node, told.get(node.id))
        added = take_in(cluster, tx, told)
        _beyond(tx, told)
        tx.on(_Itself(theirs or mine, "cluster"), noun="cluster", detail=f"{len(added.servers)} servers of {len(told)} nodes")
    if not dry_run:
        remember(cluster)
    return _rebuilt(theirs or mine, everyone, told, added)


@dataclass(frozen=True)
class _Itself:
    id: str
    name: str


def _rebuilt(cluster_id: str, everyone: Sequence[Node], told: dict[str, Told], added: TakenIn) -> Rebuilt:
    return Rebuilt(
        cluster_id=cluster_id, nodes=tuple(sorted(node.name for node in everyone if node.id in told)),
        silent=tuple(sorted(node.name for node in everyone if node.id not in told)), servers=added.servers, flavors=added.flavors,
        images=added.images, without_file=added.without_file, unclear=added.unclear)


def _asked(cluster: Cluster, node: Node) -> Node:
    """With the id that its agent tells; a node that was given by hand must answer. Raises Unreachable."""
    return dataclasses.replace(node, id=cluster.agents.call(node, "agent.hello").body.node_id)


def _cluster_of(cluster: Cluster, answering: Sequence[Node]) -> str:
    """Of which cluster they are; "" where nobody answers."""
    answers = cluster.agents.fan_out(answering, "agent.hello", timeout_s=cluster.config["agent.connect_s"])
    ids: dict[str, list[str]] = {}
    for node in answering:
        answer = answers[node.id]
        if not isinstance(answer, NovaError):
            ids.setdefault(answer.body.cluster_id, []).append(node.name)
    if len(ids) > 1:
        raise Conflict("the nodes are of different clusters", reasons=[f"{id_}: {', '.join(names)}" for id_, names in ids.items()])
    return next(iter(ids), "")


def _add(cluster: Cluster, tx: Tx, node: Node, told: Told | None) -> None:
    if nodes.by_id(tx, node.id) is None:
        nodes.insert(tx, node)
    if told is not None:
        nodes.ensure_inventory(tx, node.id, fleet.first_inventories(cluster.config, told.report))
        fleet.take_report(tx, node.id, told.report, cluster.clock.now())


def _beyond(tx: Tx, told: dict[str, Told]) -> None:
    """Numbers and keys' versions go on from where the lost database was."""
    seen = highest_of(told)
    if seen > max(operations.highest_number(tx), int(meta.get(tx, meta.SEQ_OFFSET) or 0)):
        number_from(tx, seen)
    version = max((one.report.admins_version for one in told.values()), default=0)
    if version > keys.version(tx):                            # the same, not a newer one: other admins' keys stay on the nodes
        meta.put(tx, keys.VERSION, str(version))
