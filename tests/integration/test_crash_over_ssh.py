"""Enrolment and removal killed with SIGKILL before, in and after each of their steps, on real hosts (tests/crash/over_ssh.py)."""

import subprocess
import sys

import pytest

from tests.lab.fleet import REPOSITORY


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("saga", ["node.enroll", "node.remove"])
def test_killed_over_ssh(saga: str) -> None:
    """The next command leaves the host as it was, whichever step it was, also where that command is killed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash", "--saga", saga], cwd=REPOSITORY, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        timeout=1700)
    assert done.returncode == 0 and " 0 violations" in done.stdout, done.stdout + done.stderr
