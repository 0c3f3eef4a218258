"""node.enroll and node.remove: novactl killed at its points on test hosts (tests/lab), with a real sshd and a real agent.

Killed before, in and after each of their steps; with `full` at each point. Afterwards the next command leaves a host that is as it
was, or as it was to be. On SQLite; needs root.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

from novactl.db import nodes, operations
from tests.crash.points import Act, _around, _between, wrap_command
from tests.crash.slot import Slot, World

RECOVERED_S = 120.0
"""Recovery goes on in the background after ten seconds."""


class Bench(Slot):
    """A host of the lab, and a cluster of its own that has only an admin."""

    def __init__(self, place: Path, lab: Any, host: Any) -> None:
        super().__init__(place, "127.0.0.1")
        self.lab, self.host = lab, host
        self.enroll, self.remove = ["node", "enroll", f"root@{host.address}"], ["node", "remove", host.name]

    @property
    def env(self) -> dict[str, str]:
        return super().env | {"HOME": str(self.lab.home), "NOVACTL_AGENT_CONNECT_S": "3", "NOVACTL_OPERATION_RETRY_S": "0.5"}

    def reset(self) -> None:
        self.spared = {self.host._process.pid}                # started by us where it was begun anew
        self.kill_all()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o700)
        self.must(["init"])

    def renew(self) -> None:
        """The host as new: whatever is left on it must not be another case's fault."""
        self.host.power_off()
        for left in (*self.host.dir.glob("opt/*"), *self.host.dir.glob("var/lib/nodeagent/*")):
            shutil.rmtree(left, ignore_errors=True)
        self.host.lay_out()
        self.host.power_on()
        known = self.lab.home / ".ssh/known_hosts"
        others = [line for line in known.read_text().splitlines() if not line.startswith(f"{self.host.address} ")]
        part = known.with_suffix(f".{self.host.name}")
        part.write_text("\n".join([*others, f"{self.host.address} {self.host.host_key}"]) + "\n")
        part.rename(known)

    def must(self, words: list[str]) -> None:
        self.switch.disarm()
        status = self.ended(self.over_ssh(words, "must"), " ".join(words), RECOVERED_S)
        if status:
            raise AssertionError(f"novactl {' '.join(words)}: exit {status}\n{self.tail('must.log')}")

    def over_ssh(self, words: list[str], trace: str) -> int:
        """As `command`, with points around what is run on the host."""
        def child() -> int:
            from novactl.enroll.shell import Shell
            from tests.crash.points import Points

            points = Points(self.switch, self.folder / f"{trace}.points")
            wrap_command(points)
            _around(Shell, "run", lambda run: _between(points, run, lambda *_: "on the host"))
            from novactl.cli.run import run as run_cli

            return run_cli(words)

        (self.folder / f"{trace}.points").unlink(missing_ok=True)
        return self.fork(child, f"{trace}.log")

    def slate(self) -> Any:
        """What enrolment may leave behind, on the host and in the database."""
        from tests.integration.enroll_world import _SLATE

        return self.host.run("sh", "-c", _SLATE).stdout, self.see(_rows)

    def count(self, words: list[str]) -> list[str]:
        self.switch.arm()
        status = self.ended(self.over_ssh(words, "command"), " ".join(words), RECOVERED_S)
        if status:
            raise AssertionError(f"novactl {' '.join(words)}: exit {status}\n{self.tail('command.log')}")
        return self.points("command")

    def killed(self, words: list[str], at: int) -> bool:
        """False where it ended first: what it does over SSH is not the same to the call each time."""
        self.switch.arm(Act.KILL, at)
        return self.ended(self.over_ssh(words, "command"), " ".join(words), RECOVERED_S) == -signal.SIGKILL

    def recover(self, at: int = 0) -> None:
        """The next command, killed at its point `at` unless that is 0; then until what it left to the background has ended."""
        self.switch.arm(Act.KILL if at else Act.COUNT, at)
        status = self.ended(self.over_ssh(["node", "list"], "cleaner"), "the next command", RECOVERED_S)
        if at:
            return
        deadline = time.monotonic() + RECOVERED_S
        while self.see(_rows)[1] and time.monotonic() < deadline:
            time.sleep(0.1)
        if status or self.see(_rows)[1]:
            raise AssertionError(f"the next command ends with {status}, {self.see(_rows)[1]} left:\n{self.tail('cleaner.log')}")


def _rows(world: World) -> tuple[list[str], list[tuple[str, str]]]:
    with world.cluster.db.read() as tx:
        return [node.name for node in nodes.all_(tx)], [(o.kind, o.state.value) for o in operations.recent(tx, ended=False)]


def chosen(points: Sequence[str], *, full: bool) -> list[int]:
    """Points before and after each step, and of those inside it the middle one; with `full` all."""
    if full:
        return list(range(1, len(points) + 1))
    found, began = [], 0
    for number, point in enumerate(points, 1):
        if point.endswith(" do: before"):
            began = number
            found.append(number)
        elif point.endswith(" do: after"):
            if number - began > 2:
                found.append((began + number) // 2)
            found.append(number)
    return found


def enroll_killed(bench: Bench, at: int, again: int) -> None:
    bench.reset()
    bare = bench.slate()
    died = bench.killed(bench.enroll, at)
    if died and again:
        bench.recover(again)
    bench.recover()
    found = bench.slate()
    if found[1][0]:                                           # it had ended
        bench.must(bench.remove)
        found = bench.slate()
    if found != bare:
        raise AssertionError(f"the host is not as it was:\n{_difference(bare, found)}")
    if at % 4 == 0:
        bench.must(bench.enroll)
        bench.must(bench.remove)
        if bench.slate() != bare:
            raise AssertionError(f"enrolled again and removed, the host is not as it was:\n{_difference(bare, bench.slate())}")


def remove_killed(bench: Bench, at: int, again: int) -> None:
    bench.reset()
    bare = bench.slate()
    bench.must(bench.enroll)
    died = bench.killed(bench.remove, at)
    if died and again:
        bench.recover(again)
    bench.recover()
    if bench.slate()[1][0]:                                   # turned back, the node is whole
        bench.must(["node", "check", bench.host.name])
        bench.must(bench.remove)
    if bench.slate() != bare:
        raise AssertionError(f"the host is not as it was:\n{_difference(bare, bench.slate())}")


PLAYED: dict[str, Callable[[Bench, int, int], None]] = {"node.enroll": enroll_killed, "node.remove": remove_killed}


def _difference(old: Any, new: Any) -> str:
    before, after = str(old[0]).splitlines() + [str(old[1])], str(new[0]).splitlines() + [str(new[1])]
    return "\n".join([f"- {line}" for line in before if line not in after] + [f"+ {line}" for line in after if line not in before])


def run(sagas: Sequence[str], *, full: bool, hosts: int = 3, only: tuple[int, int] | None = None) -> int:
    """Each of `sagas` killed at its chosen points; every fourth time whoever cleans up, too. 1 when something does not hold.

    `only`: the point, and the one of whoever cleans up (0: it lives).
    """
    from tests.lab import Lab

    began, violations, recoveries, total = time.monotonic(), 0, 0, 0
    with Lab(count=1 if only else hosts) as lab:
        workers = _workers(lab)
        try:
            for saga in sagas:
                points = next(_results(workers, deque([("count", saga, 0, 0)])))
                if isinstance(points, str):
                    print(points)
                    return 1
                ats = [only[0]] if only else chosen(points, full=full)
                tasks = deque(("play", saga, at, only[1] if only else (5 + at if number % 4 == 3 else 0)) for number, at in enumerate(ats))
                total, recoveries = total + len(ats), recoveries + len(ats) + sum(task[3] > 0 for task in tasks)
                for at, again, wrong in _results(workers, tasks):
                    if wrong:
                        violations += 1
                        case = f"{saga}/sqlite/killed@{at}/next" + (f"@{again}" if again else "")
                        print(f"VIOLATION {case}, at “{points[at - 1]}”: {wrong}\n  again: tests/run crash --replay {case}", flush=True)
                print(f"{saga} over SSH: {len(points)} crash points, {len(ats)} of them played", flush=True)
        finally:
            for connection, pid in workers.items():
                connection.close()
                os.waitpid(pid, 0)
    print(f"{total} crash points over SSH, {recoveries} recoveries, {violations} violations in {time.monotonic() - began:.0f} s")
    return int(bool(violations))


def _workers(lab: Any) -> dict[Connection, int]:
    """One process for each host."""
    made: dict[Connection, int] = {}
    for host in lab.hosts:
        ours, theirs = Pipe()
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            theirs.close()
            made[ours] = pid
            continue
        try:
            ours.close()
            for other in made:
                other.close()
            _serve(theirs, Bench(lab.dir / "crash" / host.name, lab, host))
        except BaseException:  # noqa: BLE001 - a worker must not go on as the runner
            traceback.print_exc()
        finally:
            os._exit(0)
    return made


def _serve(connection: Connection, bench: Bench) -> None:
    try:
        while True:
            try:
                act, saga, at, again = connection.recv()
            except EOFError:
                return
            try:
                if act == "count":
                    bench.reset()
                    enrolled = bench.count(bench.enroll)
                    removed = bench.count(bench.remove)
                    connection.send(enrolled if saga == "node.enroll" else removed)
                    continue
                PLAYED[saga](bench, at, again)
                connection.send((at, again, ""))
            except AssertionError as wrong:
                connection.send(str(wrong) if act == "count" else (at, again, str(wrong)))
                bench.renew()
    finally:
        bench.spared = set()
        bench.kill_all()


def _results(workers: dict[Connection, int], tasks: deque[Any]) -> Iterator[Any]:
    idle, busy = deque(workers), set[Any]()
    while tasks or busy:
        while idle and tasks:
            connection = idle.popleft()
            connection.send(tasks.popleft())
            busy.add(connection)
        for ready in wait(list(busy)):
            found = ready.recv()  # type: ignore[union-attr]
            busy.discard(ready)
            idle.append(ready)  # type: ignore[arg-type]
            yield found
