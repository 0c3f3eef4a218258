"""Aggregates: create, list, show, set, unset, delete, and their nodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from novactl.api import zones
from novactl.api.authority import Role, needs
from novactl.api.resolve import resolve
from novactl.api.trial import Change, changing
from novactl.api.zones import Belonging
from novactl.cluster import Cluster
from novactl.conductor.history import note_on
from novactl.db import aggregates, nodes, projects
from novactl.db.statements import Tx
from novactl.errors import AlreadyExists, InUse, UsageError
from novactl.model.aggregate import TENANTS, ZONE_KEY, Aggregate
from novactl.model.aggregate_metadata import MULTIPLIER, check
from novactl.model.ids import check_name
from novactl.model.node import Node


@dataclass(frozen=True, kw_only=True)
class AggregateView:
    """An aggregate with the names of its nodes. `zone` "": it makes none."""

    id: str
    name: str
    zone: str
    nodes: tuple[str, ...]
    metadata: Mapping[str, str]
    created_at: float


@needs(Role.ADMIN)
def create(
    cluster: Cluster, *, name: str, zone: str = "", properties: Mapping[str, str] | None = None, dry_run: bool = False,
) -> AggregateView:
    """Raises UsageError for a bad name, key or value, AlreadyExists."""
    check_name("aggregate", name)
    metadata = _asked(cluster, zone or None, properties or {})
    with changing(cluster, "aggregate.create", {"name": name, "zone": zone, "properties": properties or {}}, dry_run=dry_run) as tx:
        if aggregates.by_name(tx, name) is not None:
            raise AlreadyExists("aggregate", name)
        made = Aggregate(id=cluster.ids.uuid(), name=name, metadata=_by_id(tx, metadata), created_at=cluster.clock.now())
        aggregates.insert(tx, made)
        tx.on(made)
        return _view(tx, made, ())


def list_aggregates(cluster: Cluster) -> tuple[AggregateView, ...]:
    with cluster.db.read() as tx:
        members = _members(tx)
        return tuple(_view(tx, one, members.get(one.id, ())) for one in aggregates.all_(tx))


def show(cluster: Cluster, ref: str) -> AggregateView:
    with cluster.db.read() as tx:
        found: Aggregate = resolve(tx, "aggregate", aggregates, ref)
        return _view(tx, found, _members(tx).get(found.id, ()))


@needs(Role.ADMIN)
def set_(
    cluster: Cluster, ref: str, *, zone: str | None = None, properties: Mapping[str, str], dry_run: bool = False,
) -> AggregateView:
    """Set keys; the others stay. Raises UsageError, and Conflict where a node would be in two zones or leave one its servers asked for."""
    if zone is None and not properties:
        raise UsageError("nothing to set", hint="--property KEY=VALUE or --zone ZONE")
    with changing(cluster, "aggregate.set", {"zone": zone, "properties": properties}, dry_run=dry_run) as tx:
        zones.hold(tx)
        found: Aggregate = resolve(tx, "aggregate", aggregates, ref)
        return _rewrite(cluster, tx, found, {**found.metadata, **_by_id(tx, _asked(cluster, zone, properties))})


@needs(Role.ADMIN)
def unset(cluster: Cluster, ref: str, *, zone: bool = False, keys: Iterable[str], dry_run: bool = False) -> AggregateView:
    """Take keys away; what is not there is no error. Raises Conflict as `set_`."""
    gone = {*keys, *([ZONE_KEY] if zone else [])}
    if not gone:
        raise UsageError("nothing to take away", hint="--property KEY or --zone")
    with changing(cluster, "aggregate.unset", {"keys": sorted(gone)}, dry_run=dry_run) as tx:
        zones.hold(tx)
        found: Aggregate = resolve(tx, "aggregate", aggregates, ref)
        return _rewrite(cluster, tx, found, {key: value for key, value in found.metadata.items() if key not in gone})


@needs(Role.ADMIN)
def delete(cluster: Cluster, ref: str, *, force: bool = False, dry_run: bool = False) -> AggregateView:
    """Raises InUse while it has nodes, unless `force`; Conflict where its zone is one that servers asked for."""
    with changing(cluster, "aggregate.delete", {"force": force}, dry_run=dry_run) as tx:
        zones.hold(tx)
        found: Aggregate = resolve(tx, "aggregate", aggregates, ref)
        everyone = zones.belongings(tx)
        members = [one for one in everyone.values() if found in one.aggregates]
        if members and not force:
            raise InUse(
                f"aggregate {found.name} has {len(members)} node{'s' if len(members) > 1 else ''}:"
                f" {', '.join(sorted(one.node.name for one in members))}",
                hint="take them out first, or --force: the nodes stay, without it",
                command=f"novactl aggregate remove-node {found.name} {members[0].node.name}")
        zones.check(tx, everyone, [_without(one, found) for one in members])
        aggregates.delete(tx, found.id)
        _note(cluster, tx, [one.node for one in members], f"aggregate {found.name} deleted")
        tx.on(found)
        return _view(tx, found, sorted(one.node.name for one in members))


@needs(Role.ADMIN)
def add_nodes(cluster: Cluster, ref: str, node_refs: Sequence[str], *, dry_run: bool = False) -> AggregateView:
    """All of them or none. Raises Conflict where a node would be in two zones, or leave one its servers asked for."""
    with changing(cluster, "aggregate.add-node", {"nodes": node_refs}, dry_run=dry_run) as tx:
        zones.hold(tx)
        found: Aggregate = resolve(tx, "aggregate", aggregates, ref)
        everyone = zones.belongings(tx)
        new = [one for one in _named(tx, everyone, node_refs) if found not in one.aggregates]
        zones.check(tx, everyone, [Belonging(one.node, (*one.aggregates, found)) for one in new])
        for one in new:
            aggregates.add_node(tx, found.id, one.node.id)
        _note(cluster, tx, [one.node for one in new], f"joined aggregate {found.name}")
        tx.on(found, detail=", ".join(one.node.name for one in new))
        there = {one.node.name for one in everyone.values() if found in one.aggregates}
        return _view(tx, found, sorted(there | {one.node.name for one in new}))


@needs(Role.ADMIN)
def remove_nodes(cluster: Cluster, ref: str, node_refs: Sequence[str], *, dry_run: bool = False) -> AggregateView:
    """All of them or none; one that is not in it is no error. Raises Conflict where servers asked for the zone a node would leave."""
    with changing(cluster, "aggregate.remove-node", {"nodes": node_refs}, dry_run=dry_run) as tx:
        zones.hold(tx)
        found: Aggregate = resolve(tx, "aggregate", aggregates, ref)
        everyone = zones.belongings(tx)
        going = [one for one in _named(tx, everyone, node_refs) if found in one.aggregates]
        zones.check(tx, everyone, [_without(one, found) for one in going])
        for one in going:
            aggregates.remove_node(tx, found.id, one.node.id)
        _note(cluster, tx, [one.node for one in going], f"left aggregate {found.name}")
        tx.on(found, detail=", ".join(one.node.name for one in going))
        there = {one.node.name for one in everyone.values() if found in one.aggregates}
        return _view(tx, found, sorted(there - {one.node.name for one in going}))


def _asked(cluster: Cluster, zone: str | None, properties: Mapping[str, str]) -> Mapping[str, str]:
    """Raises UsageError."""
    if zone is not None:
        check_name("zone", zone)
        if properties.get(ZONE_KEY, zone) != zone:
            raise UsageError(
                f"--zone {zone} and --property {ZONE_KEY}={properties[ZONE_KEY]} contradict each other", hint="leave one of them out")
        properties = {**properties, ZONE_KEY: zone}
    check(properties)
    for key in properties:
        if key.endswith(MULTIPLIER):
            _check_multiplier(cluster, key)
    return properties


def _check_multiplier(cluster: Cluster, key: str) -> None:
    """It is one of a weigher that is built in, or of one that is switched on. Raises UsageError."""
    from novactl.plugins import configured
    from novactl.scheduler.weighers import WEIGHERS

    weighers = [*WEIGHERS.values(), *(weigher for weigher, _ in configured(cluster.config).weighers)]
    known = sorted({getattr(weigher, "multiplier_key", "") for weigher in weighers} - {""})
    if key not in known:
        raise UsageError(f"no weigher reads {key}", hint=f"one of {', '.join(known)}", command="novactl scheduler list")


def _by_id(tx: Tx, metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata with the projects that it keeps nodes for by id, however they were named. Raises NotFound."""
    found = dict(metadata)
    for key, value in metadata.items():
        if key.startswith(TENANTS):
            found[key] = ",".join(resolve(tx, "project", projects, ref.strip()).id for ref in value.split(",") if ref.strip())
    return found


def _by_name(metadata: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    """Back from `_by_id`, for people; a project that is gone keeps its id."""
    return {
        key: ",".join(names.get(id_, id_) for id_ in value.split(",")) if key.startswith(TENANTS) else value
        for key, value in metadata.items()}


def _rewrite(cluster: Cluster, tx: Change, found: Aggregate, metadata: Mapping[str, str]) -> AggregateView:
    changed = dataclasses.replace(found, metadata=metadata)
    everyone = zones.belongings(tx)
    members = [one for one in everyone.values() if found in one.aggregates]
    zones.check(tx, everyone, [Belonging(one.node, (*_without(one, found).aggregates, changed)) for one in members])
    if changed != found:
        aggregates.update(tx, changed)
        _note(cluster, tx, [one.node for one in members], f"aggregate {found.name} changed")
    tx.on(found)
    return _view(tx, changed, sorted(one.node.name for one in members))


def _note(cluster: Cluster, tx: Tx, changed: Sequence[Node], said: str) -> None:
    """A line in the history of each; their facts have followed already."""
    for node in changed:
        note_on(cluster, tx, node, "aggregate", said)


def _without(belonging: Belonging, aggregate: Aggregate) -> Belonging:
    return Belonging(belonging.node, tuple(one for one in belonging.aggregates if one.id != aggregate.id))


def _named(tx: Tx, everyone: Mapping[str, Belonging], refs: Sequence[str]) -> list[Belonging]:
    """By id: rows are locked in this order everywhere."""
    found = {node.id: everyone[node.id] for node in (resolve(tx, "node", nodes, ref) for ref in refs)}
    return [found[id_] for id_ in sorted(found)]


def _members(tx: Tx) -> dict[str, tuple[str, ...]]:
    """Aggregate id -> the names of its nodes, sorted."""
    names = {node.id: node.name for node in nodes.all_(tx)}
    found: dict[str, list[str]] = {}
    for node_id, several in aggregates.memberships(tx).items():
        for aggregate in several:
            found.setdefault(aggregate.id, []).append(names[node_id])
    return {aggregate_id: tuple(sorted(members)) for aggregate_id, members in found.items()}


def _view(tx: Tx, aggregate: Aggregate, members: Sequence[str]) -> AggregateView:
    metadata = aggregate.metadata
    if any(key.startswith(TENANTS) for key in metadata):
        metadata = _by_name(metadata, {project.id: project.name for project in projects.all_(tx)})
    return AggregateView(
        id=aggregate.id, name=aggregate.name, zone=metadata.get(ZONE_KEY, ""), nodes=tuple(members), metadata=metadata,
        created_at=aggregate.created_at)
