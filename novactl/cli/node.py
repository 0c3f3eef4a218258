"""`novactl node`: hypervisor hosts."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from novactl.cli import ask, columns
from novactl.cli.options import Async, DryRun, NodeRef, NodeRefs, Quiet, Timeout, Yes, duration, live_names, pairs
from novactl.cli.progress import watching
from novactl.cli.render import Shown
from novactl.cli.server import begun
from novactl.cli.session import Session, cluster_of, session_of
from novactl.cli.setup import checked
from novactl.cli.targets import each
from novactl.cli.tree import Noun
from novactl.errors import UsageError, WaitTimeout

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
Autostart = Annotated[str | None, typer.Option(
    metavar="WHEN", show_default=False, autocompletion=lambda incomplete: [w for w in ("confirmed", "local") if w.startswith(incomplete)],
    help="After a boot of the host start what ran when this cluster has 'confirmed' that it is still its own (the default), or by the"
    " 'local' agent at once.")]
NoPackages = Annotated[bool, typer.Option("--no-packages", help="Install no packages; fail if some are missing.")]
AskSudo = Annotated[bool, typer.Option("--ask-sudo-pass", "-K", help="Ask for the password that sudo wants on the host.")]


def _ratio(what: str) -> Any:
    return Annotated[str | None, typer.Option(metavar="RATIO", show_default=False, help=f"{what}: 4, 1.5, 0.125.")]


CpuRatio, RamRatio, DiskRatio = (
    _ratio("VCPU per host CPU"), _ratio("Memory that may be claimed per memory there is"), _ratio("Disk likewise"))
ReservedCpus = Annotated[int | None, typer.Option(min=0, metavar="N", show_default=False, help="CPUs kept for the host itself.")]
ReservedRam = Annotated[str | None, typer.Option(metavar="SIZE", show_default=False, help="Memory kept for the host itself: 512M, 4G.")]
ReservedDisk = Annotated[str | None, typer.Option(metavar="SIZE", show_default=False, help="Disk kept for the host itself: 20G.")]
Trait = Annotated[list[str], typer.Option(
    "--trait", metavar="CUSTOM_X", show_default=False, autocompletion=live_names("trait"), help="A trait of your own; may be repeated.")]
Keep = Annotated[bool, typer.Option("--keep-on-failure", help="Leave a failed attempt as it is, to look at.")]


@NOUN.verb("enroll", columns.NODES, changes=True)
def enroll(
    ctx: typer.Context, target: Target = "", local: Local = False, name: Name = None, zone: Zone = "", label: Labels = [],  # noqa: B006
    ssh_port: SshPort = None, identity: Identity = None, host_key: HostKey = None, accept_new: AcceptNew = False,
    address: Address = None, agent_port: AgentPort = None, autostart: Autostart = None, no_packages: NoPackages = False,
    ask_sudo_pass: AskSudo = False, keep_on_failure: Keep = False, async_: Async = False, timeout: Timeout = "", quiet: Quiet = False,
    dry_run: DryRun = False,
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
        host_key=host_key, accept_new=accept_new, address=address, agent_port=agent_port, autostart=autostart, packages=not no_packages,
        sudo_password=_sudo(session, ask_sudo_pass),
        confirm_host_key=(lambda key: _trusts(session, key)) if session.can_ask else None, keep_on_failure=keep_on_failure,
    )
    timeout_s = duration(timeout)
    with watching(session, quiet=quiet, kind="node.enroll") as watch:
        made = api.enroll(session.cluster, wanted, watch=watch, dry_run=dry_run, wait=not async_, timeout_s=timeout_s)
    if isinstance(made, str):
        return begun(made)
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
    from novactl.api.node_views import DENIED

    session = session_of(ctx)
    found = api.list_nodes(session.cluster, refresh=not cached)
    denied = [node.name for node in found if node.reason == DENIED]
    if denied:
        session.note(f"{', '.join(denied)}: {DENIED}")
    return found


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


@NOUN.verb("events", columns.EVENTS)
def events(ctx: typer.Context, node: NodeRef) -> Any:
    """List what has happened to a node.

    novactl node events n1
    """
    from novactl.api import events as api

    return api.of_node(cluster_of(ctx), node)


@NOUN.verb("check", columns.FINDINGS)
def check(ctx: typer.Context, node: NodeRef, ask_sudo_pass: AskSudo = False) -> Any:
    """Check a node end to end: its agent, versions, clock, libvirt, storage; exit 1 if anything fails.

    novactl node check n1
    """
    from novactl.api import nodes as api

    session = session_of(ctx)
    return checked(api.check(session.cluster, node, sudo_password=_sudo(session, ask_sudo_pass)))


@NOUN.verb("set", columns.NODES, changes=True)
def set_(
    ctx: typer.Context, nodes: NodeRefs, cpu_ratio: CpuRatio = None, ram_ratio: RamRatio = None, disk_ratio: DiskRatio = None,
    reserved_cpus: ReservedCpus = None, reserved_ram: ReservedRam = None, reserved_disk: ReservedDisk = None,
    inventory: Annotated[list[str], typer.Option(
        metavar="CUSTOM_X=N", show_default=False,
        help="So much of a class of your own; ,reserved=N ,ratio=R ,min=N ,max=N ,step=N may follow. May be repeated.")] = [],  # noqa: B006
    trait: Trait = [], label: Labels = [],  # noqa: B006
    zone: Annotated[str | None, typer.Option(
        metavar="ZONE", show_default=False, autocompletion=live_names("zone"), help="The availability zone it belongs to.")] = None,
    shared_disk: Annotated[str | None, typer.Option(
        metavar="POOL", show_default=False, help="Its disk is this pool, which other nodes have too: counted once.")] = None,
    dedicated_cpus: Annotated[str | None, typer.Option(
        metavar="CPUS", show_default=False, help="Host CPUs kept for servers with CPUs of their own: 2-7 or 2,3,8-11.")] = None,
    fence: Annotated[str | None, typer.Option(
        metavar="METHOD", show_default=False, help="How it is switched off: ipmi, redfish, agent, command, ssh or self.")] = None,
    fence_option: Annotated[list[str], typer.Option(
        metavar="KEY=VALUE", show_default=False, help="What that needs: ip=, username=, password_file=, ...; may be repeated.")] = [],  # noqa: B006
    dry_run: DryRun = False,
) -> Any:
    """Set what of nodes may be claimed, and what is said of them. Servers they have go on, also where less is left than they use.

    novactl node set n1 --cpu-ratio 2.5 --reserved-ram 4G
    novactl node set n1 n2 --inventory CUSTOM_GPU=4,max=2 --trait CUSTOM_NVLINK --label rack=r2
    novactl node set n1 --fence ipmi --fence-option ip=10.0.9.1 --fence-option username=ops --fence-option password_file=/root/ipmi.n1
    """
    from novactl.api import nodes as api
    from novactl.model.amounts import custom_inventory, ratio_milli
    from novactl.model.topology import cpu_list
    from novactl.model.units import gib, mib

    ratios = {"VCPU": cpu_ratio, "MEMORY_MB": ram_ratio, "DISK_GB": disk_ratio}
    reserved = {
        "VCPU": reserved_cpus, "MEMORY_MB": None if reserved_ram is None else mib(reserved_ram),
        "DISK_GB": None if reserved_disk is None else gib(reserved_disk)}
    change = api.SetNode(
        ratios={name: ratio_milli(text) for name, text in ratios.items() if text is not None},
        reserved={name: amount for name, amount in reserved.items() if amount is not None},
        inventories=tuple(map(custom_inventory, inventory)), traits=tuple(trait), labels=pairs(label), zone=zone, shared_disk=shared_disk,
        dedicated_cpus=None if dedicated_cpus is None else cpu_list(dedicated_cpus), fencing=_fencing(fence, fence_option))
    return _changed(session_of(ctx), nodes, lambda cluster, ref: api.set_(cluster, ref, change, dry_run=dry_run))


@NOUN.verb("unset", columns.NODES, changes=True)
def unset(
    ctx: typer.Context, nodes: NodeRefs, trait: Trait = [],  # noqa: B006
    label: Annotated[list[str], typer.Option(metavar="KEY", show_default=False, help="A label; may be repeated.")] = [],  # noqa: B006
    inventory: Annotated[list[str], typer.Option(
        metavar="CUSTOM_X", show_default=False, help="A class of your own; may be repeated.")] = [],  # noqa: B006
    zone: Annotated[bool, typer.Option("--zone", help="It belongs to no zone but those of its aggregates.")] = False,
    shared_disk: Annotated[bool, typer.Option("--shared-disk", help="Its disk is its own.")] = False,
    dedicated_cpus: Annotated[bool, typer.Option("--dedicated-cpus", help="All its CPUs are shared.")] = False,
    fence: Annotated[bool, typer.Option("--fence", help="There is no way of switching it off.")] = False,
    dry_run: DryRun = False,
) -> Any:
    """Take away what `node set` gave. What is not there is no error; what servers claim stays.

    novactl node unset n1 --trait CUSTOM_NVLINK --label rack
    novactl node unset n1 n2 --inventory CUSTOM_GPU
    novactl node unset n3 --dedicated-cpus --zone
    """
    from novactl.api import nodes as api

    change = api.UnsetNode(
        traits=tuple(trait), labels=tuple(label), inventories=tuple(inventory), zone=zone, shared_disk=shared_disk,
        dedicated_cpus=dedicated_cpus, fencing=fence)
    return _changed(session_of(ctx), nodes, lambda cluster, ref: api.unset(cluster, ref, change, dry_run=dry_run))


def _fencing(method: str | None, options: list[str]) -> dict[str, str] | None:
    if method is None:
        if options:
            raise UsageError(
                "--fence-option belongs to a --fence METHOD", hint="give both: they replace what was set",
                command="novactl node set --help")
        return None
    return {"method": method, **pairs(options)}


def _changed(session: Session, refs: list[str], act: Callable[[Any, str], Any]) -> Shown:
    """`act` on each node; what it warns of goes to stderr."""
    def one(ref: str) -> Any:
        changed = act(session.cluster, ref)
        for warning in changed.warnings:
            session.note(f"warning: {warning}")
        return changed.node

    return each(session, refs, one)


@NOUN.verb("fence", columns.NODES, changes=True)
def fence(
    ctx: typer.Context, node: NodeRef,
    by_hand: Annotated[bool, typer.Option(
        "--i-have-powered-it-off", help="You have made sure yourself that it is off. If it is not, disks are opened twice.")] = False,
    async_: Async = False, timeout: Timeout = "", yes: Yes = False, quiet: Quiet = False, dry_run: DryRun = False,
) -> Any:
    """Make sure that a node runs nothing any more, and start its servers with --ha on other nodes. Asks for its name first.

    novactl node fence n1
    novactl node fence n1 --i-have-powered-it-off
    novactl node fence n1 --dry-run

    Where it is not waited for to the end (--async, --timeout, Ctrl-C), the fencing alone goes on by itself: its servers are started
    elsewhere by a conductor service (`novactl conductor show`), or by this command given again.
    """
    from novactl.api import ha as api

    session, timeout_s = session_of(ctx), duration(timeout)
    if not dry_run:
        act = f"count node {node} as switched off" if by_hand else f"switch node {node} off"
        ask.confirm_by_name(session, act, node, yes=yes)
    try:
        with watching(session, quiet=quiet, kind="node.fence") as watch:
            fenced = api.fence(
                session.cluster, node, by_hand=by_hand, watch=watch, dry_run=dry_run, wait=not async_, timeout_s=timeout_s)
    except WaitTimeout as late:
        late.hint = _who_goes_on(session, node, by_hand)
        raise
    if isinstance(fenced, str):
        session.note(f"hint: {_who_goes_on(session, node, by_hand)}")
        return begun(fenced)
    if isinstance(fenced, tuple):
        if not fenced:
            session.note(f"node {node} is fenced already, and none of its servers is to be started elsewhere")
        return begun(fenced)
    for server in fenced.elsewhere:
        session.note(f"server {server.name} runs on {server.node_name} now")
    for name, why in fenced.stayed:
        session.note(f"server {name} stays: {why}")
    return Shown(fenced.node)


def _who_goes_on(session: Session, node: str, by_hand: bool) -> str:
    """What starts the servers of a node elsewhere that is fenced while nobody waits, and how that is seen."""
    from novactl.api import service

    leader = service.show(session.cluster).leader
    if leader:
        return f"once it is fenced, the conductor ({leader}) starts its servers with --ha elsewhere; to see it: novactl events --follow"
    again = f"novactl node fence {node}{' --i-have-powered-it-off' if by_hand else ''}"
    return f"no conductor runs that would start its servers with --ha elsewhere once it is fenced: then {again}, or novactl conductor run"


@NOUN.verb("enable", columns.NODES, changes=True)
def enable(ctx: typer.Context, nodes: NodeRefs, dry_run: DryRun = False) -> Any:
    """Let nodes take new servers again.

    novactl node enable n1 n2
    """
    from novactl.api import nodes as api

    session = session_of(ctx)
    return each(session, nodes, lambda ref: api.enable(session.cluster, ref, dry_run=dry_run))


@NOUN.verb("disable", columns.NODES, changes=True)
def disable(
    ctx: typer.Context, nodes: NodeRefs, dry_run: DryRun = False,
) -> Any:
    """Let nodes take no new servers; those they have go on running. The reason is shown to whoever asks why.

    novactl node disable n1 --reason "new kernel"
    """
    from novactl.api import nodes as api

    session = session_of(ctx)
    return each(session, nodes, lambda ref: api.disable(session.cluster, ref, reason=session.reason, dry_run=dry_run))


@NOUN.verb("rotate-key", columns.NODES, changes=True)
def rotate_key(
    ctx: typer.Context, nodes: NodeRefs, async_: Async = False, timeout: Timeout = "", quiet: Quiet = False, dry_run: DryRun = False,
) -> Any:
    """Change nodes' own keys. The node makes the new one itself; connections and servers go on.

    novactl node rotate-key n1
    novactl node rotate-key n1 n2 --reason "laptop with a backup lost"
    """
    from novactl.api import nodes as api

    session, timeout_s = session_of(ctx), duration(timeout)
    with watching(session, quiet=quiet, kind="node.rotate_key") as watch:
        shown = each(session, nodes, lambda ref: api.rotate_key(
            session.cluster, ref, watch=watch, dry_run=dry_run, wait=not async_, timeout_s=timeout_s))
    return begun(shown.value) if isinstance(shown.value, str) else shown


@NOUN.verb("remove", columns.NODES, changes=True)
def remove(
    ctx: typer.Context, node: NodeRef,
    lost: Annotated[bool, typer.Option("--lost", help="The host is gone for good: forget it without reaching it.")] = False,
    ask_sudo_pass: AskSudo = False, async_: Async = False, timeout: Timeout = "", yes: Yes = False, quiet: Quiet = False,
    dry_run: DryRun = False,
) -> Any:
    """Undo an enrolment: agent, keys and files leave the host, the node leaves the cluster. Asks first.

    novactl node remove n1
    novactl node remove n1 --lost --yes
    """
    from novactl.api import nodes as api

    session, timeout_s = session_of(ctx), duration(timeout)
    if lost and not dry_run:
        ask.confirm_by_name(session, f"remove the lost node {node}", node, yes=yes)
    elif not dry_run:
        ask.confirm(session, f"remove node {node}", yes=yes)
    with watching(session, quiet=quiet, kind="node.remove") as watch:
        gone = api.remove(
            session.cluster, node, lost=lost, watch=watch, dry_run=dry_run, sudo_password=_sudo(session, ask_sudo_pass), wait=not async_,
            timeout_s=timeout_s)
    return begun(gone) if isinstance(gone, str) else gone
