"""node.enroll, from the request to the saga: connect, look, plan; then run what there is to run (enrolment.py)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from novactl.agents import wire
from novactl.cluster import Cluster
from novactl.conductor import enrolment, fleet, keyring
from novactl.conductor.background import hand_over
from novactl.conductor.change import changing
from novactl.conductor.driver import Driver
from novactl.conductor.enrolment import ENROLL_NODE, EnrollRecord, Peer
from novactl.conductor.holding import busy
from novactl.conductor.progress import Progress, Watch, unwatched
from novactl.conductor.saga import begin
from novactl.db import keys, meta, nodes, operations
from novactl.db.crossing import begun_anew
from novactl.enroll import bundle
from novactl.enroll.access import Access, Trust, open_shell, requested
from novactl.enroll.checks import OK, WARN
from novactl.enroll.distro import family_of, missing, packages
from novactl.enroll.facts import Facts, gather
from novactl.enroll.goal import CONFIRMED, LOCAL, Goal, admins_text, read_config
from novactl.enroll.log import EnrolLog
from novactl.enroll.plan import Plan, make_plan
from novactl.enroll.request import EnrollNode, EnrolPlan
from novactl.enroll.shell import Shell
from novactl.enroll.site import Before, before_of, earliest, origin_of
from novactl.errors import Conflict, EnrolFailed, NovaError, UsageError
from novactl.model.ids import check_name
from novactl.model.node import Node, NodeState
from novactl.model.operation import Operation

SAGAS = {ENROLL_NODE.kind: ENROLL_NODE}


def enroll(
    cluster: Cluster, request: EnrollNode, *, watch: Watch | None = None, dry_run: bool = False, wait: bool = True,
) -> str | EnrolPlan | Operation:
    """Make the machine a node, or bring it up to date, and return its id; with `dry_run` only say what would be done.

    With `wait=False` the machine is looked at here and changed by a process in the background, whose operation is returned.

    Repeating it changes nothing. Raises what connecting raises, EnrolFailed with every failed finding (nothing was
    changed) or with what a step met (rolled back, and what stayed is listed), Busy, Conflict.
    """
    watch = watch or unwatched
    enrolment.askable(request.sudo_password, wait)
    if request.name is not None:
        check_name("node", request.name)
    log = EnrolLog(cluster.config.data_dir / "logs")
    access, trust = requested(request)
    known = _known(cluster)
    pinned = next((n for n in known if n.name == request.name or (request.name is None and _same_place(n, access))), None)
    if pinned is not None and pinned.host_key and _same_place(pinned, access):
        access = dataclasses.replace(access, host_key=pinned.host_key)
    watch(Progress("", request.name or request.target or "this machine", "connect", "started"))
    shell = open_shell(access, trust, log.write)
    watch(Progress("", request.name or request.target or "this machine", "connect", "done"))
    try:
        access = dataclasses.replace(access, host_key=shell.host_key)
        facts = gather(shell)
        name = check_name("node", request.name or (pinned.name if pinned else "") or _hostname(facts))
        log.named(name)
        existing = next((n for n in known if n.name == name), None)
        goal = _goal(cluster, request, facts, shell.peer, name, known)
        plan = make_plan(facts, goal, cluster.clock.now(), enrolment.others(known))
        record = _record(request, existing, access, goal, facts, plan)
        _tell(watch, name, plan)
        shown = EnrolPlan(name, plan.findings, (*(f"{c.step}: {c.text}" for c in plan.changes), *_row_changes(existing, record)))
        if plan.failures:
            raise EnrolFailed(
                f"{name} cannot be enrolled: {len(plan.failures)} of {len(plan.findings)} checks failed; nothing was changed",
                reasons=[f"{f.check}: {f.detail}" + (f" -> {f.fix}" if f.fix else "") for f in plan.failures])
        if dry_run:
            return shown
        if existing is not None and existing.state is not NodeState.ENROLLING and not plan.changes:
            _recheck(cluster, existing, record, watch)
        else:
            operation = _begun(cluster, record, detached=not wait)
            if not wait:
                hand_over(cluster, [operation.id])
                return operation
            _run(cluster, operation, shell, trust, watch)
        return goal.node_id
    finally:
        shell.close()


def _known(cluster: Cluster) -> tuple[Node, ...]:
    with cluster.db.read() as tx:
        return nodes.all_(tx)


def _same_place(node: Node, access: Access) -> bool:
    stored = node.undo.get("access", {})
    return bool(access.host) and (stored.get("host"), stored.get("port")) == (access.host, access.port)


def _hostname(facts: Facts) -> str:
    if facts.hostname in ("", "localhost"):
        raise UsageError(f"the machine has no name of its own ({facts.hostname or 'none'})", hint="give one with --name")
    return facts.hostname


def _goal(cluster: Cluster, request: EnrollNode, facts: Facts, peer: str, name: str, known: tuple[Node, ...]) -> Goal:
    """A machine that still has the config of a node this cluster has forgotten keeps that node's id."""
    built = bundle.build()
    existing = next((n for n in known if n.name == name), None)
    with cluster.db.read() as tx:
        cluster_id, admins, version = meta.cluster_id(tx), keyring.plain(tx), keys.version(tx)
    config = read_config(facts)
    former = config.get("node_id", "") if config.get("cluster_id") == cluster_id else ""
    adopted = former if former and former not in {n.id for n in known} else ""
    port = request.agent_port or (_port(existing) if existing else 0) or cluster.config["agent.port"]
    return Goal(
        node_id=existing.id if existing else adopted or cluster.ids.uuid(), cluster_id=cluster_id, name=name,
        version=built.version, bundle_folder=built.folder, bundle_sha256=built.sha256,
        admins=admins or {cluster.key: {"name": cluster.actor, "role": wire.ADMIN}}, admins_version=version, port=port,
        report_interval_s=cluster.config["agent.report_interval_s"], packages=request.packages, peer=peer,
        autostart=_autostart(request.autostart or config.get("autostart", CONFIRMED)),
    )


def _autostart(wanted: str) -> str:
    if wanted not in (CONFIRMED, LOCAL):
        raise UsageError(f"autostart {wanted!r} is not one of {CONFIRMED}, {LOCAL}")
    return wanted


def _port(node: Node) -> int:
    text = node.address.rpartition(":")[2]
    return int(text) if text.isdecimal() else 0


def _record(
    request: EnrollNode, existing: Node | None, access: Access, goal: Goal, facts: Facts, plan: Plan,
) -> EnrollRecord:
    before = before_of(facts, goal)
    family = family_of(facts.os_ids, facts.programs)
    lacking = missing(facts.machine, facts.programs, facts.modules)
    wanted = packages(lacking, family, facts.machine) if family and goal.packages else ()
    before = dataclasses.replace(before, packages=wanted)
    stored = existing.undo.get("before") if existing else None
    origin = earliest(wire.from_plain(Before, stored), before) if stored else origin_of(before)
    unfinished = existing is not None and existing.state is NodeState.ENROLLING
    return EnrollRecord(
        node_id=goal.node_id, name=goal.name, zone=request.zone or "", labels=dict(request.labels),
        address=_address(request, existing, access, goal.port), new=existing is None or unfinished, access=access, goal=goal,
        before=origin if unfinished else before, origin=origin,
        changes=tuple(change.step for change in plan.changes), machine_id=facts.machine_id, admins=admins_text(goal),
        family=family.name if family else "", packages=wanted, keep_on_failure=request.keep_on_failure,
        public_key=facts.installed.public_key,
    )


def _address(request: EnrollNode, existing: Node | None, access: Access, port: int) -> str:
    """Where the agent is reached: as asked for, else as before, else where SSH went."""
    host = request.address
    if host is None and existing and existing.address:
        host = existing.address.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    host = host or access.host or "127.0.0.1"
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def _row_changes(existing: Node | None, record: EnrollRecord) -> tuple[str, ...]:
    """What changes in the database alone."""
    if existing is None:
        return ()
    asked: Mapping[str, Any] = {"zone": record.zone, "labels": dict(record.labels), "address": record.address, "ssh": record.access.ssh}
    return tuple(f"{name}: {value}" for name, value in asked.items() if value and getattr(existing, name) != value)


def _tell(watch: Watch, name: str, plan: Plan) -> None:
    count = {verdict: sum(f.verdict == verdict for f in plan.findings) for verdict in (OK, WARN)}
    failed = len(plan.findings) - count[OK] - count[WARN]
    warnings = "; ".join(f"{f.check}: {f.detail}" for f in plan.findings if f.verdict == WARN)
    detail = f"{count[OK]} ok, {count[WARN]} warn, {failed} fail" + (f" ({warnings})" if warnings else "")
    watch(Progress("", name, "check", "done", detail=detail))


@begun_anew
def _recheck(cluster: Cluster, node: Node, record: EnrollRecord, watch: Watch) -> None:
    """Nothing to change on the machine: ask the agent whether all is well, and take its report in."""
    peer = Peer(node.id, node.name, record.address, record.public_key)
    hello = cluster.agents.call(peer, "agent.hello").body
    enrolment.check_hello(hello, node.name, node.id, record.goal.cluster_id)
    report = cluster.agents.call(peer, "inventory.read", wire.InventoryRead(0.0), timeout_s=15).body
    with changing(cluster, "node.enroll", {"name": node.name, "address": record.address}, dry_run=False) as tx:
        for operation in operations.open_of(tx, node.id):
            raise busy(cluster, operation)
        nodes.lock(tx, node.id)                               # what is set of it at this moment is not lost
        fresh = nodes.by_id(tx, node.id)
        if fresh is not None:
            if fresh.public_key != node.public_key:           # it was rotated since the machine was looked at
                record = dataclasses.replace(record, public_key=fresh.public_key)
            nodes.update(tx, enrolment.enrolled(fresh, record, report))
            fleet.take_report(tx, node.id, report, cluster.clock.now())
        tx.on(node, detail="already enrolled")
    watch(Progress("", node.name, "enrolled", "done", detail=f"already enrolled (agent {hello.agent_version}, key ok): 0 changes"))


@begun_anew
def _begun(cluster: Cluster, record: EnrollRecord, *, detached: bool) -> Operation:
    with cluster.db.write() as tx:
        there = nodes.by_name(tx, record.name)
        if there is None and record.new:
            nodes.insert(tx, _first_row(cluster, record))
        elif there is None or there.id != record.node_id or record.new != (there.state is NodeState.ENROLLING):
            raise Conflict(f"node {record.name} was changed by somebody else meanwhile", hint="ask again")
        return begin(cluster, tx, ENROLL_NODE, record, ("node", record.node_id, record.name), detached=detached)


def _run(cluster: Cluster, operation: Operation, shell: Shell, trust: Trust, watch: Watch) -> None:
    extras = {"shell": shell, "trust": trust}
    try:
        Driver(cluster, ENROLL_NODE, operation, watch, extras).drive()
    except NovaError as error:
        shell.note(f"failed: {error.message}")
        raise


def _first_row(cluster: Cluster, record: EnrollRecord) -> Node:
    """ENROLLING, and without an address: nobody asks it anything yet."""
    return Node(
        id=record.node_id, name=record.name, state=NodeState.ENROLLING, address="", public_key="", ssh=record.access.ssh,
        host_key=record.access.host_key, zone=record.zone, architecture="", agent_version="", generation=0,
        state_since=cluster.clock.now(), state_by=cluster.actor,
        created_at=cluster.clock.now(), labels=record.labels, undo=enrolment.undo_of(record),
    )
