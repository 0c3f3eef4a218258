"""Nova's JSON query (hint `query`, JsonFilter): '["and", [">=", "$free_ram_mb", 4096], ["=", "$labels.rack", "r1"]]'.

    expression  ["and" | "or", expression, …]   ["not", expression]   ["=" | "<" | ">" | "<=" | ">=" | "in", value, value, …]
    value       a number, a text, or "$NAME", a capability (scheduler/filters/capabilities.py)

A comparison holds where the first value compares so with each of the others; `in` where the first is one of the others, a
capability of several texts standing for each of them. What Nova lets pass and then decides oddly is refused when it is asked: an
unknown name (Nova drops it, and compares what is left), a text against a number (it fails while placing), `not` of several things,
a comparison with one side. A comparison with what a node does not say is false.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from novactl.errors import UsageError
from novactl.scheduler.filters.capabilities import LABELS, NUMBER, TEXT, TEXTS, capability, known
from novactl.scheduler.request import NodeView, Reject, Request

COMPARED: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge,
}
IN, AND, OR, NOT = "in", "and", "or", "not"
OPERATORS = (*COMPARED, IN, AND, OR, NOT)
MAX_LETTERS, MAX_DEPTH = 4096, 16
_FORM = f'write an expression such as [">=", "$free_ram_mb", 4096]; operators: {" ".join(OPERATORS)}'


class Value(NamedTuple):
    """A literal, or with a `read` the capability `name`."""

    name: str
    kind: str
    literal: Any = None
    read: Callable[[NodeView], Any] | None = None

    def of(self, node: NodeView) -> Any:
        return self.read(node) if self.read else self.literal


class Expression(NamedTuple):
    operator: str
    args: tuple[Any, ...]
    """Expressions under and, or, not; else Values."""


class BadQuery(UsageError):
    code = "query"


def check(text: str) -> None:
    """Raises BadQuery, naming what is accepted, where `parse` does."""
    parse(text)


@lru_cache(maxsize=64)
def parse(text: str) -> Expression | None:
    """The query; None where it is empty and asks nothing (as Nova has it)."""
    if len(text) > MAX_LETTERS:
        raise BadQuery(f"the query has {len(text)} characters, at most {MAX_LETTERS} are read")
    try:
        plain = json.loads(text, parse_constant=_no_number) if text.strip() else []
        return None if plain == [] else _expression(plain, 1)
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise BadQuery(f"the query is not JSON: {error}", hint=_FORM) from None


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _too_deep() -> BadQuery:
    return BadQuery(f"the query is nested deeper than {MAX_DEPTH} levels")


def _expression(plain: Any, depth: int) -> Expression:
    if depth > MAX_DEPTH:
        raise _too_deep()
    if not isinstance(plain, list) or not plain:
        raise BadQuery(f"query: {_shown(plain)} is no expression", hint=_FORM)
    head, args = plain[0], plain[1:]
    if not isinstance(head, str) or head not in OPERATORS:
        raise BadQuery(f"query: {_shown(head)} is no operator", hint=f"one of {' '.join(OPERATORS)}")
    if head in (AND, OR, NOT):
        if not args or (head == NOT and len(args) > 1):
            raise BadQuery(
                f"query: {head} takes {'one expression' if head == NOT else 'expressions'}, {len(args)} are given", hint=_FORM)
        return Expression(head, tuple(_expression(arg, depth + 1) for arg in args))
    if len(args) < 2:
        raise BadQuery(f"query: {head} takes two values or more, {len(args)} given", hint=_FORM)
    values = tuple(_value(arg) for arg in args)
    _check_kinds(head, values)
    return Expression(head, values)


def _value(plain: Any) -> Value:
    if isinstance(plain, str):
        return _capability(plain) if plain.startswith("$") else Value(json.dumps(plain), TEXT, plain)
    if isinstance(plain, int | float) and not isinstance(plain, bool):
        return Value(json.dumps(plain), NUMBER, plain)
    raise BadQuery(f"query: {_shown(plain)} is neither a number nor a text", hint=_FORM)


def _capability(text: str) -> Value:
    found = capability(text[1:])
    if found is None:
        raise BadQuery(f"query: there is no {_shown(text)}", hint=f"one of {known()} (as ${LABELS}.KEY)")
    return Value(text, found.kind, read=found.read)


def _check_kinds(head: str, values: tuple[Value, ...]) -> None:
    """Numbers compare with numbers and texts with texts; several texts stand only where `in` looks among them."""
    for position, value in enumerate(values):
        if value.kind == TEXTS and (head != IN or position == 0):
            raise BadQuery(f"query: {value.name} is several texts", hint=f'look for one of them: ["in", "…", "{value.name}"]')
    kinds = {TEXT if value.kind == TEXTS else value.kind for value in values}
    if len(kinds) > 1:
        told = ", ".join(f"{value.name} ({value.kind})" for value in values)
        raise BadQuery(f"query: {head} compares a number with a text: {told}", hint="a number is written without quotes, a text with them")


def _shown(plain: Any) -> str:
    text = json.dumps(plain)
    return text if len(text) <= 40 else f"{text[:40]}…"


# ---------------------------------------------------------------- answering

def holds(expression: Expression, node: NodeView) -> bool:
    """Never raises for what `parse` gave."""
    head, args = expression
    if head == NOT:
        return not holds(args[0], node)
    if head in (AND, OR):
        return (all if head == AND else any)(holds(arg, node) for arg in args)
    first, *others = (value.of(node) for value in args)
    if first is None:
        return False
    if head == IN:
        return any(first in other if isinstance(other, tuple) else first == other for other in others)
    return all(other is not None and COMPARED[head](first, other) for other in others)


def why_not(expression: Expression, node: NodeView) -> str:
    """The parts of a query that does not hold which make it so, with what the node has."""
    if expression.operator == AND:
        return "; ".join(why_not(arg, node) for arg in expression.args if not holds(arg, node))
    return _told(expression, node)


def _told(expression: Expression, node: NodeView) -> str:
    head, args = expression
    if head == NOT:
        return f"not ({_told(args[0], node)})"
    if head in (AND, OR):
        return f" {head} ".join(f"({_told(arg, node)})" for arg in args)
    first, *others = (_seen(value, node) for value in args)
    return f"{first} {head} {', '.join(others)}"


def _seen(value: Value, node: NodeView) -> str:
    if value.read is None:
        return value.name
    has = value.read(node)
    if isinstance(has, tuple):
        return f"{value.name} (has {', '.join(has) or 'none'})"
    return f"{value.name} ({'not known' if has is None else f'is {has}'})"


class Query:
    """The JSON query that came with the request holds (JsonFilter)."""

    name = "query"
    steady = True

    def applies(self, request: Request) -> bool:
        return bool(request.wants.query)

    def __call__(self, request: Request, node: NodeView) -> Reject | None:
        if not request.wants.query:
            return None
        try:
            expression = parse(request.wants.query)
        except BadQuery as bad:
            return Reject(self.name, bad.message)
        if expression is None or holds(expression, node):
            return None
        return Reject(self.name, f"query: does not hold: {why_not(expression, node)}")


query = Query()
