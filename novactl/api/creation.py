"""Creating servers: names become ids, everything is checked, the rows are written, the sagas run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from novactl.api.hints import NO_HINTS, Hints
from novactl.api.resolve import resolve
from novactl.api.servers import MAX_COUNT, Created, CreateServer
from novactl.api.trial import changing
from novactl.api.waiting import Begun, run_all
from novactl.cluster import Cluster
from novactl.conductor import create_server as saga
from novactl.conductor import fleet
from novactl.conductor.placing import MANY, Asked, Known, Placer, explained, refusal, request_of
from novactl.conductor.progress import Watch
from novactl.conductor.saga import begin
from novactl.conductor.seed import check_user_data
from novactl.db import derived, flavors, groups, images, keypairs, nodes, operations, placement, projects, servers
from novactl.db.statements import Tx
from novactl.errors import AlreadyExists, Conflict, UsageError
from novactl.model.flavor import Flavor
from novactl.model.ids import check_name
from novactl.model.image import Image
from novactl.model.operation import Operation
from novactl.model.project import DEFAULT_PROJECT
from novactl.model.server import Server
from novactl.model.wants import NOTHING_SPECIAL, Wants
from novactl.scheduler.pipeline import TOLD
from novactl.scheduler.request import Decision, Peer
from novactl.scheduler.telling import shortened
from novactl.states import BUILDING


def create_servers(
    cluster: Cluster, wanted: CreateServer, watch: Watch | None, *, dry_run: bool, wait: bool, timeout_s: float | None,
) -> Created:
    """See novactl.api.servers.create."""
    names = names_of(wanted)
    if dry_run:
        return _tried(cluster, wanted, names)
    if len(names) > 1:
        fleet.refresh(cluster, max_age_s=cluster.config["placement.refresh_s"])
        begun = begin_batch(cluster, wanted, names, detached=not wait)
    else:
        with cluster.db.write() as tx:
            if wanted.hints.group:                            # nobody deletes it before its server is there
                groups.lock(tx, resolve(tx, "server-group", groups, wanted.hints.group).id)
            begun = [
                _begin(cluster, tx, server, record, detached=not wait) for server, record in _records(cluster, tx, wanted, names)]
    run_all(cluster, [Begun(saga.CREATE, operation) for operation in begun], watch, wait=wait, timeout_s=timeout_s)
    with cluster.db.read() as tx:
        ended = tuple(found for operation in begun if (found := servers.by_id(tx, operation.object_id)))
    return Created(ended, tuple(operation.id for operation in begun), ())


def begin_batch(cluster: Cluster, wanted: CreateServer, names: Sequence[str], *, detached: bool) -> list[Operation]:
    """A batch in one transaction: rows, decisions and claims of all, each seeing the ones before; or nothing at all."""
    for _ in range(saga.PLACE_TRIES):
        try:
            with cluster.db.write() as tx:
                _alone(tx, wanted)
                return [_begin(cluster, tx, *one, detached=detached) for one in _decided(cluster, tx, wanted, names)]
        except placement.Moved:                               # another admin's claim came between: decide from fresh rows
            continue
    raise Conflict(f"servers {wanted.name}-…: the nodes change faster than {len(names)} can be placed", hint="try again")


def _alone(tx: Tx, wanted: CreateServer) -> None:
    """Hold what the claims of a batch rest on, in the order in which everybody locks it: two batches that took their nodes as
    they decide would wait for each other in a ring, and one that others overtake is decided anew each time."""
    projects.lock(tx, resolve(tx, "project", projects, wanted.hints.project or DEFAULT_PROJECT).id)
    if wanted.hints.group:
        groups.lock(tx, resolve(tx, "server-group", groups, wanted.hints.group).id)
    derived.lock_all(tx)


def _decided(cluster: Cluster, tx: Tx, wanted: CreateServer, names: Sequence[str]) -> Iterator[tuple[Server, saga.CreateServer, Decision]]:
    """Each server with its decision, claimed; the caller writes its row before the next is decided on.

    Raises NoValidHost at the first that fits nowhere, unless `min_count` have a place by then: that is the end of the batch.
    """
    placer, told = Placer(cluster, many=len(names) >= MANY), max(1, TOLD // len(names))
    mates: list[Peer] = []
    known: Known = {}
    for server, record in _records(cluster, tx, wanted, names):
        asked = Asked(server=server, extra=record.extra, only_node=record.only_node)
        decision = placer.decide(tx, request_of(cluster, tx, asked, mates, known), told=told)
        if decision.chosen is None:
            if wanted.min_count is not None and len(mates) >= wanted.min_count:
                return
            raise refusal(decision, placed=len(mates))
        node = decision.chosen.node
        placer.claim(tx, asked, decision)
        mates.append(Peer(server.id, server.name, node))
        yield dataclasses.replace(server, node_id=node, epoch=1), dataclasses.replace(record, node=node, epoch=1), decision


def names_of(wanted: CreateServer) -> list[str]:
    """NAME, or NAME-1 … NAME-count. Raises UsageError."""
    if not 1 <= wanted.count <= MAX_COUNT:
        raise UsageError(f"--count must be 1 to {MAX_COUNT}, not {wanted.count}")
    if wanted.min_count is not None and not 1 <= wanted.min_count <= wanted.count:
        raise UsageError(f"--min-count must be 1 to --count ({wanted.count}), not {wanted.min_count}")
    names = [wanted.name] if wanted.count == 1 else [f"{wanted.name}-{number}" for number in range(1, wanted.count + 1)]
    for name in names:
        check_name("server", name)
    return names


def _records(cluster: Cluster, tx: Tx, wanted: CreateServer, names: Sequence[str]) -> list[tuple[Server, saga.CreateServer]]:
    """A server and its saga's record for each name. Raises NotFound, Ambiguous, AlreadyExists, UsageError; writes nothing."""
    flavor: Flavor = resolve(tx, "flavor", flavors, wanted.flavor)
    image: Image = resolve(tx, "image", images, wanted.image)
    project_id = resolve(tx, "project", projects, wanted.hints.project or DEFAULT_PROJECT).id
    group_id = resolve(tx, "server-group", groups, wanted.hints.group).id if wanted.hints.group else ""
    wants, extra = _wants(tx, flavor, image, wanted.hints)
    if wanted.zone:
        from novactl.api.zones import check_zone

        check_zone(tx, wanted.zone)
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
            addresses=(), fault="", created_at=now, updated_at=now, launched_at=None, deleted_at=None,
            project_id=project_id, group_id=group_id, wants=wants)
        found.append((server, saga.CreateServer(
            server=server.id, name=name, vcpus=flavor.vcpus, memory_mb=flavor.memory_mb, disk_gb=disk_gb,
            image_sha256=image.sha256, image_format=image.disk_format, image_size_bytes=image.size_bytes,
            image_virtual_size_bytes=image.virtual_size_bytes, architecture=image.architecture, zone=server.zone,
            only_node=only_node, extra=extra)))
    return found


def _wants(tx: Tx, flavor: Flavor, image: Image, hints: Hints) -> tuple[Wants, dict[str, int]]:
    """What is asked beyond size. Most ask nothing: the grammar of what can be asked is not imported for them."""
    if not flavor.specs and not image.properties and dataclasses.replace(hints, project="") == NO_HINTS:
        return NOTHING_SPECIAL, {}
    from novactl.api.wants import wants_of

    return wants_of(tx, flavor, image, hints)


def _begin(
    cluster: Cluster, tx: Tx, server: Server, record: saga.CreateServer, decision: Decision | None = None, *, detached: bool,
) -> Operation:
    detail = f"flavor {server.flavor_name}, image {server.image_name}"
    operation = begin(cluster, tx, saga.CREATE, record, ("server", server.id, server.name), detached=detached, detail=detail)
    servers.insert(tx, dataclasses.replace(server, operation_id=operation.id))
    if decision:
        operations.decide(tx, operation.id, shortened(decision, TOLD).to_plain())
    return operation


def _tried(cluster: Cluster, wanted: CreateServer, names: Sequence[str]) -> Created:
    """What would happen: all of it done in a transaction that is then rolled back. Raises as creating does."""
    fleet.refresh(cluster, max_age_s=cluster.config["placement.refresh_s"])
    placed: list[Server] = []
    decisions: list[Decision] = []
    with changing(cluster, dry_run=True) as tx:
        _alone(tx, wanted)
        for server, record, decision in _decided(cluster, tx, wanted, names):
            _begin(cluster, tx, server, record, detached=True)
            placed.append(servers.by_id(tx, server.id) or server)
            decisions.append(decision)
    return Created(tuple(placed), (), tuple(decisions))


def explain(cluster: Cluster, wanted: CreateServer) -> Decision:
    """The decision for one such server as things are now, whatever its name, with every node's every reason.

    Changes nothing but fresh reports.
    """
    fleet.refresh(cluster, max_age_s=cluster.config["placement.refresh_s"])
    with cluster.db.read() as tx:
        name = wanted.name if servers.by_name(tx, wanted.name) is None else cluster.ids.uuid()[:13]
        ((server, record),) = _records(cluster, tx, wanted, [name])
        asked = Asked(server=server, extra=record.extra, only_node=record.only_node)
        return explained(cluster, tx, request_of(cluster, tx, asked))
