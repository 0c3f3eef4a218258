"""`novactl capacity`."""

from typing import Annotated, Any

import typer

from novactl.cli import columns
from novactl.cli.options import Hardware, OnZone, live_names, n_plus_1
from novactl.cli.session import cluster_of
from novactl.cli.tree import Noun

NOUN = Noun()


def _many(noun: str, text: str) -> Any:
    return Annotated[list[str], typer.Option(
        metavar=noun.upper(), show_default=False, autocompletion=live_names(noun), help=text)]


@NOUN.verb("capacity", columns.CAPACITY)
def capacity(
    ctx: typer.Context,
    flavor: _many("flavor", "Servers of this size; may be repeated. Without it: of every size.") = [],  # noqa: B006 - typer's way
    image: Annotated[str, typer.Option(
        metavar="IMAGE", show_default=False, autocompletion=live_names("image"), help="Made from this image.")] = "",
    n_plus_1: n_plus_1(
        "Also how many of them while the loss of any one node leaves every server a place (default: as the cluster is set).") = None,
    without: _many("node", "As if this node and its servers were not there; may be repeated.") = [],  # noqa: B006
    add: Hardware = [],  # noqa: B006
    zone: OnZone = None,
    project: Annotated[str | None, typer.Option(
        metavar="PROJECT", show_default=False, autocompletion=live_names("project"),
        help="Servers of this project: some nodes may be kept for others (default: default).")] = None,
) -> Any:
    """Say how many more servers fit, and what stops the next one. Changes nothing.

    novactl capacity
    novactl capacity --flavor m1.large --n+1
    novactl capacity --flavor m1.large --without n3 --add 2x64c/256G/2T -o json
    """
    from novactl.api import capacity as api

    return api.of_flavors(cluster_of(ctx), api.AskCapacity(
        flavors=flavor, image=image, n_plus_1=n_plus_1, without=without, add=add, zone=zone or "", project=project or ""))
