"""What kind of node it is: filters that read nothing but its facts."""

from __future__ import annotations

from novactl.scheduler.request import NodeView, Reject, Request


class Architecture:
    name = "architecture"
    by_facts = True

    def __call__(self, request: Request, node: NodeView) -> Reject | None:
        if request.architecture == node.architecture:
            return None
        return Reject(self.name, f"architecture: needs {request.architecture}, is {node.architecture or 'unknown'}")


class Zone:
    name = "zone"
    by_facts = True

    def applies(self, request: Request) -> bool:
        return bool(request.zone)

    def __call__(self, request: Request, node: NodeView) -> Reject | None:
        if not request.zone or request.zone == node.zone:
            return None
        return Reject(self.name, f"zone: needs {request.zone}, is in {node.zone or 'none'}")


architecture, zone = Architecture(), Zone()
