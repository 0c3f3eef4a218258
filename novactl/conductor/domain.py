"""A server's domain on its node: the acts that sagas share. Each can be repeated; absent is success where it ends something."""

from __future__ import annotations

from typing import Protocol

from novactl.agents import wire
from novactl.conductor.saga import Run
from novactl.db import nodes, placement, servers
from novactl.db.statements import Tx
from novactl.errors import Conflict, NotFound
from novactl.model.node import Node, NodeState
from novactl.model.server import Server
from novactl.model.topology import Fitting, cpu_text


class OnNode(Protocol):
    """A record of a server on a node: ids, and the server's epoch there."""

    @property
    def server(self) -> str: ...
    @property
    def node(self) -> str: ...
    @property
    def epoch(self) -> int: ...


def ref(record: OnNode) -> wire.DomainRef:
    return wire.DomainRef(record.server, record.epoch)


def node_of(run: Run, node_id: str) -> Node:
    """The node, read once an operation: its address and key do not change while it has servers."""
    cache = run.extras.setdefault("nodes", {})
    if node_id not in cache:
        with run.cluster.db.read() as tx:
            found = nodes.by_id(tx, node_id)
        if found is None:
            raise NotFound("node", node_id)
        cache[node_id] = found
    return cache[node_id]


def server_in(tx: Tx, server_id: str) -> Server:
    found = servers.by_id(tx, server_id)
    if found is None:
        raise NotFound("server", server_id)
    return found


def server_of(run: Run, record: OnNode) -> Server:
    with run.cluster.db.read() as tx:
        return server_in(tx, record.server)


def spec_of(server: Server, epoch: int, fitting: Fitting | None = None, shared: str = "") -> wire.DomainSpec:
    """`fitting` are the pieces of its node that it holds; `shared` the host CPUs that floating servers keep to, "" for all."""
    held = fitting or Fitting()
    pins = tuple(cpu for cell in held.cells for cpu in cell.cpus)
    return wire.DomainSpec(
        server=server.id, epoch=epoch, name=server.name, vcpus=server.vcpus, memory_mb=server.memory_mb, disk_gb=server.disk_gb,
        image_sha256=server.image_sha256, mac=server.mac, architecture=server.architecture, flavor=server.flavor_name,
        image=server.image_name, adopted=server.name if server.image_sha256 == wire.NO_IMAGE else "",
        cpuset="" if pins else shared, pins=pins, pci=held.pci,
        cells=tuple(wire.DomainCell(cell.vcpus, cell.memory_mb, cell.host_cell, cell.page_kib) for cell in held.cells))


def ensure_defined(run: Run, record: OnNode) -> None:
    """The domain as its server's row and its claim say."""
    node = node_of(run, record.node)
    with run.cluster.db.read() as tx:
        server, fitting = server_in(tx, record.server), placement.fitting_of(tx, record.server)
        shared = cpu_text(nodes.hardware_of(tx, node.id).shared) if node.dedicated_cpus else ""
    run.call(node, "domain.define", spec_of(server, record.epoch, fitting, shared))


class HeldOff(Conflict):
    """The node is fenced, or is being: what is on it counts as off, and may be started elsewhere at any moment."""

    code, elsewhere = "fenced", True


def starting_on(run: Run, node_id: str) -> Node:
    """The node as its row is now, on which something is to be started. Raises HeldOff."""
    with run.cluster.db.read() as tx:
        node = nodes.by_id(tx, node_id)
    if node is None:
        raise NotFound("node", node_id)
    if node.state in (NodeState.FENCING, NodeState.FENCED):
        raise HeldOff(
            f"node {node.name} is {node.state.value}: nothing is started there, also when it is back",
            command=f"novactl server evacuate {run.operation.object_name}")
    run.extras.setdefault("nodes", {})[node_id] = node
    return node


def power_on(run: Run, record: OnNode) -> None:
    run.call(starting_on(run, record.node), "domain.start", ref(record))


def power_off(run: Run, record: OnNode) -> None:
    run.call(node_of(run, record.node), "domain.destroy", ref(record))


def undefine(run: Run, record: OnNode) -> None:
    run.call(node_of(run, record.node), "domain.undefine", ref(record))


def delete_seed(run: Run, record: OnNode) -> None:
    run.call(node_of(run, record.node), "seed.delete", ref(record))


def delete_disk(run: Run, record: OnNode) -> None:
    run.call(node_of(run, record.node), "disk.delete", ref(record))
