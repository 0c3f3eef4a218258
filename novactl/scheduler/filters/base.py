"""What a filter is."""

from __future__ import annotations

from typing import Protocol

from novactl.scheduler.request import NodeView, Reject, Request


class Filter(Protocol):
    """None: the node will do, as far as this filter can tell. Looks at nothing but its arguments."""

    name: str

    def __call__(self, request: Request, node: NodeView) -> Reject | None: ...
