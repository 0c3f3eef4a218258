"""What lists of the past are asked for: a word that nothing can match is refused, rather than answered by an empty list."""

from __future__ import annotations

from collections.abc import Iterable

from novactl.api.resolve import resolve
from novactl.db import events
from novactl.db.events import Asked
from novactl.db.statements import Tx
from novactl.errors import UsageError


def check_kind(kind: str) -> None:
    """Raises UsageError where there is no such kind of operation."""
    _check("kind of operation", kind, _kinds())


def check_event(tx: Tx, event: str) -> None:
    """Raises UsageError where there is no such event, nor ever was one."""
    from novactl import states
    from novactl.conductor.history import NOTES

    if not events.last(tx, Asked(event=event), 1)[0]:
        _check("event", event, {*_kinds(), *NOTES, *map(str, states.Event)})


def id_of(tx: Tx, kind: str, ref: str) -> str:
    """`ref` where there was ever an object of that name or id; else the id of the one whose id begins so. Raises NotFound, Ambiguous."""
    from novactl.db import nodes, servers

    if events.last(tx, Asked(object_kind=kind, named=ref), 1)[0]:
        return ref
    id_: str = resolve(tx, kind, servers if kind == "server" else nodes, ref).id
    return id_


def _kinds() -> set[str]:
    from novactl.conductor.change import KINDS
    from novactl.conductor.sagas import SAGAS

    return {*KINDS, *SAGAS}


def _check(what: str, word: str, known: Iterable[str]) -> None:
    if word in known:
        return
    import difflib

    close = difflib.get_close_matches(word, sorted(known), 3)
    raise UsageError(
        f"there is no {what} {word!r}", hint=f"did you mean {', '.join(close)}?" if close else f"one of {', '.join(sorted(known))}")
