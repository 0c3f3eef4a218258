"""Where other servers are, and where the node is: groups, hints, and addresses."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from novactl.errors import UsageError
from novactl.model.group import Policy
from novactl.scheduler.filters.kinds import by_kind
from novactl.scheduler.fleet import Fleet
from novactl.scheduler.request import GroupView, NodeView, Reject, Request

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network

NAMED = 5
"""So many members are named in a sentence; of more it tells how many."""


class Group:
    """Affinity: where members are already, anywhere while none is placed. Anti-affinity: fewer members there than the group allows.

    "There" is the node, or with a scope all nodes of one value of that label; a node without the label is in no such place and is
    rejected. The soft policies reject nothing. (Nova's ServerGroupAffinityFilter and ServerGroupAntiAffinityFilter; the claim's
    transaction looks again.)
    """

    name = "group"

    def applies(self, request: Request) -> bool:
        return request.group is not None and request.group.policy.is_hard

    def __call__(self, request: Request, node: NodeView) -> Reject | None:
        group = request.group
        if group is None or not group.policy.is_hard:
            return None
        domain = group.domain(node)
        if not _rejected(group, domain):
            return None
        return Reject(self.name, f"group {group.name} ({group.policy.value}): {_why(group, domain)}")

    def columns(self, request: Request, fleet: Fleet) -> Any:
        group = request.group
        if group is None:
            return None
        if group.scope:
            return by_kind(fleet, lambda facts: not _rejected(group, facts.labels.get(group.scope, "")))
        if group.policy is Policy.ANTI_AFFINITY:
            return fleet.only((node for node, count in group.counts.items() if count >= group.max_per_domain), inside=False)
        return fleet.only(group.counts) if group.counts else None


def _rejected(group: GroupView, domain: str) -> bool:
    if not domain:
        return True
    if group.policy is Policy.ANTI_AFFINITY:
        return group.counts.get(domain, 0) >= group.max_per_domain
    return bool(group.counts) and domain not in group.counts


def _why(group: GroupView, domain: str) -> str:
    if not domain:
        return f"needs to know its {group.scope}, the node has no such label"
    if group.policy is Policy.ANTI_AFFINITY:
        here = [member.name for member in group.members if member.node and group.domain_of(member) == domain]
        where = f"in {group.scope} {domain}" if group.scope else "here"
        return f"{listed(here)} {'is' if len(here) == 1 else 'are'} {where}, at most {group.max_per_domain} per {group.scope or 'node'}"
    placed = [member.name for member in group.members if member.node]
    verb = "is" if len(placed) == 1 else "are"
    if group.scope:
        domains = ", ".join(sorted(found or "none" for found in group.counts))
        return f"{listed(placed)} {verb} in {group.scope} {domains}, the node is in {domain}"
    return f"{listed(placed)} {verb} on another node"


def listed(names: Iterable[str]) -> str:
    """'web1, web2' or 'web1, web2, web3, web4, web5 and 12 more'."""
    every = sorted(names)
    more = f" and {len(every) - NAMED} more" if len(every) > NAMED else ""
    return ", ".join(every[:NAMED]) + more


class SameHost:
    """It has one of the servers that --same-host names (SameHostFilter)."""

    name = "same_host"

    def applies(self, request: Request) -> bool:
        return bool(request.wants.same_host)

    def __call__(self, request: Request, node: NodeView) -> Reject | None:
        asked = request.wants.same_host
        if not asked or node.id in _nodes(request, asked):
            return None
        return Reject(self.name, f"same host: {listed(_where(request, id) for id in asked)}")

    def columns(self, request: Request, fleet: Fleet) -> Any:
        return fleet.only(_nodes(request, request.wants.same_host))


class DifferentHost:
    """It has none of the servers that --different-host names (DifferentHostFilter)."""

    name = "different_host"

    def applies(self, request: Request) -> bool:
        return bool(request.wants.different_host)

    def __call__(self, request: Request, node: NodeView) -> Reject | None:
        peers = (request.peers.get(id) for id in request.wants.different_host)
        here = [peer.name for peer in peers if peer and peer.node and peer.node == node.id]
        return Reject(self.name, f"different host: {listed(here)} {'is' if len(here) == 1 else 'are'} here") if here else None

    def columns(self, request: Request, fleet: Fleet) -> Any:
        return fleet.only(_nodes(request, request.wants.different_host), inside=False)


def _nodes(request: Request, servers: Iterable[str]) -> set[str]:
    return {peer.node for id in servers if (peer := request.peers.get(id)) and peer.node}


def _where(request: Request, server: str) -> str:
    peer = request.peers.get(server)
    if peer is None:
        return f"server {server[:8]} is gone"
    return f"{peer.name} {'is on another node' if peer.node else 'has no node yet'}"


class Near:
    """Its address is in the network that --near names (SimpleCIDRAffinityFilter). A host name is no address, and is not looked up."""

    name = "near"
    steady = True

    def applies(self, request: Request) -> bool:
        return bool(request.wants.near)

    def __call__(self, request: Request, node: NodeView) -> Reject | None:
        if not request.wants.near:
            return None
        why = _far(request.wants.near, node.address)
        return Reject(self.name, f"near: needs an address in {request.wants.near}, {why}") if why else None


def network(text: str) -> str:
    """'10.1.2.3/16' -> '10.1.0.0/16'; an address alone stands for its /24, as in Nova, or its /64. Raises UsageError."""
    alone = "" if "/" in text else "/64" if ":" in text else "/24"
    try:
        return str(_network(text.strip() + alone))
    except ValueError:
        raise UsageError(f"--near {text!r} is neither an address nor a network", hint="such as 10.1.0.0/16 or fd00:1::/64") from None


@lru_cache(maxsize=64)
def _network(text: str) -> IPv4Network | IPv6Network:
    from ipaddress import ip_network

    return ip_network(text, strict=False)


def _far(near: str, endpoint: str) -> str:
    """Why the endpoint (tcp://host:port) is not in the network; "" when it is."""
    from ipaddress import ip_address

    host = endpoint.partition("://")[2].rpartition(":")[0].strip("[]")
    if not host:
        return "the node has none"
    try:
        address = ip_address(host)
    except ValueError:
        return f"is known by the name {host}"
    try:
        return "" if address in _network(near) else f"is {host}"
    except ValueError:
        return "which is not a network"


group, same_host, different_host, near = Group(), SameHost(), DifferentHost(), Near()
