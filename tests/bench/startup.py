"""Start-up of the installed `novactl`, beside what it is built from: typer alone, and a one-command typer program."""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.registry import Figure, bench, over, times_s

RUNS = 21
SERVERS, SHOWN = 1000, 20
ONE_COMMAND = '''
import typer

app = typer.Typer()


@app.command()
def hello(name: str = "world") -> None:
    """Say hello."""
    print(f"hello {name}")


app()
'''


def fill(data_dir: Path, servers: int) -> None:
    """A cluster in `data_dir` with two nodes and so many servers, written through the database's own layer."""
    from novactl.cluster import open_cluster
    from novactl.config import load_config
    from novactl.db import migrate, nodes
    from novactl.db import servers as table
    from novactl.model.node import Node, NodeState
    from novactl.model.server import Server
    from novactl.states import PowerState, TaskState, VmState

    cluster = open_cluster(load_config(None, {"NOVACTL_DATA_DIR": str(data_dir), "HOME": str(data_dir)}))
    migrate.upgrade(cluster.unchecked_db(), cluster.config.database_url, cluster.ids.uuid())
    with cluster.db.write() as tx:
        for name in ("n0", "n1"):
            nodes.insert(tx, Node(
                id=f"{name}{cluster.ids.uuid()[2:]}", name=name, state=NodeState.ENABLED, address="tcp://192.0.2.1:7766", public_key="",
                ssh="local", host_key="", zone="", architecture="x86_64", agent_version="0.1.0", generation=1, created_at=1.7e9))
        ids = {node.name: node.id for node in nodes.all_(tx)}
        for number in range(servers):
            node = f"n{number % 2}"
            table.insert(tx, Server(
                id=cluster.ids.uuid(), name=f"web-{number:04}", vm_state=VmState.ACTIVE, task_state=TaskState.NONE,
                power_state=PowerState.RUNNING, node_id=ids[node], node_name=node, epoch=1, operation_id="", flavor_name="m1.small",
                vcpus=1, memory_mb=512, disk_gb=10, image_id=cluster.ids.uuid(), image_name="debian-12", image_sha256="0" * 64,
                architecture="x86_64", keypair_name="", public_key="", user_data="", zone="", mac=cluster.ids.mac(),
                addresses=(f"192.168.{number // 250}.{number % 250 + 2}",), fault="", created_at=1.7e9 + number,
                updated_at=1.7e9 + number, launched_at=1.7e9 + number, deleted_at=None))
    cluster.close()


def completing(*words: str) -> dict[str, str]:
    """The environment in which bash asks `novactl` to complete the last of `words`."""
    return {"_NOVACTL_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(("novactl", *words)), "COMP_CWORD": str(len(words))}


def _installed() -> str:
    """The `novactl` that pip installed beside this Python, as a user starts it."""
    found = Path(sys.executable).with_name("novactl")
    if not found.exists():
        raise FileNotFoundError(f"{found} is missing: pip install . first")
    return str(found)


@contextmanager
def _world() -> Iterator[tuple[str, dict[str, str]]]:
    """A folder with the one-command program, and an environment whose cluster has a thousand servers."""
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        fill(data_dir, SERVERS)
        (Path(folder) / "one.py").write_text(ONE_COMMAND)
        env = {name: value for name, value in os.environ.items() if not name.startswith(("NOVACTL", "PYTHON", "_NOVACTL"))}
        yield folder, {**env, "NOVACTL_DATA_DIR": str(data_dir), "HOME": folder}


def _measured(name: str, ours: list[str], theirs: list[str], against: str, limit: float, plus: float = 0.0) -> Figure:
    with _world() as (folder, env):
        theirs = [word.replace("{folder}", folder) for word in theirs]
        _works(name, ours, env)
        mine, reference = (statistics.median(times) * 1000 for times in times_s([ours, theirs], runs=RUNS, env=env))
    return over(name, mine, "ms", against=against, reference=reference, limit=limit, plus=plus)


def _works(name: str, command: list[str], env: dict[str, str]) -> None:
    """A fast command that prints nothing would be a poor result."""
    lines = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.splitlines()
    if name in ("startup.server_list", "startup.completion") and len(lines) < SHOWN:
        raise RuntimeError(f"{command} printed {len(lines)} lines")


_IMPORT = [sys.executable, "-c", "import typer"]


@bench("startup.version")
def version() -> Figure:
    return _measured("startup.version", [_installed(), "--version"], _IMPORT, "python -c 'import typer'", 0.6)


@bench("startup.help")
def help_page() -> Figure:
    theirs = [sys.executable, "{folder}/one.py", "--help"]
    return _measured("startup.help", [_installed(), "--help"], theirs, "a one-command typer program's --help", 1.3)


@bench("startup.server_list")
def server_list() -> Figure:
    ours = [_installed(), "server", "list", "--limit", str(SHOWN)]
    return _measured("startup.server_list", ours, _IMPORT, "python -c 'import typer', plus 20 ms", 1.3, 20.0)


@bench("startup.completion")
def completion() -> Figure:
    asked = [f"{name}={value}" for name, value in completing("server", "show", "web-00").items()]
    ours = ["env", *asked, _installed()]
    return _measured("startup.completion", ours, _IMPORT, "python -c 'import typer', plus 20 ms", 1.3, 20.0)
