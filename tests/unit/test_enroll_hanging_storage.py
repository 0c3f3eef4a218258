"""A machine whose storage hangs is asked in seconds all the same, and says where it hangs."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from novactl.enroll import checks, facts, paths
from novactl.enroll.plan import make_plan
from novactl.enroll.shell import LocalShell
from tests.unit.enroll_machines import READY, machine
from tests.unit.test_enroll_plan import GOAL

needs_fuse = pytest.mark.skipif(
    not shutil.which("bindfs") or not Path("/dev/fuse").exists() or os.geteuid() != 0, reason="mounts bindfs (requirements/apt-test.txt)")


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[tuple[Path, Callable[[signal.Signals], None]]]:
    """A folder on a file system of its own, and what stops its server and lets it go on."""
    below, mounted = tmp_path / "below", tmp_path / "mounted"
    below.mkdir()
    mounted.mkdir()
    server = subprocess.Popen(["bindfs", "-f", str(below), str(mounted)])
    try:
        deadline = time.monotonic() + 10
        while not mounted.is_mount():
            assert time.monotonic() < deadline and server.poll() is None
            time.sleep(0.02)
        yield mounted, server.send_signal
    finally:
        server.send_signal(signal.SIGCONT)
        subprocess.run(["umount", "-l", str(mounted)], check=False)
        server.wait(10)


@needs_fuse
def test_a_machine_whose_storage_hangs_says_where(
    storage: tuple[Path, Callable[[signal.Signals], None]], monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The pool's folder and what is above it hang: both are named, all else is known, and it took no half minute."""
    mounted, tell = storage
    monkeypatch.setattr(facts, "SCRIPT", facts.SCRIPT.replace(paths.POOL_PARENT, str(mounted)))
    (mounted / "novactl").mkdir()
    assert facts.gather(LocalShell()).hangs == ()
    time.sleep(1.1)                                           # what the kernel remembers of it is forgotten after a second
    tell(signal.SIGSTOP)
    began = time.monotonic()
    found = facts.gather(LocalShell())
    assert time.monotonic() - began < 25
    assert found.hangs == (str(mounted), str(mounted / "novactl"))
    assert found.machine and found.clock_s and "/etc" in found.free_kib and "python3" in found.programs
    findings = checks.hanging(found)
    assert [finding.verdict for finding in findings] == ["fail", "fail"]
    assert str(mounted / "novactl") in findings[1].detail and f"findmnt -T {mounted}" in findings[0].fix
    tell(signal.SIGCONT)
    assert facts.gather(LocalShell()).hangs == ()


def test_nothing_is_enrolled_where_storage_hangs() -> None:
    """What was not read must not look like what is not there."""
    hung = dataclasses.replace(machine(READY), hangs=(paths.POOL_DIR,))
    plan = make_plan(hung, GOAL, hung.clock_s)
    assert [(finding.check, finding.verdict) for finding in plan.findings] == [("storage", "fail")]
    assert paths.POOL_DIR in plan.findings[0].detail


def test_what_hangs_is_told_by_the_section_it_hung_in() -> None:
    """A mark within a section names the place; the section's lines before it count."""
    said = f"{facts._MARK}space\n/etc x 1 1 77 1%\n\n{facts._HANGS}/opt\n\n{facts._MARK}pool\n\n{facts._HANGS}{paths.POOL_DIR}\n"
    found = facts.parse(said)
    assert found.hangs == ("/opt", paths.POOL_DIR) and found.free_kib == {"/etc": 77} and found.installed.pool == ""
