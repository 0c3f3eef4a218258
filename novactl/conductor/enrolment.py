"""The saga of node.enroll: one step a change (novactl.enroll.steps), then an end-to-end check over ZeroMQ.

Only after the check does the node take servers. What is undone is what `Before` says was not there; the record holds all
that a later process needs for that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from novactl.agents import wire
from novactl.conductor import fleet
from novactl.conductor.history import note
from novactl.conductor.saga import Run, Saga, Step, nothing
from novactl.db import nodes
from novactl.db.statements import Tx
from novactl.enroll import service, steps
from novactl.enroll.access import Access, Trust, open_shell
from novactl.enroll.goal import Goal, Others
from novactl.enroll.log import EnrolLog
from novactl.enroll.shell import Shell
from novactl.enroll.site import Before, Site
from novactl.errors import EnrolFailed, NovaError, Unreachable, UsageError
from novactl.model.key import Role
from novactl.model.node import Node, NodeState
from novactl.model.operation import OperationState
from novactl.model.resources import Inventory

AGENT_DEADLINE_S = 20.0
"""How long an agent just started may take to answer."""


@dataclass(frozen=True, kw_only=True)
class EnrollRecord:
    """`new`: the node has never been enrolled to the end. `changes`: the steps that have something to do. `origin` is `Before` of the
    first enrolment, kept for `node remove`; `report` is the agent's first. `zone` and `labels` are those asked for: what is empty stays
    as it is in the row by then."""

    node_id: str
    name: str
    zone: str
    labels: Mapping[str, str]
    address: str
    new: bool
    access: Access
    goal: Goal
    before: Before
    origin: Before
    changes: tuple[str, ...]
    machine_id: str
    admins: str
    family: str = ""
    packages: tuple[str, ...] = ()
    keep_on_failure: bool = False
    public_key: str = ""
    report: Mapping[str, Any] = field(default_factory=dict)

    @property
    def peer(self) -> Peer:
        return Peer(self.node_id, self.name, self.address, self.public_key)


@dataclass(frozen=True)
class Peer:
    """What novactl.agents needs to know of an agent."""

    id: str
    name: str
    address: str
    public_key: str


def others(known: Sequence[Node]) -> Others:
    """What preflight has to know of the nodes there are."""
    return Others(
        machine_ids={n.undo["machine_id"]: n.name for n in known if n.undo.get("machine_id")},
        hostnames={n.report["hostname"].split(".")[0]: n.name for n in known if n.report and n.report.get("hostname")},
        ids={n.id: n.name for n in known},
    )


# ---------------------------------------------------------------- the machine


def site_of(run: Run, record: EnrollRecord) -> Site:
    return Site(machine(run, record.access, record.name), record.goal, record.before, record.admins, record.family, record.packages)


def machine(run: Run, access: Access, name: str) -> Shell:
    """The root shell of this run, opened again where another process began (then only the pinned host key will do)."""
    if "shell" not in run.extras:
        log = EnrolLog(run.cluster.config.data_dir / "logs", name)
        run.extras["shell"] = open_shell(access, run.extras.get("trust", Trust()), log.write)
    return run.extras["shell"]


def askable(sudo_password: object, wait: bool) -> None:
    """Raises UsageError for what a process in the background would have to ask."""
    if sudo_password is not None and not wait:
        raise UsageError(
            "what goes on in the background cannot ask for a password: nobody is there to type it",
            hint="leave out --ask-sudo-pass, or --async and --timeout")


def stayed(run: Run) -> list[str]:
    """What the undos had to leave, so far."""
    return run.extras.setdefault("stayed", [])


# ---------------------------------------------------------------- steps


def _lock(run: Run, record: EnrollRecord) -> EnrollRecord:
    service.lock(site_of(run, record), run.operation.id)
    return record


def _as_before(run: Run, record: EnrollRecord) -> None:
    """The last thing undone: what ran before runs again with its own files."""
    site = site_of(run, record)
    if service.locked_by(site, run.operation.id):
        if not record.keep_on_failure:
            service.restart_former(site)
        service.unlock(site, run.operation.id)


def unlock(run: Run, record: EnrollRecord) -> EnrollRecord:
    service.unlock(site_of(run, record), run.operation.id)
    return record


def _step(of: steps.NodeStep) -> Step[EnrollRecord]:
    def do(run: Run, record: EnrollRecord) -> EnrollRecord:
        site = site_of(run, record)
        if of.name in record.changes:
            of.do(site)
        if of.name == "keys":
            return dataclasses.replace(record, public_key=steps.public_key(site))
        return record

    def undo(run: Run, record: EnrollRecord) -> None:
        if record.keep_on_failure:
            stayed(run).append(f"{of.name}: as it was left (--keep-on-failure)")
        elif record.new or of.name in record.changes:
            stayed(run).extend(of.undo(site_of(run, record)))

    return Step(of.name, do, undo)


def verify(run: Run, record: EnrollRecord) -> EnrollRecord:
    """The agent answers over CURVE, is ours, drives libvirt, has its pool and network, and says what the node has."""
    hello = await_agent(run, record)
    check_hello(hello, record.name, record.node_id, record.goal.cluster_id)
    report = prepare(run, record.peer)
    return dataclasses.replace(record, report=wire.to_plain(report))


def await_agent(run: Run, record: EnrollRecord) -> wire.Hello:
    """`agent.hello`, asked until it answers. Raises Unreachable with the agent's last words."""
    clock = run.cluster.clock
    deadline = clock.monotonic() + AGENT_DEADLINE_S
    while True:
        try:
            return run.call(record.peer, "agent.hello", timeout_s=2)
        except NovaError as error:
            if clock.monotonic() > deadline:
                raise Unreachable(
                    f"the agent on {record.name} was started but does not answer at {record.address}: {error.message}",
                    hint="does a firewall between here and there drop the port? is the address right (--address)?",
                    reasons=service.log_tail(site_of(run, record)),
                ) from error
        clock.sleep(0.1)


def check_hello(hello: wire.Hello, name: str, node_id: str, cluster_id: str) -> None:
    """Raises EnrolFailed when who answers is not who it should be."""
    if (hello.node_id, hello.cluster_id) != (node_id, cluster_id):
        raise EnrolFailed(
            f"what answers for {name} is another agent: node {hello.node_id} of cluster {hello.cluster_id}",
            hint="two machines behind one address? see --address")
    if hello.driver != "libvirt":
        raise EnrolFailed(f"the agent on {name} drives {hello.driver}, not libvirt")


def prepare(run: Run, peer: Peer) -> wire.Report:
    """Pool and network made, a fresh report taken, and the agent told the sums it may not pass."""
    run.call(peer, "node.prepare", wire.Prepare())
    report: wire.Report = run.call(peer, "inventory.read", wire.InventoryRead(0.0), timeout_s=15)
    with run.cluster.db.read() as tx:
        held = nodes.inventories_of(tx, peer.id)
    offered = inventories(run.cluster.config, report, held)
    run.call(peer, "node.prepare", wire.Prepare(limits={name: inventory.capacity for name, inventory in offered.items()}))
    return report


def inventories(settings: Mapping[str, Any], report: wire.Report, held: Mapping[str, Inventory]) -> dict[str, Inventory]:
    """What the node offers: ratios and reservations as they were set, else the settings'; totals as reported."""
    first = fleet.first_inventories(settings, report)
    return {
        name: dataclasses.replace(held[name], total=new.total, max_unit=new.max_unit) if name in held else new
        for name, new in first.items()
    }


def _unprepare(run: Run, record: EnrollRecord) -> None:
    """Of a first enrolment, the pool and the network go too: by the agent, or where it cannot be asked, by libvirt."""
    if not record.new or record.before.config or record.keep_on_failure:
        return
    try:
        run.call(record.peer, "node.unprepare", timeout_s=20)
    except NovaError as error:
        site = site_of(run, record)
        site.shell.note(f"node.unprepare: {error.message}")
        service.remove_pool(site)


# ---------------------------------------------------------------- the end


def _finish(run: Run, tx: Tx, record: EnrollRecord) -> None:
    report = wire.from_plain(wire.Report, dict(record.report))
    nodes.lock(tx, record.node_id)                            # what is set of it at this moment is not lost
    node = nodes.by_id(tx, record.node_id)
    if node is None:
        raise EnrolFailed(f"node {record.name} vanished from the database while it was enrolled")
    nodes.update(tx, enrolled(node, record, report).stamped(node, run.cluster.clock.now(), run.operation.actor))
    nodes.ensure_inventory(tx, node.id, fleet.first_inventories(run.cluster.config, report))
    fleet.take_report(tx, node.id, report, run.cluster.clock.now())
    note(run, tx, "enrolled", f"{record.access.ssh}, agent {report.agent_version}: {', '.join(record.changes)}")


def enrolled(node: Node, record: EnrollRecord, report: wire.Report) -> Node:
    """The node's row after the check. One that was disabled stays so."""
    first = node.state is NodeState.ENROLLING
    return dataclasses.replace(
        node, state=NodeState.ENABLED if first else node.state, reason="" if first else node.reason,
        address=record.address, public_key=record.public_key, ssh=record.access.ssh, host_key=record.access.host_key,
        zone=record.zone or node.zone, labels=record.labels or node.labels, architecture=report.architecture,
        agent_version=report.agent_version,
        undo=undo_of(record),
    )


def undo_of(record: EnrollRecord) -> dict[str, Any]:
    """For the node's row: what `node remove` and `node check` need."""
    return {
        "access": wire.to_plain(record.access), "goal": wire.to_plain(record.goal), "before": wire.to_plain(record.origin),
        "machine_id": record.machine_id,
    }


def _fail(run: Run, tx: Tx, record: EnrollRecord, error: NovaError) -> None:
    """The row of a node that never was goes, unless it is kept to be looked at; what stayed on the machine is said."""
    node = nodes.by_id(tx, record.node_id)
    if record.new and record.keep_on_failure and node is not None:
        nodes.update(tx, dataclasses.replace(
            node, reason=f"enrolment failed: {error.message}", address=record.address if record.public_key else "",
            public_key=record.public_key))
    elif record.new:
        nodes.delete(tx, record.node_id)
    log = run.cluster.config.data_dir / "logs" / f"enrol-{record.name}.log"
    undone = run.operation.state is OperationState.UNWINDING
    left = stayed(run) or ["rolled back: nothing stays on the machine" if undone else "given up: what it has done there stays"]
    error.reasons = (*error.reasons, *left, f"log: {log}")
    note(run, tx, "enrolment failed", error.message)


ENROLL_NODE: Saga[EnrollRecord] = Saga(
    kind="node.enroll", record=EnrollRecord,
    steps=(
        Step("lock", _lock, _as_before),
        *(_step(of) for of in steps.STEPS),
        Step("verify", verify, _unprepare),
        Step("unlock", unlock, nothing("undoing goes on without it")),
    ),
    finish=_finish, fail=_fail, timeout="timeout.enroll_s", detaches=False, role=Role.ADMIN,
)
