"""What follows from other rows and is kept beside them: a node's sums and shape, a project's usage and limits.

Everything here locks the rows it writes before it reads what they follow from, so that of two who change the same
node the second sees what the first did. All of it can be repeated.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from novactl.db.statements import Row, Tx, from_json, statement, to_json
from novactl.model.aggregate import zone_of
from novactl.model.facts import AggregateFacts, Facts
from novactl.model.resources import DISK_GB, HOT, MEMORY_MB, PCPU, VCPU, Inventory
from novactl.model.traits import reported_traits
from novactl.model.versions import version_number

COLUMN_OF = {name: name.lower() for name in HOT}
"""The classes whose sums are columns of the node, and how those columns begin."""
SUMS = tuple(f"{column}_{what}" for column in COLUMN_OF.values() for what in ("capacity", "used", "max_unit"))


@statement
def q_lock(sa: Any, t: Any) -> Any:
    n = t.node.c
    return sa.select(n.name, n.state, n.generation, n.shape, n.shared_disk).where(
        n.id == sa.bindparam("by_id")).with_for_update(key_share=True)


@statement
def q_node_ids(sa: Any, t: Any) -> Any:
    return sa.select(t.node.c.id).order_by(t.node.c.id)


def lock(tx: Tx, node_id: str) -> Row | None:
    """A node's name, state, generation, shape and shared_disk, locked until the transaction ends; None when it is gone."""
    return tx.one(q_lock, by_id=node_id)


# ---------------------------------------------------------------- sums

@statement
def q_lock_pool(sa: Any, t: Any) -> Any:
    of_pool = sa.select(t.node.c.id).where(t.node.c.shared_disk == sa.bindparam("by_pool"))
    return of_pool.order_by(t.node.c.id).with_for_update(key_share=True)


@statement
def q_stock(sa: Any, t: Any) -> Any:
    return sa.select(t.inventory).where(t.inventory.c.node_id == sa.bindparam("by_node_id"))


@statement
def q_claimed(sa: Any, t: Any) -> Any:
    c = t.claim.c
    return sa.select(c.resource_class, sa.func.sum(c.amount)).where(c.node_id == sa.bindparam("by_node_id")).group_by(c.resource_class)


@statement
def q_claimed_in_pool(sa: Any, t: Any) -> Any:
    c = t.claim.c
    return sa.select(sa.func.coalesce(sa.func.sum(c.amount), 0)).select_from(
        t.claim.join(t.node, t.node.c.id == c.node_id)).where(
            t.node.c.shared_disk == sa.bindparam("by_pool"), c.resource_class == DISK_GB)


@statement
def q_servers(sa: Any, t: Any) -> Any:
    c = t.claim.c
    return sa.select(sa.func.count(sa.distinct(c.consumer_id))).where(
        c.node_id == sa.bindparam("by_node_id"), c.consumer_kind == "server")


@statement
def q_sums(sa: Any, t: Any) -> Any:
    names = ("servers", "odd", *SUMS)
    return sa.update(t.node).values(
        {name: sa.bindparam(f"new_{name}", type_=t.node.c[name].type) for name in names} | {"generation": t.node.c.generation + 1},
    ).where(t.node.c.id == sa.bindparam("by_id"))


def inventory(row: Row) -> Inventory:
    """The record that a row of `q_stock` is."""
    plain = dict(row)
    del plain["node_id"]
    return Inventory(**plain)


def resum(tx: Tx, node_id: str) -> None:
    """Write the node's sums as they follow from inventories and claims, and raise its generation.

    In a pool of shared disks what is claimed of the disk is what all its nodes together hold of it.
    """
    found = lock(tx, node_id)
    if found is None:
        return
    stock = {row["resource_class"]: inventory(row) for row in tx.all(q_stock, by_node_id=node_id)}
    used = {name: int(amount) for name, amount in tx.stream(q_claimed, by_node_id=node_id)}
    others = (stock.keys() | used.keys()) - COLUMN_OF.keys()
    odd = bool(found["shared_disk"] or others) or any(one.min_unit > 1 or one.step_size > 1 for one in stock.values())
    if found["shared_disk"]:
        ((used[DISK_GB],),) = tx.stream(q_claimed_in_pool, by_pool=found["shared_disk"])
    ((servers,),) = tx.stream(q_servers, by_node_id=node_id)
    sums: dict[str, int] = {"new_servers": servers, "new_odd": int(odd)}
    for name, column in COLUMN_OF.items():
        there = stock.get(name)
        sums[f"new_{column}_capacity"], sums[f"new_{column}_max_unit"] = (there.capacity, there.max_unit) if there else (0, 0)
        sums[f"new_{column}_used"] = int(used.get(name, 0))
    tx.run(q_sums, by_id=node_id, **sums)


def lock_pool(tx: Tx, pool: str) -> list[str]:
    """The ids of the nodes whose disk is this pool, all of them locked in the order of ids."""
    return [id_ for (id_,) in tx.stream(q_lock_pool, by_pool=pool)]


@statement
def q_lock_all(sa: Any, t: Any) -> Any:
    return sa.select(t.node.c.id).order_by(t.node.c.id).with_for_update(key_share=True)


@statement
def q_lock_with_pools(sa: Any, t: Any) -> Any:
    mine = sa.select(t.node.c.shared_disk).where(t.node.c.id == sa.bindparam("by_id")).scalar_subquery()
    pool = t.node.c.shared_disk
    return sa.select(t.node.c.id).where(sa.or_(
        t.node.c.id == sa.bindparam("by_id"), sa.and_(pool != "", sa.or_(pool == sa.bindparam("by_pool"), pool == mine)),
    )).order_by(t.node.c.id).with_for_update(key_share=True)


def lock_all(tx: Tx) -> None:
    """No node changes until the transaction ends: for who will claim of many. (SQLite's writers are alone anyway: there the
    first row is all that is read.)"""
    tx.one(q_lock_all)


def lock_with_pools(tx: Tx, node_id: str, pool: str = "") -> None:
    """Lock a node with all whose disk is in its pool or in `pool`, in the order of ids."""
    list(tx.stream(q_lock_with_pools, by_id=node_id, by_pool=pool))


# ---------------------------------------------------------------- shapes

@statement
def q_source(sa: Any, t: Any) -> Any:
    n = t.node.c
    return sa.select(n.architecture, n.zone, n.labels, n.traits, t.node_file.c.report).select_from(
        t.node.outerjoin(t.node_file)).where(n.id == sa.bindparam("by_id"))


@statement
def q_aggregates_of(sa: Any, t: Any) -> Any:
    a = t.aggregate
    return sa.select(a.c.name, a.c.metadata).select_from(a.join(t.aggregate_node)).where(
        t.aggregate_node.c.node_id == sa.bindparam("by_node_id")).order_by(a.c.name)


@statement
def q_shape_insert(sa: Any, t: Any) -> Any:
    """Already there is success, also where another transaction writes the same at this moment."""
    row = sa.select(sa.bindparam("new_id", type_=t.shape.c.id.type), sa.bindparam("new_facts", type_=t.shape.c.facts.type))
    row = row.suffix_with("ON CONFLICT DO NOTHING", dialect="postgresql")
    return sa.insert(t.shape).from_select(["id", "facts"], row).prefix_with("OR IGNORE", dialect="sqlite").prefix_with(
        "IGNORE", dialect="mysql").prefix_with("IGNORE", dialect="mariadb")


@statement
def q_reshape(sa: Any, t: Any) -> Any:
    return sa.update(t.node).values(
        shape=sa.bindparam("new_shape", type_=sa.String), generation=t.node.c.generation + 1,
    ).where(t.node.c.id == sa.bindparam("by_id"))


@statement
def q_shapes(sa: Any, t: Any) -> Any:
    in_use = sa.select(t.node.c.id).where(t.node.c.shape == t.shape.c.id).exists()
    return sa.select(t.shape.c.id, t.shape.c.facts).where(in_use)


@statement
def q_shape_of(sa: Any, t: Any) -> Any:
    return sa.select(t.shape.c.facts).select_from(t.shape.join(t.node, t.node.c.shape == t.shape.c.id)).where(
        t.node.c.id == sa.bindparam("by_id"))


def reshape(tx: Tx, node_ids: Iterable[str]) -> None:
    """Bring the nodes' facts up to date; a node whose facts are others now has its generation raised.

    The row of a kind that no node is of any more stays: kinds tend to come back, and it is small.
    """
    for node_id in sorted(node_ids):
        locked = lock(tx, node_id)
        if locked is None:
            continue
        facts = _facts(tx, node_id)
        if facts.key != locked["shape"]:
            tx.run(q_shape_insert, new_id=facts.key, new_facts=to_json(facts.to_plain()))
            tx.run(q_reshape, by_id=node_id, new_shape=facts.key)


def _facts(tx: Tx, node_id: str) -> Facts:
    """As they follow from the node's row, its last report and its aggregates."""
    row = tx.one(q_source, by_id=node_id)
    assert row is not None, "the caller has locked it"
    report = from_json(row["report"]) or {}
    aggregates = tuple(
        AggregateFacts(name, from_json(metadata)) for name, metadata in tx.stream(q_aggregates_of, by_node_id=node_id))
    virt_types = tuple(report.get("virt_types", ()))
    return Facts(
        architecture=row["architecture"], zone=zone_of(row["zone"], (one.metadata for one in aggregates)), labels=from_json(row["labels"]),
        traits=reported_traits(report.get("cpu_features", ()), row["architecture"], virt_types) | set(from_json(row["traits"])),
        virt_type=report.get("virt_type", ""), virt_types=virt_types, cpu_model=report.get("cpu_model", ""),
        hypervisor_version=version_number(report.get("versions", {}).get("hypervisor", "")),
        machines=tuple(report.get("machines", ())), aggregates=aggregates)


def facts_of(tx: Tx, node_id: str) -> Facts:
    """The facts of a node; none for one that is not there."""
    row = tx.one(q_shape_of, by_id=node_id)
    return Facts(architecture="") if row is None else Facts.from_plain(from_json(row["facts"]))


def shapes(tx: Tx) -> dict[str, Facts]:
    """The kinds of node there are: `shape` of a node's row -> its facts."""
    return {id_: Facts.from_plain(from_json(facts)) for id_, facts in tx.stream(q_shapes)}


# ---------------------------------------------------------------- projects

def _usage(sa: Any, t: Any) -> dict[str, Any]:
    """Column of a project -> its usage as its claims have it."""
    c = t.claim.c
    held = sa.select(c.project_id, c.consumer_id, c.resource_class, c.amount).where(c.consumer_kind == "server").subquery()

    def total(*names: str) -> Any:
        return sa.select(sa.func.coalesce(sa.func.sum(held.c.amount), 0)).where(
            held.c.project_id == t.project.c.id, held.c.resource_class.in_([sa.literal_column(f"'{name}'") for name in names]),
        ).scalar_subquery()

    servers = sa.select(sa.func.count(sa.distinct(held.c.consumer_id))).where(held.c.project_id == t.project.c.id).scalar_subquery()
    return {"servers_used": servers, "cores_used": total(VCPU, PCPU), "ram_mb_used": total(MEMORY_MB), "disk_gb_used": total(DISK_GB)}


@statement
def q_usage(sa: Any, t: Any) -> Any:
    return sa.update(t.project).values(_usage(sa, t))


@statement
def q_usage_wrong(sa: Any, t: Any) -> Any:
    p = t.project.c
    return sa.select(p.id).where(sa.or_(*(p[name] != amount for name, amount in _usage(sa, t).items()))).limit(1)


@statement
def q_limits(sa: Any, t: Any) -> Any:
    """The limits of one project, or with '' of all: its own row, else the default's, else none (-1)."""
    q, wanted = t.quota.c, sa.bindparam("by_id", type_=sa.String)

    def limit(resource: str) -> Any:
        row = sa.select(q.max_amount).where(q.resource == sa.literal_column(f"'{resource}'"))
        return sa.func.coalesce(
            row.where(q.project_id == t.project.c.id).scalar_subquery(), row.where(q.project_id == "").scalar_subquery(), -1)

    return sa.update(t.project).values(
        servers_max=limit("servers"), cores_max=limit("cores"), ram_mb_max=limit("ram_mb"), disk_gb_max=limit("disk_gb"),
    ).where(sa.or_(wanted == "", t.project.c.id == wanted))


def limit(tx: Tx, project_id: str) -> None:
    """Write the limits in force into the project's row ('': into every project's), which stays locked."""
    tx.run(q_limits, by_id=project_id)


def usage_is_right(tx: Tx) -> bool:
    """Whether every project's usage is what its claims say."""
    return tx.one(q_usage_wrong) is None


def everything(tx: Tx) -> None:
    """All of it, of every node and project: after the schema has changed."""
    ids = [id_ for (id_,) in tx.stream(q_node_ids)]
    for node_id in ids:
        resum(tx, node_id)
    reshape(tx, ids)
    tx.run(q_usage)
    limit(tx, "")
