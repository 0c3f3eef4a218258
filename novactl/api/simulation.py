"""Placement without a cluster: a saved inventory asked what it would do, or a workload replayed on made-up hosts."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from novactl.api.capacity import FlavorCapacity, any_image, as_things_are, offered, request_for, row_of, told_changes
from novactl.api.explanation import Explanation, explained
from novactl.api.wants import wants_of
from novactl.cluster import Cluster
from novactl.config import SETTINGS, Config
from novactl.errors import NotFound, UsageError
from novactl.model.flavor import Flavor
from novactl.model.image import Image
from novactl.plugins import configured, rules
from novactl.scheduler import lanes, replay, saved
from novactl.scheduler.capacity import capacity, hardware, hypothetical
from novactl.scheduler.contest import with_server
from novactl.scheduler.pipeline import place
from novactl.scheduler.profiles import Profile
from novactl.scheduler.replay import Replay
from novactl.scheduler.request import GroupView, NodeView, Peer, Request
from novactl.scheduler.saved import BadFile, Saved
from novactl.scheduler.survival import Loss, Resident, Survival
from novactl.scheduler.telling import summary_line

MAX_SERVERS = 10_000
MANY_STEPS = 200
"""From so many decisions on numpy earns its import."""
_CREATE = re.compile(r"([^=\s]+)=([^\s:]+)(?:\s*[:\s]x?\s*(\d{1,6}))?\s*\Z")


@dataclass(frozen=True, kw_only=True)
class Simulate:
    """What is asked of a saved inventory: the verdict on one server (`flavor`, or sizes of its own), servers one after the other
    (`create`: 'web=m1.small:10'), or neither: what fits, and whether the loss of a node can be borne. `n_plus_1` None: as saved."""

    flavor: str = ""
    vcpus: int = 0
    memory_mb: int = 0
    disk_gb: int = 0
    create: Sequence[str] = ()
    image: str = ""
    zone: str = ""
    group: str = ""
    profile: str = ""
    n_plus_1: bool | None = None
    without: Sequence[str] = ()
    add: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """Of each flavor how many more fit. `losses` are the nodes whose loss would leave a server without a place; None: not asked."""

    nodes: int
    servers: int
    profile: str
    capacity: tuple[FlavorCapacity, ...]
    losses: tuple[Loss, ...] | None


@dataclass(frozen=True, kw_only=True)
class Placed:
    """Where a server of a request list would go: `node` is "" where none would take it, and `detail` says why."""

    server: str
    flavor: str
    node: str
    score: float | None
    detail: str


@dataclass(frozen=True, kw_only=True)
class Placements:
    profile: str
    servers: tuple[Placed, ...]
    placed: int
    rejected: int


def export(cluster: Cluster) -> str:
    """The cluster as `simulate` reads it, with fresh reports."""
    from novactl.conductor import fleet
    from novactl.conductor.residents import is_guarded, residents
    from novactl.db import flavors, groups, images

    fleet.refresh(cluster, max_age_s=cluster.config["placement.refresh_s"])
    with cluster.db.read() as tx:
        found = Saved(
            nodes=tuple(fleet.views(tx, hardware=True)), residents=tuple(residents(cluster, tx)), flavors=flavors.all_(tx),
            images=images.all_(tx), n_plus_1=is_guarded(tx), fresh_s=cluster.config["placement.fresh_s"],
            groups=tuple(GroupView(name=g.name, policy=g.policy, scope=g.scope, max_per_domain=g.max_per_domain) for g in groups.all_(tx)),
            settings={name: cluster.config[name] for name in _PLACEMENT})
    return saved.to_text(found)


_PLACEMENT = tuple(sorted(s.name for s in SETTINGS if s.name.startswith("placement.") and s.name not in (
    "placement.fresh_s", "placement.refresh_s", "placement.max_attempts")))


def simulate(config: Config, text: str, asked: Simulate, clock: Callable[[], float]) -> Explanation | Placements | Outlook | Replay:
    """What the file's cluster would do. Nothing is read or changed but the file; settings that it does not hold are ours.

    Raises BadFile, UsageError, NotFound (a name that is not in the file) and BadConfig.
    """
    plain = saved.read(text, saved.FORMAT, replay.FORMAT)
    if plain["format"] == replay.FORMAT:
        return _replayed(config, plain, asked, clock)
    found = saved.from_plain(plain)
    world = _World(found, _settings(config, found.settings, asked.profile), asked)
    if asked.create:
        return world.created(asked)
    if asked.flavor or asked.vcpus or asked.memory_mb or asked.disk_gb:
        return world.explained(asked)
    return world.outlook(asked)


def _replayed(config: Config, plain: Mapping[str, Any], asked: Simulate, clock: Callable[[], float]) -> Replay:
    if asked != Simulate(profile=asked.profile):
        raise UsageError("a workload is replayed as it is: only --profile may be given")
    settings = _settings(config, {}, asked.profile)
    load = replay.workload(plain)
    xp = lanes.arrays() if len(load.steps) >= MANY_STEPS else lanes
    return replay.replay(load, configured(settings), clock, xp=xp, rules=rules(settings))


def _settings(config: Config, own: Mapping[str, Any], profile: str) -> Any:
    """The settings of placement: the file's own, else ours; another profile brings its own weighers."""
    unknown = sorted(set(own) - set(_PLACEMENT))
    if unknown:
        raise BadFile(f"settings: {unknown[0]!r} is not known", hint=f"known: {', '.join(_PLACEMENT)}")
    kinds = {setting.name: type(setting.default) for setting in SETTINGS}
    wrong = next((name for name, value in own.items() if type(value) is not kinds[name] and not (
        kinds[name] is float and type(value) is int)), None)
    if wrong:
        raise BadFile(f"settings: {wrong} must be a {kinds[wrong].__name__}, not {own[wrong]!r}")
    found = {name.replace(".", "__"): value for name, value in own.items()}
    if profile:
        found |= {"placement__profile": profile, "placement__weighers": ""}
    return config.replace(**found)


class _World:
    """A saved cluster with the changes asked for."""

    def __init__(self, found: Saved, settings: Any, asked: Simulate) -> None:
        self.saved, self.settings = found, settings
        self.profile: Profile = configured(settings)
        left_out = {_named("node", found.nodes, ref).id for ref in asked.without}
        added = [hardware(text) for text in asked.add]
        self.rules = rules(settings)
        self.views = [node for node in found.nodes if node.id not in left_out]
        self.views += hypothetical(added, found.nodes, offered(settings), found.now)
        everyone = self._asking(found.residents)
        self.residents = [resident for resident in everyone if resident.node not in left_out]
        self._everyone = everyone
        self.guarded = found.n_plus_1 if asked.n_plus_1 is None else asked.n_plus_1
        self.survival = Survival(self.views, self.residents, self.profile) if self.guarded else None

    def _asking(self, residents: Sequence[Resident]) -> list[Resident]:
        """What they ask at the file's time and by its settings; those that share a request go on sharing one."""
        shared: dict[int, Request] = {}
        for resident in residents:
            if id(resident.request) not in shared:
                shared[id(resident.request)] = dataclasses.replace(
                    resident.request, now=self.saved.now, fresh_s=self.saved.fresh_s, rules=self.rules)
        return [resident._replace(request=shared[id(resident.request)]) for resident in residents]

    def request(self, asked: Simulate, flavor: Flavor) -> Request:
        image: Image = _named("image", self.saved.images, asked.image) if asked.image else any_image(v.facts for v in self.views)
        base = Request(
            server="", amounts={}, architecture="", zone=asked.zone, now=self.saved.now, fresh_s=self.saved.fresh_s, rules=self.rules)
        nothing: Any = None                                   # no hint names anything that is in a database
        return request_for(base, flavor, image, *wants_of(nothing, flavor, image))

    def explained(self, asked: Simulate) -> Explanation:
        request = dataclasses.replace(self.request(asked, self._size(asked)), group=self._group(asked.group, ()))
        guard = self.survival.refusal if self.survival else None
        return explained(place(request, self.views, self.profile, guard))

    def outlook(self, asked: Simulate) -> Outlook:
        requests = [self.request(asked, flavor) for flavor in self.saved.flavors]
        changes = told_changes(asked.add, asked.without)
        residents = self._everyone if self.guarded else None
        before = as_things_are(requests, self.saved.nodes, residents, self.profile) if changes else {}
        return Outlook(
            nodes=len(self.views), servers=len(self.residents), profile=self.profile.name,
            capacity=tuple(
                row_of(request.server, capacity(request, self.views, self.profile, self.survival), before.get(request.server), changes)
                for request in requests),
            losses=self.survival.losses() if self.survival else None)

    def created(self, asked: Simulate) -> Placements:
        rows: list[Placed] = []
        views = {view.id: view for view in self.views}
        mates: list[Peer] = []
        for name, flavor in _listed(asked.create, self.saved.flavors):
            request = dataclasses.replace(self.request(asked, flavor), server=name, group=self._group(asked.group, mates))
            decision = place(request, views.values(), self.profile, self.survival.refusal if self.survival else None)
            if decision.chosen is None:
                rows.append(Placed(server=name, flavor=flavor.name, node="", score=None, detail=_why_not(decision)))
                continue
            node = views[decision.chosen.node]
            if self.survival:
                self.survival.take(request, node.id, name)
            self._take(views, request, node)
            mates.append(Peer(name, name, node.id))
            rows.append(Placed(server=name, flavor=flavor.name, node=node.name, score=decision.chosen.score, detail=summary_line(decision)))
        placed = sum(bool(row.node) for row in rows)
        return Placements(profile=self.profile.name, servers=tuple(rows), placed=placed, rejected=len(rows) - placed)

    def _take(self, views: dict[str, NodeView], request: Request, node: NodeView) -> None:
        for other in [node] if not node.shared_disk else [v for v in views.values() if v.shared_disk == node.shared_disk]:
            views[other.id] = with_server(other, request, here=other.id == node.id)

    def _size(self, asked: Simulate) -> Flavor:
        if asked.flavor:
            if asked.vcpus or asked.memory_mb or asked.disk_gb:
                raise UsageError("a flavor has its own size: give --flavor, or --vcpus, --ram and --disk")
            return _named("flavor", self.saved.flavors, asked.flavor)
        return Flavor(id="", name="server", vcpus=asked.vcpus, memory_mb=asked.memory_mb, disk_gb=asked.disk_gb, created_at=0.0)

    def _group(self, name: str, mates: Sequence[Peer]) -> GroupView | None:
        if not name:
            return None
        group = _named("server-group", self.saved.groups, name)
        members = [
            Peer(r.id, r.name, r.node) for r in self.residents if r.request.group is not None and r.request.group.name == name]
        domains = {view.id: view.facts.labels.get(group.scope, "") for view in self.views} if group.scope else {}
        return dataclasses.replace(group, members=(*members, *mates), domains=domains)


def _named(noun: str, things: Sequence[Any], name: str) -> Any:
    import difflib

    found = next((thing for thing in things if thing.name == name), None)
    if found is None:
        close = difflib.get_close_matches(name, [thing.name for thing in things], 3)
        raise NotFound(noun, name, similar=close, command="novactl placement simulate FILE")
    return found


def _listed(create: Sequence[str], flavors: Sequence[Flavor]) -> list[tuple[str, Flavor]]:
    """('web-1', its flavor), … for each of ['web=m1.small:10', 'db=r1.large']."""
    found: list[tuple[str, Flavor]] = []
    for text in create:
        matched = _CREATE.match(text.strip())
        count = int(matched[3] or 1) if matched else 0
        if not matched or not 1 <= count <= MAX_SERVERS - len(found):
            raise UsageError(
                f"{text!r} does not say what to create", hint=f"write NAME=FLAVOR or NAME=FLAVOR:COUNT, at most {MAX_SERVERS} servers")
        flavor = _named("flavor", flavors, matched[2])
        names = [matched[1]] if count == 1 else [f"{matched[1]}-{number}" for number in range(1, count + 1)]
        found += [(name, flavor) for name in names]
    return found


def _why_not(decision: Any) -> str:
    counted = ", ".join(f"{name} {count}" for name, count in sorted(decision.counts.items(), key=lambda pair: (-pair[1], pair[0])))
    return f"{summary_line(decision)} Nodes rejected by: {counted}"
