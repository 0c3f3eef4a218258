from __future__ import annotations

import enum
from dataclasses import dataclass


class Policy(enum.StrEnum):
    """Nova's four. The soft ones only weigh; the hard ones are held by the claim's transaction as well."""

    AFFINITY = "affinity"
    ANTI_AFFINITY = "anti-affinity"
    SOFT_AFFINITY = "soft-affinity"
    SOFT_ANTI_AFFINITY = "soft-anti-affinity"

    @property
    def is_hard(self) -> bool:
        return self in (Policy.AFFINITY, Policy.ANTI_AFFINITY)


@dataclass(frozen=True, kw_only=True)
class ServerGroup:
    """Servers that belong together or apart. A server is in one group at most, from its birth on.

    `scope` is the label whose value is the failure domain ("rack"); "" means the node itself. `max_per_domain` is Nova's
    max_server_per_host: how many members anti-affinity lets into one domain.
    """

    id: str
    name: str
    project_id: str
    policy: Policy
    scope: str
    max_per_domain: int
    created_at: float
