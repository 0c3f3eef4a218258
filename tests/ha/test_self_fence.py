"""The agent's half of a node that fences itself: how long it may go on, and how fast it ends."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodeagent.agent import Agent
from nodeagent.messages import Renewal
from nodeagent.refusal import Refused
from nodeagent.selffence import SelfFence
from nodeagent.wire import Code
from tests.ha.test_fencing import server_on
from tests.world import World, small_world


class Boot:
    def __init__(self, boot_id: str = "b", now: float = 1000.0) -> None:
        self.boot_id, self.now = boot_id, now

    def boottime_s(self) -> float:
        return self.now


class Idle:
    """A driver of a node that runs nothing."""

    def states(self) -> tuple[list[object]]:
        return ([],)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with small_world(tmp_path, count=1) as made:
        yield made


def until(holds: object, what: str) -> None:
    deadline = time.monotonic() + 60
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def granted(folder: Path, clock: Boot, until_s: float = 1030.0, self_fence_s: float = 60.0) -> SelfFence:
    made = SelfFence(str(folder / "lease.json"), clock)
    made.renew(Renewal("b", until_s, self_fence_s))
    return made


def test_an_agent_that_is_started_anew_has_no_longer_than_the_one_before(tmp_path: Path) -> None:
    """Whoever fences it counts from the last lease, and knows nothing of its crashes."""
    clock = Boot()
    made = granted(tmp_path, clock, 1010.0)
    assert SelfFence(str(tmp_path / "lease.json"), clock).until_s == 1010
    made.renew(Renewal("b", 1030.0, 60.0))
    made.tick(Idle())  # type: ignore[arg-type]
    until(lambda: SelfFence(str(tmp_path / "lease.json"), clock).until_s == 1030, "a renewal's end is on disk")
    for clock.now in (1085.0, 1089.0):
        assert not SelfFence(str(tmp_path / "lease.json"), clock).is_due()
    clock.now = 1090.0
    anew = SelfFence(str(tmp_path / "lease.json"), clock)
    assert anew.is_due()
    with pytest.raises(Refused, match="runs no servers"):
        anew.check_lease()


@pytest.mark.parametrize("left", [None, "", "{", '{"boot_id": "b", "until_s": NaN}', '{"boot_id": "another", "until_s": 1.0}'])
def test_an_end_that_nobody_knows_counts_from_the_start_once(tmp_path: Path, left: str | None) -> None:
    """A host that lost power, or an agent from before there was such a file; what starts again and again counts from the first."""
    clock, end = Boot(), tmp_path / "lease.json.end"
    granted(tmp_path, clock)
    end.unlink()
    if left is not None:
        end.write_text(left)
    clock.now = 2000.0
    first = SelfFence(str(tmp_path / "lease.json"), clock)
    assert first.self_fence_s == 60 and not first.is_due()
    first.tick(Idle())  # type: ignore[arg-type]
    until(lambda: end.exists() and "2000" in end.read_text(), "the time of its start is on disk")
    clock.now = 2059.0
    assert not SelfFence(str(tmp_path / "lease.json"), clock).is_due()
    clock.now = 2060.0
    assert SelfFence(str(tmp_path / "lease.json"), clock).is_due()


def test_a_renewal_that_comes_after_the_end_of_all_arms_nothing(tmp_path: Path) -> None:
    """It was under way while an admin chose another way of fencing; nobody would renew it, and 90 s later everything would be stopped."""
    clock = Boot()
    made = granted(tmp_path, clock)
    clock.now = 1002.0
    made.renew(Renewal("b", 1032.0, 0.0))
    with pytest.raises(Refused) as late:
        made.renew(Renewal("b", 1031.0, 60.0))
    assert (late.value.failure.code, made.self_fence_s) == (Code.STALE, 0.0)
    made.renew(Renewal("b", 1035.0, 60.0))                    # chosen again
    assert made.self_fence_s == 60


def test_a_late_renewal_does_not_bring_back_a_longer_delay(tmp_path: Path) -> None:
    made = granted(tmp_path, Boot(), 1031.0, 60.0)
    with pytest.raises(Refused):
        made.renew(Renewal("b", 1030.5, 600.0))
    made.renew(Renewal("b", 1030.5, 60.0))                    # the same, only late: no harm, and no shorter lease
    assert (made.self_fence_s, made.until_s) == (60.0, 1031.0)


def lapse(agent: Agent) -> None:
    """It was armed, and has had no lease for longer than it may."""
    hello = agent.hello("admin")
    agent.self_fence.renew(Renewal(hello.boot_id, hello.boottime_s, 5.0))
    agent.self_fence.until_s -= 100


def test_servers_are_stopped_side_by_side(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes its time; whoever waits for the node waits for none of them."""
    agent, all_at_once = world.agents["n1"], threading.Barrier(3)
    for name in ("a", "b", "c"):
        server_on(world, "n1", name, wants_ha=False)
    destroy = agent.driver.destroy

    def slow(server: str) -> None:
        all_at_once.wait(60.0)
        destroy(server)

    monkeypatch.setattr(agent.driver, "destroy", slow)
    lapse(agent)
    until(lambda: not any(agent.driver.run_id(one.server) for one in agent.driver.states()[0]), "all are stopped")
    assert not all_at_once.broken and agent.self_fence.count == 1


def test_a_server_that_cannot_be_stopped_holds_up_no_other_and_is_asked_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its QEMU hangs for good. What is started behind the agent's back meanwhile is stopped, too."""
    agent, ends, asked = world.agents["n1"], threading.Event(), []
    hangs, other = server_on(world, "n1", "hangs", wants_ha=False), server_on(world, "n1", "other", wants_ha=False)
    destroy = agent.driver.destroy

    def destroyed(server: str) -> None:
        asked.append(server)
        if server == hangs:
            ends.wait(300.0)
        destroy(server)

    monkeypatch.setattr(agent.driver, "destroy", destroyed)
    lapse(agent)
    for _ in range(2):
        until(lambda: not agent.driver.run_id(other), "the other is stopped")
        agent.driver.start_domain(other)
    until(lambda: not agent.driver.run_id(other), "the other is stopped")
    assert agent.driver.run_id(hangs) and asked.count(hangs) == 1
    ends.set()
    until(lambda: not agent.driver.run_id(hangs), "it is stopped when it can be")


def test_that_its_servers_are_stopped_is_on_disk_before(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed the moment the first is stopped, it says so when it is back: they were not stopped by their owner."""
    agent, found = world.agents["n1"], []
    server = server_on(world, "n1", "web", wants_ha=False)
    destroy = agent.driver.destroy

    def destroyed(server: str) -> None:
        found.append(json.loads((Path(agent.config.state_dir) / "lease.json").read_text())["count"])
        destroy(server)

    monkeypatch.setattr(agent.driver, "destroy", destroyed)
    lapse(agent)
    until(lambda: not agent.driver.run_id(server), "it is stopped")
    assert found == [1]


def test_a_disk_that_hangs_keeps_none_running(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are stopped all the same, also one that could not be at first; the agent that comes after it says that they were."""
    agent, ends, refused = world.agents["n1"], threading.Event(), []
    server = server_on(world, "n1", "web", wants_ha=False)
    destroy = agent.driver.destroy

    def destroyed(server: str) -> None:
        if not refused:
            refused.append(server)
            raise Refused(Code.DRIVER, "not now")
        destroy(server)

    lapse(agent)
    monkeypatch.setattr(agent.self_fence, "_keep", lambda: ends.wait(300))
    monkeypatch.setattr(agent.driver, "destroy", destroyed)
    agent.self_fence._write_end()
    until(lambda: not agent.driver.run_id(server), "it is stopped")
    assert refused == [server]
    again = SelfFence(str(Path(agent.config.state_dir) / "lease.json"), agent.clock)
    assert again.count == agent.self_fence.count == 1
    assert SelfFence(str(Path(agent.config.state_dir) / "lease.json"), agent.clock).count == 2   # it may have, as far as anybody knows
    ends.set()


def test_a_disk_that_is_full_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, full = world.agents["n1"], [True]
    server_on(world, "n1", "web", wants_ha=False)
    keep = agent.self_fence._keep

    def kept() -> None:
        if full:
            full.pop()
            raise OSError(28, "No space left on device")
        keep()

    lapse(agent)
    monkeypatch.setattr(agent.self_fence, "_keep", kept)
    until(lambda: agent.self_fence._kept_count == 1, "the next look keeps it")
