"""Taking a domain that novactl did not make in as a server."""

from __future__ import annotations

from novactl.agents import wire
from novactl.api.authority import Role, needs
from novactl.api.resolve import resolve
from novactl.api.trial import changing
from novactl.api.waiting import Begun, run_all
from novactl.cluster import Cluster
from novactl.conductor import adopt_server as saga
from novactl.conductor.progress import Watch
from novactl.conductor.saga import begin
from novactl.db import flavors, nodes, placement, servers
from novactl.db.statements import Tx
from novactl.errors import AlreadyExists, Conflict, NotFound, UsageError
from novactl.model.flavor import Flavor
from novactl.model.ids import UUID, check_name
from novactl.model.node import Node
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU
from novactl.model.server import Server
from novactl.states import BUILDING


@needs(Role.ADMIN)
def adopt(
    cluster: Cluster, node_ref: str, domain: str, *, name: str = "", flavor: str = "", force: bool = False, dry_run: bool = False,
    watch: Watch | None = None, wait: bool = True, timeout_s: float | None = None,
) -> Server | str:
    """The domain (name or UUID, as `cluster verify` lists it) becomes a server of that node; its id is the domain's UUID.

    The guest is not touched, and its disk stays where it is: deleting the server later takes away the domain, never its files.
    It has no image, so that it cannot be made anew on another node. `flavor` must be of its size. With `force` it is claimed
    also where it does not fit. With `wait=False` the operation's id. Raises NotFound, AlreadyExists, Conflict, UsageError, WaitTimeout,
    and what placing and agents raise.
    """
    with cluster.db.read() as tx:
        node: Node = resolve(tx, "node", nodes, node_ref)
    spec = _wild(cluster, node, domain)
    with changing(cluster, dry_run=dry_run) as change:
        tx: Tx = change
        server = _server(cluster, tx, spec, name, flavor)
        past = servers.by_id(tx, server.id)
        if past is not None and past.deleted_at is None:
            raise AlreadyExists("server", past.name)
        record = saga.AdoptServer(server=server.id, node=node.id, epoch=max(past.epoch if past else 0, spec.epoch) + 1, force=force)
        if past is not None:                                  # it was one before: its row's history is its events
            servers.servers.delete(tx, past.id)
        servers.insert(tx, server)
        if dry_run and not force:
            placement.claim(tx, placement.Claim(
                server.id, node.id, {VCPU: server.vcpus, MEMORY_MB: server.memory_mb, DISK_GB: server.disk_gb}, name=server.name))
        operation = begin(
            cluster, tx, saga.ADOPT, record, ("server", server.id, server.name), detached=not wait,
            detail=f"domain {spec.adopted} on {node.name}")
        servers.move_state(tx, server, server.state, operation_id=operation.id, at=cluster.clock.now())
    if dry_run:
        return server
    run_all(cluster, [Begun(saga.ADOPT, operation)], watch, wait=wait, timeout_s=timeout_s)
    if not wait:
        return operation.id
    with cluster.db.read() as tx:
        return servers.by_id(tx, server.id) or server


def _wild(cluster: Cluster, node: Node, domain: str) -> wire.DomainSpec:
    """What the domain would be. Raises NotFound naming what there is."""
    uuid = domain.lower()
    if not UUID.match(uuid):
        report: wire.Report = cluster.agents.call(node, "inventory.read", wire.InventoryRead(0.0)).body
        named = [wild.uuid for wild in report.wild if wild.name == domain]
        if not named:
            more = report.foreign_domains > len(report.wild)
            raise NotFound("domain", domain, similar=[wild.name for wild in report.wild][:3],
                           command=f"virsh domuuid {domain}   (on {node.name}; then give the UUID)" if more else "novactl cluster verify")
        uuid = named[0]
    return cluster.agents.call(node, "domain.wild", wire.DomainRef(uuid)).body


def _server(cluster: Cluster, tx: Tx, spec: wire.DomainSpec, name: str, flavor_ref: str) -> Server:
    chosen, now = name or spec.name, cluster.clock.now()
    check_name("server", chosen)
    if servers.by_name(tx, chosen) is not None:
        raise AlreadyExists("server", chosen)
    flavor: Flavor | None = resolve(tx, "flavor", flavors, flavor_ref) if flavor_ref else None
    if flavor is not None and (flavor.vcpus, flavor.memory_mb) != (spec.vcpus, spec.memory_mb):
        raise Conflict(
            f"domain {spec.adopted} has {spec.vcpus} vcpus and {spec.memory_mb} MiB, flavor {flavor.name} {flavor.vcpus} and"
            f" {flavor.memory_mb}", hint="choose one of its size, or none")
    if not spec.adopted:
        raise UsageError("this agent cannot adopt domains", hint="bring it up to date", command="novactl node enroll")
    return Server(
        id=spec.server, name=chosen, vm_state=BUILDING.vm_state, task_state=BUILDING.task_state, power_state=BUILDING.power_state,
        node_id="", node_name="", epoch=0, operation_id="", flavor_name=flavor.name if flavor else "", vcpus=spec.vcpus,
        memory_mb=spec.memory_mb, disk_gb=spec.disk_gb, image_id="", image_name="", image_sha256=wire.NO_IMAGE,
        architecture=spec.architecture, keypair_name="", public_key="", user_data="", zone="", mac=spec.mac, addresses=(), fault="",
        created_at=now, updated_at=now, launched_at=None, deleted_at=None)
