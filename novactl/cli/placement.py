"""`novactl placement`: where servers can go, why, and what is claimed."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from novactl.cli import columns
from novactl.cli.options import Flavor, Hardware, Image, NodeRef, OnNode, OnZone, n_plus_1, text_of, with_hints
from novactl.cli.render import Shown
from novactl.cli.session import cluster_of, session_of
from novactl.cli.tree import Noun
from novactl.errors import ExitStatus, UsageError

NOUN = Noun("placement")


def explained(explanation: Any) -> Shown:
    """An explanation, and exit 5 if no node was chosen."""
    possible = any(row.verdict == "chosen" for row in explanation.rows)
    return Shown(explanation, status=ExitStatus.OK if possible else ExitStatus.NO_VALID_HOST)


@NOUN.verb("explain", columns.EXPLANATION)
@with_hints
def explain(
    ctx: typer.Context, flavor: Flavor, image: Image, node: OnNode = None, zone: OnZone = None, *, hints: Any = None,
) -> Any:
    """Say for each node whether it could take a server, and why; exit 5 if none can. Changes nothing.

    novactl placement explain --flavor m1.large --image debian-12
    novactl placement explain --flavor m1.large --image debian-12 --zone rack2 --group web -o json
    """
    from novactl.api import placement as api
    from novactl.api.servers import CreateServer

    wanted = CreateServer(name="explain", flavor=flavor, image=image, node=node, zone=zone, hints=hints)
    return explained(api.explain(cluster_of(ctx), wanted))


@NOUN.verb("why-not", columns.EXPLANATION)
@with_hints
def why_not(ctx: typer.Context, node: NodeRef, flavor: Flavor, image: Image, zone: OnZone = None, *, hints: Any = None) -> Any:
    """Say why a node would not take a server, or why another is better; exit 5 if it could not take it. Changes nothing.

    novactl placement why-not n4 --flavor m1.large --image debian-12
    novactl placement why-not n4 --flavor m1.large --image debian-12 --group web
    """
    from novactl.api import placement as api
    from novactl.api.servers import CreateServer

    wanted = CreateServer(name="explain", flavor=flavor, image=image, zone=zone, hints=hints)
    explanation = api.why_not(cluster_of(ctx), wanted, node)
    rejected = explanation.rows[-1].verdict == "rejected"
    return Shown(explanation, status=ExitStatus.NO_VALID_HOST if rejected else ExitStatus.OK)


@NOUN.verb("list", columns.CLAIMS)
def list_(ctx: typer.Context) -> Any:
    """List what is claimed on each node, and for whom.

    novactl placement list
    novactl placement list --sort node,-memory_mb
    """
    from novactl.api import placement as api

    return api.list_claims(cluster_of(ctx))


@NOUN.verb("export")
def export(
    ctx: typer.Context,
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", show_default=False, help="Where to (default: standard output).")] = None,
) -> int:
    """Write what placement knows of the cluster to a file that `placement simulate` reads.

    Nodes, claims, servers, groups, flavors, images and the settings of placement: no keys, no user data, no guests' addresses.

    novactl placement export cluster.json
    """
    from novactl.api import simulation as api

    text = api.export(cluster_of(ctx))
    session = session_of(ctx)
    if file is None or str(file) == "-":
        session.stdout.write(text)
        return ExitStatus.OK
    try:
        file.expanduser().write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write to {file}: {error.strerror}") from error
    session.note(f"written to {file}; novactl placement simulate {file}")
    return ExitStatus.OK


def _option(metavar: str, text: str, kind: Any = str) -> Any:
    return Annotated[kind, typer.Option(metavar=metavar, show_default=False, help=text)]


@NOUN.verb("simulate", columns.RECORD)
def simulate(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False, help="A saved inventory, or a workload; '-' reads stdin.")],
    flavor: _option("FLAVOR", "Say for each node whether it could take a server of this flavor.") = "",
    vcpus: _option("N", "The same for a size of its own.", int) = 0,
    ram: _option("SIZE", "Memory: 192 or 192M (MiB), 4G.") = "",
    disk: _option("SIZE", "Root disk: 10 or 10G (GiB).") = "",
    create: _option("NAME=FLAVOR[:COUNT]", "Say where such servers would go, one after the other; may be repeated.", list[str]) = [],  # noqa: B006
    image: _option("IMAGE", "Made from this image of the file.") = "",
    zone: _option("ZONE", "Only nodes of this zone.") = "",
    group: _option("GROUP", "Members of this server group of the file.") = "",
    profile: _option("PROFILE", "Decide by this profile.") = "",
    n_plus_1: n_plus_1("Keep the loss of any one node bearable (default: as it was saved).") = None,
    without: _option("NODE", "As if this node and its servers were not there; may be repeated.", list[str]) = [],  # noqa: B006
    add: Hardware = [],  # noqa: B006
) -> Any:
    """Ask a saved inventory what it would do, or replay a workload; no cluster is needed.

    Without a question: how many servers of each flavor fit, and whether the loss of each node can be borne. Exit 5 if a server that
    is asked for has no place. A workload ("placement-workload/1") is replayed in order.

    novactl placement simulate cluster.json --flavor m1.large --without n3
    novactl placement simulate cluster.json --create web=m1.small:10 --create db=r1.large --profile pack
    novactl placement simulate workload.json --profile pack -o json
    """
    from novactl.api import simulation as api
    from novactl.model.units import gib, mib

    session = session_of(ctx)
    asked = api.Simulate(
        flavor=flavor, vcpus=vcpus, memory_mb=mib(ram) if ram else 0, disk_gb=gib(disk) if disk else 0, create=tuple(create),
        image=image, zone=zone, group=group, profile=profile, n_plus_1=n_plus_1, without=tuple(without), add=tuple(add))
    return _simulated(api.simulate(session.config, text_of(session, file, "the inventory") or "", asked, time.perf_counter))


def _simulated(found: Any) -> Any:
    """As `explain`, as `capacity`, as a list of servers, or a replay field by field."""
    from novactl.api import simulation as api
    from novactl.api.explanation import Explanation

    if isinstance(found, Explanation):
        return explained(found)._replace(table=columns.EXPLANATION)
    if isinstance(found, api.Outlook):
        losses = () if found.losses is None else tuple(loss.text for loss in found.losses) or ("the loss of any one node can be borne",)
        return Shown(found, rows=found.capacity, footer=tuple(f"N+1: {text}" for text in losses), table=columns.CAPACITY)
    if isinstance(found, api.Placements):
        told = f"{found.placed} placed, {found.rejected} rejected."
        status = ExitStatus.NO_VALID_HOST if found.rejected else ExitStatus.OK
        return Shown(found, rows=found.servers, footer=(told,), table=columns.PLACED, status=status)
    return Shown(found, rows=(found,), table=columns.REPLAY)
