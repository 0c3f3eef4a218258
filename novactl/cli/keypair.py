"""`novactl keypair`: SSH keys that servers are given."""

from pathlib import Path
from typing import Annotated, Any

import typer

from novactl.cli import ask, columns
from novactl.cli.options import DryRun, InProject, KeypairRef, KeypairRefs, NewName, OfProject, Yes, text_of
from novactl.cli.plain import fields_of
from novactl.cli.render import Shown
from novactl.cli.session import cluster_of, session_of
from novactl.cli.targets import each
from novactl.cli.tree import Noun
from novactl.errors import UsageError

NOUN = Noun("keypair")


@NOUN.verb("create", columns.KEYPAIRS, changes=True)
def create(
    ctx: typer.Context,
    name: NewName,
    public_key: Annotated[Path | None, typer.Option(
        "--public-key", metavar="FILE", show_default=False, help="Import this public key ('-': from standard input).")] = None,
    private_key: Annotated[Path | None, typer.Option(
        "--private-key", metavar="FILE", show_default=False,
        help="Where a new private key is written, mode 0600 (default: ./NAME).")] = None,
    project: InProject = None,
    dry_run: DryRun = False,
) -> Any:
    """Import a public key, or make an ed25519 pair and write its private half to a file.

    novactl keypair create alice --public-key ~/.ssh/id_ed25519.pub
    novactl keypair create ci --private-key ./ci.key
    """
    from novactl.api import keypairs as api

    session = session_of(ctx)
    if public_key and private_key:
        raise UsageError(
            "--public-key and --private-key exclude each other", hint="an imported key's private half stays with you")
    text = text_of(session, public_key, "the public key")
    wanted = api.CreateKeypair(
        name=name, public_key=text, private_key_path=None if public_key else private_key or Path(name), project=project)
    made = api.create(session.cluster, wanted, dry_run=dry_run)
    if made.private_key_path and not dry_run:
        session.note(f"private key written to {made.private_key_path}")
    document = {**(fields_of(made.keypair) or {}), "private_key_path": made.private_key_path}
    return Shown(document, rows=(made.keypair,))


@NOUN.verb("list", columns.KEYPAIRS)
def list_(ctx: typer.Context, project: OfProject = None) -> Any:
    """List the keypairs.

    novactl keypair list
    novactl keypair list --project shop -o name
    """
    from novactl.api import keypairs as api

    return api.list_keypairs(cluster_of(ctx), project=project)


@NOUN.verb("show", columns.KEYPAIRS)
def show(ctx: typer.Context, keypair: KeypairRef) -> Any:
    """Show one keypair with its public key.

    novactl keypair show alice
    """
    from novactl.api import keypairs as api

    return api.show(cluster_of(ctx), keypair)


@NOUN.verb("delete", columns.KEYPAIRS, changes=True)
def delete(ctx: typer.Context, keypairs: KeypairRefs, yes: Yes = False, dry_run: DryRun = False) -> Any:
    """Delete keypairs. Servers keep the keys they were given. Several at once are confirmed first.

    novactl keypair delete alice
    """
    from novactl.api import keypairs as api

    session = session_of(ctx)
    ask.confirm_act(session, "delete", "keypair", keypairs, yes=yes or dry_run)
    return each(session, keypairs, lambda ref: api.delete(session.cluster, ref, dry_run=dry_run))
