"""What the values of extra specs and the queries of hints may say, for help pages: drawn from the scheduler's own tables."""

from __future__ import annotations

from typing import NamedTuple

from novactl.scheduler import specs
from novactl.scheduler.filters.capabilities import CAPABILITIES
from novactl.scheduler.filters.query import OPERATORS as QUERY_OPERATORS

__all__ = ["QUERY_OPERATORS", "Row", "capabilities", "operators"]


class Row(NamedTuple):
    name: str
    takes: str
    help: str


def operators() -> tuple[Row, ...]:
    """The operators of extra specs, each with an example."""
    return (
        Row("", "the text itself", "capabilities:virt_type=kvm"),
        Row("=", "a number, at least this (not equal: Nova's own)", "capabilities:free_ram_mb== 4096"),
        Row(" ".join(name for name in specs.NUMERIC if name != "="), "numbers", "capabilities:hypervisor_version=>= 8000000"),
        Row(" ".join(specs.TEXTUAL), "texts", "capabilities:cpu_model=s!= EPYC-Rome"),
        Row(specs.IN, "the text is in it; of several values: one of them", "capabilities:machines=<in> q35"),
        Row(specs.ALL_IN, "all of these are in it", "capabilities:traits=<all-in> CUSTOM_A CUSTOM_B"),
        Row(specs.OR, "one of these", "capabilities:cpu_model=<or> EPYC-Rome <or> EPYC-Milan"),
    )


def capabilities() -> tuple[Row, ...]:
    """What `capabilities:NAME` and, in a query, `$NAME` can name."""
    return tuple(Row(name, one.kind, one.help) for name, one in CAPABILITIES.items())
