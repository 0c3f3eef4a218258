"""Filters: does this node do, and if not, why. One class each; all of them look at every node.

Adding one is a class in a file of this folder, a row in FILTERS and its entry point in pyproject.toml; a plug-in's come by the entry
point alone (`novactl.filters`).
"""

from __future__ import annotations

from collections.abc import Mapping

from novactl.scheduler.filters.aggregates import aggregate_images, aggregate_specs, flavor_affinity, isolate_aggregates, tenancy
from novactl.scheduler.filters.base import Filter
from novactl.scheduler.filters.capabilities import capabilities, measures
from novactl.scheduler.filters.hardware import numa, pci
from novactl.scheduler.filters.images import image_properties
from novactl.scheduler.filters.kinds import architecture, traits, zone
from novactl.scheduler.filters.limits import aggregate_io_ops, aggregate_servers, io_ops, isolated, metrics, servers_limit
from novactl.scheduler.filters.peers import different_host, group, near, same_host
from novactl.scheduler.filters.query import query
from novactl.scheduler.filters.resources import resources
from novactl.scheduler.filters.state import alive, enabled, fresh, requested

__all__ = ["FILTERS", "ON_DEMAND", "Filter", "requested"]

FILTERS: Mapping[str, Filter] = {
    f.name: f for f in (
        enabled, alive, fresh, resources, architecture, zone, numa, pci, traits, image_properties, capabilities, measures, group,
        same_host, different_host, near, query, tenancy, flavor_affinity, isolate_aggregates, aggregate_specs, aggregate_images,
        aggregate_io_ops, aggregate_servers, isolated, metrics, io_ops, servers_limit,
    )
}
ON_DEMAND = frozenset({"io_ops", "servers_limit"})
"""In no profile until `placement.filters` names them: they bring limits that nobody asked for. The others speak only where a
request, an aggregate or a setting asks them to."""
