"""`novactl flavor`: sizes of servers."""

from typing import Annotated, Any

import typer

from novactl.cli import ask, columns
from novactl.cli.options import DryRun, FlavorRef, FlavorRefs, NewName, Properties, PropertyKeys, Yes, pairs
from novactl.cli.render import Shown
from novactl.cli.session import cluster_of, session_of
from novactl.cli.targets import each
from novactl.cli.tree import Noun

NOUN = Noun("flavor")

Description = Annotated[str | None, typer.Option(metavar="TEXT", show_default=False, help="What it is for.")]


@NOUN.verb("create", columns.FLAVORS, changes=True)
def create(
    ctx: typer.Context,
    name: NewName,
    ram: Annotated[str, typer.Option(metavar="SIZE", show_default=False, help="Memory: 192 or 192M (MiB), 4G.")],
    disk: Annotated[str, typer.Option(metavar="SIZE", help="Root disk: 10 or 10G (GiB); 0: as large as the image.")] = "0",
    vcpus: Annotated[int, typer.Option(min=1, metavar="N", help="Virtual processors.")] = 1,
    property_: Properties = [],  # noqa: B006
    description: Description = None,
    dry_run: DryRun = False,
) -> Any:
    """Create a flavor. Its properties are extra specs: what a node must have; `novactl help placement` lists them.

    novactl flavor create m1.small --vcpus 1 --ram 512M --disk 10G
    novactl flavor create gpu1 --ram 16G --vcpus 4 --property resources:CUSTOM_GPU=1 --property trait:CUSTOM_NVLINK=required
    novactl flavor create db --ram 64G --vcpus 8 --property hw:cpu_policy=dedicated --property hw:mem_page_size=1G
    """
    from novactl.api import flavors as api
    from novactl.model.units import gib, mib

    wanted = api.CreateFlavor(
        name=name, vcpus=vcpus, memory_mb=mib(ram), disk_gb=gib(disk), specs=pairs(property_), description=description or "")
    flavor = api.create(cluster_of(ctx), wanted, dry_run=dry_run)
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


@NOUN.verb("set", columns.FLAVORS, changes=True)
def set_(
    ctx: typer.Context, flavor: FlavorRef, property_: Properties = [], description: Description = None,  # noqa: B006
    dry_run: DryRun = False,
) -> Any:
    """Set extra specs or the description of a flavor. Servers made from it keep what they were made with.

    novactl flavor set db --property trait:HW_CPU_X86_AVX2=required
    novactl flavor set db --property "capabilities:hypervisor_version=>= 8000000" --description "for databases"
    """
    from novactl.api import flavors as api

    changed = api.set_(cluster_of(ctx), flavor, specs=pairs(property_), description=description, dry_run=dry_run)
    return Shown(changed, rows=(changed,))


@NOUN.verb("unset", columns.FLAVORS, changes=True)
def unset(ctx: typer.Context, flavor: FlavorRef, property_: PropertyKeys, dry_run: DryRun = False) -> Any:
    """Take extra specs of a flavor away. What is not there is no error.

    novactl flavor unset db --property trait:HW_CPU_X86_AVX2
    """
    from novactl.api import flavors as api

    changed = api.unset(cluster_of(ctx), flavor, keys=property_, dry_run=dry_run)
    return Shown(changed, rows=(changed,))


@NOUN.verb("delete", columns.FLAVORS, changes=True)
def delete(ctx: typer.Context, flavors: FlavorRefs, yes: Yes = False, dry_run: DryRun = False) -> Any:
    """Delete flavors. Servers made from them keep their size. Several at once are confirmed first.

    novactl flavor delete m1.small
    novactl flavor delete tiny m1.small --yes
    """
    from novactl.api import flavors as api

    session = session_of(ctx)
    ask.confirm_act(session, "delete", "flavor", flavors, yes=yes or dry_run)
    return each(session, flavors, lambda ref: api.delete(session.cluster, ref, dry_run=dry_run))
