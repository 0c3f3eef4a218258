"""Servers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from novactl.db.named import Named
from novactl.db.statements import Row, Tx, from_json, statement, to_json, updates
from novactl.errors import Conflict
from novactl.model.server import Server
from novactl.model.wants import NOTHING_SPECIAL, Wants
from novactl.states import PowerState, ServerState, TaskState, VmState


def _record(row: Row) -> Server:
    plain = dict(row)
    del plain["live_name"]
    plain["vm_state"], plain["task_state"] = VmState(plain["vm_state"]), TaskState(plain["task_state"])
    plain["power_state"] = PowerState(plain["power_state"])
    plain["node_id"], plain["node_name"] = plain["node_id"] or "", plain["node_name"] or ""
    plain["addresses"] = tuple(from_json(plain["addresses"]))
    plain["wants"] = NOTHING_SPECIAL if plain["wants"] == "{}" else Wants.from_plain(from_json(plain["wants"]))
    plain["ha"] = bool(plain["ha"])
    return Server(**plain)


def _row(server: Server) -> dict[str, Any]:
    plain = {name: getattr(server, name) for name in Server.__dataclass_fields__ if name != "node_name"}
    plain["live_name"] = None if server.deleted_at is not None else server.name
    plain["vm_state"], plain["task_state"] = server.vm_state.value, server.task_state.value
    plain["power_state"] = server.power_state.value
    plain["node_id"] = server.node_id or None
    plain["addresses"] = to_json(list(server.addresses))
    plain["wants"] = to_json(server.wants.to_plain())
    plain["ha"] = int(server.ha)
    return plain


def _select(sa: Any, t: Any) -> Any:
    return sa.select(t.server, t.node.c.name.label("node_name")).select_from(t.server.outerjoin(t.node))


servers: Named[Server] = Named("server", _record, _row, name_column="live_name", select=_select)
all_, by_name, by_id, by_id_prefix, names = servers.all_, servers.by_name, servers.by_id, servers.by_id_prefix, servers.names
insert = servers.insert


class ServerRow(NamedTuple):
    """One line of a list: read without any record, because lists are hot."""

    id: str
    name: str
    status: str
    node: str
    flavor: str
    image: str
    addresses: tuple[str, ...]
    created_at: float


@statement
def q_list(sa: Any, t: Any) -> Any:
    s, wanted = t.server.c, sa.bindparam("by_node", type_=sa.String)
    return (
        sa.select(
            s.id, s.name, s.vm_state, s.task_state, s.power_state, sa.func.coalesce(t.node.c.name, ""), s.flavor_name, s.image_name,
            s.addresses, s.created_at)
        .select_from(t.server.outerjoin(t.node))
        .where(s.deleted_at.is_(None), sa.or_(wanted == "", t.node.c.name == wanted))
        .order_by(s.created_at.desc(), s.id)
        .limit(sa.bindparam("limit", type_=sa.BigInteger))
    )


@statement
def q_on_node(sa: Any, t: Any) -> Any:
    return _select(sa, t).where(
        t.server.c.node_id == sa.bindparam("by_node_id"), t.server.c.live_name.is_not(None)).order_by(t.server.c.name)


@statement
def q_past(sa: Any, t: Any) -> Any:
    ref = sa.bindparam("by_ref", type_=sa.String)
    return _select(sa, t).where(sa.or_(t.server.c.name == ref, t.server.c.id == ref)).order_by(t.server.c.created_at.desc()).limit(1)


@statement
def q_state(sa: Any, t: Any) -> Any:
    s = t.server.c
    return updates(
        sa, t.server, "vm_state", "task_state", "power_state", "operation_id", "fault", "updated_at",
    ).where(s.id == sa.bindparam("by_id"), s.vm_state == sa.bindparam("by_vm_state"), s.task_state == sa.bindparam("by_task_state"),
            s.operation_id == sa.bindparam("by_operation_id"))


@statement
def q_place(sa: Any, t: Any) -> Any:
    return updates(sa, t.server, "node_id", "epoch", "updated_at").where(t.server.c.id == sa.bindparam("by_id"))


@statement
def q_ha(sa: Any, t: Any) -> Any:
    return updates(sa, t.server, "ha").where(t.server.c.id == sa.bindparam("by_id"))


@statement
def q_launched(sa: Any, t: Any) -> Any:
    return updates(sa, t.server, "launched_at").where(t.server.c.id == sa.bindparam("by_id"), t.server.c.launched_at.is_(None))


@statement
def q_gone(sa: Any, t: Any) -> Any:
    return updates(sa, t.server, "live_name", "deleted_at", "node_id").where(t.server.c.id == sa.bindparam("by_id"))


@statement
def q_seen(sa: Any, t: Any) -> Any:
    return updates(sa, t.server, "addresses").where(
        t.server.c.id == sa.bindparam("by_id"), t.server.c.node_id == sa.bindparam("by_node_id"),
        t.server.c.addresses != sa.bindparam("new_addresses"))


@statement
def q_building_from(sa: Any, t: Any) -> Any:
    return sa.select(t.server.c.name).where(
        t.server.c.image_id == sa.bindparam("by_image_id"), t.server.c.vm_state == "building").order_by(t.server.c.name)


@statement
def q_busy_on(sa: Any, t: Any) -> Any:
    return sa.select(t.server.c.node_id, sa.func.count()).select_from(
        t.operation.join(t.server, t.server.c.id == t.operation.c.object_id),
    ).where(t.operation.c.ended_at.is_(None), t.server.c.node_id.is_not(None)).group_by(t.server.c.node_id)


@statement
def q_busy_on_one(sa: Any, t: Any) -> Any:
    s, o = t.server.c, t.operation.c
    return sa.select(sa.func.count()).select_from(t.server.join(t.operation, s.id == o.object_id)).where(
        s.node_id == sa.bindparam("by_node_id"), o.ended_at.is_(None))


@statement
def q_properties(sa: Any, t: Any) -> Any:
    s = t.server.c
    return sa.select(s.node_id, s.id, s.wants).where(s.node_id.is_not(None), s.wants != "{}")


class PowerRow(NamedTuple):
    """What following a server's power takes; `fault` and `updated_at` so that a change is one of what was seen."""

    id: str
    name: str
    node_id: str
    epoch: int
    vm_state: VmState
    task_state: TaskState
    power_state: PowerState
    operation_id: str
    updated_at: float
    fault: str

    @property
    def state(self) -> ServerState:
        return ServerState(self.vm_state, self.task_state, self.power_state)


@statement
def q_powers(sa: Any, t: Any) -> Any:
    s = t.server.c
    columns = [sa.func.coalesce(s.node_id, "") if name == "node_id" else s[name] for name in PowerRow._fields]
    return sa.select(*columns).where(s.deleted_at.is_(None)).order_by(s.id)


@statement
def q_powers_on(sa: Any, t: Any) -> Any:
    s = t.server.c
    return sa.select(*(s[name] for name in PowerRow._fields)).where(s.node_id == sa.bindparam("by_node_id")).order_by(s.id)


@statement
def q_found(sa: Any, t: Any) -> Any:
    s = t.server.c
    return updates(sa, t.server, "vm_state", "power_state", "fault", "updated_at").where(
        s.id == sa.bindparam("by_id"), s.node_id == sa.bindparam("by_node_id"), s.epoch == sa.bindparam("by_epoch"),
        s.vm_state == sa.bindparam("by_vm_state"), s.operation_id == "", s.updated_at == sa.bindparam("by_updated_at"))


def powers(tx: Tx, node_id: str = "") -> list[PowerRow]:
    """Of the servers on a node, or of all that live, in the order of ids."""
    rows = map(PowerRow._make, tx.stream(q_powers_on, by_node_id=node_id) if node_id else tx.stream(q_powers))
    return [
        row._replace(vm_state=VmState(row.vm_state), task_state=TaskState(row.task_state), power_state=PowerState(row.power_state))
        for row in rows]


def found(tx: Tx, seen: PowerRow, state: ServerState, at: float, fault: str) -> bool:
    """Write what was found of an idle server. False, and nothing written, where it is no longer as it was when it was looked at."""
    return tx.run(
        q_found, by_id=seen.id, by_node_id=seen.node_id, by_epoch=seen.epoch, by_vm_state=seen.vm_state.value,
        by_updated_at=seen.updated_at, new_vm_state=state.vm_state.value, new_power_state=state.power_state.value, new_fault=fault,
        new_updated_at=at) == 1


def list_rows(tx: Tx, *, limit: int | None = None, node: str = "") -> list[ServerRow]:
    """The living, newest first."""
    rows = tx.stream(q_list, by_node=node, limit=limit if limit is not None else 2**62)
    return [
        ServerRow(id_, name, ServerState(VmState(vm), TaskState(task), PowerState(power)).status, node_name, flavor, image,
                  () if addresses == "[]" else tuple(from_json(addresses)), created)
        for id_, name, vm, task, power, node_name, flavor, image, addresses, created in rows
    ]


def on_node(tx: Tx, node_id: str) -> tuple[Server, ...]:
    return tuple(_record(row) for row in tx.all(q_on_node, by_node_id=node_id))


def past(tx: Tx, ref: str) -> Server | None:
    """The newest server of this name or id, living or not."""
    row = tx.one(q_past, by_ref=ref)
    return None if row is None else _record(row)


def move_state(tx: Tx, server: Server, state: ServerState, *, operation_id: str, at: float, fault: str | None = None) -> None:
    """Compare-and-set: from what `server` shows to `state`, held by `operation_id` ("" lets go). Raises Conflict."""
    changed = tx.run(
        q_state, by_id=server.id, by_vm_state=server.vm_state.value, by_task_state=server.task_state.value,
        by_operation_id=server.operation_id, new_vm_state=state.vm_state.value, new_task_state=state.task_state.value,
        new_power_state=state.power_state.value, new_operation_id=operation_id, new_updated_at=at,
        new_fault=server.fault if fault is None else fault,
    )
    if changed != 1:
        raise Conflict(f"server {server.name} changed while this command looked at it", command=f"novactl server show {server.name}")


def place(tx: Tx, server_id: str, node_id: str, epoch: int, at: float) -> None:
    """Put the server on `node_id` ("" for nowhere) with its new epoch."""
    tx.run(q_place, by_id=server_id, new_node_id=node_id or None, new_epoch=epoch, new_updated_at=at)


def set_ha(tx: Tx, server_id: str, ha: bool) -> None:
    tx.run(q_ha, by_id=server_id, new_ha=int(ha))


def launched(tx: Tx, server_id: str, at: float) -> None:
    tx.run(q_launched, by_id=server_id, new_launched_at=at)


def gone(tx: Tx, server_id: str, at: float) -> None:
    """Soft-delete: the row stays as history, its name is free."""
    tx.run(q_gone, by_id=server_id, new_live_name=None, new_deleted_at=at, new_node_id=None)


def seen(tx: Tx, server_id: str, node_id: str, addresses: tuple[str, ...]) -> None:
    """What a node says of a server's addresses, if the server is that node's: of others it has nothing to say."""
    tx.run(q_seen, by_id=server_id, by_node_id=node_id, new_addresses=to_json(list(addresses)))


class ResidentRow(NamedTuple):
    """A server on a node, with what it asks of any. `wants` is JSON."""

    id: str
    name: str
    node_id: str
    vcpus: int
    memory_mb: int
    disk_gb: int
    architecture: str
    zone: str
    flavor_name: str
    image_name: str
    project_id: str
    group_id: str
    wants: str


@statement
def q_residents(sa: Any, t: Any) -> Any:
    return sa.select(*(t.server.c[name] for name in ResidentRow._fields)).where(t.server.c.node_id.is_not(None)).order_by(t.server.c.id)


def residents(tx: Tx) -> list[ResidentRow]:
    """The servers that are on nodes, nothing parsed."""
    return [ResidentRow(*row) for row in tx.stream(q_residents)]


def busy_on(tx: Tx) -> dict[str, int]:
    """Node id -> how many of its servers have an operation under way."""
    return dict(tx.stream(q_busy_on))


def busy_on_one(tx: Tx, node_id: str) -> int:
    ((count,),) = tx.stream(q_busy_on_one, by_node_id=node_id)
    return count


def image_properties(tx: Tx) -> dict[str, dict[str, Mapping[str, str]]]:
    """Node id -> server id -> what its image says of itself, of the servers whose image says anything."""
    found: dict[str, dict[str, Mapping[str, str]]] = {}
    for node_id, server_id, wants in tx.stream(q_properties):
        properties = from_json(wants).get("properties")
        if properties:
            found.setdefault(node_id, {})[server_id] = properties
    return found


def building_from(tx: Tx, image_id: str) -> list[str]:
    """Names of the servers still being built from an image."""
    return [name for (name,) in tx.stream(q_building_from, by_image_id=image_id)]
