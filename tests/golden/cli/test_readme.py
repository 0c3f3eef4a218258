"""The README's section on placement is a session: its commands are run here, and what they print is what it says."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from novactl import cluster
from novactl.db import nodes
from tests.unit.cli_world import Prompt
from tests.world import World

README = Path(__file__).resolve().parents[3] / "README.md"
SECTION = re.compile(r"(## Why is my server there\?\n.*?\n```\n)(.*?)(```\n)", re.DOTALL)
GIB = 1024


class Counted:
    """Ids in the order they are asked for, so that equals are always told apart in the same way."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def uuid(self) -> str:
        return f"{next(self._numbers):08x}-0000-4000-8000-000000000000"

    def mac(self) -> str:
        return f"52:54:00:00:00:{next(self._numbers) % 256:02x}"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Four nodes in two racks, each of another size, so that there is one best; a real database and real agents on the fake driver."""
    made = World(tmp_path)
    made.cluster.ids = Counted()
    monkeypatch.setattr(cluster, "RandomIds", lambda: made.cluster.ids)
    monkeypatch.setattr(cluster.SystemClock, "now", staticmethod(lambda at=made.cluster.clock.now(): at))
    monkeypatch.setattr(cluster.Cluster, "actor", "root@demo")
    for name, memory_gib in (("n1", 96), ("n2", 64), ("n3", 80), ("n4", 32)):
        made.add_node(name, fake={"vcpus": 16, "memory_mb": memory_gib * GIB + 512, "disk_gb": 2000})
    with made.cluster.db.write() as tx:
        for node in nodes.all_(tx):
            nodes.update(tx, replace(node, labels={"rack": "r1" if node.name in ("n1", "n2") else "r2"}))
    made.add_flavor("m1.large", vcpus=4, memory_mb=16 * GIB, disk_gb=40)
    made.add_image("debian-12")
    made.start()
    yield made
    made.stop()


def session(world: World, block: str) -> str:
    """`block` with what its commands print now. Only commands, and `echo $?`, are read from it."""
    prompt, lines, status = Prompt({**world.env, "COLUMNS": "200", "TERM": "dumb"}), [], 0
    for line in block.splitlines():
        if not line.startswith("$ "):
            continue
        lines.append(line)
        words = shlex.split(line[2:])
        if words[0] == "echo":
            lines += [str(status), ""]
            continue
        assert words[0] == "novactl"
        ran = prompt.run(*words[1:], "-o", "table")
        status = ran.status
        said = [*ran.out.splitlines(), *(part for part in ran.err.splitlines() if not part.startswith("  web-"))]
        lines += [part.rstrip() for part in said]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def test_the_session_in_the_readme_is_what_happens(world: World, request: pytest.FixtureRequest) -> None:
    """Every line that the README shows below a command is printed by it. `--regen` writes them anew."""
    text = README.read_text(encoding="utf-8")
    found = SECTION.search(text)
    assert found
    now = session(world, found[2])
    if request.config.getoption("--regen", default=False):
        README.write_text(text[:found.start(2)] + now + text[found.end(2):], encoding="utf-8")
    assert README.read_text(encoding="utf-8")[found.start(2):].partition("```\n")[0] == now
