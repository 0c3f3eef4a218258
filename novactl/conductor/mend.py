"""Mending what does not agree, each by what it is: operations end, rows follow, hosts' guests start, what was left goes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from novactl.cluster import Cluster
from novactl.conductor import clean_server, reconcile, recover
from novactl.conductor.change import changing
from novactl.conductor.crew import side_by_side
from novactl.conductor.drift import Drift, Kind
from novactl.conductor.driver import Driver
from novactl.conductor.progress import Watch, unwatched
from novactl.conductor.saga import begin
from novactl.db import derived, nodes, operations, placement, servers
from novactl.db.crossing import uncrossed
from novactl.errors import Conflict, NovaError
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU
from novactl.states import Event, TaskState, VmState, advance


def mend(cluster: Cluster, found: Sequence[Drift], watch: Watch | None = None) -> tuple[NovaError | None, ...]:
    """Mend them, in an order in which one mends the other; for each the error that kept it as it is.

    Nothing is touched that has no `repair`. Safe to repeat: what has changed since it was found is left alone.
    """
    said: dict[Drift, NovaError | None] = {}
    for kinds, act in _ORDER:
        some = [drift for drift in found if drift.repair and drift.kind in kinds]
        if some:
            said |= act(cluster, some, watch or unwatched)
    return tuple(said.get(drift) for drift in found)


Said = Mapping[Drift, NovaError | None]


def _each(cluster: Cluster, some: Sequence[Drift], act: Callable[[Drift], None]) -> Said:
    def tried(drift: Drift) -> tuple[Drift, NovaError | None]:
        try:
            uncrossed(lambda: act(drift))
            return drift, None
        except NovaError as error:
            return drift, error

    return dict(side_by_side(cluster, some, tried, "drift"))


def _end(cluster: Cluster, some: Sequence[Drift], watch: Watch) -> Said:
    """Operations that nobody drives."""
    errors = {operation.object_id: error for operation, error in recover.recover(cluster)}
    return {drift: errors.get(drift.object_id) for drift in some}


def _follow(cluster: Cluster, some: Sequence[Drift], watch: Watch) -> Said:
    """Rows follow what runs; what ran before its host started anew is started, and waited for."""
    begun = reconcile.follow(cluster, sorted({drift.node_id for drift in some}), at_once=True)

    def drive(id_: str) -> tuple[str, NovaError | None]:
        driver = recover.take_over(cluster, recover.find(cluster, id_), forward=True, watch=watch)
        try:
            recover.resume(cluster, driver)
            return driver.run.operation.object_id, None
        except NovaError as error:
            return driver.run.operation.object_id, error

    errors = dict(side_by_side(cluster, begun, drive, "server")) if begun else {}
    worst = next((error for error in errors.values() if error), None)
    waiting = _without_lease(cluster, {drift.node_id for drift in some if drift.kind is Kind.BOOT})
    return {drift: waiting.get(drift.node_id, worst) if drift.kind is Kind.BOOT else errors.get(drift.object_id) for drift in some}


def _without_lease(cluster: Cluster, node_ids: Collection[str]) -> dict[str, NovaError]:
    now = cluster.clock.now()
    with cluster.db.read() as tx:
        known = [node for id_ in sorted(node_ids) if (node := nodes.by_id(tx, id_)) is not None]
    return {
        node.id: Conflict(
            f"node {node.name} fences itself and has no lease: what ran there is started when it has one, novactl conductor run",
            command="novactl conductor run")
        for node in known if node.lacks_lease(now)}


def _let_go(cluster: Cluster, some: Sequence[Drift], watch: Watch) -> Said:
    """Servers held by operations that have ended."""
    def act(drift: Drift) -> None:
        with changing(cluster, "server.free", {"server": drift.object_id}, dry_run=False) as tx:
            server = servers.by_id(tx, drift.object_id)
            if server is None or not server.operation_id:
                raise Conflict(f"{drift.object} is not held any more")
            held = operations.by_id(tx, server.operation_id)
            if held is not None and not held.state.ended:
                raise Conflict(f"{drift.object} is held by operation {held.id[:8]}", command=f"novactl operation show {held.id[:8]}")
            state = server.state
            if state.task_state is not TaskState.NONE and state.vm_state is not VmState.BUILDING:
                state = advance(state, Event.ABORTED, server.name)
            elif state.vm_state is VmState.BUILDING:
                raise Conflict(f"{drift.object} was never built", command=f"novactl server delete {server.name}")
            servers.move_state(tx, server, state, operation_id="", at=cluster.clock.now())
            tx.on(server, detail=drift.what)

    return _each(cluster, some, act)


def _clean(cluster: Cluster, some: Sequence[Drift], watch: Watch) -> Said:
    """What was left on a node: one operation for each server there, whatever it has left."""
    def act(drift: Drift) -> None:
        name = drift.object.removeprefix("server ")
        record = clean_server.CleanServer(server=drift.object_id, node=drift.node_id, epoch=drift.epoch)
        with cluster.db.write() as tx:
            operation = begin(cluster, tx, clean_server.CLEAN, record, ("server", drift.object_id, name), detail=f"from {drift.node}")
        Driver(cluster, clean_server.CLEAN, operation, watch).drive()

    first = {(drift.object_id, drift.node_id): drift for drift in reversed(some)}
    said = _each(cluster, list(first.values()), act)
    return {drift: said[first[drift.object_id, drift.node_id]] for drift in some}


def _release(cluster: Cluster, some: Sequence[Drift], watch: Watch) -> Said:
    def act(drift: Drift) -> None:
        with changing(cluster, "claim.release", {"consumer": drift.object_id, "node": drift.node_id}, dry_run=False) as tx:
            node, server = nodes.by_id(tx, drift.node_id), servers.by_id(tx, drift.object_id)
            held = operations.by_id(tx, drift.object_id)
            busy = operations.open_of(tx, drift.object_id) or (held is not None and not held.state.ended)
            if node is None or busy or (server is not None and server.deleted_at is None and server.node_id == drift.node_id):
                raise Conflict(f"the claim of {drift.object} on node {drift.node} is in use", command="novactl placement list")
            placement.release(tx, drift.object_id, drift.node_id)
            tx.on(node, noun="node", detail=drift.what)

    return _each(cluster, some, act)


def _claim(cluster: Cluster, some: Sequence[Drift], watch: Watch) -> Said:
    def act(drift: Drift) -> None:
        with changing(cluster, "server.claim", {"server": drift.object_id, "node": drift.node_id}, dry_run=False) as tx:
            nodes.lock(tx, drift.node_id)
            server = servers.by_id(tx, drift.object_id)
            if server is None or server.node_id != drift.node_id or server.operation_id:
                raise Conflict(f"{drift.object} changed while this command looked at it")
            if server.wants.topology is not None or server.wants.pci:
                raise Conflict(f"{drift.object} was tied to pieces of its host, and which is not known any more",
                               hint="delete it, and create it anew")
            placement.acknowledge(tx, placement.Claim(
                server.id, server.node_id, {VCPU: server.vcpus, MEMORY_MB: server.memory_mb, DISK_GB: server.disk_gb},
                project_id=server.project_id, name=server.name))
            tx.on(server, detail=f"on {drift.node}")

    return _each(cluster, some, act)


def _sums(cluster: Cluster, some: Sequence[Drift], watch: Watch) -> Said:
    with cluster.db.write() as tx:
        derived.lock_all(tx)
        derived.everything(tx)
    return dict.fromkeys(some)


_ORDER: tuple[tuple[frozenset[Kind], Callable[[Cluster, Sequence[Drift], Watch], Said]], ...] = (
    (frozenset({Kind.OPERATION}), _end),
    (frozenset({Kind.BUSY}), _let_go),
    (frozenset({Kind.COPY, Kind.LEFTOVER}), _clean),
    (frozenset({Kind.POWER, Kind.CRASHED, Kind.VANISHED, Kind.BOOT}), _follow),
    (frozenset({Kind.ORPHAN}), _release),
    (frozenset({Kind.UNCLAIMED}), _claim),
    (frozenset({Kind.SUMS}), _sums),
)
