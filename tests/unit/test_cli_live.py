"""The whole way from a command line to agents that answer: what each verb asks for, and what comes back."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from novactl.errors import ExitStatus
from tests.unit.cli_world import Prompt
from tests.world import small_world

WANTED = ("--flavor", "small", "--image", "guest")


@pytest.fixture
def prompt(tmp_path: Path) -> Iterator[Prompt]:
    with small_world(tmp_path) as world:
        yield Prompt(world.env)


def test_a_server_is_created_shown_stopped_started_and_deleted(prompt: Prompt) -> None:
    """The life of a server, each verb's JSON in the shape that is promised, progress on stderr only."""
    made = prompt.run("server", "create", "web1", *WANTED, "-o", "json")
    assert made.status == 0 and made.json["schema_version"] == 1
    (server,), (operation,) = made.json["items"], made.json["operations"]
    assert (server["name"], server["status"]) == ("web1", "ACTIVE")
    assert made.err == ""
    assert prompt.run("operation", "show", operation[:8], "-o", "json").json["steps"][0]["name"] == "place"
    assert prompt.run("server", "show", server["id"][:8], "-o", "json").json["name"] == "web1"
    assert prompt.run("server", "stop", "web1", "--grace", "0", "-o", "json").json["status"] == "SHUTOFF"
    assert "web1: starting done" in prompt.run("server", "start", "web1").err
    assert prompt.run("server", "stop", "web1", "--grace", "0").out == "target\tok\tdetail\nweb1\ttrue\tSHUTOFF\n"
    assert prompt.run("server", "start", "web1", "-q").out == "target\tok\tdetail\nweb1\ttrue\tACTIVE\n"
    assert prompt.run("server", "reboot", "web1", "--hard", "-o", "name").out == "web1\n"
    gone = prompt.run("server", "delete", "web1", "--yes")
    assert [line.partition(" done")[0] for line in gone.err.splitlines()] == [
        "web1: reaching its node", "web1: powering off", "web1: removing the domain", "web1: deleting the disk"]
    assert "DELETED" in gone.out
    assert prompt.run("server", "list", "-o", "json").json == {"schema_version": 1, "items": []}
    said = [(event["event"], event["detail"]) for event in prompt.run("server", "events", "web1", "-o", "json").json["items"]]
    assert said[0] == ("server.create", "begun: flavor small, image guest") and said[-1] == ("server.delete", "ok")


def test_several_at_once(prompt: Prompt) -> None:
    """--count makes NAME-1 and on; several targets of one verb have an outcome each; all claims are listed."""
    made = prompt.run("server", "create", "web", "--count", "3", *WANTED, "-q")
    assert [line.split("\t")[0] for line in made.out.splitlines()] == ["name", "web-1", "web-2", "web-3"] and made.err == ""
    assert {claim["consumer"] for claim in prompt.run("placement", "list", "-o", "json").json["items"]} == {"web-1", "web-2", "web-3"}
    ran = prompt.run("server", "delete", "web-1", "nobody", "web-2", "--yes", "-o", "json")
    assert ran.status == ExitStatus.PARTIAL
    assert [item["ok"] for item in ran.json["items"]] == [True, False, True]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_what_is_interrupted_goes_on_in_the_background(tmp_path: Path, sent: signal.Signals) -> None:
    """Ctrl-C, being asked to end and a closed terminal: the command ends at once with 130, all that it began is made all the same,
    and the command it names comes back to that."""
    with small_world(tmp_path, count=1) as world:
        driver, left, begun = world.agents["n1"].driver, threading.Event(), list[str]()
        start = driver.start_domain

        def held(server: str) -> None:
            begun.append(server)
            if len(begun) > 2:
                left.wait(60)
            start(server)

        driver.start_domain = held
        novactl, env = [sys.executable, "-m", "novactl"], {**os.environ, **world.env, "NOVACTL_OPERATION_PARALLEL": "2"}
        creating = subprocess.Popen(
            [*novactl, "server", "create", "web", "--count", "6", *WANTED], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True)
        while "starting done" not in (line := creating.stderr.readline()):
            assert line, creating.wait(60)
        creating.send_signal(sent)
        said = creating.communicate(timeout=60)[1]
        left.set()
        assert creating.returncode == ExitStatus.INTERRUPTED and "go on in the background" in said
        (command,) = [line.removeprefix("try: novactl ") for line in said.splitlines() if line.startswith("try: ")]
        assert command.startswith("operation watch ")
        followed = Prompt(world.env).run(*command.split())
        assert followed.status == 0 and ": starting done" in followed.err, followed.err
        listed = Prompt(world.env).run("server", "list", "--no-headers", "-c", "status")
        assert listed.out.split() == ["ACTIVE"] * 6 and listed.err == ""


def test_a_server_that_fits_nowhere(prompt: Prompt) -> None:
    """Exit 5 with one reason a node, from create, from --dry-run and from placement explain alike."""
    prompt.run("flavor", "create", "huge", "--ram", "900G")
    huge = ("--flavor", "huge", "--image", "guest")
    for words in (("server", "create", "big", *huge), ("server", "create", "big", *huge, "--dry-run")):
        ran = prompt.run(*words)
        assert ran.status == ExitStatus.NO_VALID_HOST and "  n1: memory" in ran.err and "  n2: memory" in ran.err and not ran.out
    told = prompt.run("placement", "explain", *huge, "-o", "json")
    assert told.status == ExitStatus.NO_VALID_HOST
    assert [row["verdict"] for row in told.json["rows"]] == ["rejected", "rejected"]
    assert prompt.run("server", "list", "-o", "name").out == ""


def test_a_dry_run_names_the_node_and_makes_nothing(prompt: Prompt) -> None:
    """--dry-run places the server as the real run would and leaves no row behind."""
    tried = prompt.run("server", "create", "web1", *WANTED, "--node", "n2", "--dry-run", "-o", "json")
    assert tried.json["items"][0]["node_name"] == "n2" and tried.json["operations"] == []
    assert prompt.run("server", "list", "-o", "name").out == prompt.run("operation", "list", "--all", "-o", "name").out == ""


def test_why_and_explain_agree(prompt: Prompt) -> None:
    """`server why` tells the decision that placed it: the chosen node is where it is."""
    prompt.run("server", "create", "web1", *WANTED)
    server = prompt.run("server", "show", "web1", "-o", "json").json
    rows = prompt.run("server", "why", "web1", "-o", "json").json["rows"]
    assert [row["node"] for row in rows if row["verdict"] == "chosen"] == [server["node_name"]]
    assert prompt.run("server", "why", "web1").status == prompt.run("placement", "explain", *WANTED).status == 0


def test_nodes_are_listed_disabled_and_enabled(prompt: Prompt) -> None:
    """A disabled node shows its state and its reason, takes no server, and takes them again when enabled."""
    assert {node["status"] for node in prompt.run("node", "list", "-o", "json").json["items"]} == {"up"}
    assert prompt.run("node", "disable", "n1", "--reason", "new kernel").status == 0
    assert prompt.run("node", "show", "n1", "-o", "json").json["reason"] == "new kernel"
    refused = prompt.run("server", "create", "web1", *WANTED, "--node", "n1")
    assert refused.status == ExitStatus.NO_VALID_HOST and "new kernel" in refused.err
    assert prompt.run("node", "enable", "n1").status == 0
    assert prompt.run("server", "create", "web1", *WANTED, "--node", "n1").status == 0


def test_a_batch_of_a_life(prompt: Prompt) -> None:
    """A batch runs mutating verbs and reads in one process, over one connection a node."""
    lines = (f"server create web1 {' '.join(WANTED)}", "server list", "server console-log web1", "server delete web1")
    ran = prompt.run("batch", "--yes", stdin="\n".join(lines) + "\n")
    assert ran.status == 0, ran.out
    created, listed, log, deleted = (line["result"] for line in ran.lines)
    assert created["items"][0]["name"] == listed["items"][0]["name"] == deleted["name"] == "web1"
    assert "web1" in log["text"]


def test_a_server_that_does_not_run_has_no_console(prompt: Prompt) -> None:
    """`server console` of a server that is off is a conflict that names the way out."""
    prompt.run("server", "create", "web1", *WANTED)
    prompt.run("server", "stop", "web1", "--grace", "0")
    ran = prompt.run("server", "console", "web1")
    assert ran.status == ExitStatus.CONFLICT and "novactl server start web1" in ran.err


def test_init_and_doctor(prompt: Prompt, tmp_path: Path) -> None:
    """`init` makes a cluster once and then changes nothing; `doctor` finds a healthy one healthy, and a missing one not."""
    fresh = Prompt({"NOVACTL_DATA_DIR": str(tmp_path / "fresh"), "HOME": str(tmp_path)})
    assert fresh.run("doctor").status == ExitStatus.FAILED
    first, second = fresh.run("init", "-o", "json").json, fresh.run("init", "-o", "json").json
    assert (first["created"], second["created"]) == (True, False)
    assert first["cluster_id"] == second["cluster_id"] and first["admin_key"] == second["admin_key"]
    assert all(item["verdict"] == "ok" for item in prompt.run("doctor", "-o", "json").json["items"])


def test_doctor_finds_what_others_can_read_or_write(prompt: Prompt) -> None:
    """The data directory and the database file: who writes them is an admin. The command that mends each is said, and does."""
    folder = Path(prompt.env["NOVACTL_DATA_DIR"])
    folder.chmod(0o755)
    (folder / "novactl.db").chmod(0o666)
    ran = prompt.run("doctor", "-o", "json")
    found = [item for item in ran.json["items"] if item["check"] == "private files"]
    assert ran.status == ExitStatus.FAILED and [item["verdict"] for item in found] == ["warn", "fail"]
    assert "novactl.db can be written by others (mode 0666)" in found[1]["detail"]
    for item in found:
        subprocess.run(item["fix"].split(), check=True)
    assert prompt.run("doctor").status == 0


def test_doctor_finds_a_folder_in_which_others_could_replace_the_database(tmp_path: Path) -> None:
    """Where it is kept elsewhere than the keys; that others may look in there is no fault."""
    folder = tmp_path / "shared"
    folder.mkdir()
    url = f"sqlite:///{folder}/novactl.db"
    prompt = Prompt({"NOVACTL_DATA_DIR": str(tmp_path / "data"), "HOME": str(tmp_path), "NOVACTL_DATABASE_URL": url})
    assert prompt.run("init").status == 0
    for mode, status in ((0o755, ExitStatus.OK), (0o777, ExitStatus.FAILED)):
        folder.chmod(mode)
        ran = prompt.run("doctor", "-o", "json")
        found = [item for item in ran.json["items"] if item["check"] == "private files"]
        assert ran.status == status and [item["fix"] for item in found] == [f"chmod go-w {folder}"] * (mode == 0o777)


def test_several_targets_are_acted_on_side_by_side(tmp_path: Path) -> None:
    """Four servers to start: each start waits for the other three, so they run at once or not at all; outcomes stay in order."""
    with small_world(tmp_path, count=1) as world:
        prompt = Prompt(world.env)
        assert prompt.run("server", "create", "w", "--count", "4", *WANTED, "-q").status == 0
        names = [f"w-{number}" for number in range(1, 5)]
        assert prompt.run("server", "stop", *names, "--grace", "0", "--yes", "-q").status == 0
        together, driver = threading.Barrier(4, timeout=60), world.agents["n1"].driver
        start = driver.start_domain

        def waiting(server: str) -> None:
            together.wait()
            start(server)

        driver.start_domain = waiting
        told = prompt.run("server", "start", *names, "-q", "-o", "json")
        assert [(item["target"], item["ok"]) for item in told.json["items"]] == [(name, True) for name in names]
