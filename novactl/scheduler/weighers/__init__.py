"""Weighers: of the nodes that will do, which is better. More is better; a profile's multiplier may turn that round.

Adding one is a class in a file of this folder, a row in WEIGHERS and its entry point in pyproject.toml; a plug-in's come by the entry
point alone (`novactl.weighers`).
"""

from __future__ import annotations

from collections.abc import Mapping

from novactl.scheduler.weighers.base import Weigher
from novactl.scheduler.weighers.free import cpu, disk, ram
from novactl.scheduler.weighers.kinds import image_properties, no_zone, pci, version
from novactl.scheduler.weighers.load import chance, failures, io_ops, load, metrics, servers
from novactl.scheduler.weighers.packing import imbalance
from novactl.scheduler.weighers.peers import soft_affinity, soft_anti_affinity, spread
from novactl.scheduler.weighers.room import balance

__all__ = ["WEIGHERS", "Weigher"]

WEIGHERS: Mapping[str, Weigher] = {
    w.name: w for w in (
        balance, imbalance, ram, cpu, disk, servers, io_ops, failures, load, metrics, soft_affinity, soft_anti_affinity, spread, version,
        pci, image_properties, no_zone, chance,
    )
}
