"""Names to objects: exact name, then id, then an id's unique beginning (4 characters or more)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

from novactl.db.statements import Tx
from novactl.errors import Ambiguous, NotFound
from novactl.model.ids import MIN_PREFIX

_HEX = re.compile(r"[0-9a-f-]+\Z")


class Nouns(Protocol):
    """A file of novactl.db."""

    def by_name(self, tx: Tx, name: str) -> Any: ...
    def by_id_prefix(self, tx: Tx, prefix: str) -> Sequence[Any]: ...
    def names(self, tx: Tx, prefix: str) -> list[str]: ...


class Lockable(Nouns, Protocol):
    def by_id(self, tx: Tx, id_: str) -> Any: ...
    def lock(self, tx: Tx, id_: str) -> bool: ...


def resolve(tx: Tx, noun: str, nouns: Nouns, ref: str) -> Any:
    """The one object that `ref` names. Raises NotFound (with similar names) or Ambiguous (with the candidates)."""
    found = nouns.by_name(tx, ref)
    if found is not None:
        return found
    if len(ref) >= MIN_PREFIX and _HEX.match(ref):
        matches = nouns.by_id_prefix(tx, ref)
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise Ambiguous(noun, ref, [f"{match.id}  {getattr(match, 'name', getattr(match, 'object_name', ''))}" for match in matches])
    raise NotFound(noun, ref, similar=_similar(tx, nouns, ref))


def locked(tx: Tx, noun: str, nouns: Lockable, ref: str) -> Any:
    """As `resolve`, and nobody else changes it until the transaction ends: what another has just changed is seen."""
    found = resolve(tx, noun, nouns, ref)
    fresh = nouns.by_id(tx, found.id) if nouns.lock(tx, found.id) else None
    if fresh is None:
        raise NotFound(noun, ref)
    return fresh


def _similar(tx: Tx, nouns: Nouns, ref: str) -> Sequence[str]:
    import difflib

    return difflib.get_close_matches(ref, nouns.names(tx, ""), n=3, cutoff=0.6)
