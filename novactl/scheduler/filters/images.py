"""What an image says of the hosts it runs on (Nova's ImagePropertiesFilter)."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping

from novactl.model.facts import Facts
from novactl.scheduler.filters.kinds import OfFacts
from novactl.scheduler.request import Request

_ARCHITECTURES: Mapping[str, str] = {
    "amd64": "x86_64", "x86-64": "x86_64", "arm64": "aarch64", "i386": "i686", "i486": "i686", "i586": "i686", "ppc64el": "ppc64le",
}
"""Other names for what hosts report, as in nova.objects.fields.Architecture."""
_VERSION = re.compile(r"(<=|>=|==|!=|<|>)\s*(\d+(?:\.\d+){0,2})")
_COMPARED: Mapping[str, Callable[[int, int], bool]] = {
    "<": operator.lt, "<=": operator.le, "==": operator.eq, "!=": operator.ne, ">=": operator.ge, ">": operator.gt,
}


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
    """All of '>=7.2, <9' hold. A version is 1000000*major + 1000*minor + release."""
    if not facts.hypervisor_version:
        return "is unknown"
    predicates = [_VERSION.fullmatch(part.strip()) for part in asked.split(",")]
    if all(p and _COMPARED[p[1]](facts.hypervisor_version, _counted(p[2])) for p in predicates):
        return ""
    return f"is {spoken_version(facts.hypervisor_version)}"


def _machine(asked: str, facts: Facts) -> str:
    return _offered(asked, facts.machines)


def _offered(asked: str, offers: tuple[str, ...]) -> str:
    if asked in offers:
        return ""
    return f"has {', '.join(offers)}" if offers else "reports none"


def _counted(version: str) -> int:
    major, minor, release = (*map(int, version.split(".")), 0, 0)[:3]
    return major * 1_000_000 + minor * 1000 + release


def spoken_version(number: int) -> str:
    """7002000 -> '7.2.0'."""
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


_CHECKS: Mapping[str, Callable[[str, Facts], str]] = {
    "hw_architecture": _architecture, "img_hv_type": _hypervisor, "hw_vm_mode": _machine_kind,
    "img_hv_requested_version": _version, "hw_machine_type": _machine,
}
"""Property -> what the host has instead of what is asked, "" where it has it."""

image_properties = ImageProperties()
