"""What a filter is."""

from __future__ import annotations

from typing import Protocol

from novactl.scheduler.request import NodeView, Reject, Request


class Filter(Protocol):
    """None: the node will do, as far as this filter can tell. Looks at nothing but its arguments.

    It may have more, which says the same faster; law tests hold the forms equal.
    `applies(request) -> bool`: where this is False, `__call__` gives None for every node.
    `by_facts = True`: the verdict rests on the request and `node.facts` alone, and is asked for once a kind of node.
    `steady = True`: the verdict rests on what the server asks of any node (wants, image, flavor, project, the settings) and on the node
    as it is, not on the moment, the group or the peers: while the node stays as it is, it is asked for once.
    `columns(request, fleet)`: a mask over the nodes of a Fleet, True where `__call__` would give None; or None where it passes all.
    """

    name: str

    def __call__(self, request: Request, node: NodeView) -> Reject | None: ...


def applies(judge: object, request: Request) -> bool:
    """Whether a filter or a weigher has anything to say of this request."""
    ask = getattr(judge, "applies", None)
    return ask is None or bool(ask(request))


def steady(judge: object) -> bool:
    """Whether a filter says the same of a node until the node changes."""
    return bool(getattr(judge, "steady", False))


def by_facts(judge: object) -> bool:
    """Whether a filter or a weigher looks at nothing of a node but its facts."""
    return bool(getattr(judge, "by_facts", False))
