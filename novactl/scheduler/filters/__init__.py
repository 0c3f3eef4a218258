"""Filters: does this node do, and if not, why. One class each; all of them look at every node.

Adding one is a class in a file of this folder, a row in FILTERS and its entry point in pyproject.toml; a plug-in's come by the entry
point alone (`novactl.filters`).
"""

from __future__ import annotations

from collections.abc import Mapping

from novactl.scheduler.filters.base import Filter
from novactl.scheduler.filters.hardware import numa, pci
from novactl.scheduler.filters.kinds import architecture, zone
from novactl.scheduler.filters.resources import resources
from novactl.scheduler.filters.state import alive, enabled, fresh, requested

__all__ = ["FILTERS", "Filter", "requested"]

FILTERS: Mapping[str, Filter] = {f.name: f for f in (enabled, alive, fresh, resources, architecture, zone, numa, pci)}
