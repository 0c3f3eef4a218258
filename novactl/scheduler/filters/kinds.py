"""What kind of node it is: filters that read nothing but its facts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from novactl.model.facts import Facts
from novactl.scheduler.fleet import Fleet
from novactl.scheduler.request import NodeView, Reject, Request


class OfFacts(ABC):
    """A filter of nodes' facts. A subclass says `why` nodes of a kind will not do; "" when they will."""

    name: str
    by_facts = True

    @abstractmethod
    def why(self, request: Request, facts: Facts) -> str: ...

    def __call__(self, request: Request, node: NodeView) -> Reject | None:
        text = self.why(request, node.facts)
        return Reject(self.name, text) if text else None


def by_kind(fleet: Fleet, passes: Callable[[Facts], bool]) -> Any:
    """A mask of the nodes whose kind passes; None where every kind does."""
    verdicts = [passes(facts) for facts in fleet.facts]
    return None if all(verdicts) else fleet.xp.take(fleet.xp.asarray(verdicts), fleet.shape)


class Architecture(OfFacts):
    """It is of the architecture that the image is for."""

    name = "architecture"

    def why(self, request: Request, facts: Facts) -> str:
        if request.architecture == facts.architecture:
            return ""
        return f"architecture: needs {request.architecture}, is {facts.architecture or 'unknown'}"


class Zone(OfFacts):
    """It is in the availability zone that was asked for."""

    name = "zone"

    def applies(self, request: Request) -> bool:
        return bool(request.zone)

    def why(self, request: Request, facts: Facts) -> str:
        if not request.zone or request.zone == facts.zone:
            return ""
        return f"zone: needs {request.zone}, is in {facts.zone or 'none'}"


class Traits(OfFacts):
    """It has every required trait and none of the forbidden ones (Placement's required and !trait)."""

    name = "traits"

    def applies(self, request: Request) -> bool:
        return bool(request.wants.required or request.wants.forbidden)

    def why(self, request: Request, facts: Facts) -> str:
        missing, unwanted = request.wants.required - facts.traits, request.wants.forbidden & facts.traits
        parts = [f"lacks {', '.join(sorted(missing))}"] if missing else []
        parts += [f"has {', '.join(sorted(unwanted))}, which is forbidden"] if unwanted else []
        return f"traits: {'; '.join(parts)}" if parts else ""


architecture, zone, traits = Architecture(), Zone(), Traits()
