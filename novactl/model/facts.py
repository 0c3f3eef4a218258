"""What is the same for many nodes: what filters may read once for all nodes of a kind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class AggregateFacts:
    """An aggregate as its members carry it."""

    name: str
    metadata: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A node's standing facts, shared by all nodes of its kind (Nomad's computed class): no name, no id, no load.

    `traits` are reported and custom ones together. `virt_type` is what new domains get (kvm or qemu), `virt_types` all the
    host offers. `hypervisor_version` is 1000000*major + 1000*minor + release, as libvirt counts; 0 unknown.
    `aggregates` are sorted by name. `zone` "" is none.
    """

    architecture: str
    zone: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    traits: frozenset[str] = frozenset()
    virt_type: str = ""
    virt_types: tuple[str, ...] = ()
    hypervisor_version: int = 0
    cpu_model: str = ""
    machines: tuple[str, ...] = ()
    aggregates: tuple[AggregateFacts, ...] = ()

    def values(self, key: str) -> frozenset[str]:
        """The values of `key` in the metadata of all its aggregates, split at commas and stripped (Nova's rule)."""
        return frozenset(
            value.strip() for aggregate in self.aggregates if key in aggregate.metadata
            for value in aggregate.metadata[key].split(",") if value.strip())

    def least(self, key: str) -> float | None:
        """The least number under `key` in its aggregates (Nova takes the minimum of several); None where there is none.

        What is not a number was refused when the metadata was set; should one be there all the same, it is passed over.
        """
        numbers = []
        for value in self.values(key):
            try:
                numbers.append(float(value))
            except ValueError:
                continue
        return min(numbers, default=None)

    @cached_property
    def key(self) -> str:
        """40 hexadecimal digits that equal facts share."""
        import hashlib

        return hashlib.sha1(json.dumps(self.to_plain(), sort_keys=True).encode(), usedforsecurity=False).hexdigest()

    def to_plain(self) -> dict[str, Any]:
        """What JSON can hold; back by `from_plain`."""
        return {
            "architecture": self.architecture, "zone": self.zone, "labels": dict(self.labels), "traits": sorted(self.traits),
            "virt_type": self.virt_type, "virt_types": list(self.virt_types), "hypervisor_version": self.hypervisor_version,
            "cpu_model": self.cpu_model, "machines": list(self.machines),
            "aggregates": [[aggregate.name, dict(aggregate.metadata)] for aggregate in self.aggregates],
        }

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> Facts:
        return Facts(
            architecture=plain["architecture"], zone=plain.get("zone", ""), labels=dict(plain.get("labels", {})),
            traits=frozenset(plain.get("traits", ())), virt_type=plain.get("virt_type", ""),
            virt_types=tuple(plain.get("virt_types", ())), hypervisor_version=plain.get("hypervisor_version", 0),
            cpu_model=plain.get("cpu_model", ""), machines=tuple(plain.get("machines", ())),
            aggregates=tuple(AggregateFacts(name, dict(metadata)) for name, metadata in plain.get("aggregates", ())))
