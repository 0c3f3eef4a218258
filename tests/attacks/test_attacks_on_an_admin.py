"""What was done to others' controllers, tried on ours. Which attack each test stands for: nodeagent/SECURITY.md."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from novactl.agents import keys
from novactl.api import servers as api
from tests.unit.cli_world import Prompt
from tests.world import World, small_world

ROOT = Path(__file__).parents[2]
CANARY = "canary7fd1c0ffee"
USER_DATA = f"#cloud-config\npassword: {CANARY}\n"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with small_world(tmp_path, count=2) as made:
        yield made


def start(world: World, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "novactl", *words], cwd=ROOT, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, **world.env, "NOVACTL_NO_INPUT": "1", "TERM": "dumb"})


def command_lines() -> str:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(found)


def test_cve_2014_7230_a_secret_is_told_nowhere(world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A password in the user data, and the admin's and the agents' secrets, are in no output of any command, debug and JSON included,
    no command line of any process, no log, no error and no row of the database but the one the user data is for."""
    secrets = [CANARY, keys.load(world.config.data_dir / "keys").secret]
    given = tmp_path / "user-data"
    given.write_text(USER_DATA)
    said, seen, stop = [], [], threading.Event()
    watcher = threading.Thread(target=lambda: [seen.append(command_lines()) for _ in iter(stop.is_set, True)])
    watcher.start()
    for words in (
        ("server", "create", "web1", "--flavor", "small", "--image", "guest", "--user-data", str(given)),
        ("server", "show", "web1", "-o", "json"), ("server", "show", "web1", "-o", "yaml"), ("server", "list", "-o", "wide"),
        ("--debug", "server", "create", "web1", "--flavor", "small", "--image", "guest", "--user-data", str(given)),
        ("--debug", "server", "create", "web2", "--flavor", "none", "--image", "guest", "--user-data", str(given)),
        ("operation", "list", "-o", "json"), ("node", "list", "-o", "json"), ("node", "check", "n1"), ("server", "why", "web1"),
        ("--debug", "server", "delete", "--yes", "web1"), ("operation", "list", "--all", "-o", "json"), ("config", "show"),
    ):
        done = start(world, *words)
        said += done.communicate(timeout=60)
    stop.set()
    watcher.join()
    captured = capfd.readouterr()
    logs = [path.read_text(errors="replace") for path in tmp_path.rglob("*.log")]
    for secret in secrets:
        assert not [text for text in (*said, *seen, *logs, captured.out, captured.err) if secret in text]
    with contextlib.closing(sqlite3.connect(world.config.data_dir / "novactl.db")) as database:
        dump = "\n".join(database.iterdump())
    assert "CREATE TABLE" in dump and secrets[1] not in dump
    assert {row.split()[2] for row in re.findall(rf'INSERT INTO [^;]*?{CANARY}', dump)} <= {'"server"', "server"}


@pytest.mark.parametrize("words", [("server", "list"), ("--debug", "server", "list"), ("server", "list", "-o", "json"), ("config", "show"),
                                   ("config", "list", "-o", "json")])
def test_cve_2014_7231_the_databases_password_is_not_told(tmp_path: Path, words: tuple[str, ...]) -> None:
    """A database that cannot be reached, or is shown as a setting, is named without its password."""
    ran = Prompt({
        "HOME": str(tmp_path), "NOVACTL_DATA_DIR": str(tmp_path / "data"),
        "NOVACTL_DATABASE_URL": f"postgresql://nova:{CANARY}@127.0.0.1:9/nova"}).run(*words)
    assert CANARY not in ran.out + ran.err
    assert words[-2:-1] == ("config",) or "config" in words or ran.status != 0


def test_cve_2015_7945_what_an_operation_tells_holds_no_secret(world: World) -> None:
    """The record of an operation that failed, as every reader may list it, holds nothing of the user data."""
    with pytest.raises(Exception, match="none|flavor"):
        api.create(world.cluster, api.CreateServer(name="web", flavor="none", image="guest", user_data=USER_DATA))
    api.create(world.cluster, api.CreateServer(name="web", flavor="small", image="guest", user_data=USER_DATA))
    shown = start(world, "operation", "list", "-o", "json", "--all").communicate(timeout=60)
    assert "server.create" in shown[0] and CANARY not in "".join(shown)


def test_cve_2014_5247_a_controllers_files_under_umask_0(tmp_path: Path) -> None:
    """With umask 0 everything `init` and a create leave in the data directory is for its owner only: database, journal, keys, images."""
    before = os.umask(0)
    try:
        with small_world(tmp_path / "w") as world:
            api.create(world.cluster, api.CreateServer(name="web", flavor="small", image="guest", user_data=USER_DATA))
            data = world.config.data_dir
            assert stat.S_IMODE(data.stat().st_mode) == 0o700
            for path in data.rglob("*"):
                mode = stat.S_IMODE(path.stat().st_mode)
                inside = path.parent != data and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
                assert mode & 0o077 == 0 or inside, f"{path.relative_to(data)} has mode {mode:o}"
    finally:
        os.umask(before)


def test_cve_2022_24302_a_key_is_private_from_its_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret's file is made with mode 0600, exclusively, rather than made and then changed: under any umask, nobody could open it."""
    opened, real = [], os.open

    def watched(path: str, flags: int, mode: int = 0o777, **more: int) -> int:
        opened.append((Path(os.fsdecode(path)).name, flags, mode))
        return real(path, flags, mode, **more)

    monkeypatch.setattr(os, "open", watched)
    before = os.umask(0)
    try:
        keys.ensure(tmp_path / "keys")
    finally:
        os.umask(before)
    made = [(flags, mode) for name, flags, mode in opened if "secret" in name and flags & os.O_CREAT]
    assert made and all(flags & os.O_EXCL and mode == 0o600 for flags, mode in made)
    assert stat.S_IMODE((tmp_path / "keys" / "admin.secret").stat().st_mode) == 0o600


@pytest.mark.parametrize(("package", "floor"), [("paramiko", (3, 4))])
def test_cve_2023_48795_paramiko_is_new_enough(package: str, floor: tuple[int, ...]) -> None:
    """Terrapin is answered from paramiko 3.4 on: that is what we require, and what is here."""
    required = re.search(rf'"{package}>=(\d+)\.(\d+)', (ROOT / "pyproject.toml").read_text())
    assert required and (int(required[1]), int(required[2])) >= floor
    assert tuple(map(int, metadata.version(package).split(".")[:2])) >= floor


@pytest.mark.parametrize("pattern", ["%", "____", "%%%%", "w%", "web_", "*", "????", "' OR 1=1 --", "web1' --", "\\"])
def test_ghsa_p3x5_mvmp_5f35_a_pattern_names_nothing(world: World, pattern: str) -> None:
    """What databases take for a pattern, or for SQL, is a name like others: it finds nothing, and deletes nothing."""
    api.create(world.cluster, api.CreateServer(name="web1", flavor="small", image="guest"))
    prompt = Prompt(world.env)
    assert prompt.run("server", "show", "--", pattern).status == 3
    assert prompt.run("server", "delete", "--yes", "--", pattern).status in (0, 3)
    assert prompt.run("server", "list", "-o", "name").out.split() == ["web1"]


@pytest.mark.parametrize("count", [3, 1000])
def test_cve_2013_2256_a_quota_holds_for_many_at_once(world: World, count: int) -> None:
    """More servers than the project may have, asked for in one command: refused as a whole, and nothing is left of it."""
    prompt = Prompt(world.env)
    assert prompt.run("quota", "set", "default", "servers=2").status == 0
    refused = prompt.run("server", "create", "web", "--flavor", "small", "--image", "guest", "--count", str(count))
    assert refused.status not in (0, 70) and prompt.run("server", "list", "-o", "name").out == ""
    assert world.leftovers() == []
