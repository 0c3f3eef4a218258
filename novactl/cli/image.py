"""`novactl image`: bootable disks that servers are made from."""

from typing import Annotated, Any

import typer

from novactl.cli import ask, columns
from novactl.cli.options import DryRun, ImageRef, ImageRefs, NewName, Properties, PropertyKeys, Quiet, Yes, pairs
from novactl.cli.progress import watching
from novactl.cli.render import Shown
from novactl.cli.session import cluster_of, session_of
from novactl.cli.targets import each
from novactl.cli.tree import Noun

NOUN = Noun("image")


@NOUN.verb("create", columns.IMAGES, changes=True)
def create(
    ctx: typer.Context,
    name: NewName,
    source: Annotated[str, typer.Argument(metavar="FILE|URL", show_default=False, help="A file, or an http(s) address.")],
    disk_format: Annotated[str | None, typer.Option(
        "--format", metavar="FORMAT", show_default=False, help="qcow2 or raw; refused if the file is something else.")] = None,
    checksum: Annotated[str | None, typer.Option(
        metavar="sha256:HEX", show_default=False, help="Refuse the image unless its SHA-256 is this.")] = None,
    architecture: Annotated[str, typer.Option("--architecture", "--arch", help="What it runs on.")] = "x86_64",
    property_: Properties = [],  # noqa: B006
    quiet: Quiet = False,
    dry_run: DryRun = False,
) -> Any:
    """Take in an image from a file or an address; it is checked before any node sees it.

    novactl image create debian-12 ./debian-12.qcow2
    novactl image create win ./win.qcow2 --property os_type=windows --property hw_machine_type=q35
    novactl image create debian-12 https://example.org/debian-12.qcow2 --checksum sha256:9f86d081...
    """
    from novactl.api import images as api

    wanted = api.CreateImage(
        name=name, source=source, disk_format=disk_format, checksum=checksum, architecture=architecture, properties=pairs(property_))
    session = session_of(ctx)
    with watching(session, quiet=quiet) as watch:
        image = api.create(session.cluster, wanted, watch=watch, dry_run=dry_run)
    return Shown(image, rows=(image,))


@NOUN.verb("list", columns.IMAGES)
def list_(ctx: typer.Context) -> Any:
    """List the images.

    novactl image list
    novactl image list -o json
    """
    from novactl.api import images as api

    return api.list_images(cluster_of(ctx))


@NOUN.verb("show", columns.IMAGES)
def show(ctx: typer.Context, image: ImageRef) -> Any:
    """Show one image.

    novactl image show debian-12
    """
    from novactl.api import images as api

    return api.show(cluster_of(ctx), image)


@NOUN.verb("set", columns.IMAGES, changes=True)
def set_(ctx: typer.Context, image: ImageRef, property_: Properties, dry_run: DryRun = False) -> Any:
    """Set properties of an image: what its servers need of a node. `novactl help placement` lists them.

    novactl image set debian-12 --property hw_machine_type=q35 --property os_distro=debian
    novactl image set win --property custom_license=volume --property "img_hv_requested_version=>=7.2"
    """
    from novactl.api import images as api

    changed = api.set_(cluster_of(ctx), image, properties=pairs(property_), dry_run=dry_run)
    return Shown(changed, rows=(changed,))


@NOUN.verb("unset", columns.IMAGES, changes=True)
def unset(ctx: typer.Context, image: ImageRef, property_: PropertyKeys, dry_run: DryRun = False) -> Any:
    """Take properties of an image away. What is not there is no error.

    novactl image unset debian-12 --property hw_machine_type
    """
    from novactl.api import images as api

    changed = api.unset(cluster_of(ctx), image, keys=property_, dry_run=dry_run)
    return Shown(changed, rows=(changed,))


@NOUN.verb("delete", columns.IMAGES, changes=True)
def delete(ctx: typer.Context, images: ImageRefs, yes: Yes = False, dry_run: DryRun = False) -> Any:
    """Delete images and their stored files. Asks first; where nobody can answer it needs --yes.

    novactl image delete debian-12
    novactl image delete debian-11 debian-12 --yes
    """
    from novactl.api import images as api

    session = session_of(ctx)
    ask.confirm_act(session, "delete", "image", images, yes=yes or dry_run, destroys=True)
    return each(session, images, lambda ref: api.delete(session.cluster, ref, dry_run=dry_run))
