"""Filter, weigh, decide: node by node with every reason (`place`), or by columns among many nodes (`pick`).

The two take the same decision, to the last bit of every score; a law test holds them equal. `place` is what explains;
`pick` is what a fleet of thousands and a process of many decisions use.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import nlargest, nsmallest
from typing import Any
from zlib import crc32

from novactl.model.facts import Facts
from novactl.model.node import NodeState
from novactl.scheduler import lanes
from novactl.scheduler.filters.base import Filter, applies, by_facts, steady
from novactl.scheduler.fleet import Fleet
from novactl.scheduler.profiles import DEFAULT, Profile
from novactl.scheduler.request import Candidate, Decision, NodeView, Reject, Request
from novactl.scheduler.weighers.base import Weigher, multiplier_of, normalise, normalised

KEEP = 4
"""Candidates that `pick` names: the chosen one and the next."""

TOLD = 64
"""Rejected nodes whose reasons a stored decision of a large fleet tells."""

Guard = Callable[[Request, str], Reject | None]
"""Asked last, of the ranked candidates (node ids): whether the whole fleet can bear this placement."""


def place(request: Request, nodes: Iterable[NodeView], profile: Profile = DEFAULT, guard: Guard | None = None) -> Decision:
    """Decide for `request` among `nodes` (each id once).

    Every filter looks at every node, so that a node's reasons are all known. The answer does not depend on the order
    of `nodes`: equal scores go by id. Nothing is claimed.
    """
    ordered = sorted(nodes, key=lambda node: node.id)
    filters = profile.checks(request)
    rejected: dict[str, tuple[Reject, ...]] = {}
    passed: list[NodeView] = []
    for node in ordered:
        rejects = [reject for check in filters if (reject := check(request, node))]
        if rejects:
            rejected[node.id] = tuple(rejects)
        else:
            passed.append(node)
    ranked = _rank(request, passed, profile)
    if guard:
        refused = {candidate.node: (reject,) for candidate in ranked if (reject := guard(request, candidate.node))}
        rejected |= refused
        ranked = [candidate for candidate in ranked if candidate.node not in refused]
    ranked = _chosen_first(request, ranked, profile, lambda candidate: candidate.score)
    return Decision(
        request=request, chosen=ranked[0] if ranked else None, alternates=tuple(ranked[1:]), rejected=rejected,
        names={node.id: node.name for node in ordered}, profile=profile.name, looked_at=len(ordered), possible=len(ranked),
        counts=dict(Counter(reject.code for rejects in rejected.values() for reject in rejects)),
    )


def _rank(request: Request, nodes: list[NodeView], profile: Profile) -> list[Candidate]:
    """Best first. `nodes` are in the order of their ids, which the stable sort keeps among equals."""
    columns = []
    for weigher, multiplier in profile.weighers:
        if applies(weigher, request):
            scaled = normalise([weigher(request, node) for node in nodes], weigher.minval, weigher.maxval)
            columns.append((weigher.name, [
                multiplier_of(weigher, multiplier, node.facts) * value for value, node in zip(scaled, nodes, strict=True)]))
    ranked = []
    for row, node in enumerate(nodes):
        weights = {name: column[row] for name, column in columns}
        score = 0.0
        for value in weights.values():                        # not sum(): from Python 3.12 on that rounds otherwise than columns do
            score += value
        ranked.append(Candidate(node.id, score, weights))
    ranked.sort(key=lambda candidate: -candidate.score)
    return ranked


def _chosen_first(request: Request, ranked: list[Any], profile: Profile, score: Callable[[Any], float]) -> list[Any]:
    """`ranked` with the one to take moved to the front: the first, or by `request.seed` one of the equals or of the best few."""
    count = 1
    if profile.shuffle_equals:
        count = sum(1 for one in ranked if score(one) == score(ranked[0]))
    count = max(count, min(profile.host_subset_size, len(ranked)))
    if count < 2:
        return ranked
    at = crc32(f"{request.seed}/{request.server}".encode()) % count
    return [ranked[at], *ranked[:at], *ranked[at + 1:]]


# ---------------------------------------------------------------- by columns

def pick(
    request: Request, fleet: Fleet, profile: Profile = DEFAULT, guard: Guard | None = None, *, keep: int = KEEP,
    counts: dict[str, int] | None = None,
) -> Decision:
    """The decision that `place` takes, among the nodes of `fleet`, telling the best `keep` candidates and no reasons but `guard`'s.

    A filter or weigher that has only its form for one node needs `fleet.views` of every node; see `needs_views`. Where `counts`
    is given, it is filled with how many nodes each filter rejected, and `rejected` names the first TOLD of them, without
    reasons: `with_reasons` adds those.
    """
    passed = _passed(request, fleet, profile, counts)
    count = fleet.size if passed is None else len(passed)
    rejected: dict[str, tuple[Reject, ...]] = {}
    best: list[Candidate] = []
    possible = count
    if count:
        names, columns, scores = _scores(request, fleet, profile, passed, count)
        if guard or profile.shuffle_equals or profile.host_subset_size > keep:
            keep = count
        order = _order(fleet, passed, scores, count, keep)
        best = [Candidate(fleet.ids[_at(passed, row)], float(scores[row]), {
            name: float(column if isinstance(column, float) else column[row]) for name, column in zip(names, columns, strict=True)})
            for row in order]
        if guard:
            best, rejected = _guarded(request, best, guard, profile)
            possible -= len(rejected)
        best = _chosen_first(request, best, profile, lambda candidate: candidate.score)
    if counts is not None and count < fleet.size:
        rejected |= dict.fromkeys(_failed(fleet, passed), ())
    return Decision(
        request=request, chosen=best[0] if best else None, alternates=tuple(best[1:]), rejected=rejected, names={},
        profile=profile.name, looked_at=fleet.size, possible=possible, counts={} if counts is None else counts)


def with_reasons(decision: Decision, views: Iterable[NodeView], profile: Profile, names: Mapping[str, str]) -> Decision:
    """The decision with every reason of the rejected nodes that `views` shows, and without the rejected ones it does not."""
    filters = profile.checks(decision.request)
    rejected = {node: rejects for node, rejects in decision.rejected.items() if rejects and node in names}
    for node in views:
        if node.id in decision.rejected and node.id not in rejected:
            rejected[node.id] = tuple(reject for check in filters if (reject := check(decision.request, node)))
    return dataclasses.replace(decision, rejected=rejected, names=names)


def _failed(fleet: Fleet, passed: Any) -> list[str]:
    """The ids of the first nodes that did not pass, at most TOLD."""
    kept, failed = set(map(int, passed)), []
    for index in range(fleet.size):
        if index not in kept:
            failed.append(fleet.ids[index])
            if len(failed) == TOLD:
                break
    return failed


def needs_views(request: Request, profile: Profile) -> bool:
    """Whether some filter or weigher of the profile can judge this request only node by node."""
    judges = [check for check in (*profile.filters, *(weigher for weigher, _ in profile.weighers)) if applies(check, request)]
    return any(not hasattr(judge, "columns") and not by_facts(judge) for judge in judges)


def _passed(request: Request, fleet: Fleet, profile: Profile, counts: dict[str, int] | None = None) -> Any:
    """The indices of the nodes that every filter lets pass, ascending; None: all. `counts` takes how many each rejected."""
    slow: list[Filter] = []
    asked = profile.checks(request)
    mask, failed = fleet.judged(request, [check for check in asked if by_facts(check)], _by_kinds)
    if counts is not None:
        counts |= failed
    for check in asked:
        if by_facts(check):
            continue
        if not hasattr(check, "columns"):
            slow.append(check)
            continue
        found = check.columns(request, fleet)
        if found is None:
            continue
        mask = found if mask is None else mask & found
        if counts is not None and (rejects := fleet.size - len(fleet.xp.flatnonzero(found))):
            counts[check.name] = rejects
    if mask is None and not slow:
        return None
    passed = range(fleet.size) if mask is None else fleet.xp.flatnonzero(mask)
    if slow:
        judges = [(check.name, _judge(check, request, fleet)) for check in slow]
        passed = fleet.xp.asarray([index for index in passed if not _rejects(judges, index, counts)])
    return None if len(passed) == fleet.size else passed


def _judge(check: Filter, request: Request, fleet: Fleet) -> Callable[[int], bool]:
    """Whether a filter that has no columns rejects the node at an index."""
    if not steady(check):
        return lambda index: check(request, fleet.views[index]) is not None
    known = fleet.verdicts(check, request)

    def rejects(index: int) -> bool:
        view, before = fleet.views[index], known.get(index)
        if before is None or before[0] is not view:           # a node that changed is another view
            before = known[index] = view, check(request, view) is not None
        return before[1]

    return rejects


def _rejects(judges: Sequence[tuple[str, Callable[[int], bool]]], index: int, counts: dict[str, int] | None) -> bool:
    for name, judge in judges:
        if judge(index):
            if counts is not None:
                counts[name] = counts.get(name, 0) + 1
            return True
    return False


def _by_kinds(checks: Sequence[Filter], request: Request, fleet: Fleet) -> tuple[Any, dict[str, int]]:
    """The mask of filters that look at facts alone (None: all pass), and how many nodes each rejects."""
    good, bad = [True] * len(fleet.facts), dict[str, list[int]]()
    for kind, facts in enumerate(fleet.facts):
        specimen = _specimen(facts)
        for check in checks:
            if check(request, specimen) is not None:
                good[kind] = False
                bad.setdefault(check.name, []).append(kind)
    if not bad:
        return None, {}
    members = Counter(map(int, fleet.shape))
    mask = fleet.xp.take(fleet.xp.asarray(good), fleet.shape)
    return mask, {name: sum(members[kind] for kind in kinds) for name, kinds in bad.items()}


def _specimen(facts: Facts) -> NodeView:
    """A node of a kind, for those who look at nothing but its facts."""
    return NodeView(id="", name="", state=NodeState.ENABLED, facts=facts, inventories={}, used={})


def _scores(request: Request, fleet: Fleet, profile: Profile, passed: Any, count: int) -> tuple[list[str], list[Any], Any]:
    """The names of the weighers, their columns (one number where it is the same for all) and the column of sums, over those that passed."""
    xp, names, columns, scores = fleet.xp, [], [], None
    for weigher, multiplier in profile.weighers:
        if not applies(weigher, request):
            continue
        raw = _raw(weigher, request, fleet, passed)
        factor: Any = multiplier
        key = getattr(weigher, "multiplier_key", "")
        if key and key in fleet.metadata_keys:
            factor = fleet.by_facts(lambda facts, w=weigher, m=multiplier: multiplier_of(w, m, facts))
            factor = factor if passed is None else xp.take(factor, passed)
        if isinstance(raw, float):
            column: Any = normalise([raw] * min(count, 2), weigher.minval, weigher.maxval)[0] * factor
        else:
            column = normalised(xp, raw, count, weigher.minval, weigher.maxval)
            if not (isinstance(factor, float) and factor == 1):
                column = column * factor
        names.append(weigher.name)
        columns.append(column)
        if not isinstance(column, float):
            scores = column if scores is None else scores + column
        elif column:
            scores = (xp.full(count, 0.0) if scores is None else scores) + column
    return names, columns, xp.full(count, 0.0) if scores is None else scores


def _raw(weigher: Weigher, request: Request, fleet: Fleet, passed: Any) -> Any:
    xp = fleet.xp
    if hasattr(weigher, "columns"):
        raw = weigher.columns(request, fleet)
    elif by_facts(weigher):
        raw = fleet.by_facts(lambda facts: weigher(request, _specimen(facts)))
    else:
        return xp.asarray([weigher(request, fleet.views[index]) for index in (range(fleet.size) if passed is None else passed)])
    return raw if passed is None or isinstance(raw, float) else xp.take(raw, passed)


def _order(fleet: Fleet, passed: Any, scores: Any, count: int, keep: int) -> list[int]:
    """The rows of the best `keep` scores, best first, equals by id."""
    xp = fleet.xp
    if keep >= count:
        edge = None
    elif keep == 1:
        edge = scores.max() if xp is not lanes else max(scores)
    else:
        edge = xp.partition(scores, count - keep)[count - keep] if xp is not lanes else nlargest(keep, scores)[-1]

    def by_id(row: int) -> Any:
        return row if fleet.sorted else fleet.ids[_at(passed, row)]

    if edge is None:
        return sorted(range(count), key=lambda row: (-scores[row], by_id(row)))
    above = sorted(map(int, xp.flatnonzero(scores > edge)), key=lambda row: (-scores[row], by_id(row)))
    ties: Sequence[int] = xp.flatnonzero(scores == edge)
    if not fleet.sorted:
        ids = map(fleet.ids.__getitem__, ties if passed is None else xp.take(passed, ties))
        ties = [row for _, row in nsmallest(keep - len(above), zip(ids, ties, strict=True))]
    return [*above, *map(int, ties[:keep - len(above)])]


def _at(passed: Any, row: int) -> int:
    return row if passed is None else int(passed[row])


def _guarded(
    request: Request, ranked: list[Candidate], guard: Guard, profile: Profile,
) -> tuple[list[Candidate], dict[str, tuple[Reject, ...]]]:
    """The first candidates that the guard lets pass, as many as chance may choose from, since those after them were not asked; and
    those it does not, with its reason."""
    rejected: dict[str, tuple[Reject, ...]] = {}
    passed: list[Candidate] = []
    for candidate in ranked:
        equal = profile.shuffle_equals and passed and candidate.score == passed[0].score
        if len(passed) >= profile.host_subset_size and not equal:
            break
        reject = guard(request, candidate.node)
        if reject is None:
            passed.append(candidate)
        else:
            rejected[candidate.node] = (reject,)
    return passed, rejected
