"""Filters: does this node do, and if not, why. One class each; all of them look at every node.

Adding one is a class in a file of this folder, a row in FILTERS and its entry point in pyproject.toml; a plug-in's come by the entry
point alone (`novactl.filters`).
"""

from __future__ import annotations

from collections.abc import Mapping

from novactl.scheduler.filters import aggregates, capabilities, hardware, images, kinds, limits, peers, query, resources, state
from novactl.scheduler.filters.base import Filter
from novactl.scheduler.filters.state import requested

__all__ = ["FILTERS", "ON_DEMAND", "Filter", "requested"]

FILTERS: Mapping[str, Filter] = {
    f.name: f for f in (
        state.enabled, state.alive, state.fresh, resources.resources, kinds.architecture, kinds.zone, hardware.numa, hardware.pci,
        kinds.traits, images.image_properties, capabilities.capabilities, capabilities.measures,
        peers.group, peers.same_host, peers.different_host, peers.near, query.query,
        aggregates.tenancy, aggregates.flavor_affinity, aggregates.isolate_aggregates, aggregates.aggregate_specs,
        aggregates.aggregate_images, limits.aggregate_io_ops, limits.aggregate_servers,
        limits.isolated, limits.metrics, limits.io_ops, limits.servers_limit,
    )
}
ON_DEMAND = frozenset({"io_ops", "servers_limit"})
"""In no profile until `placement.filters` names them: they bring limits that nobody asked for. The others speak only where a
request, an aggregate or a setting asks them to."""
