"""`novactl server-group`: servers that belong together, or apart."""

from typing import Annotated, Any

import typer

from novactl.cli import ask, columns
from novactl.cli.options import DryRun, Force, GroupRef, GroupRefs, InProject, NewName, OfProject, Yes
from novactl.cli.render import Shown
from novactl.cli.session import cluster_of, session_of
from novactl.cli.targets import each
from novactl.cli.tree import Noun

NOUN = Noun("server-group")


def _policies(incomplete: str) -> list[str]:
    from novactl.model.group import Policy

    return [policy.value for policy in Policy if policy.value.startswith(incomplete)]


@NOUN.verb("create", columns.SERVER_GROUPS, changes=True)
def create(
    ctx: typer.Context, name: NewName,
    policy: Annotated[str, typer.Option(
        metavar="POLICY", show_default=False, autocompletion=_policies,
        help="affinity, anti-affinity, soft-affinity or soft-anti-affinity.")],
    max_per_host: Annotated[int | None, typer.Option(
        "--max-per-host", min=1, metavar="N", show_default=False,
        help="anti-affinity: so many members may share a node, or a failure domain (default: 1).")] = None,
    scope: Annotated[str, typer.Option(
        metavar="LABEL", show_default=False, help="The node label that tells failure domains apart (default: each node is one).")] = "",
    project: InProject = None, dry_run: DryRun = False,
) -> Any:
    """Create a server group. A server joins it at its birth: `server create --group NAME`.

    novactl server-group create web --policy anti-affinity
    novactl server-group create db --policy anti-affinity --scope rack --max-per-host 2
    novactl server-group create cache --policy soft-affinity --project shop
    """
    from novactl.api import groups as api

    made = api.create(cluster_of(ctx), api.CreateGroup(
        name=name, policy=policy, max_per_host=max_per_host, scope=scope, project=project), dry_run=dry_run)
    return Shown(made, rows=(made,))


@NOUN.verb("list", columns.SERVER_GROUPS)
def list_(ctx: typer.Context, project: OfProject = None) -> Any:
    """List the server groups and how many members each has.

    novactl server-group list
    novactl server-group list --project shop -o json
    """
    from novactl.api import groups as api

    return api.list_groups(cluster_of(ctx), project=project)


@NOUN.verb("show", columns.SERVER_GROUPS)
def show(ctx: typer.Context, group: GroupRef) -> Any:
    """Show one server group: its members and where they are.

    novactl server-group show web
    """
    from novactl.api import groups as api

    return api.show(cluster_of(ctx), group)


@NOUN.verb("delete", columns.SERVER_GROUPS, changes=True)
def delete(ctx: typer.Context, groups: GroupRefs, force: Force = False, yes: Yes = False, dry_run: DryRun = False) -> Any:
    """Delete server groups. One that has members is kept, unless --force: then they go on, and nothing holds them together or apart.

    novactl server-group delete web
    novactl server-group delete web db --force --yes
    """
    from novactl.api import groups as api

    session = session_of(ctx)
    ask.confirm_act(session, "delete", "server group", groups, yes=yes or dry_run)
    return each(session, groups, lambda ref: api.delete(session.cluster, ref, force=force, dry_run=dry_run))
