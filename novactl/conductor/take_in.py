"""Rows from what agents have: each server's domain carries what it was defined from, so a lost database can be made again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from novactl.agents import wire
from novactl.agents.link import Peer
from novactl.cluster import Cluster
from novactl.conductor import fleet
from novactl.conductor.history import note_on
from novactl.conductor.survey import past_of
from novactl.db import flavors, images, nodes, placement, servers
from novactl.db.statements import Tx
from novactl.errors import NovaError, Unreachable
from novactl.model.flavor import Flavor
from novactl.model.image import Image
from novactl.model.project import DEFAULT_PROJECT
from novactl.model.resources import DISK_GB, MEMORY_MB, PCPU, VCPU
from novactl.model.server import Server
from novactl.model.topology import FittedCell, Fitting
from novactl.states import PowerState, TaskState, VmState

DEADLINE_S = 5.0


class Told(NamedTuple):
    """All that one agent has of its servers. `ahead`: of some, by id, a newer epoch than their domain's, below which it obeys nothing."""

    report: wire.Report
    specs: tuple[wire.DomainSpec, ...]
    ahead: Mapping[str, int] = MappingProxyType({})


def hear(cluster: Cluster, peers: Sequence[Peer]) -> dict[str, Told | NovaError]:
    """Ask every agent; peer id -> what it has, or the error it gave."""
    heard = fleet.reports(cluster, peers, 0.0, timeout_s=DEADLINE_S)
    found: dict[str, Told | NovaError] = {}
    for peer in peers:
        report = heard[peer.id]
        try:
            found[peer.id] = report if isinstance(report, NovaError) else Told(report, *_specs(cluster, peer))
        except NovaError as error:
            found[peer.id] = error
    return found


def _specs(cluster: Cluster, peer: Peer) -> tuple[tuple[wire.DomainSpec, ...], Mapping[str, int]]:
    specs, ahead, after = tuple[wire.DomainSpec, ...](), dict[str, int](), ""
    for _ in range(fleet.PAGES):
        page: wire.DomainSpecs = cluster.agents.call(peer, "domain.specs", wire.Page(after)).body
        specs, after = specs + page.specs, page.next
        ahead |= {one.server: one.epoch for one in page.ahead}
        if not after:
            return specs, ahead
    raise Unreachable(f"node {peer.name} does not come to an end of its servers")


@dataclass(frozen=True, kw_only=True)
class TakenIn:
    """Names of what was added; `without_file` are images whose file is not in the store; `unclear` says what was left out, and why."""

    servers: tuple[str, ...] = ()
    flavors: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    without_file: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()


class Copy(NamedTuple):
    """A domain of a server on a node."""

    node_id: str
    spec: wire.DomainSpec
    power: str
    ahead: int = 0

    @property
    def epoch(self) -> int:
        """What a row must have for the node to obey. Which copy is the server is told by `spec.epoch` alone."""
        return max(self.spec.epoch, self.ahead)


def take_in(cluster: Cluster, tx: Tx, told: Mapping[str, Told]) -> TakenIn:
    """Add the servers that agents have and the database does not, on the node that has each in its newest epoch, with their claims,
    flavors and images. Rows that are there are not changed; a server that the journal knows as deleted is not brought back."""
    intake, copies = _Intake(cluster, tx, told), copies_of(told)
    for id_ in sorted(copies):
        intake.server(copies[id_])
    return intake.result()


def copies_of(told: Mapping[str, Told]) -> dict[str, list[Copy]]:
    """By server, what each node has of it."""
    found: dict[str, list[Copy]] = {}
    for node_id, one in told.items():
        powers = {domain.server: domain.power_state for domain in one.report.domains}
        for spec in one.specs:
            power, ahead = powers.get(spec.server, "NOSTATE"), one.ahead.get(spec.server, 0)
            found.setdefault(spec.server, []).append(Copy(node_id, spec, power, 0 if is_far(spec, ahead) else ahead))
    return found


def is_far(spec: wire.DomainSpec, ahead: int) -> bool:
    """Nobody can have counted that epoch: who adopts the node has it forgotten there."""
    return ahead > spec.epoch + wire.FAR_EPOCH


def newest(copies: Sequence[Copy], at: str = "") -> Copy | None:
    """The one that is the server: of the highest epoch, and where that is two nodes', the one that runs, or, where none does, the one
    `at` that node. None: both run."""
    highest = max(copy.spec.epoch for copy in copies)
    best = [copy for copy in copies if copy.spec.epoch == highest]
    running = [copy for copy in best if copy.power in (PowerState.RUNNING, PowerState.PAUSED)]
    if len(running) > 1:
        return None
    return next((copy for copy in running or best if copy.node_id == at), (running or best)[0])


def claim_of(spec: wire.DomainSpec, node_id: str, name: str, project_id: str = DEFAULT_PROJECT) -> placement.Claim:
    """What a server that is there takes of its node."""
    return placement.Claim(
        spec.server, node_id, {PCPU if spec.pins else VCPU: spec.vcpus, MEMORY_MB: spec.memory_mb, DISK_GB: spec.disk_gb},
        fitting=fitting_of(spec), project_id=project_id, name=name)


class _Intake:
    def __init__(self, cluster: Cluster, tx: Tx, told: Mapping[str, Told]) -> None:
        self.cluster, self.tx = cluster, tx
        self.cached = {image.sha256: image for one in told.values() for image in one.report.images}
        self.names = {server.name for server in servers.all_(tx)}
        self.added: dict[str, list[str]] = {"servers": [], "flavors": [], "images": [], "without_file": [], "unclear": []}

    def result(self) -> TakenIn:
        return TakenIn(**{name: tuple(values) for name, values in self.added.items()})

    def server(self, copies: Sequence[Copy]) -> None:
        spec, tx = copies[0].spec, self.tx
        there = servers.by_id(tx, spec.server)
        if (there is not None and there.deleted_at is None) or past_of(tx, spec.server) is not None:
            return
        copy = newest(copies)
        if copy is None:
            self.added["unclear"].append(
                f"server {spec.name} ({spec.server}) runs on {len(copies)} nodes at one epoch: stop the wrong one first")
            return
        now, node_id, spec = self.cluster.clock.now(), copy.node_id, copy.spec
        name = spec.name if spec.name not in self.names else f"{spec.name[:50]}-{spec.server[:8]}"
        self.names.add(name)
        flavor, image = self._flavor(spec), self._image(spec)
        vm_state, power = _STATES.get(copy.power, (VmState.ERROR, PowerState.NOSTATE))
        server = Server(
            id=spec.server, name=name, vm_state=vm_state, task_state=TaskState.NONE, power_state=power, node_id=node_id, node_name="",
            epoch=copy.epoch, operation_id="", flavor_name=flavor, vcpus=spec.vcpus, memory_mb=spec.memory_mb, disk_gb=spec.disk_gb,
            image_id=image, image_name=spec.image, image_sha256=spec.image_sha256, architecture=spec.architecture, keypair_name="",
            public_key="", user_data="", zone="", mac=spec.mac, addresses=(), fault="", created_at=now, updated_at=now, launched_at=now,
            deleted_at=None)
        servers.insert(tx, server)
        placement.acknowledge(tx, claim_of(spec, node_id, name))
        note_on(self.cluster, tx, server, "taken_in", f"as node {nodes.name_of(tx, node_id)} has it")
        self.added["servers"].append(name)

    def _flavor(self, spec: wire.DomainSpec) -> str:
        if spec.flavor and flavors.by_name(self.tx, spec.flavor) is None:
            flavors.insert(self.tx, Flavor(
                id=self.cluster.ids.uuid(), name=spec.flavor, vcpus=spec.vcpus, memory_mb=spec.memory_mb, disk_gb=spec.disk_gb,
                created_at=self.cluster.clock.now(), description="made again from a server of it"))
            self.added["flavors"].append(spec.flavor)
        return spec.flavor

    def _image(self, spec: wire.DomainSpec) -> str:
        """The id of the image, "" where no node can tell enough of it."""
        there = images.by_name(self.tx, spec.image) if spec.image else None
        if there is not None:
            return there.id if there.sha256 == spec.image_sha256 else ""
        cached = self.cached.get(spec.image_sha256)
        if not spec.image or cached is None or not cached.disk_format:
            return ""
        image = Image(
            id=self.cluster.ids.uuid(), name=spec.image, sha256=cached.sha256, disk_format=cached.disk_format,
            size_bytes=cached.size_bytes, virtual_size_bytes=cached.virtual_size_bytes, architecture=spec.architecture,
            source="made again from a server of it", created_at=self.cluster.clock.now())
        images.insert(self.tx, image)
        self.added["images"].append(image.name)
        if not (self.cluster.config.data_dir / "images" / image.sha256).exists():
            self.added["without_file"].append(image.name)
        return image.id


_STATES: Mapping[str, tuple[VmState, PowerState]] = {
    "RUNNING": (VmState.ACTIVE, PowerState.RUNNING), "PAUSED": (VmState.ACTIVE, PowerState.PAUSED),
    "SUSPENDED": (VmState.ACTIVE, PowerState.RUNNING), "SHUTDOWN": (VmState.STOPPED, PowerState.SHUTDOWN),
    "CRASHED": (VmState.ERROR, PowerState.CRASHED),
}


def fitting_of(spec: wire.DomainSpec) -> Fitting | None:
    """The pieces of its host that a server was tied to: `domain.spec_of` backwards. None where it floats."""
    if not spec.cells and not spec.pci:
        return None
    pins, cells = list(spec.pins), []
    for cell in spec.cells:
        cpus, pins = tuple(pins[:cell.vcpus]) if spec.pins else (), pins[cell.vcpus:]
        cells.append(FittedCell(cell.host_cell, cell.vcpus, cell.memory_mb, cpus, cell.page_kib))
    return Fitting(tuple(cells), spec.pci)


def told_only(heard: Mapping[str, Told | NovaError]) -> dict[str, Told]:
    return {id_: one for id_, one in heard.items() if isinstance(one, Told)}

