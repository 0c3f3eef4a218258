"""What a server asks of its node beyond amounts. Kept with the server, so that every later move asks the same again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from novactl.model.topology import GuestTopology

CAPABILITY_SCOPE, AGGREGATE_SCOPE = "capabilities:", "aggregate_instance_extra_specs:"
"""The scopes of the extra specs that are compared while placing."""


@dataclass(frozen=True, kw_only=True)
class Wants:
    """Nova's RequestSpec, as far as it is about where. Ids are servers'; everything empty asks for nothing.

    `specs` are the flavor's `capabilities:` and `aggregate_instance_extra_specs:` entries, with their scope. `properties` are the image's.
    `query` is Nova's JSON s-expression as text. `near` is a network in CIDR form that the node's address must be in.
    `pci` are (alias, count) pairs.
    """

    required: frozenset[str] = frozenset()
    forbidden: frozenset[str] = frozenset()
    specs: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)
    same_host: tuple[str, ...] = ()
    different_host: tuple[str, ...] = ()
    near: str = ""
    query: str = ""
    spread_by: str = ""
    topology: GuestTopology | None = None
    pci: tuple[tuple[str, int], ...] = ()

    @property
    def pieces(self) -> bool:
        """Whether it asks for pieces of a host (CPUs, cells, pages, devices), not only for amounts."""
        return self.topology is not None or bool(self.pci)

    def to_plain(self) -> dict[str, Any]:
        """What JSON can hold, without what asks for nothing; back by `from_plain`."""
        plain: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if not value:
                continue
            if isinstance(value, frozenset):
                value = sorted(value)
            elif isinstance(value, GuestTopology):
                value = value.to_plain()
            elif isinstance(value, tuple):
                value = [list(item) if isinstance(item, tuple) else item for item in value]
            elif isinstance(value, Mapping):
                value = dict(value)
            plain[one.name] = value
        return plain

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> Wants:
        given = dict(plain)
        for name in ("required", "forbidden"):
            given[name] = frozenset(given.get(name, ()))
        for name in ("same_host", "different_host"):
            given[name] = tuple(given.get(name, ()))
        given["pci"] = tuple((alias, count) for alias, count in given.get("pci", ()))
        topology = given.get("topology")
        given["topology"] = None if topology is None else GuestTopology.from_plain(topology)
        return Wants(**given)


NOTHING_SPECIAL = Wants()
