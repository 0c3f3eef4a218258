"""What an image says of the hosts it runs on (Nova's ImagePropertiesFilter)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from novactl.model.facts import Facts
from novactl.model.versions import comparisons, version_text
from novactl.scheduler.filters.kinds import OfFacts
from novactl.scheduler.request import Request

_ARCHITECTURES: Mapping[str, str] = {
    "amd64": "x86_64", "x86-64": "x86_64", "arm64": "aarch64", "i386": "i686", "i486": "i686", "i586": "i686", "ppc64el": "ppc64le",
}
"""Other names for what hosts report, as in nova.objects.fields.Architecture."""


class ImageProperties(OfFacts):
    """Architecture, hypervisor type, kind of machine, hypervisor version and machine type, where the image names them.

    What a host does not report is not taken on trust: it is rejected where the image asks. (Nova lets a host of unknown
    version pass.)
    """

    name = "image_properties"

    def applies(self, request: Request) -> bool:
        return any(key in request.wants.properties for key in _CHECKS)

    def why(self, request: Request, facts: Facts) -> str:
        properties = request.wants.properties
        return "; ".join(
            f"{key}: needs {properties[key]}, {has}" for key, check in _CHECKS.items()
            if key in properties and (has := check(properties[key], facts)))


def _architecture(asked: str, facts: Facts) -> str:
    wanted = _ARCHITECTURES.get(asked.lower(), asked.lower())
    return "" if wanted == facts.architecture else f"is {facts.architecture or 'unknown'}"


def _hypervisor(asked: str, facts: Facts) -> str:
    return _offered(asked.lower(), facts.virt_types or ((facts.virt_type,) if facts.virt_type else ()))


def _machine_kind(asked: str, facts: Facts) -> str:
    return "" if asked.lower() == "hvm" else "runs hvm"


def _version(asked: str, facts: Facts) -> str:
    """All of '>=7.2, <9' hold; what is not of that form holds nowhere."""
    if not facts.hypervisor_version:
        return "is unknown"
    wanted = comparisons(asked)
    if wanted and all(compared(facts.hypervisor_version, number) for compared, number in wanted):
        return ""
    return f"is {version_text(facts.hypervisor_version)}"


def _machine(asked: str, facts: Facts) -> str:
    return _offered(asked, facts.machines)


def _offered(asked: str, offers: tuple[str, ...]) -> str:
    if asked in offers:
        return ""
    return f"has {', '.join(offers)}" if offers else "reports none"


_CHECKS: Mapping[str, Callable[[str, Facts], str]] = {
    "hw_architecture": _architecture, "img_hv_type": _hypervisor, "hw_vm_mode": _machine_kind,
    "img_hv_requested_version": _version, "hw_machine_type": _machine,
}
"""Property -> what the host has instead of what is asked, "" where it has it."""

image_properties = ImageProperties()
