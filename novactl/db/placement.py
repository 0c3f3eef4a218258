"""Writing the ledger: claims, in one transaction with all that they rest on.

That is the node's generation (or, without one, its room by `novactl.model.resources.shortage`), its being enabled, the
project's quota and the hard policy of the server's group. The usual claim is three statements: the project's usage raised
if its limits allow, the node's sums raised if it is still what was decided on, and the rows. Where one of them changes
nothing, the reason is looked for and told. A claim that is refused leaves nothing, even in a transaction that goes on.

Rows are locked in one order (project, group, nodes by id), so that claims wait for each other and never in a ring. Who
writes several claims in one transaction writes them in that order, or has locked them all before (`derived.lock_all`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

from novactl.db import claims, groups, pieces, quotas
from novactl.db.claims import ClaimRow, all_, consumers, fitting_of, fittings, fittings_on, used, used_on, used_other
from novactl.db.derived import COLUMN_OF, lock, lock_pool, lock_with_pools, resum
from novactl.db.inventories import inventories_of
from novactl.db.nodes import hardware_of
from novactl.db.refusals import GroupPolicy, Moved, OverCapacity
from novactl.db.statements import Row, Tx, statement
from novactl.errors import Conflict
from novactl.model.node import NodeState
from novactl.model.project import DEFAULT_PROJECT
from novactl.model.resources import DISK_GB, Amounts, shortage
from novactl.model.topology import Fitting

__all__ = [
    "Claim", "ClaimRow", "GroupPolicy", "Moved", "OverCapacity", "acknowledge", "all_", "claim", "consumers", "fitting_of", "fittings",
    "fittings_on", "give_back", "lend", "release", "used", "used_on", "used_other",
]
SERVER, MOVE = "server", "move"


@dataclass(frozen=True)
class Claim:
    """`consumer_id` is to hold `amounts` on `node_id`.

    `generation` is the node's as it was decided on; with None the room alone decides, whatever happened since. Consumers
    of the kind "server" count for their project's quota and as servers of the node. `fitting` are the pieces chosen for it.
    `name` is for sentences. `moves`: a server that has lent what it holds on a lost node: its project is not asked for more, whatever the
    limit is by now.
    """

    consumer_id: str
    node_id: str
    amounts: Amounts
    _: KW_ONLY
    project_id: str = DEFAULT_PROJECT
    generation: int | None = None
    group_id: str = ""
    kind: str = SERVER
    fitting: Fitting | None = None
    name: str = ""
    moves: bool = False


def _more(sa: Any, t: Any, sign: int = 1) -> dict[str, Any]:
    """A node's columns with a claim more, or with -1 one less."""
    n = t.node.c
    names = ("servers", *(f"{column}_used" for column in COLUMN_OF.values()))
    amounts = {name: sa.bindparam(f"new_{name}", type_=sa.BigInteger) for name in names}
    return {"generation": n.generation + 1} | {
        name: n[name] + amount if sign > 0 else n[name] - amount for name, amount in amounts.items()}


@statement
def q_take_decided(sa: Any, t: Any) -> Any:
    """Of a node that is as it was decided on. That the sums have the room is asked all the same: here it costs nothing."""
    n = t.node.c
    room = []
    for name in COLUMN_OF.values():
        more = sa.bindparam(f"new_{name}_used", type_=sa.BigInteger)
        room.append(sa.or_(more == 0, sa.and_(n[f"{name}_used"] + more <= n[f"{name}_capacity"], more <= n[f"{name}_max_unit"])))
    return sa.update(t.node).values(_more(sa, t)).where(
        n.id == sa.bindparam("by_id"), n.generation == sa.bindparam("by_generation"), n.state == "enabled", n.odd == 0, *room)


@statement
def q_take(sa: Any, t: Any) -> Any:
    return sa.update(t.node).values(_more(sa, t)).where(t.node.c.id == sa.bindparam("by_id"))


@statement
def q_give(sa: Any, t: Any) -> Any:
    return sa.update(t.node).values(_more(sa, t, -1)).where(
        t.node.c.id == sa.bindparam("by_id"), t.node.c.shared_disk == sa.bindparam("by_pool"))


@statement
def q_beside(sa: Any, t: Any) -> Any:
    """The other nodes of a pool: so much more of their common disk (or less, where it is negative) is claimed."""
    n = t.node.c
    return sa.update(t.node).values(
        generation=n.generation + 1, disk_gb_used=n.disk_gb_used + sa.bindparam("new_disk_gb", type_=sa.BigInteger),
    ).where(n.shared_disk == sa.bindparam("by_pool"), n.id != sa.bindparam("by_id"))


@statement
def q_head(sa: Any, t: Any) -> Any:
    n = t.node.c
    return sa.select(n.name, n.state, n.generation, n.shared_disk, *(n[f"{name}_used"] for name in COLUMN_OF.values())).where(
        n.id == sa.bindparam("by_id")).with_for_update(key_share=True)


@statement
def q_pool(sa: Any, t: Any) -> Any:
    return sa.select(t.node.c.shared_disk).where(t.node.c.id == sa.bindparam("by_id"))


@statement
def q_generation(sa: Any, t: Any) -> Any:
    return sa.select(t.node.c.generation).where(t.node.c.id == sa.bindparam("by_id"))


def claim(tx: Tx, wanted: Claim) -> int:
    """Write the claim and return the node's new generation. (The other nodes of its disk's pool have theirs raised, too.)

    Repeating a claim that the same consumer already holds changes nothing.
    Raises Moved when the node has moved on or takes no servers now, OverCapacity when it no longer has the room,
    GroupPolicy when the server's group no longer allows it there (all three: place again), and QuotaExceeded.
    """
    amounts = {name: amount for name, amount in wanted.amounts.items() if amount}
    counts = wanted.kind == SERVER
    if wanted.moves:
        if _holds(tx, wanted, amounts):
            return _generation(tx, wanted.node_id)
        quotas.recharge(tx, wanted.project_id, amounts)
    elif counts and not quotas.charge(tx, wanted.project_id, amounts, wanted.consumer_id, wanted.node_id):
        if _holds(tx, wanted, amounts):
            return _generation(tx, wanted.node_id)
        quotas.refuse(tx, wanted.project_id, amounts)
        raise Moved(f"project {wanted.project_id} changed at this moment", hint="place again")
    if not counts and _holds(tx, wanted, amounts):
        return _generation(tx, wanted.node_id)
    try:
        if wanted.group_id:
            groups.hold(tx, wanted.group_id, wanted.consumer_id, wanted.node_id, moves=wanted.moves)
        generation = _take(tx, wanted, amounts)
    except Conflict:
        if counts:
            quotas.refund(tx, wanted.project_id, amounts)
        raise
    claims.write(tx, wanted.consumer_id, wanted.node_id, claims.Held(wanted.kind, wanted.project_id, amounts), wanted.fitting)
    return generation


def release(tx: Tx, consumer_id: str, node_id: str) -> None:
    """Give back what `consumer_id` holds on `node_id`; nothing held is success."""
    there = claims.held(tx, consumer_id, node_id)
    if there is None or not claims.remove(tx, consumer_id, node_id):
        return
    counts = there.kind == SERVER
    if counts:
        quotas.refund(tx, there.project_id, there.amounts)
    pool = _locked_pool(tx, node_id)
    while not tx.run(q_give, by_id=node_id, by_pool=pool, **_sums(there.amounts, counts)):
        pool = _locked_pool(tx, node_id)                      # its disk came to another pool at this moment
    if pool:
        tx.run(q_beside, by_pool=pool, by_id=node_id, new_disk_gb=-there.amounts.get(DISK_GB, 0))


def acknowledge(tx: Tx, wanted: Claim) -> None:
    """Write the claim of what is there already, whether it fits or not: nothing is asked. Repeating it changes nothing."""
    if claims.held(tx, wanted.consumer_id, wanted.node_id) is None:
        amounts = {name: amount for name, amount in wanted.amounts.items() if amount}
        claims.write(tx, wanted.consumer_id, wanted.node_id, claims.Held(wanted.kind, wanted.project_id, amounts), wanted.fitting)
        quotas.recharge(tx, wanted.project_id, amounts)
        lock_with_pools(tx, wanted.node_id)
        there = lock(tx, wanted.node_id)
        for id_ in lock_pool(tx, there["shared_disk"]) if there and there["shared_disk"] else [wanted.node_id]:
            resum(tx, id_)                                    # in a pool the disk is claimed of all


def lend(tx: Tx, server_id: str, node_id: str, operation_id: str, *, group_id: str = "", disk: bool = True) -> int:
    """What a server holds on a node is its operation's: the room stays taken while the server claims its place elsewhere, and the
    server counts for its project once. Repeating it, or nothing held, changes nothing.

    Without `disk` that is given up (-> so many GiB), for the server to claim it elsewhere: the same one, in a pool of both nodes. These
    are locked then, so `group_id`, the server's, is locked before.
    """
    there = claims.held(tx, server_id, node_id)
    if there is None:
        return 0
    gib = 0 if disk else there.amounts.get(DISK_GB, 0)
    quotas.refund(tx, there.project_id, there.amounts)
    if gib and group_id:
        groups.lock(tx, group_id)
    claims.rename(tx, server_id, node_id, operation_id, MOVE)
    if gib:
        claims.less(tx, operation_id, node_id, DISK_GB)
    _count(tx, node_id, -1, -gib)
    return gib


def give_back(tx: Tx, server_id: str, node_id: str, operation_id: str, disk_gb: int = 0) -> None:
    """The way back from `lend`, which gave up `disk_gb`: nothing can refuse it, for the room has been held all the time."""
    there = claims.held(tx, operation_id, node_id)
    if there is not None:
        more = {DISK_GB: disk_gb} if disk_gb and DISK_GB not in there.amounts else {}
        quotas.recharge(tx, there.project_id, {**there.amounts, **more})
        claims.rename(tx, operation_id, node_id, server_id, SERVER)
        if more:
            claims.write(tx, server_id, node_id, claims.Held(SERVER, there.project_id, more), None)
        _count(tx, node_id, 1, more.get(DISK_GB, 0))


def _count(tx: Tx, node_id: str, more: int, disk_gb: int) -> None:
    """So many more servers on the node, and so much more of its disk; its other sums stay."""
    pool = _locked_pool(tx, node_id) if disk_gb else ""
    tx.run(q_take, by_id=node_id, **{**_sums({DISK_GB: disk_gb}, False), "new_servers": more})
    if pool:
        tx.run(q_beside, by_pool=pool, by_id=node_id, new_disk_gb=disk_gb)


def _sums(amounts: Amounts, counts: bool) -> Mapping[str, int]:
    return {"new_servers": int(counts)} | {f"new_{column}_used": amounts.get(name, 0) for name, column in COLUMN_OF.items()}


def _holds(tx: Tx, wanted: Claim, amounts: Amounts) -> bool:
    """Whether it holds just this already. Raises Conflict when it holds something else there."""
    there = claims.held(tx, wanted.consumer_id, wanted.node_id)
    if there is None:
        return not amounts
    if there.amounts != amounts:
        raise Conflict(f"{wanted.kind} {wanted.name or wanted.consumer_id} holds other amounts on node {wanted.node_id}",
                       command="novactl placement list")
    return True


def _generation(tx: Tx, node_id: str) -> int:
    row = tx.one(q_generation, by_id=node_id)
    return 0 if row is None else row["generation"]


def _locked_pool(tx: Tx, node_id: str) -> str:
    """The pool of shared disks that the node is in, all its nodes locked; "" (and nothing locked) where it is in none."""
    row = tx.one(q_pool, by_id=node_id)
    if row is not None and row["shared_disk"]:
        lock_pool(tx, row["shared_disk"])
        return row["shared_disk"]
    return ""


# ---------------------------------------------------------------- the node

def _take(tx: Tx, wanted: Claim, amounts: Amounts) -> int:
    """Raise the node's sums, if it still is what was decided on. Raises Moved, OverCapacity; nothing is changed then."""
    counts = wanted.kind == SERVER
    if wanted.generation is not None and amounts.keys() <= COLUMN_OF.keys() and tx.run(
            q_take_decided, by_id=wanted.node_id, by_generation=wanted.generation, **_sums(amounts, counts)):
        return wanted.generation + 1
    pool = _locked_pool(tx, wanted.node_id)
    head = _eligible(tx, wanted, pool)
    _check_room(tx, wanted, amounts, head)
    if wanted.fitting is not None and wanted.generation is None:
        _check_pieces(tx, wanted, wanted.fitting, head["name"])
    tx.run(q_take, by_id=wanted.node_id, **_sums(amounts, counts))
    if pool:
        tx.run(q_beside, by_pool=pool, by_id=wanted.node_id, new_disk_gb=amounts.get(DISK_GB, 0))
    return head["generation"] + 1


def _eligible(tx: Tx, wanted: Claim, pool: str) -> Row:
    """The node's row, locked. Raises Moved unless it takes servers, and is of the generation asked for."""
    head = tx.one(q_head, by_id=wanted.node_id)
    if head is None or head["state"] != NodeState.ENABLED or head["shared_disk"] != pool:
        raise Moved(f"node {head['name'] if head else wanted.node_id} takes no servers any more", hint="place again")
    if wanted.generation not in (None, head["generation"]):
        raise Moved(f"node {head['name']} moved on from generation {wanted.generation} to {head['generation']}", hint="place again")
    return head


def _check_room(tx: Tx, wanted: Claim, amounts: Amounts, head: Row) -> None:
    """Raises OverCapacity naming every class that is short."""
    inventories = inventories_of(tx, wanted.node_id)
    taken = {name: head[f"{column}_used"] for name, column in COLUMN_OF.items()}
    if not amounts.keys() <= COLUMN_OF.keys():
        taken = used_on(tx, wanted.node_id) | taken
    short = [shortage(inventories.get(name), name, taken.get(name, 0), amount) for name, amount in amounts.items()]
    lacks = [one.text for one in short if one]
    if lacks:
        raise OverCapacity(f"node {head['name']} is full by now: {'; '.join(lacks)}", reasons=lacks, hint="place again")


def _check_pieces(tx: Tx, wanted: Claim, fitting: Fitting, name: str) -> None:
    """Raises Moved when another server holds one of the pieces by now."""
    lost = pieces.taken(fitting, fittings_on(tx, wanted.node_id), hardware_of(tx, wanted.node_id))
    if lost:
        raise Moved(f"node {name}: {', '.join(lost)} held by another server by now", hint="place again")
