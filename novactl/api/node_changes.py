"""`node set` and `node unset`: what of a node may be claimed, and what is said of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from novactl.api import zones
from novactl.api.node_views import NodeShown, held_on, shown
from novactl.api.resolve import resolve
from novactl.api.trial import changing
from novactl.api.zones import Belonging
from novactl.cluster import Cluster
from novactl.conductor.holding import refuse_busy
from novactl.db import derived, nodes, placement
from novactl.db.statements import Tx
from novactl.errors import Conflict, InUse, NovaError, UsageError
from novactl.model.amounts import check_custom_class, checked, ratio_text
from novactl.model.extra_specs import BadSpec, check_trait, is_custom
from novactl.model.ids import check_name
from novactl.model.node import Node, NodeState
from novactl.model.resources import PCPU, VCPU, Inventory, amount_text
from novactl.model.topology import cpu_list, cpu_text

MAX_LABELS, MAX_TRAITS, MAX_CHARS = 64, 256, 63


@dataclass(frozen=True, kw_only=True)
class SetNode:
    """What to set; what is empty or None stays. `ratios` (thousandths) and `reserved` are by resource class; `inventories` are of
    custom classes, whole."""

    ratios: Mapping[str, int] = field(default_factory=dict)
    reserved: Mapping[str, int] = field(default_factory=dict)
    inventories: tuple[Inventory, ...] = ()
    traits: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    zone: str | None = None
    shared_disk: str | None = None
    dedicated_cpus: tuple[int, ...] | None = None
    fencing: Mapping[str, str] | None = None
    """`method` and its options (novactl.conductor.fences)."""


@dataclass(frozen=True, kw_only=True)
class UnsetNode:
    """What to take away: traits, labels by key, inventories by class, and the rest altogether."""

    traits: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    inventories: tuple[str, ...] = ()
    zone: bool = False
    shared_disk: bool = False
    dedicated_cpus: bool = False
    fencing: bool = False


@dataclass(frozen=True)
class Changed:
    """The node as it is now, or after a dry run as it would be. `warnings` are sentences about what is claimed beyond what there is."""

    node: NodeShown
    warnings: tuple[str, ...]


def set_(cluster: Cluster, ref: str, change: SetNode, *, dry_run: bool) -> Changed:
    """See novactl.api.nodes.set_."""
    if change == SetNode():
        raise UsageError("nothing to set", command="novactl node set --help")
    _check_words(change)

    def act(tx: Tx, node: Node) -> list[str]:
        changed = dataclasses.replace(
            node, traits=tuple(sorted({*node.traits, *change.traits})), labels={**node.labels, **change.labels},
            zone=node.zone if change.zone is None else change.zone,
            shared_disk=node.shared_disk if change.shared_disk is None else change.shared_disk,
            dedicated_cpus=node.dedicated_cpus if change.dedicated_cpus is None else cpu_text(change.dedicated_cpus),
            fencing=node.fencing if change.fencing is None else change.fencing)
        if len(changed.traits) > MAX_TRAITS or len(changed.labels) > MAX_LABELS:
            raise UsageError(
                f"node {node.name} would have more than {MAX_LABELS} labels or {MAX_TRAITS} traits",
                command=f"novactl node show {node.name}")
        if change.fencing is not None and change.fencing.get("method") == "ssh" and not node.undo.get("access"):
            raise Conflict(
                f"how to reach node {node.name} by SSH is not known: it cannot be fenced so", hint="enrolling it again tells; or choose"
                " another --fence METHOD", command=node.enroll_again)
        said = _rewrite(tx, node, changed)
        return said + [sentence for one in _wanted(tx, node, change) if (sentence := _put(tx, node, one))]

    done = _changing(cluster, ref, ("node.set", change), act, dry_run, pool=change.shared_disk or "")
    if change.fencing is None:
        return done
    done = dataclasses.replace(done, warnings=(*done.warnings, *_lacking(done.node.name, change.fencing)))
    return done if dry_run else _disarmed(cluster, done)


def unset(cluster: Cluster, ref: str, change: UnsetNode, *, dry_run: bool) -> Changed:
    """See novactl.api.nodes.unset."""
    if change == UnsetNode():
        raise UsageError("nothing to take away", command="novactl node unset --help")
    for name in change.inventories:
        check_custom_class(name)

    def act(tx: Tx, node: Node) -> list[str]:
        changed = dataclasses.replace(
            node, traits=tuple(trait for trait in node.traits if trait not in change.traits),
            labels={key: value for key, value in node.labels.items() if key not in change.labels},
            zone="" if change.zone else node.zone, shared_disk="" if change.shared_disk else node.shared_disk,
            dedicated_cpus="" if change.dedicated_cpus else node.dedicated_cpus,
            fencing={} if change.fencing else node.fencing)
        said = _rewrite(tx, node, changed)
        there = nodes.inventories_of(tx, node.id)
        for name in dict.fromkeys(change.inventories):
            if name in there:
                nodes.set_inventory(tx, node.id, dataclasses.replace(there[name], total=0))
                said.append(f"no {name}")
        return said

    done = _changing(cluster, ref, ("node.unset", change), act, dry_run)
    return done if not change.fencing or dry_run else _disarmed(cluster, done)


def _changing(
    cluster: Cluster, ref: str, what: tuple[str, SetNode | UnsetNode], act: Callable[[Tx, Node], list[str]], dry_run: bool, *,
    pool: str = "",
) -> Changed:
    """Do `act` on a node, which tells what it changed; a dry run does all of it and takes it back. `pool` is what its disk may join."""
    with changing(cluster, *what, dry_run=dry_run) as tx:
        zones.hold(tx)
        named: Node = resolve(tx, "node", nodes, ref)
        derived.lock_with_pools(tx, named.id, pool)           # of two who set it at once the second reads what the first wrote
        node = nodes.by_id(tx, named.id) or named
        if node.state not in (NodeState.ENABLED, NodeState.DISABLED, NodeState.FENCED):
            refuse_busy(cluster, tx, node.id)
            raise Conflict(f"node {node.name} is {node.state.value}", command="novactl operation list")
        said = act(tx, node)
        tx.on(node, detail="; ".join(said))
        after = nodes.by_id(tx, node.id) or node
        return Changed(shown(cluster, tx, after), _over(tx, after) if said else ())


def _check_words(change: SetNode) -> None:
    """Raises UsageError."""
    for trait in change.traits:
        check_trait(trait)
        if not is_custom(trait):
            raise BadSpec(f"trait {trait} is what an agent reports of its host", hint="a trait of your own begins with CUSTOM_")
    if change.zone is not None:
        check_name("zone", change.zone)
    if change.shared_disk is not None:
        check_name("disk pool", change.shared_disk)
    for key, value in change.labels.items():
        check_name("label", key)
        if not value or len(value) > MAX_CHARS or not value.isprintable():
            raise UsageError(f"label {key}: {value!r} is not printable text of 1 to {MAX_CHARS} characters")
    if change.fencing is not None:
        from novactl.conductor.fences import checked as check_fencing

        check_fencing(change.fencing.get("method", ""), {name: value for name, value in change.fencing.items() if name != "method"})
    if change.dedicated_cpus is not None and not change.dedicated_cpus:
        raise UsageError("--dedicated-cpus names no CPU", hint="node unset NODE --dedicated-cpus shares them all")


def _rewrite(tx: Tx, node: Node, changed: Node) -> list[str]:
    """Write the node's row; what was changed, in words. Raises Conflict, InUse, UsageError."""
    if changed == node:
        return []
    if changed.zone != node.zone:
        everyone = zones.belongings(tx)
        zones.check(tx, everyone, [Belonging(changed, everyone[node.id].aggregates)])
    if changed.dedicated_cpus != node.dedicated_cpus:
        _check_cpus(tx, node, cpu_list(changed.dedicated_cpus))
    nodes.update(tx, changed)
    if changed.dedicated_cpus != node.dedicated_cpus:
        _share_out(tx, changed)
    said = []
    for name in ("zone", "shared_disk", "dedicated_cpus"):
        old, new = getattr(node, name), getattr(changed, name)
        if old != new:
            said.append(f"{name.replace('_', ' ')} {old or 'none'} -> {new or 'none'}")
    if changed.fencing != node.fencing:
        if changed.fencing.get("method") != node.fencing.get("method"):
            nodes.end_lease(tx, node.id)
        said.append(f"fencing {_fencing(node)} -> {_fencing(changed)}")
    said += [f"trait {trait}" for trait in changed.traits if trait not in node.traits]
    said += [f"no trait {trait}" for trait in node.traits if trait not in changed.traits]
    said += [f"label {key}={value}" for key, value in changed.labels.items() if node.labels.get(key) != value]
    return said + [f"no label {key}" for key in node.labels if key not in changed.labels]


def _fencing(node: Node) -> str:
    options = " ".join(f"{name}={value}" for name, value in sorted(node.fencing.items()) if name != "method")
    return f"{node.fencing.get('method', 'none')} {options}".rstrip()


def _lacking(name: str, fencing: Mapping[str, str]) -> tuple[str, ...]:
    """A warning, where this machine could not fence a node so: another one may."""
    from novactl.conductor import fences

    program = fences.lacking(fencing)
    if not program:
        return ()
    way = "" if fencing["method"] == "command" else f" ({fences.INSTALL})"
    return (f"node {name}: {program}, which is to fence it, is not on this machine{way}: wherever `novactl node fence` or the conductor"
            " service runs it must be",)


def _disarmed(cluster: Cluster, done: Changed) -> Changed:
    """A node that fences itself goes on doing so until it is told otherwise: it must hear of it, or its servers would be stopped."""
    from novactl.conductor import fences, ha

    with cluster.db.read() as tx:
        node = nodes.by_id(tx, done.node.id)
    if node is None or node.armed_s is None or node.fencing.get("method") == "self":
        return done
    try:
        ha.disarm(cluster, node)
    except NovaError as error:
        within_s = fences.NODE_LEASE_S + node.armed_s
        warning = (
            f"node {node.name} could not be told that it fences itself no more: it stops its servers within {within_s:g} s of its last"
            f" lease, unless a conductor tells it before: {error.message}")
        return dataclasses.replace(done, warnings=(*done.warnings, warning))
    return done


def _check_cpus(tx: Tx, node: Node, wanted: Sequence[int]) -> None:
    """The CPUs are there, and none that a server is pinned to is taken from those kept for it. Raises UsageError, InUse."""
    there = _host_cpus(tx, node)
    missing = sorted(set(wanted) - set(there))
    if missing:
        raise UsageError(
            f"node {node.name} has no CPU {cpu_text(missing)}", hint=f"it has {cpu_text(there)}" if there else "it has not reported yet")
    pinned = {cpu for fitting in placement.fittings_on(tx, node.id) for cell in fitting.cells for cpu in cell.cpus}
    lost = sorted(pinned - set(wanted))
    if lost:
        raise InUse(
            f"node {node.name}: servers are pinned to CPU {cpu_text(lost)}", hint="keep these dedicated, or delete the servers first",
            command="novactl placement list")


def _host_cpus(tx: Tx, node: Node) -> Sequence[int]:
    cells = nodes.hardware_of(tx, node.id).cells
    return sorted(cpu for cell in cells for cpu in cell.cpus) or range((node.report or {}).get("vcpus", 0))


def _share_out(tx: Tx, node: Node) -> None:
    """VCPU and PCPU as they follow from the CPUs kept; the next report finds the same. Raises UsageError where too few stay shared."""
    dedicated = len(cpu_list(node.dedicated_cpus))
    shared, there = (node.report or {}).get("vcpus", dedicated) - dedicated, nodes.inventories_of(tx, node.id).get(VCPU)
    if there and there.reserved > shared:
        raise UsageError(
            f"node {node.name}: {there.reserved} CPUs are reserved for the host, and {shared} would stay shared",
            command=f"novactl node set {node.name} --reserved-cpus {shared}")
    nodes.set_totals(tx, node.id, {VCPU: shared, PCPU: dedicated}, 0)


def _wanted(tx: Tx, node: Node, change: SetNode) -> list[Inventory]:
    """The inventories that differ from what they are. Raises Conflict, BadInventory."""
    there = nodes.inventories_of(tx, node.id)
    wanted = {one.resource_class: one for one in change.inventories}
    for name in {**change.ratios, **change.reserved}:
        if name not in there:
            raise Conflict(f"node {node.name} has not reported how much {name} it has", command=f"novactl node check {node.name}")
        one = there[name]
        wanted[name] = _reserving(node, dataclasses.replace(
            one, ratio_milli=change.ratios.get(name, one.ratio_milli), reserved=change.reserved.get(name, one.reserved)))
    return [one for name, one in wanted.items() if there.get(name) != one]


def _reserving(node: Node, one: Inventory) -> Inventory:
    if one.reserved > one.total:
        raise UsageError(
            f"node {node.name}: {amount_text(one.resource_class, one.reserved)} reserved is more than the"
            f" {amount_text(one.resource_class, one.total)} it has of {one.resource_class}", command=f"novactl node show {node.name}")
    return checked(one)


def _put(tx: Tx, node: Node, one: Inventory) -> str:
    """Write an inventory; in words."""
    nodes.set_inventory(tx, node.id, one)
    name = one.resource_class
    return f"{name}: total {amount_text(name, one.total)}, reserved {amount_text(name, one.reserved)}, ratio {ratio_text(one.ratio_milli)}"


def _over(tx: Tx, node: Node) -> tuple[str, ...]:
    """What is claimed beyond what there is by now."""
    stock, used = nodes.inventories_of(tx, node.id), held_on(tx, node)
    capacity = {name: stock[name].capacity if name in stock else 0 for name in used}
    return tuple(
        f"node {node.name}: {amount_text(name, amount)} of {name} in use, of {amount_text(name, capacity[name])} that may be claimed now:"
        " servers go on, and nothing more fits"
        for name, amount in used.items() if amount > capacity[name])
