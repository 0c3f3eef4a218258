"""What must hold, whatever happened: trust's I1 to I9 as far as they can be seen from here. One `Oracle` watches one history.

I10 (secrets) and I11 (upgrades) are other tests' business: no command line, log file or older agent is simulated.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from nodeagent.domainxml import disk_name, seed_name
from novactl.agents import wire
from novactl.conductor import recover
from novactl.conductor.drift import Kind
from novactl.conductor.leader import LEADER
from novactl.conductor.survey import survey
from novactl.db import nodes, operations, placement, projects, servers
from novactl.model.node import NodeState
from novactl.model.operation import Operation, OperationState
from novactl.states import VmState
from tests.simulate.conductors import BY_ITSELF, FENCE_AFTER_S, HEARD_WITHIN_S, is_conductor

POWERED = {"server.create": True, "server.start": True, "server.reboot": True, "server.stop": False}
"""What a server is after such an operation ended well."""

_OVERFULL = """
SELECT c.node_id, c.resource_class, SUM(c.amount), i.total, i.reserved, i.ratio_milli FROM claim c
LEFT JOIN inventory i ON i.node_id = c.node_id AND i.resource_class = c.resource_class
GROUP BY c.node_id, c.resource_class
HAVING i.total IS NULL OR SUM(c.amount) * 1000 > (i.total - i.reserved) * i.ratio_milli"""


class Oracle:
    """`violations` are sentences that begin with the invariant's name. `recoveries` counts operations that came to another process."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.recoveries = 0
        self.effects = 0

    def begin(self, world: Any) -> None:
        self._world = world
        self._effects: defaultdict[tuple[Any, ...], int] = defaultdict(int)
        self._epochs: dict[tuple[str, str, str], int] = {}
        self._server_epochs: dict[tuple[str, str], int] = {}
        self._outside: defaultdict[str, int] = defaultdict(int)
        self._running: defaultdict[str, set[str]] = defaultdict(set)
        self._written: dict[tuple[str, str], int] = {}
        self._states: dict[str, tuple[str, bool, str]] = {}
        self._well_ended: defaultdict[str, list[tuple[float, str, str]]] = defaultdict(list)
        self._cut_at: dict[str, float] = {}
        self._home: dict[str, tuple[str, float]] = {}
        self._fenced_at: dict[str, float] = {}
        self._leaders: dict[int, str] = {}

    def broken(self, what: str) -> None:
        self._world.log(self._world.scheduler.now, "oracle", f"VIOLATION {what}")
        self.violations.append(what)

    # ---- while it runs: the database

    def watched(self, tx_of: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """`Run.tx`, with a look at the end whether the operation was this process's to write (I6)."""

        @contextlib.contextmanager
        def tx(run: Any) -> Iterator[Any]:
            with tx_of(run) as inner:
                yield inner
                now = operations.by_id(inner, run.operation.id)
                if now is None or now.epoch != run.operation.epoch:
                    self.broken(f"I6: operation {run.operation.id[:8]} is at epoch {now and now.epoch}; written at {run.operation.epoch}")

        return tx

    def understood(self, result_of: Callable[..., Any]) -> Callable[..., Any]:
        """`link.result_of`: whatever is late, lost or doubled, what an agent answers is an answer to what it was asked."""

        def checked(peer: Any, method: str, reply: wire.Reply) -> Any:
            if reply.kind == wire.PROGRESS:
                self.broken(f"that {method} is under way on {peer.name} was taken for its answer")
            return result_of(peer, method, reply)

        return checked

    def before_commit(self, tx: Any, process: Any) -> None:
        if any(name.startswith(("claims.", "inventories.", "placement.")) for name in tx.changed):
            for node, resource, used, total, reserved, ratio in self._world.connection.execute(_OVERFULL):
                self.broken(f"I2: {used} {resource} claimed on node {node[:8]} of ({total} - {reserved}) * {(ratio or 0) / 1000}")

    def after_commit(self, tx: Any, process: Any) -> None:
        now_s = self._world.scheduler.now
        if any(name.startswith("nodes.") for name in tx.changed):
            for name, in self._world.connection.execute("SELECT name FROM node WHERE state = 'fenced'"):
                self._fenced_at[name] = now_s
        if not any(name.startswith("operations.") for name in tx.changed):
            return
        for id_, kind, object_id, name, state, ended_at, owner in self._world.connection.execute(
                "SELECT id, kind, object_id, object_name, state, ended_at, owner FROM operation"):
            was = self._states.get(id_)
            now = (state, ended_at is not None, owner)
            if was == now:
                continue
            self._states[id_] = now
            if OperationState(state).ended != (ended_at is not None):
                self.broken(f"I4: operation {id_[:8]} ({kind} {name}) is {state} and has{'' if ended_at else ' not'} ended")
            if was and was[1]:
                self.broken(f"I4: operation {id_[:8]} ({kind} {name}) had ended as {was[0]} and is {state} now")
            elif was and (was[0], state) == (OperationState.STUCK.value, OperationState.FAILED.value):
                self._outside[object_id] += 1                 # given up without being undone: it may have happened
            elif state == OperationState.OK.value:
                self._well_ended[object_id].append((self._world.scheduler.now, kind, name))
            if was is None and kind in ("node.fence", "server.evacuate") and is_conductor(process):
                self._begins(process, kind, name)
            if was and owner not in ("", was[2]):
                self.recoveries += 1

    # ---- while it runs: the nodes

    def obeyed(self, node: Any, operation: str, server: str, epoch: int, server_epoch: int) -> None:
        """The agent took note of these epochs."""
        key = (node.name, operation, server)
        self._epochs[key] = max(epoch, self._epochs.get(key, 0))
        if server:
            self._server_epochs[node.name, server] = max(server_epoch, self._server_epochs.get((node.name, server), 0))

    def differs(self, node: Any, server: str, before: tuple[Any, ...], after: tuple[Any, ...]) -> bool:
        """Whether something was done. Of a disk that no guest has written to, a fresh one is as good as the one before."""
        fresh = bool(before[3]) and bool(after[3]) and not self._written.get((node.name, server))
        return before[:3] != after[:3] if fresh else before != after

    def effect(self, node: Any, verb: str, server: str, call: Any, before: tuple[Any, ...], after: tuple[Any, ...]) -> None:
        """`before` and `after`: (power, runs, spec, inode of the disk)."""
        self.effects += 1
        if call is None:
            self.broken(f"I5: {verb} of server {server[:8]} on {node.name} without a request")
            return
        if call is BY_ITSELF:                                 # a node without a lease
            self.power_cut(node, server)
            return
        request, what = call.request, f"{verb} of server {server[:8]} on {node.name} by {call.request.id[:8]}…{call.request.id[36:]}"
        count = (node.name, request.id, verb, self._outside[server])
        self._effects[count] += 1
        if self._effects[count] > 1:
            self.broken(f"I5: {what}: done {self._effects[count]} times")
        if request.epoch < self._epochs.get((node.name, request.operation, server), 0):
            self.broken(f"I6: {what}: at epoch {request.epoch}, after the agent had obeyed a later one")
        if getattr(call.args, "epoch", 0) < self._server_epochs.get((node.name, server), 0):
            self.broken(f"I6: {what}: at the server's epoch {call.args.epoch}, after the agent had obeyed a later one")
        self.obeyed(node, request.operation, server, request.epoch, getattr(call.args, "epoch", 0))
        if call.came_s >= request.valid_until_s or request.boot_id != node.boot_id:
            self.broken(f"I7: {what}: came {call.came_s - request.valid_until_s:.1f} s after it had expired")
        self._power(node, server, after, what)
        self._disk(node, server, verb, before, after, what)

    def _begins(self, process: Any, kind: str, name: str) -> None:
        """Nobody asked for it: only the leader may, and no node is fenced that it could hear."""
        for owner, in self._world.connection.execute("SELECT owner FROM lease WHERE name = ?", (LEADER,)):
            if not owner.startswith(f"{process.host} {process.name} "):
                self.broken(f"I6: {process.name} begins {kind} of {name} while {owner or 'nobody'} leads")
        if kind != "node.fence":
            return
        longest_s = self._world.sightings.longest_s(process.host, name, FENCE_AFTER_S)
        if longest_s > HEARD_WITHIN_S:
            self.broken(f"HA: {process.name} fences {name}, which it could hear for {longest_s:.0f} s of the last {FENCE_AFTER_S:.0f} s")

    def _power(self, node: Any, server: str, after: tuple[Any, ...], what: str) -> None:
        running = self._running[server]
        home, since_s = self._home.get(server, ("", 0.0))
        if after[0] != "RUNNING":
            running.discard(node.name)
            if home == node.name:
                del self._home[server]
        elif node.name not in running:
            if running:
                self.broken(f"I1: {what}: it runs on {', '.join(running)} already")
            if home not in ("", node.name) and self._fenced_at.get(home, -1.0) < since_s:
                self.broken(f"I1: {what}: it ran on {home}, which nobody has fenced since")
            running.add(node.name)
            self._home[server] = node.name, self._world.scheduler.now
            for there, whose in list(self._written):          # what it had written elsewhere is superseded, and may be replaced there
                if whose == server and there != node.name:
                    del self._written[there, whose]
            self._written[node.name, server] = after[3]       # a guest that ran has written to its disk

    def _disk(self, node: Any, server: str, verb: str, before: tuple[Any, ...], after: tuple[Any, ...], what: str) -> None:
        if before[3] == after[3]:
            return
        if not after[3]:
            self._written.pop((node.name, server), None)
        elif self._written.get((node.name, server)):
            self.broken(f"I8: {what}: the disk that its guest had written is replaced")

    def power_cut(self, node: Any, server: str) -> None:
        """The guest went off, and nobody had asked for it."""
        self._outside[server] += 1
        self._cut_at[server] = self._world.scheduler.now
        self._running[server].discard(node.name)

    # ---- conductors

    def leads(self, lease: Any) -> None:
        """It has been taken."""
        if self._leaders.setdefault(lease.epoch, lease.owner) != lease.owner:
            self.broken(f"I6: {lease.owner} and {self._leaders[lease.epoch]} both lead at epoch {lease.epoch}")

    def led(self, mine: Any, now: Any, actor: str) -> None:
        """The leader's transaction, about to be committed."""
        if now is None or (now.epoch, now.owner) != (mine.epoch, mine.owner):
            self.broken(f"I6: {actor} wrote as the leader at epoch {mine.epoch}; it is {now and now.epoch}, held by {now and now.owner}")

    def unclean(self, cluster: Any) -> list[str]:
        """What a conductor should have put right by itself by now. Servers of fenced nodes wait for an admin, but for those with `ha`;
        and with its server a creation or deletion that got stuck there, which is neither done nor undone without the node."""
        with cluster.db.read() as tx:
            fenced = {node.id for node in nodes.all_(tx) if node.state is NodeState.FENCED}
            open_ = [(operation, _waits_for(operation, fenced)) for operation in operations.recent(tx, ended=False)]
            waiting = {operation.object_id for operation, waits in open_ if waits}
            left = [server for server in servers.all_(tx)
                    if server.node_id in fenced and server.ha and server.vm_state is VmState.ACTIVE and server.id not in waiting]
        found = [f"operation {one.id[:8]} ({one.kind} {one.object_name}) is {told(one)}" for one, waits in open_ if not waits]
        found += [f"server {server.name} has ha, and stays on a fenced node" for server in left if not server.fault]
        for drift in survey(cluster):
            given_up = self._outside[drift.object_id] and drift.kind in (Kind.LEFTOVER, Kind.COPY)
            with_its_node = drift.node_id in fenced or drift.kind is Kind.OPERATION and drift.object_id in waiting
            if (drift.is_fault or drift.kind is Kind.SILENT) and not with_its_node and not given_up:
                found.append(f"{drift.kind} {drift.object} on {drift.node}: {drift.what}")
        return found

    # ---- what callers were told

    def acknowledged(self, actor: str, kind: str, what: str) -> None:
        """The command returned success: the operation of this kind that it began is done. (That it stays so, `after_commit` sees.)"""
        rows = self._world.connection.execute(
            "SELECT id, kind, state FROM operation WHERE actor = ? AND kind = ?", (actor, kind)).fetchall()
        for id_, kind, state in rows:
            if state != OperationState.OK.value:
                self.broken(f"I8: {what} returned success, its operation {id_[:8]} ({kind}) is {state}")

    # ---- at the end

    def check_end(self, cluster: Any) -> None:
        world = self._world
        with cluster.db.read() as tx:
            open_ = operations.recent(tx, ended=False)
            there = {server.id: server for server in servers.all_(tx)}
            claimed: defaultdict[str, dict[tuple[str, str], int]] = defaultdict(dict)
            for claim in placement.all_(tx):
                claimed[claim.consumer_id][claim.node_id, claim.resource_class] = claim.amount
            counted = placement.consumers(tx)
            used = placement.used(tx)
            usage = {project.name: projects.usage(tx, project.id) for project in projects.all_(tx)}
        for operation in open_:
            self.broken(f"I4: operation {operation.id[:8]} ({operation.kind} {operation.object_name}) is still {told(operation)}")
        names = {node.id: node.name for node in world.nodes.values()}
        for server in there.values():
            self._check_server(server, names, claimed.pop(server.id, {}))
        for consumer, amounts in claimed.items():
            self.broken(f"I3: {consumer[:8]} has claims and is no server: {amounts}")
        self._check_nodes(there, names)
        self._check_sums(there, counted, used, usage)

    def _check_server(self, server: Any, names: Mapping[str, str], claims: Mapping[tuple[str, str], int]) -> None:
        what = f"server {server.name} ({server.id[:8]})"
        if server.operation_id or server.task_state:
            self.broken(f"I4: {what} is {server.vm_state}/{server.task_state} by operation {server.operation_id[:8]}")
        lost_power = server.vm_state is VmState.ERROR and self._outside[server.id] > 0    # and could not be started again
        if server.vm_state not in (VmState.ACTIVE, VmState.STOPPED) and not lost_power:
            self.broken(f"I4: {what} is {server.vm_state}: {server.fault}")
        if server.node_id not in names:
            self.broken(f"I3: {what} is on no node")
            return
        wanted = {(server.node_id, name): amount for name, amount in (
            ("VCPU", server.vcpus), ("MEMORY_MB", server.memory_mb), ("DISK_GB", server.disk_gb))}
        if claims != wanted:
            self.broken(f"I3: {what} on {names[server.node_id]} claims {dict(claims)}")
        node = self._world.nodes[names[server.node_id]]
        guest = node.guests().get(server.id)
        missing = [name for name in (disk_name(server.id), seed_name(server.id)) if name not in node.files()]
        if guest is None or missing:
            self.broken(f"I3: {what} lacks on {node.name}: {'its domain' if guest is None else ''} {', '.join(missing)}")
            return
        if (guest.power_state == "RUNNING") != (server.vm_state is VmState.ACTIVE):
            self.broken(f"I3: {what} is {server.vm_state}, its domain {guest.power_state}")
        if guest.epoch != server.epoch:
            self.broken(f"I3: {what} is at epoch {server.epoch}, its domain at {guest.epoch}")

    def _check_nodes(self, there: Mapping[str, Any], names: Mapping[str, str]) -> None:
        for node in self._world.nodes.values():
            expected = {server.id for server in there.values() if server.node_id == node.id}
            for server, guest in node.guests().items():
                if server not in expected:
                    self.broken(f"I3: {node.name} has a domain of {server[:8]} ({guest.power_state}), which is not its")
            known = {name for server in expected for name in (disk_name(server), seed_name(server))}
            for name in node.files():
                if name not in known:
                    self.broken(f"I3: {node.name} has a file {name}, which is no server's")

    def _check_sums(self, there: Mapping[str, Any], counted: Mapping[str, int], used: Mapping[str, Mapping[str, int]], usage: Any) -> None:
        for node_id in {*counted, *used, *(server.node_id for server in there.values())}:
            mine = [server for server in there.values() if server.node_id == node_id]
            if counted.get(node_id, 0) != len(mine):
                self.broken(f"I3: node {node_id[:8]} counts {counted.get(node_id, 0)} servers and has {len(mine)}")
            memory = sum(server.memory_mb for server in mine)
            if used.get(node_id, {}).get("MEMORY_MB", 0) != memory:
                self.broken(f"I3: node {node_id[:8]} sums up {used.get(node_id, {})} and has {memory} MiB claimed")
        for project, sums in usage.items():
            if sums["servers"] != len(there):
                self.broken(f"I3: project {project} uses {sums} and has {len(there)} servers")

    def check_acknowledged(self, cluster: Any) -> None:
        """Before anybody looks at the nodes again: the rows say what the last operation that ended well made of each server."""
        with cluster.db.read() as tx:
            there = {server.id: server for server in servers.all_(tx)}
        for id_, ended in self._well_ended.items():
            at, kind, name = ended[-1]
            server = there.get(id_)
            if kind == "server.delete":
                if server is not None:
                    self.broken(f"I8: server {name} ({id_[:8]}) was deleted at {at:.1f} s and is there")
                continue
            if kind not in POWERED:
                continue
            if server is None:
                self.broken(f"I8: server {name} ({id_[:8]}) is gone; the last that was done with it is {kind} at {at:.1f} s")
            elif (server.vm_state is VmState.ACTIVE) != POWERED[kind] and not self._outside[id_]:
                self.broken(f"I8: server {name} ({id_[:8]}) is {server.vm_state} after {kind} at {at:.1f} s")
        for id_, server in there.items():
            if id_ not in self._well_ended:
                self.broken(f"I8: server {server.name} ({id_[:8]}) is {server.vm_state} and was never created")


def _waits_for(operation: Operation, fenced: set[str]) -> bool:
    """Whether it ends with one of these nodes, or by `--lost`."""
    return operation.state is OperationState.STUCK and operation.kind in recover.ENDED_FIRST and operation.record.get("node") in fenced


def told(operation: Operation) -> str:
    error = (operation.error or {}).get("message", "")
    return f"{operation.state.value}{': ' if error else ''}{error}"
