"""`node check`: the preflight of enrolment on a node that is one already, and its agent asked end to end. Changes nothing."""

from __future__ import annotations

import dataclasses

from novactl.agents import wire
from novactl.cluster import Cluster
from novactl.conductor import keyring
from novactl.conductor.enrolment import check_hello, others
from novactl.db import keys, meta, nodes
from novactl.enroll.access import Access, Trust, open_shell
from novactl.enroll.checks import FAIL, OK, WARN, hanging
from novactl.enroll.facts import gather
from novactl.enroll.goal import Goal
from novactl.enroll.plan import make_plan
from novactl.enroll.request import SudoPassword
from novactl.errors import NovaError
from novactl.model.finding import Finding
from novactl.model.node import Node


def check(cluster: Cluster, node: Node, *, sudo_password: SudoPassword | None = None) -> tuple[Finding, ...]:
    """Every finding at once: the agent's first, then what SSH shows. What cannot be asked is a finding too."""
    return (*_agent(cluster, node), *_machine(cluster, node, sudo_password))


def _agent(cluster: Cluster, node: Node) -> tuple[Finding, ...]:
    if not node.address:
        return (Finding("agent", FAIL, "the enrolment has not ended", f"novactl node enroll … --name {node.name}"),)
    with cluster.db.read() as tx:
        version, cluster_id = keys.version(tx), meta.cluster_id(tx)
    try:
        hello = cluster.agents.call(node, "agent.hello").body
        check_hello(hello, node.name, node.id, cluster_id)
        report = cluster.agents.call(node, "inventory.read", wire.InventoryRead(0.0), timeout_s=15).body
    except NovaError as error:
        fix = error.hint or f"on the machine: the agent's log; from here: {node.enroll_again}"
        return (Finding("agent", FAIL, error.message, fix),)
    virt = Finding("guests run by", OK if report.virt_type == "kvm" else WARN, report.virt_type,
                   "" if report.virt_type == "kvm" else "emulation is slow: see the findings on kvm")
    return (
        Finding("agent", OK, f"{hello.agent_version} at {node.address}, {report.disk_gb - report.disk_used_gb} GB free in its pool"),
        virt,
        _table(hello.admins_version, version),
    )


def _table(there: int, current: int) -> Finding:
    if there == current:
        return Finding("admins' keys", OK, f"version {there}")
    if there < current:
        return Finding("admins' keys", WARN, f"the agent has version {there} of their table, {current} is the present one",
                       "an admin's next command to it hands it over: novactl node list")
    return Finding("admins' keys", FAIL, f"the agent has version {there} of their table, the database {current}",
                   "was the database restored from an old copy, or are two in use? novactl cluster adopt")


def _machine(cluster: Cluster, node: Node, sudo_password: SudoPassword | None) -> tuple[Finding, ...]:
    if "access" not in node.undo or "goal" not in node.undo:
        return (Finding("ssh", WARN, "how to reach the machine by SSH is not known: its enrolment is not in this database",
                        node.enroll_again),)
    access = wire.from_plain(Access, node.undo["access"])
    with cluster.db.read() as tx:
        goal = dataclasses.replace(
            wire.from_plain(Goal, node.undo["goal"]), admins=keyring.plain(tx), admins_version=keys.version(tx))
    try:
        shell = open_shell(access, Trust(sudo_password=sudo_password))
    except NovaError as error:
        fix = error.hint or "SSH is needed to check, to enrol again and to remove, not to run servers"
        return (Finding("ssh", WARN, error.message, fix),)
    try:
        facts = gather(shell)
    except NovaError as error:
        return (Finding("ssh", WARN, error.message, error.hint),)
    finally:
        shell.close()
    if facts.hangs:                                           # what differs from what it should be cannot be told from what was not read
        return hanging(facts)
    with cluster.db.read() as tx:
        known = nodes.all_(tx)
    plan = make_plan(facts, goal, cluster.clock.now(), others([n for n in known if n.id != node.id]))
    drift = [
        Finding("enrolment", WARN, f"{change.step}: {change.text}", node.enroll_again) for change in plan.changes
    ]
    return (*plan.findings, *(drift or [Finding("enrolment", OK, "nothing on the machine differs from what it should be")]))
