"""F14: admins who do different things to the same server at the same moment, each by a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from novactl.api import servers as api
from novactl.db import operations, placement, servers
from novactl.errors import ExitStatus
from novactl.model.operation import OperationState
from tests import databases
from tests.world import World, small_world

PATIENCE_S = 300.0
DELETES = ("server", "delete", "web", "--yes")
OTHERS = (("server", "stop", "web", "--grace", "0"), ("server", "reboot", "web", "--hard"))
REFUSED = {ExitStatus.NOT_FOUND: "not_found", ExitStatus.CONFLICT: "conflict"}


@pytest.fixture(params=databases.EACH)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield stack.enter_context(small_world(tmp_path, url=stack.enter_context(databases.database(request.param))))


def at_once(world: World, *commands: tuple[str, ...]) -> list[tuple[tuple[str, ...], int, str]]:
    """Every command in a process that waits for its line; the lines come together. Each with its exit status and its error's text."""
    env, running = {**os.environ, **world.env}, []
    for words in commands:
        process = subprocess.Popen(
            [sys.executable, "-m", "novactl", "batch"], env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE)
        running.append((words, process))
    for words, process in running:
        assert process.stdin
        process.stdin.write(" ".join(words) + "\n")
        process.stdin.flush()
    told = []
    for words, process in running:
        out, err = process.communicate(timeout=PATIENCE_S)
        assert "Traceback" not in err, err
        line = json.loads(out)
        told.append((words, line["exit_status"], json.dumps(line["error"])))
    return told


@pytest.mark.parametrize("turn", range(2))
def test_one_deletes_it_and_the_others_are_told(world: World, turn: int) -> None:
    """Four delete it, two stop and two start it anew: it is deleted once, whoever came later is told that it is gone or whose it is,
    and nothing of it is left."""
    made = api.create(world.cluster, api.CreateServer(name="web", flavor="small", image="guest")).servers[0]
    told = at_once(world, *[DELETES] * 4, *OTHERS * 2)
    deleted = [status for words, status, _ in told if words == DELETES]
    assert deleted.count(ExitStatus.OK) >= 1, told
    assert {status for _, status, _ in told} <= {ExitStatus.OK, *REFUSED}, told
    for _, status, error in told:
        assert status == ExitStatus.OK or "server web" in error or "server 'web'" in error or '"web"' in error, told
    with world.cluster.db.read() as tx:
        done = Counter(op.kind for op in operations.recent(tx, ended=True) if op.state is OperationState.OK)
        assert not operations.recent(tx, ended=False) and not servers.all_(tx) and not placement.all_(tx)
    assert done["server.delete"] == 1, told
    assert world.leftovers() == [] and made.id not in world.domains()
