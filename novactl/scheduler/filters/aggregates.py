"""What the aggregates of a node say of who may go there: filters that read their metadata.

A key in several of them counts with all its values together, each split at commas (Facts.values).
"""

from __future__ import annotations

from novactl.model.aggregate import FLAVORS, REQUIRED, TENANTS, TRAIT
from novactl.model.facts import Facts
from novactl.model.wants import AGGREGATE_SCOPE
from novactl.scheduler import specs
from novactl.scheduler.filters.kinds import OfFacts
from novactl.scheduler.request import Request


class AggregateSpecs(OfFacts):
    """Each `aggregate_instance_extra_specs:KEY` of the flavor holds for one of KEY's values (AggregateInstanceExtraSpecsFilter).

    Only what has the scope is looked at: Nova's filter also takes every key without one, and then rejects all hosts.
    """

    name = "aggregate_specs"

    def applies(self, request: Request) -> bool:
        return any(key.startswith(AGGREGATE_SCOPE) for key in request.wants.specs)

    def why(self, request: Request, facts: Facts) -> str:
        parts = []
        for scoped, text in request.wants.specs.items():
            if not scoped.startswith(AGGREGATE_SCOPE):
                continue
            key = scoped[len(AGGREGATE_SCOPE):]
            values = sorted(facts.values(key))
            if not any(specs.matches(value, text) for value in values):
                has = f"they say {', '.join(values)}" if values else "none of them names it"
                parts.append(f"needs {key} {text}, {has}")
        return f"aggregates: {'; '.join(parts)}" if parts else ""


class AggregateImages(OfFacts):
    """A property of the image that an aggregate names too is one of that key's values (AggregateImagePropertiesIsolation).

    An image without the property passes.
    """

    name = "aggregate_images"

    def applies(self, request: Request) -> bool:
        return bool(request.wants.properties)

    def why(self, request: Request, facts: Facts) -> str:
        if not facts.aggregates:
            return ""
        parts = []
        for key, value in request.wants.properties.items():
            taken = facts.values(key)
            if taken and value not in taken and not key.startswith(TRAIT):
                parts.append(f"take images of {key} {', '.join(sorted(taken))}, this one has {value}")
        return f"aggregates: {'; '.join(parts)}" if parts else ""


class Tenancy(OfFacts):
    """Where aggregates name projects (keys that begin with filter_tenant_id or filter_project_id), it is for them alone
    (AggregateMultiTenancyIsolation)."""

    name = "tenancy"

    def why(self, request: Request, facts: Facts) -> str:
        if not facts.aggregates:
            return ""
        keys = {key for aggregate in facts.aggregates for key in aggregate.metadata if key.startswith(TENANTS)}
        projects = {project for key in keys for project in facts.values(key)}
        if not projects or request.project in projects:
            return ""
        return f"tenancy: kept for project {', '.join(sorted(projects))}, this is {request.project}"


class FlavorAffinity(OfFacts):
    """Where aggregates name flavors (key `instance_type`), it is for them alone (AggregateTypeAffinityFilter)."""

    name = "flavor_affinity"

    def why(self, request: Request, facts: Facts) -> str:
        flavors = facts.values(FLAVORS) if facts.aggregates else ()
        if not flavors or request.flavor in flavors:
            return ""
        return f"flavor affinity: kept for flavor {', '.join(sorted(flavors))}, this is {request.flavor or 'none'}"


class IsolateAggregates(OfFacts):
    """An aggregate with `trait:X` = required takes only servers that require X (Nova's pre-filter isolate_aggregates)."""

    name = "isolate_aggregates"

    def why(self, request: Request, facts: Facts) -> str:
        isolating = {
            key[len(TRAIT):] for aggregate in facts.aggregates for key, value in aggregate.metadata.items()
            if key.startswith(TRAIT) and value.strip() == REQUIRED}
        unasked = isolating - request.wants.required
        return f"aggregates: kept for servers that require {', '.join(sorted(unasked))}" if unasked else ""


aggregate_specs, aggregate_images, tenancy = AggregateSpecs(), AggregateImages(), Tenancy()
flavor_affinity, isolate_aggregates = FlavorAffinity(), IsolateAggregates()
