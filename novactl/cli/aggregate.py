"""`novactl aggregate`: sets of nodes with metadata."""

from typing import Annotated, Any

import typer

from novactl.cli import ask, columns
from novactl.cli.options import (
    AggregateRef,
    AggregateRefs,
    DryRun,
    Force,
    NewName,
    NodeRefs,
    Properties,
    PropertyKeys,
    Yes,
    ZoneName,
    pairs,
)
from novactl.cli.render import Shown
from novactl.cli.session import cluster_of, session_of
from novactl.cli.targets import each
from novactl.cli.tree import Noun

NOUN = Noun("aggregate")


@NOUN.verb("create", columns.AGGREGATES, changes=True)
def create(
    ctx: typer.Context, name: NewName, zone: ZoneName = None, property_: Properties = [], dry_run: DryRun = False,  # noqa: B006
) -> Any:
    """Create an aggregate. With --zone its nodes are an availability zone.

    novactl aggregate create rack1 --zone rack1
    novactl aggregate create fast --property ssd=true --property ram_weight_multiplier=2
    """
    from novactl.api import aggregates as api

    made = api.create(cluster_of(ctx), name=name, zone=zone or "", properties=pairs(property_), dry_run=dry_run)
    return Shown(made, rows=(made,))


@NOUN.verb("list", columns.AGGREGATES)
def list_(ctx: typer.Context) -> Any:
    """List the aggregates with their zones and how many nodes each has.

    novactl aggregate list
    novactl aggregate list -o wide
    """
    from novactl.api import aggregates as api

    return api.list_aggregates(cluster_of(ctx))


@NOUN.verb("show", columns.AGGREGATES)
def show(ctx: typer.Context, aggregate: AggregateRef) -> Any:
    """Show one aggregate with its metadata and its nodes.

    novactl aggregate show rack1
    """
    from novactl.api import aggregates as api

    return api.show(cluster_of(ctx), aggregate)


@NOUN.verb("set", columns.AGGREGATES, changes=True)
def set_(
    ctx: typer.Context, aggregate: AggregateRef, zone: ZoneName = None, property_: Properties = [], dry_run: DryRun = False,  # noqa: B006
) -> Any:
    """Set metadata of an aggregate, or the zone of its nodes; `novactl help placement` lists the keys that are read.

    novactl aggregate set fast --property ssd=true --property max_instances_per_host=20
    novactl aggregate set rack1 --zone rack1
    """
    from novactl.api import aggregates as api

    changed = api.set_(cluster_of(ctx), aggregate, zone=zone, properties=pairs(property_), dry_run=dry_run)
    return Shown(changed, rows=(changed,))


@NOUN.verb("unset", columns.AGGREGATES, changes=True)
def unset(
    ctx: typer.Context, aggregate: AggregateRef, property_: PropertyKeys = [],  # noqa: B006
    zone: Annotated[bool, typer.Option("--zone", help="Its nodes are no longer a zone.")] = False,
    dry_run: DryRun = False,
) -> Any:
    """Take metadata of an aggregate away. What is not there is no error.

    novactl aggregate unset fast --property ssd
    novactl aggregate unset rack1 --zone
    """
    from novactl.api import aggregates as api

    changed = api.unset(cluster_of(ctx), aggregate, zone=zone, keys=property_, dry_run=dry_run)
    return Shown(changed, rows=(changed,))


@NOUN.verb("delete", columns.AGGREGATES, changes=True)
def delete(ctx: typer.Context, aggregates: AggregateRefs, force: Force = False, yes: Yes = False, dry_run: DryRun = False) -> Any:
    """Delete aggregates; with --force also such as still have nodes, which stay as they are otherwise.

    novactl aggregate delete fast
    novactl aggregate delete rack1 rack2 --force --yes
    """
    from novactl.api import aggregates as api

    session = session_of(ctx)
    ask.confirm_act(session, "delete", "aggregate", aggregates, yes=yes or dry_run)
    return each(session, aggregates, lambda ref: api.delete(session.cluster, ref, force=force, dry_run=dry_run))


@NOUN.verb("add-node", columns.AGGREGATES, changes=True)
def add_node(ctx: typer.Context, aggregate: AggregateRef, nodes: NodeRefs, dry_run: DryRun = False) -> Any:
    """Add nodes to an aggregate: all of them, or none. A node that is in it already stays.

    novactl aggregate add-node rack1 n1 n2
    """
    from novactl.api import aggregates as api

    changed = api.add_nodes(cluster_of(ctx), aggregate, nodes, dry_run=dry_run)
    return Shown(changed, rows=(changed,))


@NOUN.verb("remove-node", columns.AGGREGATES, changes=True)
def remove_node(ctx: typer.Context, aggregate: AggregateRef, nodes: NodeRefs, dry_run: DryRun = False) -> Any:
    """Take nodes out of an aggregate: all of them, or none. A node that is not in it is no error.

    novactl aggregate remove-node rack1 n2
    """
    from novactl.api import aggregates as api

    changed = api.remove_nodes(cluster_of(ctx), aggregate, nodes, dry_run=dry_run)
    return Shown(changed, rows=(changed,))
