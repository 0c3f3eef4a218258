"""`novactl flavor`: sizes of servers."""

from typing import Annotated, Any

import typer

from novactl.cli import ask, columns
from novactl.cli.options import DryRun, FlavorRef, FlavorRefs, NewName, Yes
from novactl.cli.render import Shown
from novactl.cli.session import cluster_of, session_of
from novactl.cli.targets import each
from novactl.cli.tree import Noun

NOUN = Noun("flavor")


@NOUN.verb("create", columns.FLAVORS)
def create(
    ctx: typer.Context,
    name: NewName,
    ram: Annotated[str, typer.Option(metavar="SIZE", show_default=False, help="Memory: 192 or 192M (MiB), 4G.")],
    disk: Annotated[str, typer.Option(metavar="SIZE", help="Root disk: 10 or 10G (GiB); 0: as large as the image.")] = "0",
    vcpus: Annotated[int, typer.Option(min=1, metavar="N", help="Virtual processors.")] = 1,
    dry_run: DryRun = False,
) -> Any:
    """Create a flavor.

    novactl flavor create m1.small --vcpus 1 --ram 512M --disk 10G
    novactl flavor create tiny --ram 192
    """
    from novactl.api import flavors as api
    from novactl.model.units import gib, mib

    sizes = {"vcpus": vcpus, "memory_mb": mib(ram), "disk_gb": gib(disk)}
    flavor = api.create(cluster_of(ctx), name=name, **sizes, dry_run=dry_run)
    return Shown(flavor, rows=(flavor,))


@NOUN.verb("list", columns.FLAVORS)
def list_(ctx: typer.Context) -> Any:
    """List the flavors.

    novactl flavor list
    novactl flavor list --sort -memory_mb -o json
    """
    from novactl.api import flavors as api

    return api.list_flavors(cluster_of(ctx))


@NOUN.verb("show", columns.FLAVORS)
def show(ctx: typer.Context, flavor: FlavorRef) -> Any:
    """Show one flavor.

    novactl flavor show m1.small
    """
    from novactl.api import flavors as api

    return api.show(cluster_of(ctx), flavor)


@NOUN.verb("delete", columns.FLAVORS)
def delete(ctx: typer.Context, flavors: FlavorRefs, yes: Yes = False, dry_run: DryRun = False) -> Any:
    """Delete flavors. Servers made from them keep their size. Several at once are confirmed first.

    novactl flavor delete m1.small
    novactl flavor delete tiny m1.small --yes
    """
    from novactl.api import flavors as api

    session = session_of(ctx)
    ask.confirm_act(session, "delete", "flavor", flavors, yes=yes or dry_run)
    return each(session, flavors, lambda ref: api.delete(session.cluster, ref, dry_run=dry_run))
