"""domain.*: a server's life on this node."""

import time
from dataclasses import replace

from nodeagent import pieces
from nodeagent.drivers.base import Mark
from nodeagent.refusal import Refused, not_found
from nodeagent.wire import MAX_BODY_BYTES, Code, DomainRef, DomainSpecs, DomainStates, Nothing, fitting

_OFF = ("SHUTDOWN", "CRASHED", "ABSENT", "NOSTATE")
GUARDED = {"VCPU": lambda spec: spec.vcpus, "MEMORY_MB": lambda spec: spec.memory_mb}
"""What the agent counts by itself, by resource class."""


def define(call, args, payload):
    """The domain is defined as the spec says. Raises NO_FIT where the node's own sum would pass its limits, or the
    host has not the pieces (CPUs, cells, pages, devices) that it is tied to."""
    agent = call.agent
    disk_format = "" if args.adopted else agent.images.format_of(args.image_sha256)
    if disk_format is None:
        raise Refused(Code.NOT_FOUND, f"image {args.image_sha256[:12]} is not on this node", retryable=True)
    with agent.define_lock:
        _check_limits(agent, args)
        _check_pieces(agent, args)
        agent.driver.define(args, disk_format, Mark(call.request.operation, call.request.id))
    return Nothing(), None


def undefine(call, args, payload):
    call.agent.driver.undefine(args.server)
    call.agent.ledger.forget_runs([args.server])
    return Nothing(), None


def start(call, args, payload):
    """Running when this returns; was it so before, that is success."""
    _known(call, args.server)
    call.agent.self_fence.check_lease()
    call.agent.driver.start_domain(args.server)
    return call.agent.has_started(args.server), None


def stop(call, args, payload):
    """Off when this returns: by itself within `grace_s`, else powered off."""
    _known(call, args.server)
    _power_off(call, args.server, args.grace_s)
    call.agent.ledger.should_run(args.server, False)
    return call.agent.driver.state(args.server), None


def destroy(call, args, payload):
    call.agent.driver.destroy(args.server)
    call.agent.ledger.should_run(args.server, False)
    return call.agent.driver.state(args.server), None


def reboot(call, args, payload):
    """Another run of the guest when this returns. Which run it was is noted first: repeating never reboots twice."""
    _known(call, args.server)
    agent, driver = call.agent, call.agent.driver
    before = agent.ledger.note(call.request.id, driver.run_id(args.server), time.time())
    if driver.run_id(args.server) in (before, ""):
        agent.self_fence.check_lease()
        _power_off(call, args.server, 0.0 if args.hard else args.grace_s)
        driver.start_domain(args.server)
    return agent.has_started(args.server), None


def state(call, args, payload):
    return call.agent.driver.state(args.server), None


def list_all(call, args, payload):
    """In the order of ids, as many as fit into a message, or as were asked for."""
    after = [state for state in call.agent.states() if state.server > args.after]
    count = min(fitting(after, MAX_BODY_BYTES), args.limit or len(after))
    return DomainStates(tuple(after[:count]), after[count - 1].server if 0 < count < len(after) else ""), None


def wild(call, args, payload):
    """What a domain that is not ours would be as a server: its id is the domain's own, its epoch what it had when it was one
    before. Nothing is changed."""
    spec = call.agent.driver.wild(args.server)
    if spec is None:
        raise not_found("domain that is not ours", args.server)
    return replace(spec, epoch=_obeyed(call, args.server)), None


def adopt(call, args, payload):
    """The domain is a server from now on, and stays as it is: whether it runs or not it is not touched."""
    agent = call.agent
    with agent.define_lock:
        agent.driver.adopt(args, Mark(call.request.operation, call.request.id))
    if agent.driver.run_id(args.server):
        agent.ledger.should_run(args.server, True)
    return Nothing(), None


def release(call, args, payload):
    """It is nobody's server any more, and stays as it is; one that is none is success. Refused for what was not adopted."""
    call.agent.driver.release(args.server)
    call.agent.ledger.forget_runs([args.server])
    return Nothing(), None


def list_specs(call, args, payload):
    """As `list_all`, of what they were defined from: all that a lost database needs of them."""
    specs = sorted((spec for spec in call.agent.driver.specs() if spec.server > args.after), key=lambda spec: spec.server)
    count = min(fitting(specs, MAX_BODY_BYTES * 4 // 5), args.limit or len(specs))      # the rest is for those ahead
    newest = [DomainRef(spec.server, _obeyed(call, spec.server)) for spec in specs[:count]]
    ahead = [ref for ref, spec in zip(newest, specs) if ref.epoch > spec.epoch]
    return DomainSpecs(tuple(specs[:count]), specs[count - 1].server if 0 < count < len(specs) else "", tuple(ahead)), None


def _obeyed(call, server: str) -> int:
    """The newest epoch of it that was obeyed here; 0 for none."""
    return call.agent.ledger.epochs("", server)[1] or 0


def _known(call, server: str) -> None:
    if call.agent.driver.spec(server) is None:
        raise not_found("server", server)


def _power_off(call, server: str, grace_s: float) -> None:
    driver = call.agent.driver

    def is_off() -> bool:
        return driver.state(server).power_state in _OFF

    if grace_s > 0 and not is_off():
        driver.shut_down(server)
        call.agent.changes.wait_until(is_off, min(grace_s, 3600.0))
    driver.destroy(server)


def _check_pieces(agent, spec) -> None:
    if not (spec.cpuset or spec.pins or spec.cells or spec.pci):
        return
    host = agent.driver.host()
    others = [other for other in agent.driver.specs() if other.server != spec.server]
    lack = pieces.lacking(spec, host.cells, host.pci, others)
    if lack:
        raise Refused(Code.NO_FIT, lack, hint="place the server again, on a fresh report of this node", elsewhere=True)


def _check_limits(agent, spec) -> None:
    others = [other for other in agent.driver.specs() if other.server != spec.server]
    for resource, amount in GUARDED.items():
        limit = agent.prepared.limits.get(resource)
        if limit is None:
            continue
        used, needs = sum(amount(other) for other in others), amount(spec)
        if used + needs > limit:
            raise Refused(
                Code.NO_FIT, f"{resource}: needs {needs}, has {max(0, limit - used)} of {limit} ({used} used)", elsewhere=True
            )
