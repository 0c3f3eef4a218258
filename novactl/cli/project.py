"""`novactl project`: whose servers they are."""

from typing import Annotated, Any

import typer

from novactl.cli import ask, columns
from novactl.cli.options import DryRun, NewName, ProjectRef, ProjectRefs, Yes
from novactl.cli.render import Shown
from novactl.cli.session import cluster_of, session_of
from novactl.cli.targets import each
from novactl.cli.tree import Noun

NOUN = Noun("project")

Description = Annotated[str, typer.Option(metavar="TEXT", show_default=False, help="What it is for.")]


@NOUN.verb("create", columns.PROJECTS, changes=True)
def create(ctx: typer.Context, name: NewName, description: Description = "", dry_run: DryRun = False) -> Any:
    """Create a project. The default quotas hold for it until it has its own.

    novactl project create shop --description "web shop"
    """
    from novactl.api import projects as api

    made = api.create(cluster_of(ctx), name=name, description=description, dry_run=dry_run)
    return Shown(made, rows=(made,))


@NOUN.verb("list", columns.PROJECTS)
def list_(ctx: typer.Context) -> Any:
    """List the projects with what their servers use.

    novactl project list
    novactl project list --sort -cores
    """
    from novactl.api import projects as api

    return api.list_projects(cluster_of(ctx))


@NOUN.verb("show", columns.PROJECTS)
def show(ctx: typer.Context, project: ProjectRef) -> Any:
    """Show one project; its limits are shown by `quota show`.

    novactl project show shop
    """
    from novactl.api import projects as api

    return api.show(cluster_of(ctx), project)


@NOUN.verb("set", columns.PROJECTS, changes=True)
def set_(
    ctx: typer.Context, project: ProjectRef,
    description: Annotated[str, typer.Option(metavar="TEXT", show_default=False, help="What it is for.")],
    dry_run: DryRun = False,
) -> Any:
    """Change what is said of a project.

    novactl project set shop --description "web shop and its tests"
    """
    from novactl.api import projects as api

    changed = api.set_(cluster_of(ctx), project, description=description, dry_run=dry_run)
    return Shown(changed, rows=(changed,))


@NOUN.verb("delete", columns.PROJECTS, changes=True)
def delete(ctx: typer.Context, projects: ProjectRefs, yes: Yes = False, dry_run: DryRun = False) -> Any:
    """Delete projects and their quotas. One that still has servers, keys or groups is kept, and so is `default`.

    novactl project delete shop
    """
    from novactl.api import projects as api

    session = session_of(ctx)
    ask.confirm_act(session, "delete", "project", projects, yes=yes or dry_run)
    return each(session, projects, lambda ref: api.delete(session.cluster, ref, dry_run=dry_run))
