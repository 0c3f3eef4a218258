"""Server groups, their members, and holding the hard policies where claims are written."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from novactl.db.named import Named
from novactl.db.refusals import GroupPolicy
from novactl.db.statements import Row, Tx, from_json, statement
from novactl.model.group import Policy, ServerGroup
from novactl.model.node import NodeState

FEW = 32
_COLUMNS = tuple(ServerGroup.__dataclass_fields__)


def _record(row: Row) -> ServerGroup:
    return ServerGroup(**{**dict(row), "policy": Policy(row["policy"])})


def _row(group: ServerGroup) -> dict[str, Any]:
    return {name: getattr(group, name) for name in _COLUMNS} | {"policy": group.policy.value, "version": 0}


def _select(sa: Any, t: Any) -> Any:
    return sa.select(*(t.server_group.c[name] for name in _COLUMNS))


groups: Named[ServerGroup] = Named("server_group", _record, _row, select=_select)
all_, by_name, by_id, by_id_prefix, names = groups.all_, groups.by_name, groups.by_id, groups.by_id_prefix, groups.names
insert = groups.insert


class Member(NamedTuple):
    """A living server of a group; `node_id` is "" while it has no node."""

    id: str
    name: str
    node_id: str


@statement
def q_members(sa: Any, t: Any) -> Any:
    s = t.server.c
    return sa.select(s.id, s.name, sa.func.coalesce(s.node_id, "")).where(
        s.group_id == sa.bindparam("by_id"), s.live_name.is_not(None)).order_by(s.name)


@statement
def q_ungroup(sa: Any, t: Any) -> Any:
    return sa.update(t.server).values(group_id="").where(t.server.c.group_id == sa.bindparam("by_id"))


@statement
def q_hold(sa: Any, t: Any) -> Any:
    """Locks the group: whoever claims for it next waits until this transaction has ended."""
    g = t.server_group.c
    return sa.update(t.server_group).values(version=g.version + 1).where(
        g.id == sa.bindparam("by_id"), sa.or_(g.policy == "affinity", g.policy == "anti-affinity"))


@statement
def q_lock(sa: Any, t: Any) -> Any:
    return sa.select(t.server_group.c.id).where(t.server_group.c.id == sa.bindparam("by_id")).with_for_update()


@statement
def q_placed(sa: Any, t: Any) -> Any:
    """The members that hold claims, but for one of them, each with its node's labels."""
    s, c = t.server.c, t.claim.c
    return sa.select(s.name, c.node_id, t.node.c.labels).distinct().select_from(
        t.server.join(t.claim, c.consumer_id == s.id).join(t.node, t.node.c.id == c.node_id),
    ).where(s.group_id == sa.bindparam("by_id"), s.id != sa.bindparam("by_other_id"), c.consumer_kind == "server").order_by(s.name)


@statement
def q_node(sa: Any, t: Any) -> Any:
    return sa.select(t.node.c.name, t.node.c.labels).where(t.node.c.id == sa.bindparam("by_id"))


@statement
def q_lost(sa: Any, t: Any) -> Any:
    return sa.select(t.node.c.id).where(t.node.c.state == sa.bindparam("by_state"))


@statement
def q_labels(sa: Any, t: Any) -> Any:
    return sa.select(t.node.c.id, t.node.c.labels)


def delete(tx: Tx, group_id: str) -> bool:
    """True when there was one. Its members belong to none then."""
    lock(tx, group_id)
    tx.run(q_ungroup, by_id=group_id)
    return groups.delete(tx, group_id)


def lock(tx: Tx, group_id: str) -> bool:
    """Nobody joins it, deletes it or claims for it until the transaction ends. False when it is gone."""
    return tx.one(q_lock, by_id=group_id) is not None


def members(tx: Tx, group_id: str) -> list[Member]:
    return [Member(*row) for row in tx.stream(q_members, by_id=group_id)]


def lost(tx: Tx) -> frozenset[str]:
    """The fenced nodes. For one that leaves such a node, members that are left on them are nowhere: else each would wait for the others."""
    return frozenset(id_ for (id_,) in tx.stream(q_lost, by_state=NodeState.FENCED.value))


def hold(tx: Tx, group_id: str, consumer_id: str, node_id: str, *, moves: bool = False) -> None:
    """Raises GroupPolicy where a hard group does not let this server of its own on the node.

    The group stays locked until the transaction ends. Who counts as a member there is who holds a claim there; of an affinity group
    not on a fenced node, where the server `moves` away from one.
    """
    if not tx.run(q_hold, by_id=group_id):
        return
    group, node = by_id(tx, group_id), tx.one(q_node, by_id=node_id)
    if group is None or node is None:
        return
    nowhere = lost(tx) if moves and group.policy is Policy.AFFINITY else ()
    placed = [(name, _domain(group, there, labels)) for name, there, labels in tx.stream(q_placed, by_id=group_id, by_other_id=consumer_id)
              if there not in nowhere]
    domain = _domain(group, node_id, node["labels"])
    here = [name for name, there in placed if there == domain]
    where = f"{group.scope} {domain or '(none)'}" if group.scope else f"node {node['name']}"
    if group.policy is Policy.ANTI_AFFINITY and len(here) >= group.max_per_domain:
        raise GroupPolicy(
            f"server group {group.name} (anti-affinity, {group.max_per_domain} a {group.scope or 'node'}) has {', '.join(here)} on {where}",
            hint="place again")
    if group.policy is Policy.AFFINITY and placed and not here:
        names_ = ", ".join(name for name, _ in placed)
        raise GroupPolicy(f"server group {group.name} (affinity) has {names_} elsewhere than on {where}", hint="place again")


def _domain(group: ServerGroup, node_id: str, labels: str) -> str:
    return _labels(labels).get(group.scope, "") if group.scope else node_id


def domains(tx: Tx, node_ids: Collection[str], label: str) -> dict[str, str]:
    """Node id -> the value of its label; "" where it has none, or is gone. Few are read one by one, more of them with all others."""
    if len(node_ids) > FEW:
        found = dict(tx.stream(q_labels))
    else:
        found = {id_: row["labels"] for id_ in node_ids if (row := tx.one(q_node, by_id=id_))}
    return {id_: _labels(found[id_]).get(label, "") if id_ in found else "" for id_ in sorted(node_ids)}


@lru_cache(maxsize=4096)
def _labels(text: str) -> Mapping[str, str]:
    """The members of a large group are looked at with each claim for it, and their nodes say the same each time."""
    return from_json(text)
