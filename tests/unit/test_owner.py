"""Whether the process that holds an operation still lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from novactl.conductor import owner

CHILD = "from novactl.conductor import owner; print(owner.this_process(), flush=True); input()"


@pytest.fixture
def child() -> Iterator[tuple[subprocess.Popen, str]]:
    with subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield process, process.stdout.readline().strip()
        if process.poll() is None:
            process.kill()


def until(process: subprocess.Popen, states: str) -> None:
    while owner._stat(process.pid)[0] not in states:
        os.sched_yield()


def test_the_living_and_this_process_live(child: tuple[subprocess.Popen, str]) -> None:
    """A running process is alive, and so is the one that asks."""
    assert owner.is_alive(child[1]) is True
    assert owner.is_alive(owner.this_process()) is True


def test_killed_and_not_reaped_is_dead(child: tuple[subprocess.Popen, str]) -> None:
    """A zombie holds nothing, though its pid is still taken."""
    child[0].send_signal(signal.SIGKILL)
    until(child[0], "Z")
    assert owner.is_alive(child[1]) is False


def test_of_a_stopped_process_the_lease_decides(child: tuple[subprocess.Popen, str]) -> None:
    """Ctrl-Z does not hold a server for ever: what is stopped is neither dead nor certainly alive."""
    child[0].send_signal(signal.SIGSTOP)
    until(child[0], "T")
    assert owner.is_alive(child[1]) is None
    child[0].send_signal(signal.SIGCONT)
    until(child[0], "SR")
    assert owner.is_alive(child[1]) is True


def test_a_pid_used_again_is_another_process(child: tuple[subprocess.Popen, str]) -> None:
    """The start time tells two processes of one pid apart; another machine's process cannot be judged."""
    host, pid, started, boot, namespace = child[1].split(" ")
    assert owner.is_alive(" ".join([host, pid, str(int(started) + 1), boot, namespace])) is False
    assert owner.is_alive(" ".join([host, pid, started, "another-boot", namespace])) is None
    assert owner.is_alive("") is None
