"""The fleet as the scheduler sees it, and keeping that view fresh."""

from __future__ import annotations

import dataclasses
import re
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from novactl.agents import wire
from novactl.cluster import Cluster
from novactl.conductor import keyring
from novactl.db import nodes, placement, servers
from novactl.db.crossing import begun_anew
from novactl.db.nodes import AgentRow, NodeRow
from novactl.db.servers import PowerRow
from novactl.db.statements import Tx
from novactl.errors import DatabaseUnavailable, Denied, NovaError, Unreachable
from novactl.model.facts import Facts
from novactl.model.image import GIB
from novactl.model.node import Node, NodeState, NodeUsage
from novactl.model.resources import DISK_GB, MAX_INT, MEMORY_MB, PCPU, VCPU, Inventory
from novactl.model.topology import MAX_CPU, Fitting, Hardware, cpu_list
from novactl.scheduler.request import NodeView
from novactl.states import ABSENT, PowerState, found

SILENT_DEADLINE_S = 0.5
"""What a node that was silent the last time gets to answer a refresh."""
REFRESH_DEADLINE_S = 2.0
PAGES = 1000
"""Of domains, in what one node may say."""
MAX_LETTERS = 32
"""Of an agent's version."""
BOOT_LETTERS = 36
"""Of a boot's id: a UUID."""
_SIZE = re.compile(r"[0-9]{1,12}\Z")
FEW = 32
"""So many nodes are read one by one; more of them with all the others."""


def usages(tx: Tx) -> tuple[NodeUsage, ...]:
    """Every node with its ledger, by four queries however many nodes there are."""
    inventories, used, counts = nodes.inventories(tx), placement.used(tx), placement.consumers(tx)
    return tuple(
        NodeUsage(node=node, inventories=inventories.get(node.id, {}), allocated=used.get(node.id, {}), servers=counts.get(node.id, 0))
        for node in nodes.all_(tx)
    )


def views(tx: Tx, *, only: Collection[str] | None = None, hardware: bool = False, images: bool = False) -> list[NodeView]:
    """Whole views of every node by name, or of `only` these ids: what the rows say, nothing that reports hold.

    With `hardware` each has what it can give away piece by piece and what was given, with `images` what its servers' images say.
    """
    some = only is not None and len(only) <= FEW
    rows = [row for id_ in sorted(only or ()) if (row := nodes.row_of(tx, id_))] if some else nodes.rows(tx)
    if only is not None and not some:
        wanted = set(only)
        rows = [row for row in rows if row.id in wanted]
    if some:
        inventories = {row.id: nodes.inventories_of(tx, row.id) for row in rows}
        shapes = {row.shape: nodes.facts_of(tx, row.id) for row in rows}
        busy = {row.id: servers.busy_on_one(tx, row.id) for row in rows}
    else:
        inventories, shapes, busy = nodes.inventories(tx), nodes.shapes(tx), servers.busy_on(tx)
    beside = _Beside(
        inventories=inventories, shapes=shapes, used_other=placement.used_other(tx) if any(row.odd for row in rows) else {},
        busy=busy, hardware=nodes.hardware(tx) if hardware else None,
        fittings=placement.fittings(tx) if hardware else None, images=servers.image_properties(tx) if images else None)
    return [_view(row, beside) for row in rows]


class _Beside(NamedTuple):
    """What views are made of beside the nodes' rows, by node id but for the shapes."""

    inventories: Mapping[str, Mapping[str, Inventory]]
    shapes: Mapping[str, Facts]
    used_other: Mapping[str, Mapping[str, int]]
    busy: Mapping[str, int]
    hardware: Mapping[str, Hardware] | None
    fittings: Mapping[str, Sequence[Fitting]] | None
    images: Mapping[str, Mapping[str, Mapping[str, str]]] | None


def _view(row: NodeRow, beside: _Beside) -> NodeView:
    return NodeView(
        id=row.id, name=row.name, state=NodeState(row.state), facts=beside.shapes[row.shape],
        inventories=beside.inventories.get(row.id, {}), used=row.used | beside.used_other.get(row.id, {}), servers=row.servers,
        reported_at=row.reported_at, silent_since=row.silent_since, reason=row.reason, generation=row.generation,
        agent_version=row.agent_version, building=beside.busy.get(row.id, 0), failed_builds=row.failed_builds, metrics=row.metrics,
        address=row.address, shared_disk=row.shared_disk, state_since=row.state_since, state_by=row.state_by, lease_until=row.lease_until,
        hardware=None if beside.hardware is None else beside.hardware.get(row.id),
        fittings=None if beside.fittings is None else beside.fittings.get(row.id, ()),
        images=None if beside.images is None else beside.images.get(row.id, {}))


def refresh(
    cluster: Cluster, *, max_age_s: float, only: Sequence[Node | AgentRow] | None = None, fenced: bool = False,
) -> dict[str, NovaError]:
    """Ask every node whose report is older than `max_age_s` for a new one, all at once, and store the answers. Those that are fenced
    are asked with `fenced` alone: nothing is placed on them, whatever they say. `only` are asked in any case.

    Returns the errors by node id; a node that does not answer is marked silent. Of a node that this process asked in vain less than
    `max_age_s` ago the error is the one of then, and it is not waited for again. Takes at most REFRESH_DEADLINE_S, and only
    SILENT_DEADLINE_S for those that were silent already.
    """
    with _ASKING:                                             # of several threads one asks; the others find fresh reports
        if only is not None:
            return _refresh(cluster, max_age_s, only)
        with cluster.db.read() as tx:
            everyone = nodes.agent_rows(tx)
        lately = {row.id: error for row in everyone if (error := _in_vain(cluster, row, max_age_s))}
        asked = [row for row in everyone if row.id not in lately and (fenced or row.state not in _FENCED)]
        return lately | _refresh(cluster, max_age_s, asked)


def _in_vain(cluster: Cluster, row: AgentRow, max_age_s: float) -> NovaError | None:
    """What came of asking it, where that was less than `max_age_s` ago and nobody has heard of it since."""
    at, error = cluster.unheard.get(row.id, (0.0, None))
    heard = (row.reported_at or 0.0) > at or (row.silent_since is None and _is_silence(error))
    return error if not heard and 0 <= cluster.clock.now() - at < max_age_s else None


_ASKING = threading.Lock()
_FENCED = (NodeState.FENCING.value, NodeState.FENCED.value)


def _refresh(cluster: Cluster, max_age_s: float, asked: Sequence[Node | AgentRow]) -> dict[str, NovaError]:
    now = cluster.clock.now()
    stale = [node for node in asked if node.address and (
        node.silent_since is not None or node.reported_at is None or now - node.reported_at > max_age_s)]
    if not stale:
        return {}
    hurry = {node.id: SILENT_DEADLINE_S for node in stale if node.silent_since is not None}
    deadline_s = min(cluster.config["agent.connect_s"], REFRESH_DEADLINE_S)
    heard = reports(cluster, stale, max_age_s, timeout_s=deadline_s, hurry=hurry)
    now = cluster.clock.now()
    errors = {node_id: report for node_id, report in heard.items() if isinstance(report, NovaError)}
    cluster.unheard.update((node_id, (now, error)) for node_id, error in errors.items())
    odd = _heard(cluster, heard, now, errors)
    keyring.hand_on(cluster, [node for node in stale if node.id not in errors], {
        node_id: report.admins_version for node_id, report in heard.items() if not isinstance(report, NovaError)})
    if odd:
        from novactl.conductor.reconcile import settle

        settle(cluster, odd)
    return errors


def _is_silence(error: object) -> bool:
    """Nothing can be asked of a node that does not admit this admin's key, either: another's next command hears of it."""
    return isinstance(error, Unreachable | Denied)


def _heard(cluster: Cluster, heard: Mapping[str, wire.Report | NovaError], now: float, errors: dict[str, NovaError]) -> list[str]:
    """Write it down; the nodes that say something else than the database. What cannot be written is added to `errors`."""
    try:
        return _written(cluster, heard, now)
    except DatabaseUnavailable:
        raise
    except Exception:  # noqa: BLE001 - one node's nonsense must not cost the others their reports
        odd: list[str] = []
        for node_id, report in heard.items():
            try:
                odd += _written(cluster, {node_id: report}, now)
            except DatabaseUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - see above
                errors[node_id] = error if isinstance(error, NovaError) else Unreachable(
                    f"what node {node_id} says cannot be written down: {type(error).__name__}: {error}")
        return odd


@begun_anew
def _written(cluster: Cluster, heard: Mapping[str, wire.Report | NovaError], now: float) -> list[str]:
    odd: list[str] = []
    with cluster.db.write() as tx:
        for node_id in sorted(heard):                         # rows are locked in this order everywhere
            report = heard[node_id]
            if _is_silence(report):
                nodes.silent(tx, node_id, now)
            elif not isinstance(report, NovaError) and take_report(tx, node_id, report, now):
                odd.append(node_id)
    return odd


def reports(
    cluster: Cluster, peers: Sequence[Node | AgentRow], max_age_s: float, *, timeout_s: float, hurry: Mapping[str, float] | None = None,
) -> dict[str, wire.Report | NovaError]:
    """What each node says, at most `max_age_s` old, with all its domains; node id -> report, or the error it gave."""
    answers = cluster.agents.fan_out(peers, "inventory.read", wire.InventoryRead(max_age_s), timeout_s=timeout_s, hurry=hurry)
    heard: dict[str, wire.Report | NovaError] = {}
    for peer in peers:
        answer = answers[peer.id]
        try:
            heard[peer.id] = answer if isinstance(answer, NovaError) else (
                _not_its_own(peer.id, answer.body) or whole(cluster, peer, answer.body))
        except NovaError as error:
            heard[peer.id] = error
    return heard


def whole(cluster: Cluster, peer: Node | AgentRow, report: wire.Report) -> wire.Report:
    """The report with the domains that did not fit into it. Raises what calls raise."""
    if not report.domains_left:
        return report
    domains, after = report.domains, report.domains[-1].server if report.domains else ""
    for _ in range(PAGES):
        page: wire.DomainStates = cluster.agents.call(peer, "domain.list", wire.Page(after)).body
        domains, after = domains + page.domains, page.next
        if not after:
            return dataclasses.replace(report, domains=domains, domains_left=0)
    raise Unreachable(f"node {peer.name} does not come to an end of its domains: its report is not taken")


def _not_its_own(node_id: str, report: wire.Report) -> NovaError | None:
    """A node's key speaks for that node alone."""
    if report.node_id == node_id:
        return None
    return Unreachable(
        f"what answers for node {node_id} speaks of node {report.node_id}: its report is not taken", hint="two machines behind one"
        " address, or an agent with another's key: enrol the node again", command="novactl node list")


def take_report(tx: Tx, node_id: str, report: wire.Report, now: float) -> bool:
    """Store what an agent said: of the node, the totals that follow from it, and its guests' addresses.

    One statement is all where it says what the last one said, but for time and load. True where the rows of its servers, or
    the boot they were looked after in, say otherwise than the report: `reconcile.follow` asks again, and believes that.
    Raises Unreachable for what speaks of another node.
    """
    report = bounded(report)
    wrong = _not_its_own(node_id, report)
    if wrong:
        raise wrong
    if not nodes.take_report(tx, node_id, wire.to_plain(report), now - report.age_s):
        return False
    node = nodes.by_id(tx, node_id)
    if node is None:
        return False
    nodes.set_totals(tx, node_id, totals(report, node.dedicated_cpus), cached_gb(report))
    nodes.set_hardware(tx, node_id, hardware(report))
    if report.self_fence_s > 0 and node.armed_s is None and not nodes.arm(tx, node_id, report.self_fence_s):
        nodes.look_again(tx, node_id)                         # once it may run servers
    if report.lacks_lease:
        nodes.lacks_lease(tx, node_id, now)
    for domain in report.domains:
        if domain.addresses:
            servers.seen(tx, domain.server, node_id, domain.addresses)
    if not node.boot_id:
        nodes.booted(tx, node_id, "", life(report))
    odd = bool(report.domains_left) or node.boot_id not in ("", life(report)) or any(
        found(row.state, told) for row, told in told_of(servers.powers(tx, node_id), report))
    if odd:
        nodes.look_again(tx, node_id)
    return odd


def life(report: wire.Report) -> str:
    """What its servers run in: the boot of its host, until the node fences itself and stops them all."""
    boot_id = _printable(report.boot_id, BOOT_LETTERS)
    return boot_id if not report.fencings else f"{boot_id}+{report.fencings}"


def told_of(rows: Sequence[PowerRow], report: wire.Report) -> list[tuple[PowerRow, str]]:
    """The idle servers of a node with the power its report tells, of those that it may speak of.

    A domain of another epoch than the row's is not the server, whatever it does; a guest that goes off with its host is to
    run again.
    """
    domains = {domain.server: domain for domain in report.domains}
    pairs = []
    for row in rows:
        domain = domains.get(row.id)
        if row.operation_id or (domain is not None and domain.epoch != row.epoch) or (domain is None and report.domains_left):
            continue
        told = domain.power_state if domain is not None else ABSENT
        if not (report.going_down and told == PowerState.SHUTDOWN):
            pairs.append((row, told))
    return pairs


def bounded(report: wire.Report) -> wire.Report:
    """What an agent says, as far as it can be: one node's nonsense must not stop what is asked of all the others."""
    def within(number: int, most: int = MAX_INT) -> int:
        return min(max(0, number), most)

    return dataclasses.replace(
        report, vcpus=within(report.vcpus, MAX_CPU + 1), memory_mb=within(report.memory_mb), disk_gb=within(report.disk_gb),
        memory_used_mb=within(report.memory_used_mb), disk_used_gb=within(report.disk_used_gb), age_s=max(0.0, report.age_s),
        self_fence_s=min(max(0.0, report.self_fence_s), 3600.0),
        agent_version=_printable(report.agent_version, MAX_LETTERS), cells=tuple(map(_sized, report.cells)))


def _printable(text: str, most: int) -> str:
    return text if len(text) <= most and text.isprintable() else "".join(filter(str.isprintable, text[:most]))


def _sized(cell: wire.NumaCell) -> wire.NumaCell:
    """Without pages that no number tells the size of."""
    if all(map(_SIZE.match, cell.pages)):
        return cell
    return dataclasses.replace(cell, pages={size: count for size, count in cell.pages.items() if _SIZE.match(size)})


def totals(report: wire.Report, dedicated_cpus: str = "") -> dict[str, int]:
    """What the host has by resource class. CPUs kept for pinned servers are PCPU, the others VCPU."""
    report = bounded(report)
    there = {cpu for cell in report.cells for cpu in cell.cpus} or set(range(report.vcpus))
    kept = len(there.intersection(cpu_list(dedicated_cpus)))
    return {VCPU: report.vcpus - kept, PCPU: kept, MEMORY_MB: report.memory_mb, DISK_GB: report.disk_gb}


def cached_gb(report: wire.Report) -> int:
    """What its image cache holds of the disk, rounded up."""
    return min(MAX_INT, -(-sum(max(0, image.size_bytes) for image in report.images) // GIB))


def hardware(report: wire.Report) -> Hardware:
    """What the host can give away piece by piece."""
    plain = wire.to_plain(report)
    return Hardware.from_plain({"cells": plain["cells"], "pci": plain["pci"]})


def first_inventories(settings: Mapping[str, Any], report: wire.Report) -> dict[str, Inventory]:
    """What a newly enrolled node offers: Nova's defaults, from the settings. `settings` is a Config."""
    ratios = {VCPU: "placement.cpu_ratio", MEMORY_MB: "placement.ram_ratio", DISK_GB: "placement.disk_ratio"}
    found = {}
    for name, total in totals(report).items():
        if name == PCPU:
            continue
        reserved = min(total, settings["placement.reserved_ram_mb"]) if name == MEMORY_MB else 0
        found[name] = Inventory(
            resource_class=name, total=total, reserved=reserved, ratio_milli=round(settings[ratios[name]] * 1000), max_unit=max(1, total))
    return found
