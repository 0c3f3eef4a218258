"""Availability zones: which there are, and what may change them. A node is in one zone at most."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from novactl.cluster import Cluster
from novactl.db import aggregates, meta, nodes, servers
from novactl.db.statements import Tx
from novactl.errors import Conflict, NotFound
from novactl.model.aggregate import ZONE_KEY, Aggregate, zone_of
from novactl.model.node import Node

NAMED_SERVERS = 5


class ZoneRow(NamedTuple):
    """`servers` are those on its nodes. `aggregates` are the names of those that make it."""

    name: str
    nodes: int
    servers: int
    aggregates: tuple[str, ...]


@dataclass(frozen=True)
class Belonging:
    """What decides a node's zone: its own word, and the metadata of its aggregates."""

    node: Node
    aggregates: tuple[Aggregate, ...]

    @property
    def said(self) -> dict[str, str]:
        """Zone -> who says so. More than one zone is a contradiction."""
        found = {self.node.zone: "the node itself"} if self.node.zone else {}
        for aggregate in self.aggregates:
            zone = aggregate.metadata.get(ZONE_KEY, "")
            if zone:
                found.setdefault(zone, f"aggregate {aggregate.name}")
        return found

    @property
    def zone(self) -> str:
        """"" is none."""
        return zone_of(self.node.zone, (aggregate.metadata for aggregate in self.aggregates))


def list_zones(cluster: Cluster) -> tuple[ZoneRow, ...]:
    """By name; also those that no node is in."""
    with cluster.db.read() as tx:
        makers: dict[str, list[str]] = {}
        for aggregate in aggregates.all_(tx):
            if aggregate.metadata.get(ZONE_KEY):
                makers.setdefault(aggregate.metadata[ZONE_KEY], []).append(aggregate.name)
        shapes = nodes.shapes(tx)
        members: dict[str, list[int]] = {zone: [] for zone in makers}
        for node in nodes.rows(tx):
            if node.shape in shapes and shapes[node.shape].zone:
                members.setdefault(shapes[node.shape].zone, []).append(node.servers)
    return tuple(ZoneRow(zone, len(counts), sum(counts), tuple(makers.get(zone, ()))) for zone, counts in sorted(members.items()))


def names(tx: Tx, prefix: str) -> list[str]:
    """The zones that begin so."""
    found = {facts.zone for facts in nodes.shapes(tx).values()}
    found |= {aggregate.metadata.get(ZONE_KEY, "") for aggregate in aggregates.all_(tx)}
    return sorted(name for name in found if name and name.startswith(prefix))


def check_zone(tx: Tx, zone: str) -> None:
    """Raises NotFound where there is no such zone."""
    known = names(tx, "")
    if zone not in known:
        import difflib

        raise NotFound("zone", zone, similar=difflib.get_close_matches(zone, known, 3) or known[:5])


def belongings(tx: Tx) -> dict[str, Belonging]:
    """Node id -> what decides its zone, of every node."""
    members = aggregates.memberships(tx)
    return {node.id: Belonging(node, tuple(members.get(node.id, ()))) for node in nodes.all_(tx)}


def hold(tx: Tx) -> None:
    """Whoever changes zones waits here until the one before has ended: of two who put a node in different zones the second sees it."""
    meta.put(tx, "cluster_id", meta.cluster_id(tx))


def check(tx: Tx, before: Mapping[str, Belonging], after: Iterable[Belonging]) -> None:
    """Whether nodes may be as in `after`. Raises Conflict: a node in two zones, or servers that were placed by the zone it leaves."""
    leaving: dict[str, tuple[Node, str, str]] = {}
    for belonging in after:
        said, node = belonging.said, belonging.node
        if len(said) > 1:
            (first, by_first), (second, by_second), *_ = said.items()
            raise Conflict(
                f"node {node.name} would be in two zones: {first} ({by_first}) and {second} ({by_second})",
                hint="take it out of one first", command=f"novactl node show {node.name}")
        old = before[node.id].zone
        if old and old != belonging.zone:
            leaving[node.id] = (node, old, belonging.zone)
    if leaving:
        _check_servers(tx, leaving)


def _check_servers(tx: Tx, leaving: Mapping[str, tuple[Node, str, str]]) -> None:
    """`leaving` maps ids to nodes, the zones they leave and those they come to. Raises Conflict."""
    bound: dict[str, list[str]] = {}
    for server in servers.all_(tx):
        if server.zone and server.node_id in leaving and server.zone == leaving[server.node_id][1]:
            bound.setdefault(server.node_id, []).append(server.name)
    for node_id, names_ in bound.items():
        node, old, new = leaving[node_id]
        more = f" and {len(names_) - NAMED_SERVERS} more" if len(names_) > NAMED_SERVERS else ""
        raise Conflict(
            f"node {node.name} cannot leave zone {old}{f' for {new}' if new else ''}: {len(names_)}"
            f" server{'s' if len(names_) > 1 else ''} asked for that zone: {', '.join(names_[:NAMED_SERVERS])}{more}",
            hint="delete them, or leave the zone as it is")
