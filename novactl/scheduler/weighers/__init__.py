"""Weighers: of the nodes that will do, which is better. More is better; a profile's multiplier may turn that round.

Adding one is a class in a file of this folder, a row in WEIGHERS and its entry point in pyproject.toml; a plug-in's come by the entry
point alone (`novactl.weighers`).
"""

from __future__ import annotations

from collections.abc import Mapping

from novactl.scheduler.weighers.base import Weigher, normalise
from novactl.scheduler.weighers.load import chance, servers
from novactl.scheduler.weighers.packing import imbalance
from novactl.scheduler.weighers.room import balance

__all__ = ["WEIGHERS", "Weigher", "normalise"]

WEIGHERS: Mapping[str, Weigher] = {w.name: w for w in (balance, imbalance, servers, chance)}
