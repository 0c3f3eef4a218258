"""What a command loads: hot commands may not pay for what they do not use."""

import json
import os
import subprocess
import sys

import pytest

from tests.bench.startup import completing
from tests.unit.cli_world import World

HEAVY = {"sqlalchemy", "alembic", "zmq", "paramiko", "rich", "tabulate", "cryptography", "pycdlib", "oslo_utils", "pydantic"}
PROBE = """
import json, sys
sys.argv[0] = "novactl"
from novactl.__main__ import main
try:
    main()
finally:
    sys.stdout.flush()
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world") / "data", servers=30)


def loaded(world: World, *words: str, **env: str) -> tuple[str, set[str]]:
    ran = subprocess.run(
        [sys.executable, "-c", PROBE, *words], env={**os.environ, **world.env, **env}, capture_output=True, text=True, check=True)
    return ran.stdout, set(json.loads(ran.stderr.splitlines()[-1]))


@pytest.mark.parametrize("line", [
    "--help", "server --help", "server create --help", "help exit-codes", "server list", "server list --limit 20 -o json",
    "server list -o csv --sort name", "flavor list", "flavor show tiny -o yaml", "keypair list", "operation list",
    "aggregate list", "zone list", "trait list", "resource-class list", "server-group list", "project list", "quota list", "quota show",
    "cluster show", "help placement", "help operators",
])
def test_hot_commands_load_nothing_heavy(world: World, line: str) -> None:
    """Help, lists and completion load neither SQLAlchemy, ZeroMQ, paramiko nor, in a pipe, rich."""
    if "show" in line:
        world.run("flavor", "create", "tiny", "--ram", "192")
    _, modules = loaded(world, *line.split())
    assert not modules & HEAVY


def test_the_version_loads_no_typer(world: World) -> None:
    """--version is told without importing typer."""
    out, modules = loaded(world, "--version")
    assert out.startswith("novactl ")
    assert "typer" not in modules


def test_completion_loads_nothing_heavy(world: World) -> None:
    """Completing a server's name loads nothing heavy and answers from the database."""
    out, modules = loaded(world, **completing("server", "show", "web-001"))
    assert out.split() == [f"web-00{number}" for number in range(10, 20)]
    assert not modules & HEAVY


def test_one_noun_loads_no_other(world: World) -> None:
    """A command imports the module of its own noun only."""
    probe = PROBE.replace('.partition(".")[0]', "")
    ran = subprocess.run(
        [sys.executable, "-c", probe, "flavor", "list"], env={**os.environ, **world.env}, capture_output=True, text=True, check=True)
    modules = set(json.loads(ran.stderr.splitlines()[-1]))
    assert "novactl.cli.flavor" in modules
    assert not modules & {"novactl.cli.server", "novactl.cli.node", "novactl.cli.batch"}
