"""A cluster in a file: what placement knows of it, and nothing else. Pure: text in, text out.

The format is "novactl-inventory/1": JSON with the kinds of nodes (`facts`, by key), `nodes` with inventories and claims, `servers`
with what they hold and ask, `groups`, `flavors`, `images` and the `settings` of placement. No keys, no user data, no guests'
addresses; of a node's address the host, which `near` reads. The same rows give the same text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from novactl.errors import UsageError
from novactl.model.facts import Facts
from novactl.model.flavor import Flavor
from novactl.model.group import Policy
from novactl.model.image import GIB, Image
from novactl.model.node import NodeState
from novactl.model.project import DEFAULT_PROJECT
from novactl.model.resources import Inventory
from novactl.model.topology import Fitting, Hardware
from novactl.model.wants import Wants
from novactl.scheduler.request import GroupView, NodeView, Request
from novactl.scheduler.survival import Resident

FORMAT = "novactl-inventory/1"
R = TypeVar("R")


class BadFile(UsageError):
    """A saved inventory or workload that cannot be read; the message says where in it."""

    code = "saved"


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A cluster as it was saved. `settings` are those of placement that were in force, by their names; `now` is when its newest report
    came, seconds since the epoch: a file does not age."""

    nodes: tuple[NodeView, ...]
    residents: tuple[Resident, ...] = ()
    groups: tuple[GroupView, ...] = ()
    flavors: tuple[Flavor, ...] = ()
    images: tuple[Image, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    n_plus_1: bool = False
    fresh_s: float = 60.0

    @property
    def now(self) -> float:
        return max((at for node in self.nodes for at in (node.reported_at, node.silent_since) if at is not None), default=0.0)


# ---- to text

def to_text(saved: Saved) -> str:
    """The file's content: one line a node or server, so that two of them can be compared."""
    facts = {node.facts.key: node.facts for node in saved.nodes}
    sections: dict[str, Any] = {
        "format": FORMAT, "n_plus_1": saved.n_plus_1, "fresh_s": saved.fresh_s, "settings": dict(sorted(saved.settings.items())),
        "facts": {key: facts[key].to_plain() for key in sorted(facts)},
        "nodes": [_node(node) for node in sorted(saved.nodes, key=lambda node: node.id)],
        "servers": [_server(resident) for resident in sorted(saved.residents, key=lambda resident: resident.id)],
        "groups": [
            {"name": g.name, "policy": g.policy.value, "scope": g.scope, "max_per_domain": g.max_per_domain}
            for g in sorted(saved.groups, key=lambda group: group.name)],
        "flavors": [
            {"name": f.name, "vcpus": f.vcpus, "memory_mb": f.memory_mb, "disk_gb": f.disk_gb, "specs": dict(f.specs)}
            for f in sorted(saved.flavors, key=lambda flavor: flavor.name)],
        "images": [
            {"name": i.name, "architecture": i.architecture, "min_disk_gb": i.min_disk_gb, "properties": dict(i.properties)}
            for i in sorted(saved.images, key=lambda image: image.name)],
    }
    return "{\n" + ",\n".join(f"{json.dumps(name)}: {_lines(value)}" for name, value in sections.items()) + "\n}\n"


def _lines(value: Any) -> str:
    if isinstance(value, list) and value:
        return "[\n " + ",\n ".join(json.dumps(item, sort_keys=True) for item in value) + "\n]"
    return json.dumps(value, sort_keys=True)


def _node(node: NodeView) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "id": node.id, "name": node.name, "state": node.state.value, "facts": node.facts.key, "used": dict(node.used),
        "inventories": {name: _inventory(inventory) for name, inventory in node.inventories.items()}, "servers": node.servers,
        "reported_at": node.reported_at, "silent_since": node.silent_since, "reason": node.reason, "building": node.building,
        "state_since": node.state_since, "state_by": node.state_by,
        "failed_builds": node.failed_builds, "metrics": dict(node.metrics), "shared_disk": node.shared_disk,
        "host": node.address.partition("://")[2].rpartition(":")[0],
        "hardware": node.hardware.to_plain() if node.hardware else None,
        "fittings": [fitting.to_plain() for fitting in node.fittings or ()],
    }
    return {name: value for name, value in plain.items() if value not in (None, "", [], {})}


def _inventory(inventory: Inventory) -> dict[str, int]:
    plain = asdict(inventory)
    del plain["resource_class"]
    return plain


def _server(resident: Resident) -> dict[str, Any]:
    request = resident.request
    plain = {
        "id": resident.id, "name": resident.name, "node": resident.node, "amounts": dict(request.amounts),
        "architecture": request.architecture, "zone": request.zone, "project": request.project, "flavor": request.flavor,
        "image": request.image, "group": request.group.name if request.group else "", "wants": request.wants.to_plain()}
    return {name: value for name, value in plain.items() if value not in ("", {})}


# ---- from text

def from_text(text: str) -> Saved:
    """Raises BadFile naming the format, or the entry that is not as it should be."""
    return from_plain(read(text, FORMAT))


def read(text: str, *formats: str) -> Mapping[str, Any]:
    """The document, of one of `formats`. Raises BadFile."""
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError) as bad:
        raise BadFile(f"the file is no JSON: {bad}", hint=f"a file of format {' or '.join(formats)}") from None
    found = plain.get("format") if isinstance(plain, dict) else None
    if found not in formats:
        raise BadFile(
            f"the file's format is {found!r}", hint=f"known: {', '.join(formats)}",
            command="novactl placement export FILE" if FORMAT in formats else "")
    return plain


_SECTIONS: Mapping[str, type] = {
    "facts": dict, "settings": dict, "nodes": list, "servers": list, "groups": list, "flavors": list, "images": list, "n_plus_1": bool}

_SPOKEN = {dict: "an object", list: "a list", bool: "true or false"}


def from_plain(plain: Mapping[str, Any]) -> Saved:
    wrong = next((name for name, kind in _SECTIONS.items() if not isinstance(plain.get(name, kind()), kind)), None)
    if wrong:
        raise BadFile(f"{wrong} is not {_SPOKEN[_SECTIONS[wrong]]}", hint="write the file with: novactl placement export FILE")
    fresh_s = plain.get("fresh_s", 60.0)
    if isinstance(fresh_s, bool) or not isinstance(fresh_s, int | float):
        raise BadFile(f"fresh_s is {fresh_s!r}, not a number of seconds")
    facts = dict(_each("facts", plain.get("facts", {}).items(), lambda pair: (pair[0], Facts.from_plain(pair[1]))))
    groups = _each("groups", plain.get("groups", ()), _group)
    kinds: dict[str, Request] = {}
    grouped = {group.name: group for group in groups}
    servers = _each("servers", plain.get("servers", ()), lambda server: _resident(server, grouped, kinds))
    images: dict[str, dict[str, Mapping[str, str]]] = {}
    for server in servers:
        images.setdefault(server.node, {})[server.id] = server.request.wants.properties
    nodes = _each("nodes", plain.get("nodes", ()), lambda node: _view(node, facts, images))
    if len({node.id for node in nodes}) < len(nodes):
        raise BadFile("two nodes of the file have the same id")
    return Saved(
        nodes=nodes, residents=servers, groups=groups, settings=dict(plain.get("settings", {})),
        n_plus_1=plain.get("n_plus_1", False), fresh_s=float(fresh_s),
        flavors=_each("flavors", plain.get("flavors", ()), _flavor), images=_each("images", plain.get("images", ()), _image))


def _each(section: str, entries: Iterable[Any], make: Callable[[Any], R]) -> tuple[R, ...]:
    found = []
    for number, entry in enumerate(entries):
        try:
            found.append(make(entry))
        except (KeyError, TypeError, ValueError, AttributeError) as bad:
            name = entry.get("name", number) if isinstance(entry, dict) else number
            what = f"{bad.args[0]!r} is missing" if isinstance(bad, KeyError) else str(bad)
            raise BadFile(f"{section}: entry {name}: {what}", hint="write the file with: novactl placement export FILE") from None
    return tuple(found)


def _group(plain: Mapping[str, Any]) -> GroupView:
    return GroupView(
        name=plain["name"], policy=Policy(plain["policy"]), scope=plain.get("scope", ""),
        max_per_domain=_whole("max_per_domain", plain.get("max_per_domain", 1)))


def _view(plain: Mapping[str, Any], facts: Mapping[str, Facts], images: Mapping[str, Any]) -> NodeView:
    hardware, host = plain.get("hardware"), plain.get("host", "")
    return NodeView(
        id=plain["id"], name=plain["name"], state=NodeState(plain.get("state", "enabled")), facts=facts[plain["facts"]],
        inventories={name: Inventory(name, **{key: _whole(key, number) for key, number in inventory.items()})
                     for name, inventory in plain["inventories"].items()},
        used={name: _whole(name, amount) for name, amount in plain.get("used", {}).items()},
        servers=_whole("servers", plain.get("servers", 0)), reason=plain.get("reason", ""),
        state_since=plain.get("state_since"), state_by=plain.get("state_by", ""),
        reported_at=plain.get("reported_at"), silent_since=plain.get("silent_since"),
        building=plain.get("building", 0), failed_builds=plain.get("failed_builds", 0), metrics=plain.get("metrics", {}),
        address=f"tcp://{host}:0" if host else "", shared_disk=plain.get("shared_disk", ""),
        hardware=Hardware.from_plain(hardware) if hardware else None,
        fittings=tuple(Fitting.from_plain(fitting) for fitting in plain.get("fittings", ())), images=images.get(plain["id"], {}))


def _resident(plain: Mapping[str, Any], groups: Mapping[str, GroupView], kinds: dict[str, Request]) -> Resident:
    """Servers that ask for the same share one request."""
    key = json.dumps({name: value for name, value in plain.items() if name not in ("id", "name", "node")}, sort_keys=True)
    if key not in kinds:
        kinds[key] = Request(
            server=plain["name"], amounts={name: _whole(name, amount) for name, amount in plain["amounts"].items()},
            architecture=plain.get("architecture", "x86_64"), zone=plain.get("zone", ""), project=plain.get("project", DEFAULT_PROJECT),
            flavor=plain.get("flavor", ""), image=plain.get("image", ""), wants=Wants.from_plain(plain.get("wants", {})),
            group=groups[plain["group"]] if plain.get("group") else None)
    return Resident(plain["id"], plain["name"], plain["node"], kinds[key])


def _flavor(plain: Mapping[str, Any]) -> Flavor:
    return Flavor(
        id="", name=plain["name"], vcpus=_whole("vcpus", plain["vcpus"]), memory_mb=_whole("memory_mb", plain["memory_mb"]),
        disk_gb=_whole("disk_gb", plain.get("disk_gb", 0)), created_at=0.0, specs=dict(plain.get("specs", {})))


def _image(plain: Mapping[str, Any]) -> Image:
    disk_gb = _whole("min_disk_gb", plain["min_disk_gb"])
    return Image(
        id="", name=plain["name"], sha256="", disk_format="raw", size_bytes=0, virtual_size_bytes=disk_gb * GIB, source="", created_at=0.0,
        architecture=plain.get("architecture", "x86_64"), properties=dict(plain.get("properties", {})))


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} is {value!r}, not a whole number of 0 or more")
    return value
