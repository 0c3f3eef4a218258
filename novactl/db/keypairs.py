"""Keypairs: public halves only."""

from __future__ import annotations

from novactl.db.named import Named
from novactl.model.keypair import Keypair

keypairs: Named[Keypair] = Named("keypair", lambda row: Keypair(**row))
all_, by_name, by_id, by_id_prefix, names = keypairs.all_, keypairs.by_name, keypairs.by_id, keypairs.by_id_prefix, keypairs.names
insert, delete = keypairs.insert, keypairs.delete
