"""Enrolling in a process of its own, and leaving it: what goes on, and what is undone."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.enroll_world import World, home_of
from tests.lab import Lab


@pytest.fixture(scope="module")
def bare_lab() -> Iterator[Lab]:
    with Lab(count=1) as lab:
        yield lab


@pytest.fixture
def world(bare_lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A host with nothing on it, which it is again afterwards."""
    home_of(bare_lab, monkeypatch)
    bare_lab.hosts[0].power_on()
    made = World(bare_lab, tmp_path / "data")
    try:
        before = made.slate()
        yield made
        assert made.slate() == before
    finally:
        made.close()


def novactl(world: World, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "novactl", *words], env={**os.environ, "NOVACTL_DATA_DIR": str(world.folder), "HOME": str(world.lab.home)},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str], status: int = 0) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, err
    return out if not status else err


def test_nodes_join_and_leave_in_the_background(world: World) -> None:
    """--async looks at the host, prints the operation's id and leaves; whoever waits for it finds the node there, or gone."""
    target = f"root@{world.host.address}"
    enrolling = said(novactl(world, "node", "enroll", target, "--async", "--reason", "rack 7")).strip()
    assert json.loads(said(novactl(world, "operation", "wait", enrolling, "-o", "json")))["reason"] == "rack 7"
    assert json.loads(said(novactl(world, "node", "show", "h1", "-o", "json")))["status"] == "up"
    removing = said(novactl(world, "node", "remove", "h1", "--async", "--yes")).strip()
    said(novactl(world, "operation", "watch", removing))
    assert world.slate()["nodes"] == []
    assert "cannot ask for a password" in said(novactl(world, "node", "enroll", target, "--async", "--ask-sudo-pass"), 2)


def test_an_interrupted_enrolment_is_undone(world: World) -> None:
    """Its SSH connection is this process's: Ctrl-C says so, undoes what was done, and exits 130."""
    enrolling = novactl(world, "node", "enroll", f"root@{world.host.address}")
    assert enrolling.stderr
    while "making the agent's directories done" not in (line := enrolling.stderr.readline()):
        assert line, "it ended by itself"
    enrolling.send_signal(signal.SIGINT)
    told = said(enrolling, 130)
    assert "interrupted, being undone; Ctrl-C again leaves that to novactl operation resume" in told and "was undone" in told
