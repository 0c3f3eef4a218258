"""What kind of node it is, and what kind of servers it has."""

from __future__ import annotations

from novactl.scheduler.request import NodeView, Request


class Version:
    """The hypervisor's version as a number (Nova's HypervisorVersionWeigher)."""

    name = "version"
    minval: float | None = None
    maxval: float | None = None
    multiplier_key = "hypervisor_version_weight_multiplier"
    by_facts = True

    def __call__(self, request: Request, node: NodeView) -> float:
        return float(node.facts.hypervisor_version)


class NoZone:
    """1 for a node of no zone, where the request asks for none: zones are left to those who name them."""

    name = "no_zone"
    minval: float | None = 0.0
    maxval: float | None = 1.0
    by_facts = True

    def applies(self, request: Request) -> bool:
        return not request.zone

    def __call__(self, request: Request, node: NodeView) -> float:
        return 0.0 if node.facts.zone else 1.0


MAX_DEVICES = 100


class Pci:
    """100 less the PCI devices free on it, 99 at most: devices are kept for those who need them (Nova's PCIWeigher)."""

    name = "pci"
    minval: float | None = 0.0
    maxval: float | None = None
    multiplier_key = "pci_weight_multiplier"

    def __call__(self, request: Request, node: NodeView) -> float:
        has = len(node.hardware.pci) if node.hardware else 0
        given = sum(len(fitting.pci) for fitting in node.fittings or ())
        return float(MAX_DEVICES - min(has - given, MAX_DEVICES - 1))


class ImageProperties:
    """How many servers it has of the same image properties, each property by what the settings say it weighs; 1 where they say
    nothing at all (Nova's ImagePropertiesWeigher)."""

    name = "image_properties"
    minval: float | None = None
    maxval: float | None = None
    multiplier_key = "image_props_weight_multiplier"

    def applies(self, request: Request) -> bool:
        return bool(request.wants.properties)

    def __call__(self, request: Request, node: NodeView) -> float:
        asked, weights = request.wants.properties, request.rules.image_properties
        total = 0.0
        for properties in (node.images or {}).values():
            for name, value in asked.items():
                if properties.get(name) == value:
                    total += weights.get(name, 0.0) if weights else 1.0
        return total


version, no_zone, pci, image_properties = Version(), NoZone(), Pci(), ImageProperties()
