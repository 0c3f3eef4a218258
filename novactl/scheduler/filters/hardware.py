"""Whether the host has the pieces that are asked for: CPUs, cells and pages of one's own, PCI devices.

Few servers ask: how pieces are fitted is imported when one does.
"""

from __future__ import annotations

from novactl.scheduler.request import NodeView, Reject, Request


class Numa:
    """The guest's NUMA cells, pinned CPUs and page size fit beside what the node's servers hold (Nova's NUMATopologyFilter)."""

    name = "numa"
    steady = True

    def applies(self, request: Request) -> bool:
        return request.wants.topology is not None

    def __call__(self, request: Request, node: NodeView) -> Reject | None:
        from novactl.scheduler.topology import Limits, fit

        found = fit(request.wants.topology, (), {}, node.hardware, node.fittings or (), Limits.of(node.inventories))
        return Reject(self.name, f"numa: {found}") if isinstance(found, str) else None


class Pci:
    """Enough devices of each PCI alias are free (Nova's PciPassthroughFilter), on whichever cell."""

    name = "pci"
    steady = True

    def applies(self, request: Request) -> bool:
        return bool(request.wants.pci)

    def __call__(self, request: Request, node: NodeView) -> Reject | None:
        from novactl.scheduler.topology import fit

        found = fit(None, request.wants.pci, request.rules.pci_aliases, node.hardware, node.fittings or ())
        return Reject(self.name, found) if isinstance(found, str) else None


numa, pci = Numa(), Pci()
