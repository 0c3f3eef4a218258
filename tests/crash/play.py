"""Playing cases in a slot, one after the other: each from a fresh slate to what is wrong in the end."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash import programs
from tests.crash.cases import Case, Counted, shown
from tests.crash.invariants import Look, look, written
from tests.crash.points import Act
from tests.crash.slot import CONNECT_S, NODES, Hung, Slot

AHEAD_S = 90.0
"""How much later it is for whoever finds a stopped process: longer than any lease, and shorter than any operation may take."""
SILENCE_S = 0.5
"""After so long a node that is not there is silent."""
HEADSTART_S = 0.25
"""What one gets to do before another goes on that holds what it may need."""


class Violation(AssertionError):
    """Something does not hold; the text says what."""


class Missed(AssertionError):
    """The process ended before it came to its point."""


@dataclass
class Told:
    """What became of a case. `recoveries` counts who cleaned up; `points` are those of the one that did, and of the agents then."""

    case: Case
    wrong: str = ""
    where: str = ""
    recoveries: int = 0
    points: int = 0
    agents: Mapping[str, int] = field(default_factory=dict)
    missed: bool = False


@dataclass(frozen=True)
class Goal:
    """What a saga's run starts from and comes to."""

    before: Look
    done: Look
    counted: Counted
    subject: Any


class Player:
    """Plays the cases of one kind of database in one slot; when `brief` the same command follows again after single deaths only."""

    def __init__(self, slot: Slot, database: str, *, brief: bool = False) -> None:
        self.slot, self.database, self.brief = slot, database, brief
        self.goals: dict[str, Goal] = {}
        self.programs = programs.programs()

    # ---- slates

    def goal(self, saga: str) -> Goal:
        """Made once: the slate that the saga starts from is kept, and an undisturbed run counts its points."""
        if saga not in self.goals:
            slot = self.slot
            if slot.has("base"):
                slot.take("base")
            else:
                slot.build()
                slot.keep("base")
                slot.take("base")
            slot.subject = slot.ask(lambda world: programs.prepare(world, self.programs[saga].saga))
            slot.switch_off_fenced()
            slot.keep(saga)
            self.goals[saga] = self._count(saga, slot.subject)
        return self.goals[saga]

    def _count(self, saga: str, subject: Any) -> Goal:
        slot = self.slot
        slot.take(saga)
        slot.subject = subject
        before = slot.see(look)
        for name in NODES:
            slot.switches[name].arm()
        slot.switch.arm()
        status = slot.ended(slot.command(self.programs[saga].act), saga)
        slot.await_background()
        done = slot.see(look)
        if status or done.wrong or done.open:
            raise Violation(f"undisturbed, it ends with {status} and {list(done.wrong)}:\n{slot.tail('command.log')}")
        agents = {name: tuple(slot.points(name)) for name in NODES}
        changed = {name: points for name, points in agents.items() if any("the fence" in point for point in points) and "+" not in saga}
        return Goal(before, done, Counted(saga, self.database, tuple(slot.points("command")), changed), subject)

    # ---- cases

    def play(self, case: Case) -> Told:
        told = Told(case)
        try:
            goal = self.goal(case.saga)
            points = goal.counted.agents.get(case.node, ()) if case.node and case.kind != "spoilt" else goal.counted.command
            told.where = shown(points, case.at)
            self.slot.take(case.saga)
            self.slot.subject = goal.subject
            getattr(self, f"_{case.kind}")(case, goal, told)
        except Missed as missed:
            told.missed = True
            if not self.brief:
                told.wrong = str(missed)
        except (Violation, Hung) as violation:
            told.wrong = str(violation)
        except AssertionError as broken:
            told.wrong = f"the harness: {broken}"
        return told

    def _killed(self, case: Case, goal: Goal, told: Told) -> None:
        self._dies(case)
        if "+" in case.saga:                                  # nobody's, until its lease is over
            self.slot.ahead_s = AHEAD_S
        if case.again:
            self._clean(case, told, Act.KILL, case.again)
        for name in NODES:
            self.slot.switches[name].arm()
        self._clean(case, told)
        told.agents = {name: self.slot.switches[name].count for name in goal.counted.agents}
        self._verify(case, goal, told)

    def _paused(self, case: Case, goal: Goal, told: Told) -> None:
        """Stopped in a transaction, it may keep others waiting: then it goes on beside them, and all is in order whoever is first."""
        slot = self.slot
        pid = self._begin(case, Act.STOP, case.at)
        slot.wait(lambda: pid in slot.stopped or pid in slot.statuses, "the command comes to its point")
        if pid in slot.statuses:
            raise Missed("the command ended before its point")
        slot.ahead_s = AHEAD_S
        inside = shown(goal.counted.command, case.at).endswith("before COMMIT")
        if inside:
            cleaner = self._cleaner(case)
            with contextlib.suppress(Hung):
                slot.wait(lambda: cleaner in slot.statuses, "cleaning", HEADSTART_S)
            slot.cont(pid)
            slot.ended(cleaner, "whoever takes over")
            told.recoveries += 1
            slot.ended(pid, "the one that was stopped")
        else:
            found = slot.see(look)
            if found.open:
                self._clean(case, told)
            overtaken = bool(found.open)
            left = slot.see(written)
            slot.cont(pid)
            status = slot.ended(pid, "the one that was overtaken")
            now = slot.see(written)
            if overtaken and now != left:
                raise Violation(f"the one that was overtaken changed something:\n{_difference(left, now)}")
            if overtaken and not status:
                raise Violation("the one that was overtaken says that all went well")
        self._clean(case, told)
        self._verify(case, goal, told)

    def _agent(self, case: Case, goal: Goal, told: Told) -> None:
        slot = self.slot
        slot.switches[case.node].arm(Act.KILL, case.at)
        pid = self._begin(case)
        self._fallen(case, pid)
        slot.restart(case.node)
        slot.ended(pid, "the command whose agent died")
        self._clean(case, told)
        self._verify(case, goal, told)

    def _silent(self, case: Case, goal: Goal, told: Told) -> None:
        slot = self.slot
        slot.switches[case.node].arm(Act.KILL, case.at)
        slot.connect_s = SILENCE_S
        pid = self._begin(case)
        self._fallen(case, pid)
        slot.ended(pid, "the command whose agent died")
        slot.connect_s = CONNECT_S
        slot.restart(case.node)
        self._clean(case, told)
        self._verify(case, goal, told)

    def _both(self, case: Case, goal: Goal, told: Told) -> None:
        slot = self.slot
        pid = self._begin(case, held=lambda pid: slot.switches[case.node].arm(Act.KILL_BOTH, case.at, other=pid))
        self._fallen(case, pid)
        slot.ended(pid, "the command that dies with its agent")
        slot.restart(case.node)
        self._clean(case, told)
        self._verify(case, goal, told)

    def _late(self, case: Case, goal: Goal, told: Told) -> None:
        slot = self.slot
        agent = slot.agents[case.node]
        slot.switches[case.node].arm(Act.STOP, case.at)
        pid = self._begin(case)
        slot.wait(lambda: agent in slot.stopped or pid in slot.statuses, "the agent comes to its point")
        if agent not in slot.stopped:
            slot.wait(lambda: agent in slot.stopped, "the agent comes to its point", 1)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        slot.ended(pid, "the command that is killed")
        cleaner = self._cleaner(case)
        with contextlib.suppress(Hung):
            slot.wait(lambda: cleaner in slot.statuses, "cleaning", HEADSTART_S)
        slot.cont(agent)
        slot.ended(cleaner, "whoever cleans up")
        told.recoveries += 1
        self._clean(case, told)
        self._verify(case, goal, told)

    def _spoilt(self, case: Case, goal: Goal, told: Told) -> None:
        slot = self.slot
        self._dies(case)
        slot.switches[case.node].arm(Act.KILL, case.again)
        pid = self._cleaner(case)
        self._fallen(case, pid)
        slot.restart(case.node)
        slot.ended(pid, "whoever cleans up")
        told.recoveries += 1
        self._clean(case, told)
        self._verify(case, goal, told)

    # ---- their parts

    def _begin(self, case: Case, act: Act = Act.COUNT, at: int = 0, *, held: Callable[[int], None] | None = None) -> int:
        """The saga's command. `held` is told its number before it does anything."""
        slot = self.slot
        if held is None:
            slot.switch.arm(act, at)
            return slot.command(self.programs[case.saga].act)
        slot.switch.arm(Act.STOP, 1)
        pid = slot.command(self.programs[case.saga].act)
        slot.wait(lambda: pid in slot.stopped, "the command comes to its first point")
        held(pid)
        slot.cont(pid)
        return pid

    def _dies(self, case: Case) -> None:
        status = self.slot.ended(self._begin(case, Act.KILL, case.at), "the command that is killed")
        if status != -signal.SIGKILL:
            raise Missed(f"the command ended with {status} before its point:\n{self.slot.tail('command.log')}")

    def _fallen(self, case: Case, pid: int) -> None:
        """The agent has died. Raises Missed when the command ended without that."""
        slot = self.slot
        agent = slot.agents[case.node]
        slot.wait(lambda: agent in slot.statuses or pid in slot.statuses, "the agent dies")
        if agent not in slot.statuses:                        # what it says last may be the end of the command
            with contextlib.suppress(Hung):
                slot.wait(lambda: agent in slot.statuses, "the agent dies", 1)
        if agent not in slot.statuses:
            raise Missed("the command ended before the agent's point")

    def _cleaner(self, case: Case, act: Act = Act.COUNT, at: int = 0) -> int:
        """Begin cleaning up in the case's way."""
        slot = self.slot
        words = ["server", "list"]
        if case.way != "next":
            found = slot.see(look).open
            if found:
                words = ["operation", case.way, found[0].id]
        slot.switch.arm(act, at)
        return slot.command(words, trace="cleaner")

    def _clean(self, case: Case, told: Told, act: Act = Act.COUNT, at: int = 0) -> None:
        slot = self.slot
        status = slot.ended(self._cleaner(case, act, at), "whoever cleans up")
        slot.await_background()
        told.recoveries += 1
        told.points = slot.switch.count
        if act is Act.KILL:
            if status != -signal.SIGKILL:
                raise Missed(f"it was cleaned up, with {status}, before the point:\n{slot.tail('cleaner.log')}")
            return
        if case.way == "next" and status:
            raise Violation(f"the next command ends with {status}:\n{slot.tail('cleaner.log')}")
        if case.way == "undo" and status and slot.see(look).open:
            if "past the point" not in slot.tail("cleaner.log"):
                raise Violation(f"operation undo ends with {status}:\n{slot.tail('cleaner.log')}")
            self._clean(Case(case.saga, case.database, case.kind, case.at, "resume"), told)

    def _verify(self, case: Case, goal: Goal, told: Told) -> None:
        """Nothing is left over, or all is there; and the same command again succeeds."""
        found = self.slot.see(look)
        self._check(found, goal, "after cleaning up")
        mine = [o for o in found.operations if o.id not in {old.id for old in goal.before.operations}]
        ended_ok = bool(mine) and mine[0].state == "ok"
        wanted = goal.done if ended_ok else goal.before
        if found.slate != wanted.slate:
            became = mine[0].state if mine else "not there"
            raise Violation(f"its operation is {became}, and the slate is {found.slate}, not {wanted.slate}")
        if ended_ok and not mine[0].attempt and found.runs != goal.done.runs:
            raise Violation(f"guests were started {found.runs} times, not {goal.done.runs}")
        if case.again and self.brief:                         # as it was alone
            return
        slot = self.slot
        slot.switch.disarm()
        status = slot.ended(slot.command(self.programs[case.saga].act, trace="again"), "the same command again")
        slot.await_background()
        again = slot.see(look)
        self._check(again, goal, "after the same command again")
        if again.slate != goal.done.slate or (status and not ended_ok):
            raise Violation(f"the same command again ends with {status}, at {again.slate}:\n{slot.tail('again.log')}")

    def _check(self, found: Look, goal: Goal, when: str) -> None:
        wrong = [sentence for sentence in found.wrong if sentence not in goal.before.wrong]
        if wrong:
            raise Violation(f"{when}: " + "; ".join(wrong))

    def report(self, told: Told) -> str:
        """What the processes said, for people."""
        logs = [f"--- {path.name}\n{self.slot.tail(path.name)}" for path in sorted(Path(self.slot.folder).glob("*.log"))]
        return "\n".join(logs)


def _difference(old: str, new: str) -> str:
    before, after = old.splitlines(), new.splitlines()
    return "\n".join(
        [f"- {line}" for line in before if line not in after] + [f"+ {line}" for line in after if line not in before])[:4000]


def say(text: str) -> None:
    print(text, flush=True, file=sys.stderr)
