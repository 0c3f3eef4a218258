"""Standard streams that are closed, full, or whose reader has gone: the act and its exit status are what they would have been."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from novactl.errors import ExitStatus
from tests.unit.cli_world import Prompt, World
from tests.world import small_world

NOVACTL = f"{sys.executable} -m novactl"
CREATE = "server create {} --flavor small --image guest"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> World:
    """For tests that only read."""
    return World(tmp_path_factory.mktemp("shared") / "data", servers=3)


@pytest.fixture(scope="module")
def living(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prompt]:
    """A cluster whose agents answer."""
    with small_world(tmp_path_factory.mktemp("living")) as world:
        yield Prompt(world.env)


def shell(prompt: Prompt, line: str) -> tuple[int, str, str]:
    """`novactl LINE` in a shell, which makes its redirections; PIPESTATUS of the first command, and what came out."""
    script = f"novactl() {{ {NOVACTL} \"$@\"; }}; novactl {line}; exit ${{PIPESTATUS[0]}}"
    ran = subprocess.run(
        ["bash", "-c", script], env={**os.environ, **prompt.env}, capture_output=True, text=True, timeout=120, check=False)
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.parametrize("closing", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams_are_as_dev_null(shared: World, closing: str) -> None:
    """A read with streams closed succeeds, and what fails fails with its own status; nothing else is said."""
    status, _, said = shell(shared, f"server list {closing}")
    assert (status, said) == (0, "")
    status, out, said = shell(shared, f"server show nobody {closing}")
    assert status == ExitStatus.NOT_FOUND and not out and "Traceback" not in said
    assert shell(shared, f"--version {closing}")[0] == 0


def test_a_full_disk_is_told(shared: World) -> None:
    """Output that cannot be written is an error with its reason and exit 1, not a crash; an act that failed keeps its status."""
    for line in ("server list", "server list -o csv", "--help", "server --help", "version", "--version", "help names", "completion bash"):
        status, _, said = shell(shared, f"{line} >/dev/full")
        assert status == ExitStatus.FAILED, line
        assert said.startswith("error[output]: cannot write the output: No space left on device\n"), line
        assert "Exception ignored" not in said, line
    assert shell(shared, "server show nobody >/dev/full 2>&1")[0] == ExitStatus.NOT_FOUND
    assert shell(shared, "doctor >/dev/full")[0] == ExitStatus.FAILED
    assert not (shared.data_dir / "logs").exists()


def test_a_reader_that_leaves_changes_no_status(shared: World) -> None:
    """Where the reader has gone, what succeeded is 0 and what failed is what it was."""
    for line, status in (("server list", 0), ("--help", 0), ("server show nobody", ExitStatus.NOT_FOUND)):
        assert shell(shared, f"{line} 2>&1 | true") == (status, "", ""), line


@pytest.mark.parametrize(("name", "redirection"), [
    ("full-err", "2>/dev/full"), ("full", ">/dev/full 2>&1"), ("closed", "<&- >&- 2>&-"), ("gone", "2>&1 | true"),
    ("first", "2>&1 | head -c 1"),
])
def test_progress_that_cannot_be_written_stops_nothing(living: Prompt, name: str, redirection: str) -> None:
    """A server is created, and deleted, whatever becomes of the progress; exit 0, or 1 where the result's disk is full."""
    status, _, _ = shell(living, f"{CREATE.format(name)} {redirection}")
    assert status == (1 if redirection.startswith(">/dev/full") else 0)
    assert living.run("server", "show", name, "-o", "json").json["status"] == "ACTIVE"
    assert shell(living, f"server delete {name} --yes {redirection}")[0] == status
    assert living.run("server", "show", name).status == ExitStatus.NOT_FOUND


def test_a_creation_that_fails_says_so_in_its_status(living: Prompt) -> None:
    """What could not be created is never exit 0, though nobody reads why."""
    for redirection in ("2>&1 | true", "2>/dev/full", ">&- 2>&-"):
        assert shell(living, f"{CREATE.format('web')} --node nobody {redirection}")[0] == ExitStatus.NOT_FOUND


def test_a_closed_input_is_an_empty_one(living: Prompt) -> None:
    """User data from a standard input that is closed is empty."""
    assert shell(living, f"{CREATE.format('data')} --user-data - <&-")[0] == 0
    assert living.run("server", "show", "data", "-o", "json").json["user_data"] == ""


def test_a_batch_goes_on_when_nobody_reads_it(shared: World, tmp_path: Path) -> None:
    """The lines of a batch are run to the last, read or not, and decide its status."""
    lines = tmp_path / "lines"
    lines.write_text("flavor create a --ram 64\nflavor create b --ram 64\nflavor show nobody\n")
    assert shell(shared, f"batch {lines} | true")[0] == ExitStatus.PARTIAL
    assert shared.run("flavor", "list", "-o", "name").out.split() == ["a", "b"]


def test_following_ends_when_its_reader_has_gone(living: Prompt) -> None:
    """`events --follow | head` ends with head, not at the next event, which may be tomorrow's."""
    living.run("flavor", "create", "followed", "--ram", "64")
    status, out, said = shell(living, "events --follow --event flavor.create -o json | head -n 1")
    assert (status, said) == (0, "") and out.count("\n") == 1


def test_following_a_log_ends_when_its_reader_has_gone(living: Prompt) -> None:
    """Likewise `server console-log --follow`, though the guest writes nothing more."""
    living.run(*CREATE.format("quiet").split())
    status, out, said = shell(living, "server console-log quiet --follow | head -c 1")
    assert (status, len(out), said) == (0, 1, "")


def test_a_log_nobody_reads_ends(living: Prompt) -> None:
    """`server console-log | true` ends with 0."""
    living.run(*CREATE.format("log").split())
    assert shell(living, "server console-log log | true") == (0, "", "")
