"""Flavors."""

from __future__ import annotations

from novactl.db.named import Named
from novactl.model.flavor import Flavor

flavors: Named[Flavor] = Named("flavor", lambda row: Flavor(**row))
all_, by_name, by_id, by_id_prefix, names = flavors.all_, flavors.by_name, flavors.by_id, flavors.by_id_prefix, flavors.names
insert, delete = flavors.insert, flavors.delete
