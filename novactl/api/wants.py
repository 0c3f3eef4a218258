"""What a creation asks of its node beyond room: flavor, image and hints, their names made ids, as the scheduler takes it."""

from __future__ import annotations

from collections.abc import Sequence

from novactl.api.hints import NO_HINTS, Hints
from novactl.api.resolve import resolve
from novactl.db import servers
from novactl.db.statements import Tx
from novactl.errors import UsageError
from novactl.model.aggregate import REQUIRED, TRAIT
from novactl.model.extra_specs import FORBIDDEN, RESOURCES, BadSpec, topology_specs, traits_of
from novactl.model.flavor import Flavor
from novactl.model.ids import NAME
from novactl.model.image import Image
from novactl.model.project import DEFAULT_PROJECT
from novactl.model.resources import PCPU, VCPU
from novactl.model.topology_specs import guest_topology, pci_request
from novactl.model.wants import AGGREGATE_SCOPE, CAPABILITY_SCOPE, Wants

MAX_PEERS = 64


def wants_of(tx: Tx, flavor: Flavor, image: Image, hints: Hints = NO_HINTS) -> tuple[Wants, dict[str, int]]:
    """(what is asked, amounts beyond the flavor's: custom classes, and for pinned servers PCPU with a VCPU of 0).

    Raises NotFound and Ambiguous for a server, a group or a project that is not there, UsageError for a hint that cannot be, and
    where flavor and image, or two hints, contradict each other.
    """
    _check_group(tx, hints)
    required = traits_of(flavor.specs, REQUIRED) | traits_of(image.properties, REQUIRED)
    forbidden = traits_of(flavor.specs, FORBIDDEN) | traits_of(image.properties, FORBIDDEN)
    torn = sorted(required & forbidden)
    if torn:
        raise BadSpec(
            f"flavor {flavor.name} and image {image.name} contradict each other: {torn[0]} is required and forbidden",
            hint="choose another flavor or image")
    asked = topology_specs(flavor.specs, image.properties)
    topology = guest_topology(asked, flavor.vcpus, flavor.memory_mb)
    same, different = _peers(tx, hints.same_host), _peers(tx, hints.different_host)
    if set(same) & set(different):
        raise UsageError("a server is named by --same-host and by --different-host", hint="name it in one of them")
    wants = Wants(
        required=required, forbidden=forbidden,
        specs={key: value for key, value in flavor.specs.items() if key.startswith((CAPABILITY_SCOPE, AGGREGATE_SCOPE))},
        properties={key: value for key, value in image.properties.items() if not key.startswith(TRAIT)},
        same_host=same, different_host=different, near=_network(hints.near), query=_query(hints.query), spread_by=_label(hints.spread_by),
        topology=topology, pci=pci_request(asked))
    extra = {key[len(RESOURCES):]: int(value) for key, value in flavor.specs.items() if key.startswith(RESOURCES)}
    if topology and topology.pinned:
        extra |= {VCPU: 0, PCPU: flavor.vcpus}
    return wants, extra


def _check_group(tx: Tx, hints: Hints) -> None:
    """The group is one of the project's. Raises NotFound, Ambiguous, UsageError."""
    if not hints.group:
        return
    from novactl.db import groups, projects

    project = resolve(tx, "project", projects, hints.project or DEFAULT_PROJECT)
    group = resolve(tx, "server-group", groups, hints.group)
    if group.project_id != project.id:
        owner = projects.by_id(tx, group.project_id)
        raise UsageError(
            f"server group {group.name} belongs to project {owner.name if owner else group.project_id}, not to {project.name}",
            hint=f"add --project {owner.name}" if owner else "choose another group")


def _peers(tx: Tx, refs: Sequence[str]) -> tuple[str, ...]:
    if len(refs) > MAX_PEERS:
        raise UsageError(f"{len(refs)} servers are too many to place by: at most {MAX_PEERS}")
    return tuple(dict.fromkeys(resolve(tx, "server", servers, ref).id for ref in refs))


def _network(text: str) -> str:
    if not text:
        return ""
    from novactl.scheduler.filters.peers import network

    return network(text)


def _query(text: str) -> str:
    if text:
        from novactl.scheduler.filters.query import check

        check(text)
    return text


def _label(text: str) -> str:
    if text and not NAME.match(text):
        raise UsageError(f"--spread-by {text!r} is not the name of a node label", hint="such as rack")
    return text
