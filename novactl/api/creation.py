"""Creating servers: names become ids, everything is checked, the rows are written, the sagas run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from novactl.api.resolve import resolve
from novactl.api.servers import MAX_COUNT, Created, CreateServer
from novactl.api.waiting import Begun, run_all
from novactl.cluster import Cluster
from novactl.conductor import create_server as saga
from novactl.conductor import fleet
from novactl.conductor.deciding import configured, refusal
from novactl.conductor.history import note_of
from novactl.conductor.progress import Watch
from novactl.conductor.saga import begin
from novactl.conductor.seed import check_user_data
from novactl.db import flavors, images, keypairs, nodes, servers
from novactl.db.statements import Tx
from novactl.errors import AlreadyExists, UsageError
from novactl.model.flavor import Flavor
from novactl.model.ids import check_name
from novactl.model.image import Image
from novactl.model.operation import Operation
from novactl.model.server import Server
from novactl.scheduler.pipeline import place
from novactl.scheduler.request import Decision
from novactl.states import BUILDING


def create_servers(
    cluster: Cluster, wanted: CreateServer, watch: Watch | None, *, dry_run: bool, wait: bool, timeout_s: float | None,
) -> Created:
    """See novactl.api.servers.create."""
    names = names_of(wanted)
    if dry_run:
        return _tried(cluster, wanted, names)
    with cluster.db.write() as tx:
        made = _records(cluster, tx, wanted, names)
        begun = [
            (server, record, _begin(cluster, tx, server, record, detached=not wait)) for server, record in made
        ]
    run_all(cluster, [Begun(saga.CREATE, operation) for _, _, operation in begun], watch, wait=wait, timeout_s=timeout_s)
    with cluster.db.read() as tx:
        ended = tuple(servers.by_id(tx, server.id) or server for server, _, _ in begun)
    return Created(ended, tuple(operation.id for _, _, operation in begun), ())


def names_of(wanted: CreateServer) -> list[str]:
    """NAME, or NAME-1 … NAME-count. Raises UsageError."""
    if not 1 <= wanted.count <= MAX_COUNT:
        raise UsageError(f"--count must be 1 to {MAX_COUNT}, not {wanted.count}")
    names = [wanted.name] if wanted.count == 1 else [f"{wanted.name}-{number}" for number in range(1, wanted.count + 1)]
    for name in names:
        check_name("server", name)
    return names


def _records(cluster: Cluster, tx: Tx, wanted: CreateServer, names: Sequence[str]) -> list[tuple[Server, saga.CreateServer]]:
    """A server and its saga's record for each name. Raises NotFound, Ambiguous, AlreadyExists, UsageError; writes nothing."""
    flavor: Flavor = resolve(tx, "flavor", flavors, wanted.flavor)
    image: Image = resolve(tx, "image", images, wanted.image)
    key = resolve(tx, "keypair", keypairs, wanted.key) if wanted.key else None
    only_node = resolve(tx, "node", nodes, wanted.node).id if wanted.node else ""
    check_user_data(wanted.user_data)
    disk_gb = flavor.disk_gb or image.min_disk_gb
    if disk_gb < image.min_disk_gb:
        raise UsageError(
            f"flavor {flavor.name} has a disk of {disk_gb} GiB; image {image.name} needs {image.min_disk_gb} GiB",
            hint=f"choose a flavor with a disk of at least {image.min_disk_gb} GiB, or of 0 (as large as the image)")
    for name in names:
        if servers.by_name(tx, name) is not None:
            raise AlreadyExists("server", name)
    now = cluster.clock.now()
    found = []
    for name in names:
        server = Server(
            id=cluster.ids.uuid(), name=name, vm_state=BUILDING.vm_state, task_state=BUILDING.task_state,
            power_state=BUILDING.power_state, node_id="", node_name="", epoch=0, operation_id="", flavor_name=flavor.name,
            vcpus=flavor.vcpus, memory_mb=flavor.memory_mb, disk_gb=disk_gb, image_id=image.id, image_name=image.name,
            image_sha256=image.sha256, architecture=image.architecture, keypair_name=key.name if key else "",
            public_key=key.public_key if key else "", user_data=wanted.user_data, zone=wanted.zone or "", mac=cluster.ids.mac(),
            addresses=(), fault="", created_at=now, updated_at=now, launched_at=None, deleted_at=None)
        found.append((server, saga.CreateServer(
            server=server.id, name=name, vcpus=flavor.vcpus, memory_mb=flavor.memory_mb, disk_gb=disk_gb,
            image_sha256=image.sha256, image_format=image.disk_format, image_size_bytes=image.size_bytes,
            image_virtual_size_bytes=image.virtual_size_bytes, architecture=image.architecture, zone=server.zone,
            only_node=only_node)))
    return found


def _begin(cluster: Cluster, tx: Tx, server: Server, record: saga.CreateServer, *, detached: bool) -> Operation:
    operation = begin(cluster, tx, saga.CREATE, record, ("server", server.id, server.name), detached=detached)
    servers.insert(tx, dataclasses.replace(server, operation_id=operation.id))
    note_of(cluster, tx, operation, "create", f"flavor {server.flavor_name}, image {server.image_name}")
    return operation


def _tried(cluster: Cluster, wanted: CreateServer, names: Sequence[str]) -> Created:
    """What would happen: the same checks and the same decisions, each seeing the ones before. Raises NoValidHost."""
    fleet.refresh(cluster, max_age_s=cluster.config["placement.refresh_s"])
    with cluster.db.read() as tx:
        made = _records(cluster, tx, wanted, names)
        views = {view.id: view for view in fleet.views(tx)}
    decisions: list[Decision] = []
    placed: list[Server] = []
    for server, record in made:
        request = record.request(now=cluster.clock.now(), fresh_s=cluster.config["placement.fresh_s"])
        decision = place(request, views.values(), configured(cluster.config))
        decisions.append(decision)
        if decision.chosen is None:
            raise refusal(decision)
        view = views[decision.chosen.node]
        used = {name: view.used.get(name, 0) + amount for name, amount in record.amounts.items()}
        views[view.id] = dataclasses.replace(view, used={**view.used, **used}, servers=view.servers + 1)
        placed.append(dataclasses.replace(server, node_id=view.id, node_name=view.name))
    return Created(tuple(placed), (), tuple(decisions))


def explain(cluster: Cluster, wanted: CreateServer) -> Decision:
    """The decision for one such server as things are now, whatever its name. Changes nothing but fresh reports."""
    fleet.refresh(cluster, max_age_s=cluster.config["placement.refresh_s"])
    with cluster.db.read() as tx:
        name = wanted.name if servers.by_name(tx, wanted.name) is None else cluster.ids.uuid()[:13]
        ((_, record),) = _records(cluster, tx, wanted, [name])
        views = fleet.views(tx)
    request = record.request(now=cluster.clock.now(), fresh_s=cluster.config["placement.fresh_s"])
    return place(request, views, configured(cluster.config))
