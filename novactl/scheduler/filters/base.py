"""What a filter is."""

from __future__ import annotations

from typing import Any, Protocol

from novactl.scheduler.fleet import Fleet
from novactl.scheduler.request import NodeView, Reject, Request


class Filter(Protocol):
    """None: the node will do, as far as this filter can tell. Looks at nothing but its arguments."""

    name: str

    def __call__(self, request: Request, node: NodeView) -> Reject | None: ...


class Vectorised(Filter, Protocol):
    """A filter that can also judge all nodes at once: a mask, True where `__call__` would give None; or None where it passes
    every one of these nodes. A law test holds the two forms equal."""

    def columns(self, request: Request, fleet: Fleet) -> Any: ...


class Conditional(Filter, Protocol):
    """A filter with something to say of some requests only: where this is False, `__call__` gives None for every node."""

    def applies(self, request: Request) -> bool: ...


def applies(check: Filter, request: Request) -> bool:
    ask = getattr(check, "applies", None)
    return ask is None or bool(ask(request))


def by_facts(check: Filter) -> bool:
    """Whether its verdict rests on the request and `node.facts` alone (the attribute `by_facts`): then it is asked once a kind of node."""
    return bool(getattr(check, "by_facts", False))
