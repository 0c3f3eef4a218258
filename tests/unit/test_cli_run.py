"""Command lines against a cluster on disk: results, errors, exit statuses, confirmation, batch."""

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from novactl.cli import run
from novactl.cli.session import Session
from novactl.errors import EXIT_STATUS_HELP, ExitStatus
from novactl.model.operation import Operation, OperationState
from tests.unit.cli_world import Prompt, Ran, World


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> World:
    """For tests that only read."""
    return World(tmp_path_factory.mktemp("shared") / "data", servers=30)


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path / "data")
    for name in ("tiny", "small"):
        assert made.run("flavor", "create", name, "--ram", "192").status == 0
    return made


# ------------------------------------------------------------------------------------------------ results

def test_a_piped_list_is_tab_separated_with_its_columns_named(shared: World) -> None:
    """In a pipe a list is one line a row, tab-separated, below the columns' names."""
    lines = [line.split("\t") for line in shared.run("server", "list", "--limit", "2").out.splitlines()]
    assert lines[0] == ["name", "id", "status", "node", "addresses", "flavor", "image", "created_at"]
    assert [line[0] for line in lines[1:]] == ["web-0029", "web-0028"]


def test_columns_headers_and_sort_can_be_chosen(shared: World) -> None:
    """-c, --no-headers and --sort decide what a list shows, and in which order."""
    ran = shared.run("server", "list", "-c", "node,name", "--no-headers", "--sort", "node,-name")
    rows = [line.split("\t") for line in ran.out.splitlines()]
    assert rows[0] == ["n0", "web-0028"] and rows[-1] == ["n1", "web-0001"] and len(rows) == 30
    assert "id" not in shared.run("server", "list", "-c", "-id,-created_at").out.splitlines()[0].split("\t")
    assert shared.run("server", "list", "-o", "table", "-c", "+id").out.splitlines()[0].split()[-1] == "ID"


def test_names_alone(shared: World) -> None:
    """-o name prints names, one a line, and nothing else."""
    assert shared.run("server", "list", "--limit", "2", "-o", "name").out == "web-0029\nweb-0028\n"


def test_a_created_record_is_printed_as_json_fields(world: World) -> None:
    """What a create verb prints with -o json is the record that show prints."""
    made = world.run("flavor", "create", "big", "--ram", "4G", "--disk", "10", "--vcpus", "2", "-o", "json").json
    assert (made["schema_version"], made["memory_mb"], made["disk_gb"], made["vcpus"]) == (1, 4096, 10, 2)
    assert world.run("flavor", "show", "big", "-o", "json").json == made


def test_a_dry_run_changes_nothing(world: World) -> None:
    """--dry-run answers as the real run would, and leaves the cluster as it was."""
    before = world.run("flavor", "list", "-o", "json").json
    assert world.run("flavor", "create", "big", "--ram", "4G", "--dry-run", "-o", "json").json["name"] == "big"
    assert world.run("flavor", "delete", "tiny", "--dry-run").status == 0
    assert world.run("flavor", "list", "-o", "json").json == before


def test_the_environment_chooses_the_format(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """NOVACTL_OUTPUT is the default of -o."""
    monkeypatch.setenv("NOVACTL_OUTPUT", "name")
    assert world.run("flavor", "list").out.split() == ["small", "tiny"]


# ------------------------------------------------------------------------------------------------ errors

@pytest.mark.parametrize(("line", "status", "code"), [
    ("server show nobody", ExitStatus.NOT_FOUND, "not_found"),
    ("flavor create tiny --ram 64", ExitStatus.CONFLICT, "exists"),
    ("flavor create bad/name --ram 64", ExitStatus.USAGE, "usage"),
    ("flavor create f --ram 64 -o nonsense", ExitStatus.USAGE, "usage"),
    ("server create s --flavor tiny --image none", ExitStatus.NOT_FOUND, "not_found"),
    ("--config /nonexistent server list", ExitStatus.USAGE, "config"),
    ("server no-such-verb", ExitStatus.USAGE, "usage"),
    ("help no-such-topic", ExitStatus.NOT_FOUND, "not_found"),
])
def test_errors_have_their_status_and_their_code(world: World, line: str, status: ExitStatus, code: str) -> None:
    """A failed command says error[code] on stderr, nothing on stdout, and exits with the code's status."""
    ran = world.run(*line.split())
    assert ran.status == status
    assert ran.err.startswith(f"error[{code}]: ") and not ran.out


def test_errors_are_json_where_json_is_asked_for(world: World) -> None:
    """With -o json the error is one JSON object on stderr, also when the command line does not parse."""
    for words in (["flavor", "show", "nobody", "-o", "json"], ["flavor", "shw", "--output=json"], ["flavor", "show", "-ojson"]):
        ran = world.run(*words)
        said = json.loads(ran.err)
        assert said["schema_version"] == 1 and said["error"]["exit_status"] == ran.status and not ran.out


def test_without_a_cluster_the_way_to_one_is_named(tmp_path: Path) -> None:
    """Before `novactl init` every command says that there is no cluster and how to make one."""
    ran = Prompt({"NOVACTL_DATA_DIR": str(tmp_path / "none"), "HOME": str(tmp_path)}).run("server", "list")
    assert ran.status == ExitStatus.NOT_FOUND and "try: novactl init" in ran.err
    assert not (tmp_path / "none").exists()


def test_exit_codes_are_all_documented(world: World) -> None:
    """`help exit-codes` lists every exit status there is."""
    text = world.run("help", "exit-codes").out
    assert all(f"{int(status)}  {status.name.lower()}" in text for status in ExitStatus)
    assert set(EXIT_STATUS_HELP) == set(ExitStatus)


def test_settings_are_all_documented(world: World) -> None:
    """`help configuration` lists every setting there is."""
    from novactl.config import SETTINGS

    text = world.run("help", "configuration").out
    assert all(setting.name in text for setting in SETTINGS)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> type[Exception]:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the unexpected")

    monkeypatch.setattr("novactl.api.flavors.list_flavors", fail)
    return RuntimeError


def test_a_crash_leaves_a_log_and_names_it(world: World, broken: type[Exception]) -> None:
    """An unexpected exception is an error with a log file, private to its owner, and no traceback on the screen."""
    ran = world.run("flavor", "list")
    assert ran.status == ExitStatus.FAILED and "error[internal]" in ran.err and "Traceback" not in ran.err
    (log,) = (world.data_dir / "logs").iterdir()
    assert str(log) in ran.err
    assert "RuntimeError: the unexpected" in log.read_text() and stat.S_IMODE(log.stat().st_mode) == 0o600


def test_debug_prints_the_traceback(world: World, broken: type[Exception]) -> None:
    """With --debug, wherever it stands, the traceback is printed and no log is written."""
    assert "Traceback" in world.run("flavor", "list", "--debug").err
    assert "Traceback" in world.run("--debug", "flavor", "list").err
    assert not (world.data_dir / "logs").exists()


@pytest.fixture
def interrupted(world: World, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """`server create` interrupted when its operations have come to `states`; those in `silent` reported no progress yet."""
    def run(*states: str, silent: Sequence[int] = (), words: Sequence[str] = ()) -> Ran:
        def create(cluster: Any, wanted: object, *, watch: Any, **_: object) -> None:
            from novactl.conductor.progress import Progress
            from novactl.db import operations

            with cluster.db.write() as tx:
                for number, state in enumerate(states):
                    kind, ended_at = OperationState(state), 2.0 if OperationState(state).ended else None
                    operations.insert(tx, Operation(
                        id=f"{number:08d}-0000", kind="server.create", object_kind="server", object_id=f"s{number}",
                        object_name=f"web-{number}", state=kind, epoch=1, attempt=0, owner="me", lease_until=0.0, actor="me", record={},
                        error=None, created_at=float(number), ended_at=ended_at))
            cluster.driving.update(dict.fromkeys(f"{number:08d}-0000" for number in range(len(states))))
            for number in {*range(len(states))} - {*silent}:
                watch(Progress(f"{number:08d}-0000", f"web-{number}", "image", "running", 1, 2))
            raise KeyboardInterrupt

        monkeypatch.setattr("novactl.api.servers.create", create)
        monkeypatch.setattr("novactl.conductor.background.hand_over", lambda cluster, ids: handed.extend(ids))
        return world.run("server", "create", "web", "--flavor", "tiny", "--image", "i", *words)

    handed: list[str] = []

    return run


def test_an_interruption_names_the_operation(interrupted: Callable[..., Ran]) -> None:
    """Ctrl-C exits 130 and says which operation goes on, how to come back to it and how to turn it back."""
    ran = interrupted("running")
    assert ran.status == ExitStatus.INTERRUPTED
    assert "interrupted; operation 00000000 (server.create web-0) goes on in the background\n" in ran.err
    assert "novactl operation cancel 00000000\n" in ran.err and "try: novactl operation watch 00000000\n" in ran.err


def test_an_interruption_tells_what_is_done_and_what_is_left(interrupted: Callable[..., Ran]) -> None:
    """Of several operations the ended are counted and the open named, those too that had not reported anything yet."""
    ran = interrupted("ok", "running", "ok", "failed", "unwinding", "running", silent=[5])
    assert "error[interrupted]: interrupted; 2 ended ok, 1 failed; 3 operations go on in the background\n" in ran.err
    assert "  00000005 (server.create web-5)\n" in ran.err
    assert "try: novactl operation watch 00000001 00000004 00000005\n" in ran.err
    assert "turn them back with: novactl operation cancel 00000001 00000004 00000005\n" in ran.err


def test_an_interruption_that_leaves_nothing_names_nothing(interrupted: Callable[..., Ran]) -> None:
    """Where every operation has ended there is nothing to go on with."""
    assert interrupted("ok", "failed", words=["-q"]).err == "error[interrupted]: interrupted; 1 ended ok, 1 failed\n"


def test_ctrl_c_in_a_real_process_is_130(world: World) -> None:
    """A process that gets SIGINT while it reads its input ends with 130 and no traceback."""
    process = subprocess.Popen(
        [sys.executable, "-m", "novactl", "batch"], env={**os.environ, **world.env}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True)
    process.stdin.write("flavor list\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["exit_status"] == 0
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == ExitStatus.INTERRUPTED
    said = process.stderr.read()
    assert "error[interrupted]" in said and "Traceback" not in said


def test_a_reader_that_leaves_is_no_failure(shared: World) -> None:
    """`novactl server list | head` is quiet and exits 0."""
    ran = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m novactl server list | true; echo ${{PIPESTATUS[0]}}"],
        env={**os.environ, **shared.env}, capture_output=True, text=True, check=True)
    assert ran.stderr == "" and ran.stdout.strip() == "0"


# ------------------------------------------------------------------------------------------------ confirmation

def test_what_destroys_needs_yes_where_nobody_can_answer(shared: World) -> None:
    """Without a terminal a destructive verb exits 2 and names --yes; it has changed nothing."""
    for line in ("server delete web-0001", "node remove n0", "image delete i", "server stop web-0001 web-0002"):
        ran = shared.run(*line.split())
        assert ran.status == ExitStatus.USAGE and "--yes" in ran.err, line
    assert len(shared.run("server", "list", "--no-headers").out.splitlines()) == 30


@pytest.mark.parametrize("answer", ["\n", "n\n", "no\n", ""])
def test_the_default_answer_is_no(world: World, answer: str) -> None:
    """On a terminal anything but yes leaves everything as it is."""
    ran = world.run("flavor", "delete", "tiny", "small", stdin=answer, tty=True)
    assert ran.status == ExitStatus.USAGE and "delete 2 flavors (tiny, small)? [y/N]" in ran.err
    assert world.run("flavor", "list", "-o", "name").out.split() == ["small", "tiny"]


def test_yes_is_taken_from_the_person_the_flag_or_the_environment(world: World) -> None:
    """y on a terminal, --yes and NOVACTL_YES=1 each let the verb go on."""
    assert world.run("flavor", "delete", "tiny", "small", stdin="y\n", tty=True).status == 0
    for name in ("a", "b", "c", "d"):
        world.run("flavor", "create", name, "--ram", "64")
    assert world.run("flavor", "delete", "a", "b", "--yes").status == 0
    assert world.run("flavor", "delete", "c", "d", NOVACTL_YES="1").status == 0
    assert world.run("flavor", "list", "-o", "name").out == ""


def test_no_input_means_no_question(world: World) -> None:
    """NOVACTL_NO_INPUT=1 makes a terminal one where nobody can answer."""
    assert world.run("flavor", "delete", "tiny", "small", stdin="y\n", tty=True, NOVACTL_NO_INPUT="1").status == ExitStatus.USAGE


def test_a_lost_node_is_removed_only_by_its_name(shared: World) -> None:
    """`node remove --lost` on a terminal wants the node's name typed, not a y."""
    ran = shared.run("node", "remove", "n0", "--lost", stdin="y\n", tty=True)
    assert ran.status == ExitStatus.USAGE and "Type n0" in ran.err


# ------------------------------------------------------------------------------------------------ several targets

def test_several_targets_go_on_after_a_failure(world: World) -> None:
    """One line a target, the count at the end, exit 7 when some failed, the shared status when all did."""
    ran = world.run("flavor", "delete", "tiny", "nobody", "small", "--yes", "-o", "json")
    assert ran.status == ExitStatus.PARTIAL
    assert [(item["target"], item["ok"]) for item in ran.json["items"]] == [("tiny", True), ("nobody", False), ("small", True)]
    assert ran.json["items"][1]["error"]["code"] == "not_found"
    assert ran.err == ""
    for name in ("a", "b"):
        world.run("flavor", "create", name, "--ram", "64")
    ran = world.run("flavor", "delete", "a", "nobody", "b", "--yes")
    assert "error[not_found]: no flavor 'nobody'" in ran.err and "2 ok, 1 failed" in ran.err
    assert world.run("flavor", "delete", "x", "y", "--yes").status == ExitStatus.NOT_FOUND


def test_the_same_target_twice_is_done_once(world: World) -> None:
    """A name given twice is one target."""
    assert world.run("flavor", "delete", "tiny", "tiny").status == 0


# ------------------------------------------------------------------------------------------------ batch

def test_a_batch_prints_one_result_a_line(world: World) -> None:
    """Each line's result is what the command prints with -o json; blank lines and comments are skipped, quotes understood."""
    ran = world.run("batch", stdin='flavor create a --ram 64\n\n# comment\nflavor show "a"\nflavor show nobody\nserver "\n')
    assert ran.status == ExitStatus.PARTIAL
    assert [(line["line"], line["exit_status"]) for line in ran.lines] == [(1, 0), (4, 0), (5, 3), (6, 2)]
    assert ran.lines[1]["result"] == world.run("flavor", "show", "a", "-o", "json").json
    assert ran.lines[1]["error"] is None and ran.lines[2]["result"] is None
    assert set(ran.lines[2]) == {"line", "command", "exit_status", "result", "error"}
    assert ran.lines[2]["error"]["code"] == "not_found"


def test_a_batch_exits_0_or_1_when_all_agree(world: World) -> None:
    """All lines well: 0. All failed: 1. Nothing to do: 0."""
    assert world.run("batch", stdin="flavor list\n").status == 0
    assert world.run("batch", stdin="flavor show x\nflavor show y\n").status == 1
    assert world.run("batch", stdin="# nothing\n").status == 0


def test_a_batch_can_stop_at_the_first_error(world: World, tmp_path: Path) -> None:
    """--stop-on-error runs nothing after the first line that failed; a file is read like standard input."""
    (tmp_path / "lines").write_text("flavor show tiny\nflavor show x\nflavor delete tiny\n")
    ran = world.run("batch", str(tmp_path / "lines"), "--stop-on-error")
    assert [line["exit_status"] for line in ran.lines] == [0, 3] and ran.status == ExitStatus.PARTIAL
    assert world.run("batch", str(tmp_path / "none")).status == ExitStatus.USAGE


def test_a_batch_asks_nobody(shared: World) -> None:
    """In a batch a destructive line needs --yes, on the line or on the batch; batches and consoles do not nest in it."""
    ran = shared.run("batch", stdin="node remove n0\nbatch\nserver console web-0001\n", tty=True)
    assert [line["exit_status"] for line in ran.lines] == [2, 2, 2]
    asked = shared.run("batch", "--yes", stdin="node remove nobody\n").lines[0]
    assert asked["error"]["code"] == "not_found"


def test_a_batch_survives_bytes_that_are_no_text(world: World, tmp_path: Path) -> None:
    """A line that is not UTF-8 is refused, spelled out; the lines around it are run, from a file as from standard input."""
    lines = tmp_path / "lines"
    lines.write_bytes(b"flavor list\nflavor show \xff\nflavor list\n")
    batch, env = [sys.executable, "-m", "novactl", "batch"], {**os.environ, **world.env}
    for words, stdin in (([str(lines)], subprocess.DEVNULL), (["-"], lines.open("rb"))):
        ran = subprocess.run([*batch, *words], env=env, stdin=stdin, stdout=subprocess.PIPE, check=False)
        results = [json.loads(line) for line in ran.stdout.decode().splitlines()]
        assert [result["exit_status"] for result in results] == [0, 2, 0]
        assert results[1]["command"] == "flavor show \\xff"


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_input_that_is_no_text_is_refused(world: World, locale: str) -> None:
    """User data and public keys that are not UTF-8 are usage errors, in any locale."""
    for words in ("server create s --flavor tiny --image i --user-data -", "keypair create k --public-key -"):
        ran = subprocess.run(
            [sys.executable, "-m", "novactl", *words.split()], env={**os.environ, **world.env, "LC_ALL": locale}, input=b"\xff",
            capture_output=True, check=False)
        assert ran.returncode == ExitStatus.USAGE and b"cannot read" in ran.stderr


def test_help_and_text_are_results_too(shared: World) -> None:
    """A command that prints text has it as its result's `text`."""
    (line,) = shared.run("batch", stdin="help exit-codes\n").lines
    assert "no_valid_host" in line["result"]["text"]


# ------------------------------------------------------------------------------------------------ streams

@pytest.mark.parametrize(("tty", "env", "coloured"), [
    (True, {}, True), (False, {}, False), (True, {"NO_COLOR": "1"}, False), (False, {"CLICOLOR_FORCE": "1"}, True),
    (True, {"TERM": "dumb"}, False), (False, {"NO_COLOR": "1", "CLICOLOR_FORCE": "1"}, False),
])
def test_colour(world: World, tty: bool, env: dict[str, str], coloured: bool) -> None:
    """Errors are coloured on a terminal unless NO_COLOR is set, elsewhere only with CLICOLOR_FORCE."""
    ran = world.run("flavor", "show", "nobody", tty=tty, **{"TERM": "xterm", **env})
    assert ("\x1b[" in ran.err) is coloured


def test_a_table_in_a_pipe_is_never_cut(world: World) -> None:
    """-o table in a pipe shows every letter of every cell."""
    name = "f" + "x" * 62
    world.run("flavor", "create", name, "--ram", "64")
    assert name in world.run("flavor", "list", "-o", "table").out
    assert name in world.run("flavor", "list", "-o", "grid").out


def test_ctrl_c_while_the_program_is_loaded(tmp_path: Path) -> None:
    """It ends by the signal, and says nothing; where the caller has Ctrl-C ignored it goes on."""
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nos._exit(7)\n")
    command = [sys.executable, "-m", "novactl", "server", "list"]
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}", "NOVACTL_DATA_DIR": str(tmp_path)}
    ran = subprocess.run(command, env=env, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (-signal.SIGINT, "", "")
    ran = subprocess.run(["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command], env=env, capture_output=True, text=True)
    assert ran.returncode == 7


def test_the_program_can_be_asked_for_its_version(world: World) -> None:
    """--version and -V print the version, whichever way they are reached."""
    from novactl import __version__

    ran = subprocess.run([sys.executable, "-m", "novactl", "-V"], capture_output=True, text=True, check=True)
    assert ran.stdout == world.run("--version").out == f"novactl {__version__}\n"
    assert world.run("version", "-o", "json").json["novactl"] == __version__


def test_errors_of_typer_are_known_by_their_class() -> None:
    """What Typer raises for a bad command line is recognised in every Typer this project allows."""
    import typer

    assert run._ClickError.__name__ == "ClickException"
    assert issubclass(typer.BadParameter, run._ClickError)


def test_with_json_nothing_but_errors_goes_to_stderr(world: World) -> None:
    """With -o json and no terminal stderr carries errors alone; JSON is recognised however the option is spelled."""
    for words in (["-o", "json"], ["-ojson"], ["--output=json"], ["--output", "json"]):
        assert Session(["flavor", "list", *words], {}).wants_json and not Session(["flavor", "list", *words], {}).chatty
    assert not Session(["flavor", "list", "-o", "name", "json"], {}).wants_json
    assert Session([], {"NOVACTL_OUTPUT": "json"}).wants_json
    assert world.run("flavor", "create", "f", "--ram", "64", "--dry-run", "-o", "json").err == ""
