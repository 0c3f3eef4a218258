"""How many more servers fit."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from novactl.api.hints import Hints
from novactl.api.resolve import resolve
from novactl.api.wants import wants_of
from novactl.api.zones import check_zone
from novactl.cluster import Cluster
from novactl.conductor import fleet
from novactl.conductor.residents import is_guarded, residents
from novactl.config import Config
from novactl.db import flavors, images, nodes, projects
from novactl.db.statements import Tx
from novactl.errors import UsageError
from novactl.model.facts import Facts
from novactl.model.flavor import Flavor
from novactl.model.image import Image
from novactl.model.project import DEFAULT_PROJECT
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU, spoken
from novactl.model.wants import Wants
from novactl.plugins import configured, rules
from novactl.scheduler.capacity import Capacity, NodeRoom, Stop, capacity, hardware, hypothetical
from novactl.scheduler.profiles import Profile
from novactl.scheduler.request import NodeView, Request
from novactl.scheduler.survival import Resident, Survival


@dataclass(frozen=True, kw_only=True)
class AskCapacity:
    """Of which flavors (none: all), for servers of `image`; as if nodes `without` and their servers were not there, and hardware `add`
    (COUNTxCPUSc/RAM/DISK) were. `n_plus_1` None: as the cluster is set."""

    flavors: Sequence[str] = ()
    image: str = ""
    n_plus_1: bool | None = None
    without: Sequence[str] = ()
    add: Sequence[str] = ()
    zone: str = ""
    project: str = ""


@dataclass(frozen=True, kw_only=True)
class FlavorCapacity:
    """`fits` servers of the flavor, `n_plus_1` of them N+1-safe (None: not asked). `before`, where nodes are added or left out, is the
    same number (the N+1-safe one where it is asked) as things are. `limit` is what stops the next one; `per_node` names the nodes that
    have room."""

    flavor: str
    fits: int
    n_plus_1: int | None
    limited_by: str
    limit: Stop
    next_to_fill: str
    before: int | None
    changes: str
    per_node: tuple[NodeRoom, ...]


def of_flavors(cluster: Cluster, asked: AskCapacity) -> tuple[FlavorCapacity, ...]:
    """One row a flavor, in the order asked, else by name. Raises NotFound, Ambiguous, UsageError. Changes nothing but fresh reports."""
    added = [hardware(text) for text in asked.add]
    fleet.refresh(cluster, max_age_s=cluster.config["placement.refresh_s"])
    with cluster.db.read() as tx:
        left_out = {resolve(tx, "node", nodes, ref).id for ref in asked.without}
        named: dict[str, Flavor] = {flavor.id: flavor for ref in asked.flavors for flavor in [resolve(tx, "flavor", flavors, ref)]}
        sizes: Sequence[Flavor] = list(named.values()) or flavors.all_(tx)
        requests = _requests(cluster, tx, asked, sizes)
        pieces = any(request.wants.topology or request.wants.pci for request in requests)
        here = fleet.views(tx, hardware=pieces, images=bool(rules(cluster.config).image_properties))
        guarded = is_guarded(tx) if asked.n_plus_1 is None else asked.n_plus_1
        on_nodes = residents(cluster, tx) if guarded else None
    profile = configured(cluster.config)
    changed = [view for view in here if view.id not in left_out] + list(
        hypothetical(added, here, offered(cluster.config), cluster.clock.now()))
    plans = None if on_nodes is None else Survival(changed, [r for r in on_nodes if r.node not in left_out], profile)
    before = as_things_are(requests, here, on_nodes, profile) if left_out or added else {}
    changes = told_changes(asked.add, dict.fromkeys(asked.without))
    return tuple(
        row_of(flavor.name, capacity(request, changed, profile, plans), before.get(request.server), changes)
        for flavor, request in zip(sizes, requests, strict=True))


def told_changes(add: Iterable[str], without: Iterable[str]) -> str:
    return ", ".join([*(f"adding {text}" for text in add), *(f"without {ref}" for ref in without)])


def as_things_are(
    requests: Sequence[Request], here: Sequence[NodeView], on_nodes: Sequence[Resident] | None, profile: Profile,
) -> dict[str, int]:
    """The count that is of interest, as things are, by the request's name."""
    plans = None if on_nodes is None else Survival(here, on_nodes, profile)
    found = {request.server: capacity(request, here, profile, plans) for request in requests}
    return {name: one.count if one.n_plus_1 is None else one.n_plus_1 for name, one in found.items()}


def _requests(cluster: Cluster, tx: Tx, asked: AskCapacity, sizes: Sequence[Flavor]) -> list[Request]:
    """What a server of each flavor asks; its name is the flavor's."""
    image: Image = resolve(tx, "image", images, asked.image) if asked.image else any_image(nodes.shapes(tx).values())
    project = resolve(tx, "project", projects, asked.project or DEFAULT_PROJECT).id
    if asked.zone:
        check_zone(tx, asked.zone)
    base = Request(
        server="", amounts={}, architecture="", zone=asked.zone, now=cluster.clock.now(), fresh_s=cluster.config["placement.fresh_s"],
        project=project, rules=rules(cluster.config))
    return [request_for(base, flavor, image, *wants_of(tx, flavor, image, Hints(project=asked.project))) for flavor in sizes]


def request_for(base: Request, flavor: Flavor, image: Image, wants: Wants, extra: Mapping[str, int]) -> Request:
    """`base` as a server of the flavor and image would ask it; its name is the flavor's. Raises UsageError where the disk is too small."""
    if flavor.disk_gb and flavor.disk_gb < image.min_disk_gb:
        raise UsageError(
            f"flavor {flavor.name} has a disk of {flavor.disk_gb} GiB; image {image.name} needs {image.min_disk_gb} GiB",
            hint="name the flavors that suit the image: --flavor")
    whole = {VCPU: flavor.vcpus, MEMORY_MB: flavor.memory_mb, DISK_GB: flavor.disk_gb or image.min_disk_gb, **extra}
    return dataclasses.replace(
        base, server=flavor.name, amounts={name: amount for name, amount in whole.items() if amount}, flavor=flavor.name,
        architecture=image.architecture, image=image.name, wants=wants)


def any_image(kinds: Iterable[Facts]) -> Image:
    """One that asks for nothing but the architecture that most kinds of nodes have."""
    common = Counter(facts.architecture for facts in kinds).most_common(1)
    return Image(
        id="", name="", sha256="", disk_format="raw", size_bytes=0, virtual_size_bytes=0, source="", created_at=0.0,
        architecture=common[0][0] if common else "x86_64")


def offered(config: Config) -> Mapping[str, tuple[int, int]]:
    """Ratio (thousandths) and reservation that a newly enrolled node gets."""
    return {
        VCPU: (round(config["placement.cpu_ratio"] * 1000), 0),
        MEMORY_MB: (round(config["placement.ram_ratio"] * 1000), config["placement.reserved_ram_mb"]),
        DISK_GB: (round(config["placement.disk_ratio"] * 1000), 0),
    }


def row_of(flavor: str, found: Capacity, before: int | None, changes: str) -> FlavorCapacity:
    stop = found.n_plus_1_limited_by or found.limited_by
    return FlavorCapacity(
        flavor=flavor, fits=found.count, n_plus_1=found.n_plus_1, limited_by=limited_by(stop), limit=stop,
        next_to_fill=found.next_to_fill, before=before, changes=changes, per_node=tuple(room for room in found.per_node if room.fits))


def limited_by(stop: Stop) -> str:
    """'memory (28 of 30 nodes)', 'zone (2 of 2 nodes)', or the sentence of an N+1 refusal."""
    if not stop.of:
        return stop.text
    if stop.code == "n_plus_1":
        return stop.text
    word = spoken(stop.code, 1).rpartition(" ")[0].partition(" ")[0]
    return f"{word} ({stop.nodes} of {stop.of} nodes)"

