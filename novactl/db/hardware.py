"""What hosts have to give away piece by piece: cells, CPUs, pages, PCI devices."""

from __future__ import annotations

from typing import Any

from novactl.db.derived import lock, resum
from novactl.db.statements import Tx, from_json, statement, to_json, updates
from novactl.model.topology import Hardware, cpu_list


@statement
def q_all(sa: Any, t: Any) -> Any:
    return sa.select(t.node.c.id, t.node.c.dedicated_cpus, t.node_file.c.hardware).select_from(t.node.join(t.node_file)).where(
        t.node_file.c.hardware.is_not(None))


@statement
def q_write(sa: Any, t: Any) -> Any:
    return updates(sa, t.node_file, "hardware").where(t.node_file.c.node_id == sa.bindparam("by_id"))


@statement
def q_of(sa: Any, t: Any) -> Any:
    return sa.select(t.node.c.dedicated_cpus, t.node_file.c.hardware).select_from(t.node.join(t.node_file)).where(
        t.node.c.id == sa.bindparam("by_node_id"))


def hardware(tx: Tx) -> dict[str, Hardware]:
    """Node id -> what it has to give away piece by piece, of the nodes that have said so."""
    return {id_: _hardware(text, dedicated) for id_, dedicated, text in tx.stream(q_all)}


def hardware_of(tx: Tx, node_id: str) -> Hardware:
    """Nothing, where the node has not said."""
    row = tx.one(q_of, by_node_id=node_id)
    return Hardware() if row is None or row["hardware"] is None else _hardware(row["hardware"], row["dedicated_cpus"])


def _hardware(text: str, dedicated: str) -> Hardware:
    return Hardware.from_plain({**from_json(text), "dedicated": cpu_list(dedicated)})


def set_hardware(tx: Tx, node_id: str, found: Hardware) -> bool:
    """Store a host's pieces; which CPUs are dedicated is the node's own word. True when they are others now: the generation rises."""
    plain = found.to_plain()
    del plain["dedicated"]
    lock(tx, node_id)
    row = tx.one(q_of, by_node_id=node_id)
    if row is None or row["hardware"] == to_json(plain):
        return False
    tx.run(q_write, by_id=node_id, new_hardware=to_json(plain))
    resum(tx, node_id)
    return True
