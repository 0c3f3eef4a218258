"""`python -m tests.crash`: workers that each have a slot, the cases given out to them, and the counts."""

from __future__ import annotations

import argparse
import contextlib
import os
import pickle
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"                      # no threads may be there when we fork

from tests.crash.cases import KINDS, Case, Counted, doubles, singles, spoilt  # noqa: E402
from tests.crash.mutants import MUTANTS  # noqa: E402
from tests.crash.zygote import import_all  # noqa: E402

DATABASES = ("sqlite", "postgresql")
TRIES = 2
"""A case that ended before its point is played so often again."""
MISSED_AT_MOST = 50
"""One in so many cases may end before its point: with much else to do a machine asks again, and goes another way than when it counted."""


@dataclass
class Sum:
    """Of one saga on one database."""

    points: int = 0
    cases: int = 0
    recoveries: int = 0
    missed: int = 0
    seconds: float = 0.0
    kinds: dict[str, list[float]] = field(default_factory=dict)
    violations: list[Any] = field(default_factory=list)


def main(argv: list[str] | None = None) -> int:
    """0: nothing is wrong. 1: something is; each case is printed with the command that plays it again."""
    parser = argparse.ArgumentParser(prog="tests/run crash", description=__doc__)
    parser.add_argument("--saga", action="append", metavar="NAME", help="only this one (again: and this one)")
    parser.add_argument("--database", action="append", choices=DATABASES, help="only this one; all without it")
    parser.add_argument("--full", action="store_true", help="each point in each way, and every double death")
    parser.add_argument("--replay", metavar="CASE", help="play one case, and print what its processes said")
    parser.add_argument("--points", action="store_true", help="print the points of each saga, and play nothing")
    parser.add_argument("--kind", action="append", choices=tuple(KINDS), help="only this kind of death")
    parser.add_argument("--first", action="store_true", help="end with the first violation")
    parser.add_argument("--mutant", choices=tuple(MUTANTS), help="with one protection switched off, where that should be found")
    parser.add_argument("--workers", type=int, default=2 * (os.cpu_count() or 1), metavar="N")
    asked = parser.parse_args(argv)
    mutant = MUTANTS.get(asked.mutant)
    if mutant:
        asked.saga, asked.kind = asked.saga or [mutant.saga], asked.kind or [mutant.kind]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))   # what was made is taken away
    import_all()
    if mutant:
        mutant.apply()
    from tests.crash.programs import OVER_SSH, lacking, programs

    if lacking():
        print(f"no scenario (tests/sagas/scenarios.py) for {', '.join(sorted(lacking()))}", file=sys.stderr)
        return 1
    known = programs()
    if asked.replay:
        case = Case.parse(asked.replay)
        asked.saga, asked.database = [case.saga], [case.database]
    for saga in asked.saga or ():
        if saga not in (*known, *OVER_SSH):
            parser.error(f"there is no saga {saga}: {', '.join(known)}; only when asked for: {', '.join(OVER_SSH)}")
    distant = [saga for saga in asked.saga or () if saga in OVER_SSH]
    if distant:
        from tests.crash import over_ssh

        broken = over_ssh.run(distant, full=asked.full, only=(case.at, case.again) if asked.replay else None)
        asked.saga = [saga for saga in asked.saga if saga not in OVER_SSH]
        if broken or not asked.saga:
            return broken
    with Matrix(asked) as matrix:
        if asked.replay:
            return matrix.replay(case)
        if asked.points:
            return matrix.print_points(asked.saga or list(known))
        return matrix.run(asked.saga or list(known))


class Matrix:
    """The workers, and the databases that they need."""

    def __init__(self, asked: Any) -> None:
        from tests import databases

        self.asked = asked
        self.databases: list[str] = asked.database or list(DATABASES)
        self.folder = _folder()
        count = 1 if asked.replay or asked.points else asked.workers
        self._stack = contextlib.ExitStack()
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self._stack.callback(databases.stop)
        urls = [{kind: self._stack.enter_context(databases.database(kind)) for kind in self.databases} for _ in range(count)]
        self.workers: dict[Connection, int] = {}
        for number, url in enumerate(urls):
            self._fork(number, url)

    def _fork(self, number: int, urls: dict[str, str]) -> None:
        ours, theirs = Pipe()
        pid = os.fork()
        if pid:
            theirs.close()
            self.workers[ours] = pid
            return
        try:
            ours.close()
            for other in self.workers:
                other.close()
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            address = f"127.{1 + os.getpid() // 250 % 250}.{1 + os.getpid() % 250}.1"
            _serve(theirs, self.folder / f"w{number}", address, urls, brief=not (self.asked.full or self.asked.replay))
        except BaseException:  # noqa: BLE001 - a worker must not go on as the runner
            traceback.print_exc()
        finally:
            os._exit(0)

    def __enter__(self) -> Matrix:
        return self

    def __exit__(self, *_: object) -> None:
        for connection, pid in self.workers.items():
            connection.close()
            os.waitpid(pid, 0)
        self._stack.close()

    # ---- what is done

    def _results(self, tasks: deque[tuple[str, Any]]) -> Iterator[Any]:
        """Give out `tasks`, which may grow meanwhile; what comes back."""
        idle, busy = deque(self.workers), set[Connection]()
        while tasks or busy:
            while idle and tasks:
                connection = idle.popleft()
                connection.send(tasks.popleft())
                busy.add(connection)
            for connection in wait(list(busy)):
                found = connection.recv()  # type: ignore[union-attr]
                busy.discard(connection)  # type: ignore[arg-type]
                idle.append(connection)  # type: ignore[arg-type]
                yield found

    def run(self, sagas: list[str]) -> int:
        full, began = self.asked.full, time.monotonic()
        tasks: deque[tuple[str, Any]] = deque(("count", (saga, database)) for database in self.databases for saga in sagas)
        sums: dict[tuple[str, str], Sum] = {}
        counts: dict[tuple[str, str], Counted] = {}
        tried: Counter[str] = Counter()
        for found in self._results(tasks):
            if isinstance(found, Counted):
                sums[found.saga, found.database] = Sum(points=found.points)
                counts[found.saga, found.database] = found
                cases = [case for case in singles(found, full=full) if self._wanted(case)]
                if self.asked.mutant and "paused" not in self.asked.kind:      # the later, the more there is to be left over
                    cases.reverse()
                tasks.extend(("play", case) for case in cases)
                continue
            if isinstance(found, str):
                print(found, file=sys.stderr, flush=True)
                sums.setdefault(("?", "?"), Sum()).violations.append(found)
                continue
            told, seconds, said = found
            case = told.case
            if told.missed and not told.wrong and tried[str(case)] < TRIES:
                tried[str(case)] += 1
                tasks.append(("play", case))
                continue
            total = sums[case.saga, case.database]
            total.cases, total.recoveries, total.seconds = total.cases + 1, total.recoveries + told.recoveries, total.seconds + seconds
            total.kinds.setdefault(case.kind + "+" * bool(case.again), []).append(seconds)
            if told.missed:
                total.missed += 1
            if told.wrong:
                total.violations.append(told)
                print(f"VIOLATION {case}, at “{told.where}”: {told.wrong}\n  again: tests/run crash --replay {case}", flush=True)
                if len(total.violations) == 1 and said:
                    print(said, flush=True)
                if self.asked.first:
                    break
            elif not told.missed and case.kind == "killed" and case.way == "next" and not case.again:
                counted = counts[case.saga, case.database]
                more = (*doubles(case, told.points, len(counted.command), full=full),
                        *spoilt(case, told.agents, len(counted.command), full=full))
                tasks.extend(("play", one) for one in more if self._wanted(one))
        return _told(sums, time.monotonic() - began)

    def _wanted(self, case: Case) -> bool:
        return not self.asked.kind or case.kind in self.asked.kind

    def replay(self, case: Any) -> int:
        for found in self._results(deque([("play", case)])):
            if isinstance(found, str):
                print(found)
                return 1
            told, seconds, said = found
            print(f"{said}\n{case}, at “{told.where}”: {told.wrong or 'all is well'} ({told.recoveries} recoveries, {seconds:.2f} s)")
            return int(bool(told.wrong))
        return 1

    def print_points(self, sagas: list[str]) -> int:
        for found in self._results(deque(("count", (saga, database)) for database in self.databases for saga in sagas)):
            if isinstance(found, str):
                print(found)
                return 1
            for who, points in {"command": found.command, **found.agents}.items():
                for number, point in enumerate(points, 1):
                    print(f"{found.saga} {found.database} {who} {number}: {point}")
        return 0


def _folder() -> Path:
    """In memory where there is room; what a killed run left there goes."""
    home = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())
    for left in home.glob("novactl-crash-*-*"):
        if not Path("/proc", left.name.split("-")[2]).exists():
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"novactl-crash-{os.getpid()}-", dir=home))


def _told(sums: dict[tuple[str, str], Sum], seconds: float) -> int:
    for (saga, database), total in sorted(sums.items()):
        if total.missed * MISSED_AT_MOST > total.cases:
            total.violations.append(f"{total.missed} of {total.cases} cases did not come to their point")
            print(f"VIOLATION {saga}/{database}: {total.violations[-1]}")
        print(f"{saga} on {database}: {total.points} crash points, {total.cases} cases, {total.recoveries} recoveries,"
              f" {len(total.violations)} violations"
              + (f", {total.missed} not reached" if total.missed else "") + f" ({total.seconds:.0f} s)")
        if os.environ.get("CRASH_TIMES"):
            for kind, times in sorted(total.kinds.items()):
                print(f"    {kind}: {len(times)} cases, {sum(times):.0f} s, longest {max(times):.1f} s")
    points, recoveries, cases = (sum(getattr(t, name) for t in sums.values()) for name in ("points", "recoveries", "cases"))
    violations = sum(len(total.violations) for total in sums.values())
    print(f"{points} crash points, {cases} cases, {recoveries} recoveries, {violations} violations in {seconds:.0f} s")
    return int(bool(violations))


def _serve(connection: Connection, place: Path, address: str, urls: dict[str, str], *, brief: bool) -> None:
    """A worker: what it is asked, until its runner is gone."""
    from tests.crash.play import Player
    from tests.crash.slot import Slot

    players: dict[str, Player] = {}
    with contextlib.suppress(ConnectionError), contextlib.ExitStack() as stack:      # the runner had enough
        stack.callback(lambda: [player.slot.kill_all() for player in players.values()])
        while True:
            try:
                task, what = connection.recv()
            except EOFError:
                return
            database = what[1] if task == "count" else what.database
            if database not in players:
                for other in players.values():
                    other.slot.kill_all()
                players[database] = Player(Slot(place / database, address, urls[database]), database, brief=brief)
            player = players[database]
            began = time.monotonic()
            try:
                if task == "count":
                    connection.send(player.goal(what[0]).counted)
                    continue
                told = player.play(what)
                connection.send((told, time.monotonic() - began, player.report(told) if told.wrong or task == "show" else ""))
            except AssertionError as broken:
                connection.send(f"{what}: {broken}\n{player.slot.tail('command.log')}\n{player.slot.tail('observer.log')}")
            except (pickle.PicklingError, OSError) as broken:
                connection.send(f"{what}: {type(broken).__name__}: {broken}")


if __name__ == "__main__":
    sys.exit(main())
