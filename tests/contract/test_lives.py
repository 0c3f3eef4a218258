"""That something runs is an answer for as long as it can: until the host starts anew, or the node fences itself."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from nodeagent import wire
from nodeagent.wire import Code, DomainRef
from tests.contract.kit import Node, until

ARGS = {"domain.start": DomainRef, "domain.reboot": wire.Reboot}


def again(node: Node, request: wire.Request, **changes: Any) -> wire.Reply:
    """Whoever takes the operation over repeats it, in the boot that is now."""
    clock = node.agent.clock
    changed = {"boot_id": clock.boot_id, "valid_until_s": clock.boottime_s() + 60, "epoch": request.epoch + 1, **changes}
    return node.ask(dataclasses.replace(request, **changed))[0]


def asked(node: Node, method: str) -> wire.Request:
    """A server that runs, as `method` was answered."""
    spec = node.define(node.put_image())
    if method == "domain.reboot":
        node.ok("domain.start", DomainRef(spec.server, 1))
    request = node.request(method, ARGS[method](spec.server, 1))
    assert node.ask(request)[0].body["power_state"] == "RUNNING"
    return request


def run_of(node: Node, request: wire.Request) -> str:
    return node.agent.driver.run_id(request.args["server"])


@pytest.mark.parametrize("method", ARGS)
def test_an_answer_of_another_boot_is_none(fake: Node, method: str) -> None:
    """Asked again it runs, and what was started meanwhile is not rebooted once more; other arguments are a conflict as ever."""
    request = asked(fake, method)
    fake.reboot()
    assert not run_of(fake, request)
    assert again(fake, request).body["power_state"] == "RUNNING"
    run = run_of(fake, request)
    assert run and again(fake, request).body["power_state"] == "RUNNING" and run_of(fake, request) == run
    fake.reboot()
    fake.ok("domain.start", DomainRef(request.args["server"], 1), operation="another")
    run = run_of(fake, request)
    assert again(fake, request).kind == wire.RESULT and run_of(fake, request) == run
    assert again(fake, request, args={**request.args, "epoch": 2}).body["code"] == Code.CONFLICT


@pytest.mark.parametrize("method", ARGS)
def test_nor_is_one_from_before_the_node_fenced_itself(fake: Node, method: str) -> None:
    request, clock, fence = asked(fake, method), fake.agent.clock, fake.agent.self_fence
    fence.renew(wire.Renewal(clock.boot_id, clock.boottime_s() + 30, 5.0))
    fence.until_s -= 100
    fence.look(fake.agent.driver)
    until(lambda: not run_of(fake, request))
    refused = again(fake, request)
    assert refused.kind == wire.ERROR and "has had no lease" in refused.body["message"]
    fence.renew(wire.Renewal(clock.boot_id, clock.boottime_s() + 30, 5.0))
    assert again(fake, request).body["power_state"] == "RUNNING" and run_of(fake, request)


@pytest.mark.parametrize("method", ARGS)
def test_an_agent_that_is_started_anew_keeps_its_answers(fake: Node, method: str) -> None:
    """A guest that went off by itself is not started by who asks late."""
    request = asked(fake, method)
    fake.agent.driver.shut_down(request.args["server"])
    fake.restart()
    assert again(fake, request).body["power_state"] == "RUNNING" and not run_of(fake, request)
