"""`novactl key`: which admins there are, and what each may do."""

from pathlib import Path
from typing import Annotated, Any

import typer

from novactl.cli import ask, columns
from novactl.cli.options import DryRun, NewName, Yes, live_names
from novactl.cli.plain import fields_of
from novactl.cli.render import Shown
from novactl.cli.session import Session, cluster_of, session_of
from novactl.cli.tree import Noun
from novactl.errors import ExitStatus, UsageError
from novactl.model.key import Role

NOUN = Noun("key")

KeyRef = Annotated[str, typer.Argument(
    metavar="KEY", show_default=False, autocompletion=live_names("key"),
    help="The key: its name, its id, or 4 or more first letters of the id.")]
OfRole = Annotated[Role, typer.Option("--role", show_default=False, help="What it may do; each role what the ones before it may, too.")]


@NOUN.verb("create", columns.KEYS, changes=True)
def create(
    ctx: typer.Context, name: NewName, role: OfRole,
    public_key: Annotated[str | None, typer.Option(
        "--public-key", metavar="Z85", show_default=False,
        help="Of a pair that its admin has made: `novactl init` prints it there.")] = None,
    out: Annotated[Path | None, typer.Option(
        "--out", metavar="FILE", show_default=False,
        help="Where the secret half of a new pair is written, mode 0600 (default: ./NAME.secret).")] = None,
    dry_run: DryRun = False,
) -> Any:
    """Let another admin in: with a key they have made, or with a new pair in a file for them (`novactl init --key FILE`).

    novactl key create bob --role operator
    novactl key create carol --role reader --public-key 'rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7'
    """
    from novactl.api import keys as api

    session = session_of(ctx)
    if public_key is not None and out is not None:
        raise UsageError("--public-key and --out exclude each other", hint="the secret half of that key stays with its admin")
    secret_file = None if public_key is not None else out or Path(f"{name}.secret")
    made = api.create(session.cluster, name=name, role=role, public_key=public_key, secret_file=secret_file, dry_run=dry_run)
    if made.secret_file and not dry_run:
        session.note(f"secret half written to {made.secret_file}: hand it to {name}, who runs `novactl init --key FILE`, and delete it")
    return _shown(session, made)


@NOUN.verb("list", columns.KEYS)
def list_(
    ctx: typer.Context, all: Annotated[bool, typer.Option("--all", "-a", help="The revoked ones too.")] = False,
) -> Any:
    """List the admins' keys with their roles, and when each last changed something.

    novactl key list
    novactl key list --all -o wide
    """
    from novactl.api import keys as api

    return api.list_keys(cluster_of(ctx), all=all)


@NOUN.verb("show", columns.KEYS)
def show(ctx: typer.Context, key: KeyRef) -> Any:
    """Show one key.

    novactl key show bob
    """
    from novactl.api import keys as api

    return api.show(cluster_of(ctx), key)


@NOUN.verb("set", columns.KEYS, changes=True)
def set_(ctx: typer.Context, key: KeyRef, role: OfRole, dry_run: DryRun = False) -> Any:
    """Give a key another role, from its next message on.

    novactl key set bob --role reader
    """
    from novactl.api import keys as api

    return _shown(session_of(ctx), api.set_(cluster_of(ctx), key, role=role, dry_run=dry_run))


@NOUN.verb("revoke", columns.KEYS, changes=True)
def revoke(
    ctx: typer.Context, key: KeyRef,
    force: Annotated[bool, typer.Option("--force", help="Although it is the one you use yourself.")] = False,
    yes: Yes = False, dry_run: DryRun = False,
) -> Any:
    """Refuse a key from its next message on, on open connections too. For good: asks for its name. Exit 7 names nodes not reached.

    novactl key revoke bob
    """
    from novactl.api import keys as api

    session = session_of(ctx)
    if not dry_run:
        named = api.revoke(session.cluster, key, force=force, dry_run=True).name
        ask.confirm_by_name(session, f"revoke key {named} for good", named, yes=yes)
    return _shown(session, api.revoke(session.cluster, key, force=force, dry_run=dry_run), partial=True)


@NOUN.verb("rotate", columns.KEYS, changes=True)
def rotate(ctx: typer.Context, dry_run: DryRun = False) -> Any:
    """Change your own key pair: the new one is made known beside the old one, which is then revoked. Interrupted, run it again.

    Only an admin's key may hand the table of keys to agents: others are given a new one by an admin (`novactl key create`).

    novactl key rotate
    """
    from novactl.api import keys as api

    return _shown(session_of(ctx), api.rotate(cluster_of(ctx), dry_run=dry_run))


def _shown(session: Session, view: Any, *, partial: bool = False) -> Shown:
    for node, why in view.unreached.items():
        session.note(f"warning: node {node} has not been told yet: {why}. It is, before anything else, when it next answers an admin")
    status = ExitStatus.PARTIAL if partial and view.unreached else ExitStatus.OK
    return Shown(fields_of(view), rows=(view,), status=status)
