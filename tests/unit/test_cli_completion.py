"""Shell completion: Typer's own, with names from the database."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.startup import completing
from tests.unit.cli_world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = World(tmp_path_factory.mktemp("world") / "data", servers=12)
    for line in (
        "flavor create m1.small --ram 512", "aggregate create rack1 --zone z1", "server-group create web --policy affinity",
        "node set n0 --trait CUSTOM_A",
    ):
        ran = made.run(*line.split())
        assert ran.status == 0, ran.err
    return made


def completed(world: World, *words: str) -> list[str]:
    env = {**os.environ, **world.env, **completing(*words)}
    ran = subprocess.run([sys.executable, "-m", "novactl"], env=env, capture_output=True, text=True, check=True)
    assert not ran.stderr
    return ran.stdout.split()


@pytest.mark.parametrize(("words", "expected"), [
    (["server", "show", "web-001"], ["web-0010", "web-0011"]),
    (["server", "delete", "web-0001", "web-001"], ["web-0010", "web-0011"]),
    (["server", "create", "x", "--flavor", "m"], ["m1.small"]),
    (["server", "create", "x", "--flavor=m"], ["m1.small"]),
    (["node", "show", "n"], ["n0", "n1"]),
    (["server", "list", "--node", ""], ["n0", "n1"]),
    (["server", "sh"], ["show"]),
    (["serv"], ["server", "server-group"]),
    (["aggregate", "show", "r"], ["rack1"]),
    (["server-group", "show", ""], ["web"]),
    (["quota", "show", "d"], ["default"]),
    (["quota", "set", "default", "k"], ["keypairs="]),
    (["project", "show", ""], ["default"]),
    (["server", "create", "x", "--zone", ""], ["z1"]),
    (["node", "unset", "n0", "--trait", "CUSTOM"], ["CUSTOM_A"]),
    (["server-group", "create", "x", "--policy", "soft-an"], ["soft-anti-affinity"]),
    (["server", "list", "-o", "j"], ["json"]),
    (["server", "show", "nothing"], []),
    (["help", "exit"], ["exit-codes"]),
    (["completion", "z"], ["zsh"]),
])
def test_words_are_completed(world: World, words: list[str], expected: list[str]) -> None:
    """Nouns, verbs, formats, topics and the names of live objects are completed."""
    assert completed(world, *words) == expected


def test_without_a_cluster_nothing_is_completed(tmp_path: Path, world: World) -> None:
    """Where there is no database completion says nothing and does not fail."""
    assert not subprocess.run(
        [sys.executable, "-m", "novactl"], capture_output=True, text=True, check=True,
        env={**os.environ, **world.env, "NOVACTL_DATA_DIR": str(tmp_path / "none"), **completing("server", "show", "w")},
    ).stdout.strip()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_typers(world: World, shell: str) -> None:
    """`novactl completion SHELL` prints the script that --show-completion prints."""
    script = world.run("completion", shell).out
    assert "_NOVACTL_COMPLETE" in script and f"complete_{shell}" in script


def test_bash_completes_with_the_script(world: World, tmp_path: Path) -> None:
    """A real bash that has read the script completes a server's name."""
    bash = shutil.which("bash")
    assert bash
    program = tmp_path / "novactl"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -m novactl \"$@\"\n")
    program.chmod(0o755)
    (tmp_path / "script").write_text(world.run("completion", "bash").out)
    asked = (
        f"PATH={tmp_path}:$PATH; source {tmp_path}/script; COMP_WORDS=(novactl server show web-001); COMP_CWORD=3; "
        "_novactl_completion novactl; echo ${COMPREPLY[@]}")
    ran = subprocess.run([bash, "--norc", "-c", asked], env={**os.environ, **world.env}, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["web-0010", "web-0011"]
