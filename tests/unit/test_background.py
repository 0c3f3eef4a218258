"""Operations handed to a process of their own."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from novactl.conductor.background import hand_over
from novactl.errors import ExitStatus
from tests.world import small_world


def test_nothing_is_imported_from_where_the_user_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The background process runs this novactl, also in a directory that holds modules of the same names."""
    trap = tmp_path / "trap"
    trap.mkdir()
    for name in ("novactl", "json"):
        (trap / f"{name}.py").write_text("raise SystemExit('imported from the current directory')")
    started: list[tuple[list[str], dict[str, Any]]] = []
    with small_world(tmp_path) as world, monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", lambda argv, **how: started.append((argv, how)))
        hand_over(world.cluster, [world.cluster.ids.uuid()])
        patched.undo()
        ((argv, how),) = started
        ran = subprocess.run(argv, env=how["env"], cwd=trap, capture_output=True, text=True)
    assert (ran.returncode, "no operation" in ran.stderr) == (ExitStatus.NOT_FOUND, True), ran.stderr
