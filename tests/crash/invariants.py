"""What must hold whatever died: what is wrong with a cluster in which nothing is under way, and all that was written in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy

from novactl.conductor.sagas import SAGAS
from novactl.db import nodes, operations, placement, projects, schema, servers
from novactl.model.operation import OperationState, StepState
from tests.crash.slot import NODES, World
from tests.laws.ledger import recomputed, sums
from tests.sagas.scenarios import slate


@dataclass(frozen=True)
class Ended:
    """An operation, ended or not."""

    id: str
    kind: str
    state: str
    attempt: int
    epoch: int
    open: bool


@dataclass(frozen=True)
class Look:
    """`slate` as the sagas' laws have it; `wrong` are sentences; `runs` says how often each living server's guest was started."""

    slate: Mapping[str, Any]
    operations: tuple[Ended, ...]
    wrong: tuple[str, ...]
    runs: Mapping[str, int]

    @property
    def open(self) -> tuple[Ended, ...]:
        return tuple(operation for operation in self.operations if operation.open)


def look(world: World) -> Look:
    with world.cluster.db.read() as tx:
        found = operations.recent(tx, ended=True)
        names = {server.id: server.name for server in servers.all_(tx)}
    runs = {names[id_]: guest["runs"] for name in NODES for id_, guest in world.guests(name).items() if id_ in names}
    ended = tuple(Ended(o.id, o.kind, o.state.value, o.attempt, o.epoch, not o.state.ended) for o in found)
    found = slate(world)
    placed = [(*before, after) for *before, _epoch, after in found["servers"]]  # which is one more for each node that was tried
    return Look({**found, "servers": placed}, ended, tuple(wrong(world)), runs)


def wrong(world: World) -> Iterator[str]:
    """Of I1–I5 (novactl runs a server once; the ledger's sums; nothing without its row, and the reverse; operations end)."""
    with world.cluster.db.read() as tx:
        living = {server.id: server for server in servers.all_(tx)}
        names = {node.id: node.name for node in nodes.all_(tx)}
        claims = placement.all_(tx)
        kept, counted = sums(tx), recomputed(tx)
        used = {project.name: projects.usage(tx, project.id)["servers"] for project in projects.all_(tx)}
        journal = [(operation, operations.steps(tx, operation.id)) for operation in operations.recent(tx, ended=True)]
        lost = {node.id for node in nodes.all_(tx) if node.state.value in FENCED}
    yield from _on_nodes(world, living, names)
    yield from _powers(world, {id_: server for id_, server in living.items() if server.node_id not in lost})
    for node_id, real in counted.items():
        for what, value in real.items():
            if kept[node_id][what] != value:
                yield f"node {names[node_id]}: {what} is {kept[node_id][what]}, its claims make {value}"
            if what.startswith("used ") and value > real["capacity " + what[5:]]:
                yield f"node {names[node_id]} is overfull: {what} {value}"
    holders = {claim.consumer_id for claim in claims}
    for server in living.values():
        if server.node_id and server.id not in holders:
            yield f"server {server.name} is on node {names.get(server.node_id)} without a claim"
    if sum(used.values()) != len({claim.consumer_id for claim in claims if claim.consumer_id in living}):
        yield f"projects use {used} servers, there are claims for {len(holders)}"
    for operation, steps in journal:
        yield from _journal(operation, steps)


FENCED = ("fencing", "fenced")
"""Nodes in these states have lost what they had: their servers wait for another one."""


def _on_nodes(world: World, living: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[str]:
    guests = {name: world.guests(name) for name in NODES}
    for name, there in guests.items():
        for id_, guest in there.items():
            server = living.get(id_)
            if server is None:
                yield f"domain {id_} ({guest['power']}) on {name} has no server"
            elif names.get(server.node_id) != name:
                yield f"domain of {server.name} is on {name}, its row says {names.get(server.node_id) or 'nowhere'}"
        for file in world.pool(name):
            if not file.startswith("base-") and not any(id_ in file and names.get(s.node_id) == name for id_, s in living.items()):
                yield f"file {file} on {name} has no server"
            elif file.endswith(".part") and not file.startswith("base-"):
                yield f"file {file} on {name} is half written"


def _powers(world: World, living: Mapping[str, Any]) -> Iterator[str]:
    guests = {name: world.guests(name) for name in NODES}
    for id_, server in living.items():
        at = [name for name, there in guests.items() if there.get(id_, {}).get("power") == "RUNNING"]
        if len(at) > 1:
            yield f"server {server.name} runs on {' and '.join(at)}"
        if server.vm_state in ("active", "stopped") and not any(id_ in there for there in guests.values()):
            yield f"server {server.name} ({server.vm_state}) has no domain"
        if server.vm_state == "active" and not at:
            yield f"server {server.name} is active and does not run"
        if server.vm_state == "stopped" and at:
            yield f"server {server.name} is stopped and runs"


def _journal(operation: Any, steps: Any) -> Iterator[str]:
    """Every operation ends done, or undone (I4)."""
    what = f"operation {operation.id[:8]} ({operation.kind} {operation.object_name})"
    if not operation.state.ended:
        said = f": {operation.error['message']}" if operation.error else ""
        yield f"{what} is {operation.state.value}{said}"
        return
    done = operation.state is OperationState.OK
    for step in steps:
        if step.attempt < operation.attempt and done and SAGAS[operation.kind].resumes:
            continue                                          # what got stuck turning back was done again instead
        if step.state is not (StepState.DONE if done and step.attempt == operation.attempt else StepState.UNDONE):
            yield f"{what} is {operation.state.value}, its step {step.name} of attempt {step.attempt} {step.state.value}"


_OF_REPORTS = ("node", "node_file", "shape", "inventory")
"""Tables that any command may refresh."""
_SEEN = ("addresses",)
"""Columns, likewise."""


def written(world: World) -> str:
    """All that the database and the nodes hold, but for reports: the same text where nothing was changed."""
    engine = sqlalchemy.create_engine(world.config.database_url)
    with engine.connect() as connection:
        rows = {
            table.name: sorted(
                repr(tuple(row)) for row in connection.execute(sqlalchemy.select(*(c for c in table.c if c.name not in _SEEN))))
            for table in schema.metadata.sorted_tables if table.name not in _OF_REPORTS}
    engine.dispose()
    rows["nodes"] = [f"{name} {json.dumps(world.guests(name), sort_keys=True)} {world.disks()}" for name in NODES]
    return "\n".join(f"{table} {row}" for table, found in rows.items() for row in found)
