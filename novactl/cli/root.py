"""The root of the command tree: the table of nouns, and the options that stand before them."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from typer.main import get_command

from novactl.cli.tree import SETTINGS, LazyGroup, lazy_noun


class Entry(NamedTuple):
    module: str
    section: str
    line: str


_START, _FLEET, _SERVERS, _MORE = "Start here", "The fleet", "Virtual machines", "More"

NOUNS: Mapping[str, Entry] = {
    "init": Entry("novactl.cli.setup", _START, "Make a cluster: its database and this admin's key."),
    "doctor": Entry("novactl.cli.setup", _START, "Check database, key, operations and agents."),
    "cluster": Entry("novactl.cli.cluster", _FLEET, "The cluster as a whole: what it has, what is free, what holds for all of it."),
    "node": Entry("novactl.cli.node", _FLEET, "Hypervisor hosts: enroll, list, check, set, enable, disable, remove."),
    "key": Entry("novactl.cli.key", _FLEET, "Admins and what they may do: their keys, with roles."),
    "aggregate": Entry("novactl.cli.aggregate", _FLEET, "Sets of nodes with metadata that placement reads; also zones."),
    "zone": Entry("novactl.cli.zone", _FLEET, "Availability zones."),
    "trait": Entry("novactl.cli.trait", _FLEET, "What nodes can do, as words that flavors and images ask for."),
    "resource-class": Entry("novactl.cli.resource_class", _FLEET, "What nodes have an amount of."),
    "scheduler": Entry("novactl.cli.scheduler", _FLEET, "What placement decides with: profiles, filters, weighers."),
    "placement": Entry("novactl.cli.placement", _FLEET, "Where servers can go, why, and what is claimed."),
    "capacity": Entry("novactl.cli.capacity", _FLEET, "Say how many more servers fit, and what stops the next one."),
    "operation": Entry("novactl.cli.operation", _FLEET, "Changes under way: list, show, watch, wait, resume, undo, cancel."),
    "events": Entry("novactl.cli.events", _FLEET, "List what has happened: who did what, when, why, with what result."),
    "db": Entry("novactl.cli.db", _FLEET, "The database itself: upgrade, check, backup, restore, rebuild."),
    "conductor": Entry("novactl.cli.conductor", _FLEET, "The optional service: reports, recovery, notifications by themselves."),
    "server": Entry("novactl.cli.server", _SERVERS, "Virtual machines: create, list, start, stop, reboot, console, delete."),
    "flavor": Entry("novactl.cli.flavor", _SERVERS, "Sizes of servers: processors, memory, disk."),
    "image": Entry("novactl.cli.image", _SERVERS, "Bootable disks that servers are made from."),
    "keypair": Entry("novactl.cli.keypair", _SERVERS, "SSH keys that servers are given."),
    "server-group": Entry("novactl.cli.server_group", _SERVERS, "Servers that belong together, or apart."),
    "project": Entry("novactl.cli.project", _SERVERS, "Whose servers they are."),
    "quota": Entry("novactl.cli.quota", _SERVERS, "How much a project may have: show, list, set."),
    "batch": Entry("novactl.cli.batch", _MORE, "Run many commands in one process, one JSON result a line."),
    "completion": Entry("novactl.cli.manual", _MORE, "Print the completion script of a shell."),
    "help": Entry("novactl.cli.manual", _MORE, "Help on a topic or a command."),
    "version": Entry("novactl.cli.setup", _MORE, "The versions of novactl and what it runs on."),
}


def _version(ctx: typer.Context, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        from novactl import __version__

        ctx.obj.stdout.write(f"novactl {__version__}\n")
        ctx.exit()


def options(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option(
        "--version", "-V", is_eager=True, callback=_version, help="Print the version and exit.")] = False,
    config: Annotated[Path | None, typer.Option(
        metavar="FILE", show_default=False, help="The configuration file (or NOVACTL_CONFIG).")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of a crash.")] = False,
) -> None:
    """Place and run virtual machines on a fleet of KVM hosts.

    novactl node enroll root@10.0.0.14
    novactl server create web1 --flavor m1.small --image debian-12
    novactl server list
    """
    ctx.obj.config_file = config
    ctx.obj.debug = ctx.obj.debug or debug


@cache
def root() -> Any:
    """The whole program as one command."""
    app = typer.Typer(rich_markup_mode=None, add_completion=True)
    app.callback(cls=LazyGroup, context_settings=dict(SETTINGS))(options)
    group = get_command(app)
    for name, entry in NOUNS.items():
        group.add_command(lazy_noun(name, entry.module, entry.line, entry.section))
    return group
