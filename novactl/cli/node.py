"""`novactl node`: hypervisor hosts."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from novactl.cli import ask, columns
from novactl.cli.options import DryRun, NodeRef, NodeRefs, Quiet, Yes, pairs
from novactl.cli.progress import watching
from novactl.cli.render import Shown
from novactl.cli.session import Session, cluster_of, session_of
from novactl.cli.setup import checked
from novactl.cli.targets import each
from novactl.cli.tree import Noun
from novactl.errors import UsageError

NOUN = Noun("node")

Target = Annotated[str, typer.Argument(metavar="[USER@]HOST", show_default=False, help="Where to log in by SSH.")]
Local = Annotated[bool, typer.Option("--local", help="Enrol this machine, without SSH.")]
Name = Annotated[str | None, typer.Option(metavar="NAME", show_default=False, help="The node's name (default: its host name).")]
Zone = Annotated[str, typer.Option(metavar="ZONE", show_default=False, help="The availability zone it belongs to.")]
Labels = Annotated[list[str], typer.Option("--label", metavar="KEY=VALUE", show_default=False, help="A label; may be repeated.")]
SshPort = Annotated[int | None, typer.Option(min=1, max=65535, metavar="PORT", show_default=False, help="The SSH port.")]
Identity = Annotated[Path | None, typer.Option(
    "--identity", "-i", metavar="FILE", show_default=False, help="The SSH key to use.")]
HostKey = Annotated[str | None, typer.Option(
    "--host-key", "--fingerprint", metavar="SHA256:...", show_default=False,
    help="Trust the SSH host key with this fingerprint, and no other.")]
AcceptNew = Annotated[bool, typer.Option(
    "--accept-new", help="Trust an SSH host key that is not known yet, unseen. A changed one is refused all the same.")]
Address = Annotated[str | None, typer.Option(
    metavar="HOST", show_default=False, help="Where the agent is reached, if not at the SSH host.")]
AgentPort = Annotated[int | None, typer.Option(
    min=1, max=65535, metavar="PORT", show_default=False, help="The agent's port (default: the setting agent.port).")]
NoPackages = Annotated[bool, typer.Option("--no-packages", help="Install no packages; fail if some are missing.")]
AskSudo = Annotated[bool, typer.Option("--ask-sudo-pass", "-K", help="Ask for the password that sudo wants on the host.")]
Keep = Annotated[bool, typer.Option("--keep-on-failure", help="Leave a failed attempt as it is, to look at.")]


@NOUN.verb("enroll", columns.NODES)
def enroll(
    ctx: typer.Context, target: Target = "", local: Local = False, name: Name = None, zone: Zone = "", label: Labels = [],  # noqa: B006
    ssh_port: SshPort = None, identity: Identity = None, host_key: HostKey = None, accept_new: AcceptNew = False,
    address: Address = None, agent_port: AgentPort = None, no_packages: NoPackages = False, ask_sudo_pass: AskSudo = False,
    keep_on_failure: Keep = False, quiet: Quiet = False, dry_run: DryRun = False,
) -> Any:
    """Make a host a node: packages, agent, keys, an end-to-end check. Safe to repeat; a failure is rolled back.

    novactl node enroll root@10.0.0.14 --label rack=r2
    novactl node enroll admin@10.0.0.15 -K --host-key SHA256:w1ruQS... --dry-run
    novactl node enroll --local
    """
    from novactl.api import nodes as api

    if local == bool(target):
        raise UsageError("name one host, or this machine with --local", command="novactl node enroll --help")
    session = session_of(ctx)
    wanted = api.EnrollNode(
        target=target, local=local, name=name, zone=zone, labels=pairs(label), port=ssh_port, identity=identity,
        host_key=host_key, accept_new=accept_new, address=address, agent_port=agent_port, packages=not no_packages,
        sudo_password=_sudo(session, ask_sudo_pass),
        confirm_host_key=(lambda key: _trusts(session, key)) if session.can_ask else None, keep_on_failure=keep_on_failure,
    )
    with watching(session, quiet=quiet) as watch:
        made = api.enroll(session.cluster, wanted, watch=watch, dry_run=dry_run)
    if hasattr(made, "changes"):
        changes = tuple(f"would: {change}" for change in made.changes) or ("nothing to do",)
        return Shown(made, rows=made.findings, table=columns.FINDINGS, footer=changes)
    session.note(f"node {made.name} is ready. Undo: novactl node remove {made.name}")
    return Shown(made, rows=(made,))


def _sudo(session: Session, asked: bool) -> Callable[[], str] | None:
    return (lambda: ask.password(session, "sudo password: ")) if asked else None


def _trusts(session: Session, key: Any) -> bool:
    session.note(f"SSH host key {key} is not known. On the host's console: {key.read_it_with}")
    return ask.question(session, "Trust and pin it?")


@NOUN.verb("list", columns.NODES)
def list_(
    ctx: typer.Context,
    cached: Annotated[bool, typer.Option("--cached", help="Show the last reports; ask no agent.")] = False,
) -> Any:
    """List the nodes with what each has: used, allocated and capacity, and the age of its last report.

    novactl node list
    novactl node list -o wide --sort -memory_allocated_mb
    """
    from novactl.api import nodes as api

    return api.list_nodes(cluster_of(ctx), refresh=not cached)


@NOUN.verb("show", columns.NODES)
def show(
    ctx: typer.Context, node: NodeRef,
    cached: Annotated[bool, typer.Option("--cached", help="Show the last report; do not ask the agent.")] = False,
) -> Any:
    """Show one node.

    novactl node show n1
    novactl node show n1 -o json
    """
    from novactl.api import nodes as api

    return api.show(cluster_of(ctx), node, refresh=not cached)


@NOUN.verb("check", columns.FINDINGS)
def check(ctx: typer.Context, node: NodeRef, ask_sudo_pass: AskSudo = False) -> Any:
    """Check a node end to end: its agent, versions, clock, libvirt, storage; exit 1 if anything fails.

    novactl node check n1
    """
    from novactl.api import nodes as api

    session = session_of(ctx)
    return checked(api.check(session.cluster, node, sudo_password=_sudo(session, ask_sudo_pass)))


@NOUN.verb("enable", columns.NODES)
def enable(ctx: typer.Context, nodes: NodeRefs, dry_run: DryRun = False) -> Any:
    """Let nodes take new servers again.

    novactl node enable n1 n2
    """
    from novactl.api import nodes as api

    session = session_of(ctx)
    return each(session, nodes, lambda ref: api.enable(session.cluster, ref, dry_run=dry_run))


@NOUN.verb("disable", columns.NODES)
def disable(
    ctx: typer.Context, nodes: NodeRefs,
    reason: Annotated[str, typer.Option(metavar="TEXT", show_default=False, help="Shown to whoever asks why.")] = "",
    dry_run: DryRun = False,
) -> Any:
    """Let nodes take no new servers; those they have go on running.

    novactl node disable n1 --reason "new kernel"
    """
    from novactl.api import nodes as api

    session = session_of(ctx)
    return each(session, nodes, lambda ref: api.disable(session.cluster, ref, reason=reason, dry_run=dry_run))


@NOUN.verb("remove", columns.NODES)
def remove(
    ctx: typer.Context, node: NodeRef,
    lost: Annotated[bool, typer.Option("--lost", help="The host is gone for good: forget it without reaching it.")] = False,
    ask_sudo_pass: AskSudo = False, yes: Yes = False, quiet: Quiet = False, dry_run: DryRun = False,
) -> Any:
    """Undo an enrolment: agent, keys and files leave the host, the node leaves the cluster. Asks first.

    novactl node remove n1
    novactl node remove n1 --lost --yes
    """
    from novactl.api import nodes as api

    session = session_of(ctx)
    if lost and not dry_run:
        ask.confirm_by_name(session, f"remove the lost node {node}", node, yes=yes)
    elif not dry_run:
        ask.confirm(session, f"remove node {node}", yes=yes)
    with watching(session, quiet=quiet) as watch:
        return api.remove(
            session.cluster, node, lost=lost, watch=watch, dry_run=dry_run, sudo_password=_sudo(session, ask_sudo_pass))
