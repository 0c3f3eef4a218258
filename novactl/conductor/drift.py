"""What the database says against what runs: a pure comparison. `survey` gathers both sides, `mend` acts on what is found."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from novactl.agents import wire
from novactl.conductor.fleet import life, told_of
from novactl.conductor.pools import apart, unlike
from novactl.conductor.revive import went_down_with_it
from novactl.db.claims import ClaimRow
from novactl.db.derived import COLUMN_OF
from novactl.db.servers import PowerRow
from novactl.model.resources import DISK_GB
from novactl.states import ABSENT, PowerState, VmState, found


class Kind(enum.StrEnum):
    POWER = "power"
    CRASHED = "crashed"
    VANISHED = "vanished"
    BOOT = "boot"
    COPY = "superseded"
    AHEAD = "ahead"
    OLD = "outdated"
    UNKNOWN = "unknown"
    WILD = "wild"
    LEFTOVER = "leftover"
    ORPHAN = "orphan-claim"
    UNCLAIMED = "no-claim"
    SUMS = "sums"
    BUSY = "busy"
    OPERATION = "operation"
    POOL = "pool"
    VERSION = "version"
    DIVERGED = "diverged"
    SILENT = "silent"


NOTES = frozenset({Kind.WILD, Kind.VERSION, Kind.SILENT})
"""Told, and no fault."""


class Drift(NamedTuple):
    """One thing that is not as the database has it. `repair` is what `cluster repair` does about it, "" where a person must;
    `command` is what they give. `epoch` is the server's for acting on that node."""

    kind: Kind
    object: str
    node: str
    what: str
    repair: str
    command: str = ""
    object_id: str = ""
    node_id: str = ""
    epoch: int = 0

    @property
    def is_fault(self) -> bool:
        return self.kind not in NOTES


class Place(NamedTuple):
    """A node as its row has it. `used` are its sums by resource class."""

    id: str
    name: str
    boot_id: str
    pool: str
    servers: int
    used: Mapping[str, int]
    enroll_again: str
    is_fenced: bool = False
    """What it says of its servers changes nothing until it is enabled again."""


class Past(NamedTuple):
    """A server that is no more, or that only the journal knows."""

    name: str
    epoch: int


class Open(NamedTuple):
    """An operation that has not ended; `driven`: a living process is at it, or may be."""

    id: str
    kind: str
    object_id: str
    object_name: str
    is_driven: bool
    is_stuck: bool


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What the database says, of what did not change while the agents were asked.

    `pasts` are those of the servers that agents have, and no row stands for, which the journal knows as gone.
    """

    servers: Sequence[PowerRow]
    places: Mapping[str, Place]
    claims: Sequence[ClaimRow] = ()
    open: Sequence[Open] = ()
    pasts: Mapping[str, Past] = field(default_factory=dict)
    diverged: Collection[str] = ()
    """Ids of nodes whose newest operation is not of this database."""
    usage_is_right: bool = True
    changing: Collection[str] = ()
    """Ids of servers that changed meanwhile."""


CLEAN = "remove it from the node"


def drifts(rows: Rows, reports: Mapping[str, wire.Report], silent: Mapping[str, str], version: str) -> tuple[Drift, ...]:
    """Everything that is not as the rows have it; faults first.

    By node id `reports`, or in `silent` why there is none; `version` is this novactl's.
    """
    all_of = [*_servers(rows), *_ledger(rows), *_journal(rows)]
    for node_id in reports:
        if node_id in rows.places:
            all_of += _Node(rows, rows.places[node_id], reports).drifts(version)
    all_of += [
        Drift(Kind.POOL, f"node {rows.places[one.node_id].name}", rows.places[one.node_id].name, one.what, "", one.command,
              object_id=one.node_id, node_id=one.node_id)
        for one in unlike(rows.places, reports)]
    all_of += [
        Drift(Kind.SILENT, f"node {rows.places[id_].name}", rows.places[id_].name, f"not looked at: {why}", "",
              f"novactl node check {rows.places[id_].name}", object_id=id_, node_id=id_)
        for id_, why in silent.items() if id_ in rows.places]
    return tuple(sorted(all_of, key=lambda drift: (not drift.is_fault, drift.node, drift.object, drift.kind)))


def _servers(rows: Rows) -> Iterator[Drift]:
    """Servers whose rows are held by operations that have ended."""
    open_ids = {operation.id for operation in rows.open}
    for row in rows.servers:
        if row.operation_id and row.operation_id not in open_ids:
            yield Drift(Kind.BUSY, f"server {row.name}", _name(rows, row.node_id),
                        f"it is {row.task_state or 'held'} for operation {row.operation_id[:8]}, which has ended", "let it go",
                        object_id=row.id, node_id=row.node_id)


def _ledger(rows: Rows) -> Iterator[Drift]:
    busy = {operation.object_id for operation in rows.open} | set(rows.changing)
    open_ids = {operation.id for operation in rows.open}
    homes = {row.id: row for row in rows.servers}
    held: dict[tuple[str, str], None] = {}
    for claim in rows.claims:
        held[claim.consumer_id, claim.node_id] = None
    for consumer, node_id in held:
        home = homes.get(consumer)
        if consumer in busy or consumer in open_ids or (home is not None and home.node_id == node_id):
            continue
        whose = f"server {home.name}" if home else f"consumer {consumer}"
        yield Drift(Kind.ORPHAN, whose, _name(rows, node_id), "it holds a claim there, and is not there" if home else
                    "it holds a claim, and there is no such server or operation", "release the claim", object_id=consumer, node_id=node_id)
    for row in rows.servers:
        if row.node_id and row.id not in busy and (row.id, row.node_id) not in held:
            yield Drift(Kind.UNCLAIMED, f"server {row.name}", _name(rows, row.node_id), "it is there without a claim",
                        "claim what it has, also where it does not fit", object_id=row.id, node_id=row.node_id)
    yield from _sums(rows)


def _sums(rows: Rows) -> Iterator[Drift]:
    """Sums that are kept beside the claims, and do not follow from them."""
    used: dict[str, dict[str, int]] = {}
    counts: dict[str, set[str]] = {}
    for claim in rows.claims:
        there = used.setdefault(claim.node_id, {})
        there[claim.resource_class] = there.get(claim.resource_class, 0) + claim.amount
        if claim.consumer_kind == "server":
            counts.setdefault(claim.node_id, set()).add(claim.consumer_id)
    pools: dict[str, int] = {}
    for place in rows.places.values():
        if place.pool:
            pools[place.pool] = pools.get(place.pool, 0) + used.get(place.id, {}).get(DISK_GB, 0)
    for place in rows.places.values():
        right = {name: used.get(place.id, {}).get(name, 0) for name in COLUMN_OF}
        if place.pool:
            right[DISK_GB] = pools[place.pool]
        wrong = [
            f"{name} {place.used.get(name, 0)}, its claims {amount}" for name, amount in right.items()
            if place.used.get(name, 0) != amount]
        if len(counts.get(place.id, ())) != place.servers:
            wrong.append(f"servers {place.servers}, its claims {len(counts.get(place.id, ()))}")
        if wrong:
            yield Drift(Kind.SUMS, f"node {place.name}", place.name, f"its row says {'; '.join(wrong)}", "add its claims up again",
                        object_id=place.id, node_id=place.id)
    if not rows.usage_is_right:
        yield Drift(Kind.SUMS, "projects", "", "what projects use is not what their claims say", "add the claims up again")


def _journal(rows: Rows) -> Iterator[Drift]:
    for operation in rows.open:
        if not operation.is_driven:
            state = "stuck" if operation.is_stuck else "nobody drives it"
            yield Drift(Kind.OPERATION, f"operation {operation.id[:8]}", "", f"{operation.kind} of {operation.object_name}: {state}",
                        "end it", f"novactl operation resume {operation.id[:8]}", object_id=operation.object_id)


def _name(rows: Rows, node_id: str) -> str:
    place = rows.places.get(node_id)
    return place.name if place else ""


class _Node:
    """One node's report against the rows."""

    def __init__(self, rows: Rows, place: Place, reports: Mapping[str, wire.Report]) -> None:
        self.rows, self.place, self.report, self.reports = rows, place, reports[place.id], reports
        self.homes = {row.id: row for row in rows.servers}
        self.busy = {operation.object_id for operation in rows.open} | set(rows.changing)

    def drifts(self, version: str) -> Iterator[Drift]:
        place, report = self.place, self.report
        if report.agent_version != version:
            yield self._node(Kind.VERSION, f"its agent is {report.agent_version}, this novactl {version}", place.enroll_again)
        if place.id in self.rows.diverged:
            yield self._node(
                Kind.DIVERGED, f"it has done operation {report.seq_operation[:8]}, number {report.seq}, which this database does not know:"
                " it is a copy, or was restored", "novactl cluster adopt")
        has_booted = place.boot_id not in ("", life(report)) and not place.is_fenced
        if has_booted:
            yield self._node(
                Kind.BOOT, "its host has started anew, or it has fenced itself, since its servers were looked after", "", "start what ran")
        for domain in report.domains:
            yield from self._domain(domain)
        if not place.is_fenced:
            yield from self._powers(has_booted)
        yield from self._files()
        for wild in report.wild:
            yield Drift(Kind.WILD, f"domain {wild.name}", place.name,
                        f"not novactl's: {wild.power_state.lower()}, {wild.vcpus} vcpus, {wild.memory_mb} MiB", "",
                        f"novactl server adopt {place.name} {wild.uuid}", object_id=wild.uuid, node_id=place.id)
        if report.foreign_domains > len(report.wild):
            yield self._node(Kind.WILD, f"{report.foreign_domains - len(report.wild)} more domains that are not novactl's", "")

    def _node(self, kind: Kind, what: str, command: str, repair: str = "") -> Drift:
        place = self.place
        return Drift(kind, f"node {place.name}", place.name, what, repair, command, object_id=place.id, node_id=place.id)

    def _of(self, kind: Kind, name: str, what: str, repair: str, *, id_: str, epoch: int = 0, command: str = "") -> Drift:
        return Drift(kind, f"server {name}", self.place.name, what, repair, command, object_id=id_, node_id=self.place.id, epoch=epoch)

    def _domain(self, domain: wire.DomainState) -> Iterator[Drift]:
        """Whether the domain is the server's, of the epoch the row has."""
        home = self.homes.get(domain.server)
        if domain.server in self.busy:
            return
        if home is None:
            yield self._stranger(domain.server, domain.name, f"a domain ({domain.power_state.lower()}) of a server that", Kind.UNKNOWN,
                                 domain.epoch)
        elif domain.epoch > home.epoch or (home.node_id != self.place.id and domain.epoch == home.epoch):
            where = "" if home.node_id == self.place.id else f" on node {_name(self.rows, home.node_id)}"
            yield self._of(
                Kind.AHEAD, home.name, f"its domain there is of epoch {domain.epoch}, the database has it at {home.epoch}{where}:"
                " the database is older than what was done", "", id_=home.id, command="novactl cluster adopt")
        elif home.node_id != self.place.id:
            yield self._of(
                Kind.COPY, home.name, f"a copy ({domain.power_state.lower()}) of epoch {domain.epoch} was left behind: it is on node"
                f" {_name(self.rows, home.node_id) or 'none'} at epoch {home.epoch}", CLEAN, id_=home.id, epoch=home.epoch)
        elif domain.epoch < home.epoch:
            yield self._of(
                Kind.OLD, home.name, f"its domain is of epoch {domain.epoch}, the database has it at {home.epoch}", "", id_=home.id,
                command=f"novactl server reboot --hard {home.name}")

    def _stranger(self, id_: str, name: str, what: str, kind: Kind, epoch: int = 0) -> Drift:
        past = self.rows.pasts.get(id_)
        if past is not None:
            return self._of(
                Kind.LEFTOVER, past.name or name or id_, f"{what} has been deleted", CLEAN, id_=id_, epoch=max(past.epoch, epoch))
        return self._of(kind, name or id_, f"{what} this database has never known", "", id_=id_, command="novactl db rebuild")

    def _powers(self, has_booted: bool) -> Iterator[Drift]:
        own = [row for row in self.rows.servers if row.node_id == self.place.id and row.id not in self.busy]
        domains = {domain.server: domain for domain in self.report.domains}
        for row, told in told_of(own, self.report):
            event = found(row.state, told)
            if event is None or (has_booted and row.id in domains and went_down_with_it(domains[row.id], self.report)):
                continue
            if told == ABSENT:
                yield self._of(Kind.VANISHED, row.name, f"it is {row.vm_state} and has no domain", "show it as it is", id_=row.id)
            elif told == PowerState.CRASHED:
                yield self._of(Kind.CRASHED, row.name, f"it is {row.vm_state} and its QEMU died", "show it as it is", id_=row.id)
            else:
                was = row.vm_state if row.vm_state is not VmState.ACTIVE else row.power_state.lower()
                yield self._of(Kind.POWER, row.name, f"it is {was}, its domain {told.lower()}", "show it as it is", id_=row.id)

    def _files(self) -> Iterator[Drift]:
        for id_ in self.report.files:
            home = self.homes.get(id_)
            if id_ in self.busy:
                continue
            if home is None:
                yield self._stranger(id_, "", "files of a server that", Kind.UNKNOWN)
            elif home.node_id != self.place.id:
                yield from self._left(home)

    def _left(self, home: PowerRow) -> Iterator[Drift]:
        """Files of a server that is elsewhere: they are its own where both have one pool, and who does not know removes nothing."""
        there, told = self.rows.places.get(home.node_id), self.reports.get(home.node_id)
        if there is None:
            yield self._of(
                Kind.LEFTOVER, home.name, "files of it were left behind: it is on no node", CLEAN, id_=home.id, epoch=home.epoch)
            return
        are_two = apart(self.report.pool_id, told.pool_id if told else "")
        if are_two is False or (self.place.pool and self.place.pool == there.pool):
            return
        what = f"files of it were left behind: it is on node {there.name}"
        if are_two:
            yield self._of(Kind.LEFTOVER, home.name, what, CLEAN, id_=home.id, epoch=home.epoch)
            return
        untold = self.place if not self.report.pool_id else there
        yield self._of(
            Kind.LEFTOVER, home.name, f"{what}, and whether they are its own there, in one pool, is not known: node {untold.name} does not"
            " tell its pool", "", id_=home.id, command=f"novactl node check {there.name}" if told is None else untold.enroll_again)
