"""The table of admins' keys: from the database to the agents, and what is done when a key is not, or no longer, the right one.

The cluster's table has a version, raised with each change. Every mutation carries it, and an agent that has an older table refuses until
it was given the newer one; so a node that was away learns who was revoked before it does anything else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from novactl.agents import keys as key_files
from novactl.agents import wire
from novactl.cluster import Cluster
from novactl.db import keys, nodes, operations
from novactl.db.crossing import begun_anew
from novactl.db.statements import Tx
from novactl.errors import AgentRefused, Denied, Diverged, NovaError
from novactl.model.key import AdminKey, Role

if TYPE_CHECKING:
    from novactl.agents.client import Agents
    from novactl.agents.link import Fence, Peer

PUSH_S = 3.0


def table(tx: Tx) -> wire.KeysTable:
    """As agents get it. Raises wire.BadMessage where it is none: no admin, or too many."""
    return wire.KeysTable(keys.version(tx), tuple(wire.AdminKey(key.public_key, key.name, key.role.value) for key in keys.active(tx)))


def plain(tx: Tx) -> dict[str, dict[str, str]]:
    """The same for admins.json: public key -> name and role."""
    return {key.public_key: {"name": key.name, "role": key.role.value} for key in keys.active(tx)}


def own(tx: Tx, cluster: Cluster) -> AdminKey | None:
    """This admin's key in the books; None for one that is not there."""
    return keys.by_public(tx, cluster.key)


def is_admin(tx: Tx, cluster: Cluster) -> bool:
    mine = own(tx, cluster)
    return mine is not None and mine.revoked_at is None and mine.role is Role.ADMIN


def record_first(cluster: Cluster, tx: Tx, public_key: str) -> AdminKey | None:
    """This admin's key in the books, where it is recorded as an admin's if there has never been any; None for an unknown one."""
    found = keys.by_public(tx, public_key)
    if found is not None or keys.any_(tx):
        return found
    user = re.sub(r"[^A-Za-z0-9_-]+", "-", cluster.actor.partition("@")[0]).strip("-_")[:63]
    first = AdminKey(
        id=cluster.ids.uuid(), name=user or "admin", public_key=public_key, role=Role.ADMIN, created_at=cluster.clock.now(),
        created_by=cluster.actor)
    keys.insert(tx, first)
    keys.raise_version(tx)
    return first


class Ring:
    """What `novactl.agents` asks about keys (agents.ring.Ring), of this cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def version(self) -> int:
        with self._cluster.db.read() as tx:
            return keys.version(tx)

    def met(self, peer: Peer, seq: int, operation: str) -> None:
        if seq > wire.FAR_COUNT:                              # of no database: the agent refuses what it must, and an adoption gets through
            return
        with self._cluster.db.read() as tx:
            if not operations.is_ours(tx, seq, operation):
                raise Diverged(peer.name, seq, operation)

    def mend(self, agents: Agents, peer: Peer, refused: NovaError) -> Peer | None:
        about = refused.details.get("handshake", "")
        if about == "node":
            return next(iter(self.newer([peer])), None)
        if about == "admin" or refused.details.get("code") == wire.Code.DENIED:
            if agents.rekey():                                # another process of this admin has changed it
                self._cluster.forget_key()
                return peer
            if key_files.former(self._cluster.config.data_dir / "keys") is None:
                return None
            return peer if not push(self._cluster, [peer], agents=agents) else None
        failed = push(self._cluster, [peer], agents=agents)
        if peer.id in failed:
            raise failed[peer.id] from refused
        return peer

    def newer(self, peers: Sequence[Peer]) -> Sequence[Peer]:
        known = {peer.id: {"", peer.public_key, getattr(peer, "next_public_key", "")} for peer in peers}
        with self._cluster.db.read() as tx:
            rows = [row for row in nodes.agent_rows(tx) if row.id in known]
        return [row for row in rows if {row.public_key, row.next_public_key} - known[row.id]]


class Sending(NamedTuple):
    """A table, and all nodes it is for, as one transaction saw them."""

    table: wire.KeysTable
    peers: Sequence[Peer]

    @classmethod
    def of(cls, cluster: Cluster, tx: Tx, peers: Sequence[Peer] | None = None) -> Sending:
        """For every node, or for `peers`."""
        chosen = [node for node in nodes.agent_rows(tx) if node.address] if peers is None else peers
        return cls(table(tx), chosen)


def push(
    cluster: Cluster, peers: Sequence[Peer] | None = None, *, agents: Agents | None = None, sending: Sending | None = None,
) -> dict[str, NovaError]:
    """Give these nodes the table, all at once; the errors by node id. The rows say afterwards what each has.

    A node that does not know this admin's key yet is asked with the one before, while that is kept. Raises Denied where this
    admin may not do so; `sending` is what was made ready while they still might.
    """
    if sending is None:
        with cluster.db.read() as tx:
            sending = Sending.of(cluster, tx, peers)
            if not is_admin(tx, cluster):
                raise _not_ours(cluster, tx, [peer.name for peer in sending.peers])
    sent, peers, agents = sending.table, sending.peers, agents or cluster.agents
    answers = _pushed(agents, peers, sent)
    strangers = [peer for peer in peers if _may_know_another(answers[peer.id])]
    former = key_files.former(cluster.config.data_dir / "keys") if strangers else None
    if former is not None and former != agents.keys():
        answers |= _as_before(agents, former, strangers, sent)
    failed = {id_: answer for id_, answer in answers.items() if isinstance(answer, NovaError)}
    _told(cluster, [id_ for id_ in answers if id_ not in failed], sent.version)
    forget_former(cluster)
    return failed


@begun_anew
def _told(cluster: Cluster, node_ids: Sequence[str], version: int) -> None:
    with cluster.db.write() as tx:
        keys.told(tx, node_ids, version)


def push_to_all(cluster: Cluster, sending: Sending | None = None) -> dict[str, str]:
    """`push` to every node; the names of those that did not take it, and why. They get it with the next thing that is asked of them."""
    if sending is None:
        with cluster.db.read() as tx:
            sending = Sending.of(cluster, tx)
    failed = push(cluster, sending=sending)
    return {peer.name: failed[peer.id].message for peer in sending.peers if peer.id in failed}


def _may_know_another(answer: Any) -> bool:
    """Whether the agent may have refused because of the key that was used."""
    if isinstance(answer, AgentRefused):
        return answer.details["code"] == wire.Code.DENIED
    return isinstance(answer, NovaError)


def _pushed(agents: Agents, peers: Sequence[Peer], sent: wire.KeysTable) -> dict[str, Any]:
    """Node id -> the answer, or the error."""
    from novactl.agents.link import Fence

    def fence(peer: Peer) -> Fence:
        return Fence(f"{agents.next_id()}:keys:{sent.version}", f"keys-{sent.version}", 1)

    return agents.fan_out(list(peers), "keys.write", sent, timeout_s=PUSH_S, fence=fence)


def _as_before(agents: Agents, former: key_files.KeyPair, peers: Sequence[Peer], sent: wire.KeysTable) -> dict[str, Any]:
    """Pushed with the pair used before the present one."""
    from novactl.agents.client import Agents

    before = Agents(lambda: former, actor=agents.actor, connect_s=agents.connect_s)
    try:
        return _pushed(before, peers, sent)
    finally:
        before.close()


def _not_ours(cluster: Cluster, tx: Tx, names: Sequence[str]) -> Denied:
    mine = own(tx, cluster)
    told = f"key {mine.name} ({mine.role})" if mine else "this key"
    return Denied(
        f"node {', '.join(names)} has an older table of admins' keys, and {told} may not give it the present one",
        hint="an admin's next command there does; to see who is: novactl key list", command="novactl key list")


def hand_on(cluster: Cluster, there: Sequence[Peer], versions: Mapping[str, int]) -> None:
    """Give the table to those of `there` whose reports tell an older one, if this admin may. What fails is tried again the next time."""
    with cluster.db.read() as tx:
        current = keys.version(tx)
        behind = [peer for peer in there if versions.get(peer.id, 0) < current]
        if not behind or not is_admin(tx, cluster):
            return
    push(cluster, behind)


def behind(tx: Tx) -> list[Any]:
    """The nodes that have an older table, by name."""
    current = keys.version(tx)
    return [node for node in nodes.all_(tx) if node.address and node.admins_version < current]


def forget_former(cluster: Cluster) -> None:
    """The pair before is thrown away once every node has a table in which it is revoked."""
    folder = cluster.config.data_dir / "keys"
    pair = key_files.former(folder)
    if pair is None or pair.public == cluster.key:
        return
    with cluster.db.read() as tx:
        known = keys.by_public(tx, pair.public)
        done = (known is None or known.revoked_at is not None) and not behind(tx)
    if done:
        key_files.forget_former(folder)
