"""Making a database the cluster's one again after a backup was restored, or a copy of it was used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from novactl.agents import wire
from novactl.agents.link import Fence
from novactl.cluster import Cluster
from novactl.conductor.change import changing
from novactl.conductor.crew import in_threads
from novactl.conductor.take_in import Copy, TakenIn, Told, claim_of, copies_of, hear, is_far, newest, take_in, told_only
from novactl.db import keys, meta, nodes, operations, placement, servers
from novactl.db.servers import PowerRow
from novactl.db.statements import Tx
from novactl.errors import Denied, NotFound, NovaError, Partial
from novactl.model.node import Node, NodeState

MARGIN = 2_000_000
"""Numbers left out beyond the highest that any agent told. Agents refuse what is a million behind the highest they have seen:
so they refuse any other copy of the database as soon as they have heard of this one."""
EPOCHS = 1_000
"""Likewise for the epochs of operations that have not ended: another process may have raised them."""


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """`highest` is the number of an operation that an agent, or this database, had seen; `begins` the first that will be given.
    `raised` are servers whose epoch, or node, followed the agents; `silent` the nodes that were not asked or not told, `why` a sentence
    for each. `waits`: it was restored, and nothing is begun on nodes until those that are silent have been heard, or are named as gone.
    `beyond` are nodes whose numbers or epochs nobody can have counted: somebody's key was misused, and they forget them."""

    highest: int
    begins: int
    raised: tuple[str, ...]
    taken_in: TakenIn
    silent: tuple[str, ...]
    why: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()
    waits: bool = False


def adopt(cluster: Cluster, *, without: Sequence[str] = (), dry_run: bool = False) -> Adopted:
    """From now on this database's operations are the ones that agents obey, and its rows are no older than what they have.

    Any other copy of it is refused from the next operation on. Safe to repeat, and to be repeated when silent nodes are back; `without`
    names those that are off, and do not come back with what they run. Raises NotFound for one that is no node, and Partial where no node
    could be told: the database is changed, and nothing else.
    """
    with cluster.db.read() as tx:
        known = nodes.all_(tx)
    for name in without:
        if name not in {node.name for node in known}:
            raise NotFound("node", name)
    asked = [node for node in known if node.address and node.state is not NodeState.ENROLLING]
    heard = hear(cluster, asked)
    told = told_only(heard)
    with changing(cluster, "cluster.adopt", {}, dry_run=dry_run) as tx:
        highest = max(operations.highest_number(tx), int(meta.get(tx, meta.SEQ_OFFSET) or 0), highest_of(told))
        begins = number_from(tx, highest)
        tables = max((one.report.admins_version for one in told.values()), default=0)
        if tables >= keys.version(tx):                        # agents take this database's table of admins' keys again
            keys.raise_version(tx, above=tables)
        raised = _raised(cluster, tx, told)
        added = take_in(cluster, tx, told)
        waits = bool(meta.get(tx, meta.RESTORED)) and any(node.id not in told and node.name not in without for node in asked)
        if meta.get(tx, meta.RESTORED) and not waits:
            meta.put(tx, meta.RESTORED, "")
        tx.on(_Itself(meta.cluster_id(tx), "cluster"), noun="cluster", detail=f"numbers from {begins}, {len(raised)} servers raised")
    deaf = {id_: error for id_, error in heard.items() if isinstance(error, NovaError)}
    if not dry_run:
        deaf |= _told_of(cluster, [node for node in asked if node.id in told])
    silent = [node for node in asked if node.id in deaf]
    why = tuple(f"{node.name}: {deaf[node.id].message}" for node in silent)
    if silent and len(silent) == len(asked) and not dry_run:
        denied = next((error for error in deaf.values() if isinstance(error, Denied)), None)
        raise Partial(
            f"this database's operations are numbered from {begins} now, but no node could be told: none of them obeys it yet", reasons=why,
            hint=f"{denied.hint}; then, again:" if denied else "again, when they answer:", command="novactl cluster adopt")
    return Adopted(
        highest=highest, begins=begins, raised=tuple(raised), taken_in=added, silent=tuple(node.name for node in silent), why=why,
        waits=waits,
        beyond=tuple(node.name for node in asked if node.id in told and _is_beyond(told[node.id])))


def highest_of(told: Mapping[str, Told]) -> int:
    """The highest number that an agent told, of those that can have been counted; 0 for none."""
    return max((one.report.seq for one in told.values() if one.report.seq <= wire.FAR_COUNT), default=0)


def _is_beyond(one: Told) -> bool:
    return one.report.seq > wire.FAR_COUNT or any(is_far(spec, one.ahead.get(spec.server, 0)) for spec in one.specs)


def _told_of(cluster: Cluster, asked: Sequence[Node]) -> dict[str, NovaError]:
    """Let the nodes hear of the adoption, so that they refuse other copies from now on; the errors of those that could not, by id."""
    with cluster.db.read() as tx:
        operation = operations.last_of(tx, meta.cluster_id(tx), "cluster.adopt")
    assert operation is not None, "it has just been written"

    def tell(node: Node) -> None:
        cluster.agents.call(node, "node.adopt", fence=Fence(f"{operation.id}:adopt", operation.id, operation.epoch, operation.seq))

    results = in_threads(cluster, asked, tell, cluster.config["operation.parallel"])
    return {node.id: error for node, error in zip(asked, results, strict=True) if isinstance(error, NovaError)}


@dataclass(frozen=True)
class _Itself:
    id: str
    name: str


def number_from(tx: Tx, highest: int) -> int:
    """The next operation's number is above `highest` by MARGIN; those that have not ended get new ones, too. Returns the first."""
    meta.put(tx, meta.SEQ_OFFSET, str(highest + MARGIN))
    operations.renumber(tx, highest + MARGIN, EPOCHS)
    return highest + MARGIN + 1


def _raised(cluster: Cluster, tx: Tx, told: Mapping[str, Told]) -> list[str]:
    """Servers that agents have in a newer epoch than their rows: the rows follow, claims too."""
    copies, raised = copies_of(told), []
    for row in servers.powers(tx):
        copy = newest(copies[row.id], row.node_id) if row.id in copies else None
        if copy is not None and not row.operation_id and (
                copy.spec.epoch > row.epoch or (copy.spec.epoch == row.epoch and copy.node_id != row.node_id)
                or (copy.epoch > row.epoch and copy.node_id == row.node_id)):
            _move(cluster, tx, row, copy)
            raised.append(row.name)
    return raised


def _move(cluster: Cluster, tx: Tx, row: PowerRow, copy: Copy) -> None:
    if copy.node_id != row.node_id:
        if row.node_id:
            placement.release(tx, row.id, row.node_id)
        server = servers.by_id(tx, row.id)
        assert server is not None, "it was read in this transaction"
        placement.acknowledge(tx, claim_of(copy.spec, copy.node_id, row.name, server.project_id))
    servers.place(tx, row.id, copy.node_id, copy.epoch, cluster.clock.now())

