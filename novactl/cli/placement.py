"""`novactl placement`: where servers can go, why, and what is claimed."""

from typing import Any

import typer

from novactl.cli import columns
from novactl.cli.options import Flavor, Image, NodeRef, OnNode, OnZone, with_hints
from novactl.cli.render import Shown
from novactl.cli.session import cluster_of
from novactl.cli.tree import Noun
from novactl.errors import ExitStatus

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
