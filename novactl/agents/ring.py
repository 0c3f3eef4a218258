"""What calls to agents need to know of keys and cannot know themselves: the cluster's books, and this admin's former key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from novactl.errors import NovaError

if TYPE_CHECKING:
    from novactl.agents.client import Agents
    from novactl.agents.link import Peer


class Ring(Protocol):
    def version(self) -> int:
        """Of the cluster's table of admins' keys, as it is now; 0 for none."""

    def met(self, peer: Peer, seq: int, operation: str) -> None:
        """Before anything is changed on `peer`, which has done the operation of that number: raises where it is not of this cluster's
        books."""

    def mend(self, agents: Agents, peer: Peer, refused: NovaError) -> Peer | None:
        """Whom to ask once more after `refused` (it has an older table of keys, does not know this key, or has another key
        itself), when what was wrong has been put right; None where nothing can be done. Raises what trying met."""

    def newer(self, peers: Sequence[Peer]) -> Sequence[Peer]:
        """Those of `peers` whose key has been changed since they were read, as they are now."""


class NoRing:
    """For calls outside a cluster: an agent just installed, tests, benches."""

    def version(self) -> int:
        return 0

    def met(self, peer: Peer, seq: int, operation: str) -> None:
        pass

    def mend(self, agents: Agents, peer: Peer, refused: NovaError) -> Peer | None:
        return None

    def newer(self, peers: Sequence[Peer]) -> Sequence[Peer]:
        return ()
