"""The list of what has happened: who did what, when, why, with what result."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from novactl.api import events as api
from novactl.api import servers
from novactl.conductor.change import KINDS
from novactl.conductor.history import NOTES
from novactl.conductor.sagas import SAGAS
from novactl.db.events import Asked
from novactl.errors import NovaError, UsageError
from novactl.states import Event
from tests import databases
from tests.unit.cli_world import Prompt
from tests.world import World, small_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with small_world(tmp_path, count=1) as made:
        yield made


@pytest.fixture(params=databases.EACH)
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """The same on each kind of database."""
    with databases.cluster(request.param) as url, small_world(tmp_path, count=1, url=url) as made:
        yield made


def test_every_operation_begins_and_ends_as_an_event(anywhere: World) -> None:
    """With actor, reason and result, in the order in which it happened; what failed says why."""
    world = anywhere
    world.cluster.reason = "ticket 4711"
    wanted = servers.CreateServer(name="web", flavor="small", image="guest")
    servers.create(world.cluster, wanted)
    world.cluster.reason = ""
    world.agents["n1"].driver.start_domain = lambda server: 1 / 0
    with pytest.raises(NovaError):
        servers.create(world.cluster, servers.CreateServer(name="db", flavor="small", image="guest"))
    found = [event for event in api.list_events(world.cluster, Asked(), limit=100) if event.event != "init"]
    told = [(event.object_name, event.event, event.detail.partition(":")[0], event.reason) for event in found]
    assert told == [
        ("web", "server.create", "begun", "ticket 4711"), ("web", "built", "on n1", "ticket 4711"),
        ("web", "server.create", "ok", "ticket 4711"), ("db", "server.create", "begun", ""),
        ("db", "build_failed", found[4].detail.partition(":")[0], ""), ("db", "server.create", "failed", "")]
    assert "ZeroDivisionError" in found[-1].detail and {event.actor for event in found} == {"tester@world"}


def test_events_are_found_by_what_they_are(anywhere: World) -> None:
    """By server or node (also one that is gone), event, actor, age, and how many; a node's own history by its name."""
    world = anywhere
    prompt = Prompt(world.env)
    for line in ("node disable n1 --reason kernel", "node enable n1", "flavor create tiny --ram 1G"):
        assert prompt.run(*line.split()).status == 0

    def said(*words: str) -> list[str]:
        items = prompt.run("events", *words, "-o", "json").json["items"]
        return [f"{item['object_name']} {item['event']}" for item in items if item["event"] != "init"]

    assert said() == ["n1 node.disable", "n1 node.enable", "tiny flavor.create"]
    assert said("--node", "n1") == said("--limit", "3")[:2] and said("--actor", "nobody@nowhere") == []
    assert said("--event", "found_crashed") == said("--event", "server.create") == []
    assert [prompt.run("events", "--server", name).status for name in ("n1", "nosuch")] == [3, 3]
    misspelt = prompt.run("events", "--event", "node.enabel")
    assert misspelt.status == 2 and "did you mean node.enable" in misspelt.err
    assert prompt.run("events", "--event", "bogus", "--follow").status == 2
    assert said("--event", "node.enable") == ["n1 node.enable"] == said("--node", "n1", "--limit", "1")
    assert len(said("--since", "1h")) == 3 and said("--since", "0s") == []
    own = prompt.run("node", "events", "n1", "-o", "json").json["items"]
    assert [item["reason"] for item in own] == ["kernel", ""] and own[0]["operation_id"]
    assert prompt.run("node", "remove", "n1", "--lost", "--yes").status == 0
    assert [item["event"] for item in prompt.run("node", "events", "n1", "-o", "json").json["items"]][-1] == "node.remove"
    assert prompt.run("node", "events", "nobody").status == 3
    with pytest.raises(UsageError):
        api.asked(world.cluster, server="a", node="b")


def test_events_are_followed_as_they_happen(world: World) -> None:
    """`events --follow -o json` prints an object a line: what was, then what comes, until it is interrupted."""
    prompt = Prompt(world.env)
    prompt.run("flavor", "create", "before", "--ram", "1G")
    following = subprocess.Popen(
        [sys.executable, "-m", "novactl", "events", "--follow", "-o", "json"], env={**os.environ, **world.env}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True)
    assert following.stdout
    assert [json.loads(following.stdout.readline())["object_name"] for _ in range(2)] == ["cluster", "before"]
    prompt.run("flavor", "create", "after", "--ram", "1G", "--reason", "because")
    told = json.loads(following.stdout.readline())
    assert (told["object_name"], told["event"], told["detail"], told["reason"]) == ("after", "flavor.create", "ok", "because")
    following.send_signal(signal.SIGINT)
    assert following.wait(60) == 130
    assert prompt.run("batch", stdin="events --follow\n").lines[0]["exit_status"] == 2
    assert prompt.run("events", "--follow", "--sort", "event").status == 2


@pytest.mark.parametrize(("words", "line"), [
    ("-c event,object_name", "flavor.create\tbefore"), ("-o csv -c event,object_name", "flavor.create,before"), ("-o yaml", "- at: "),
])
def test_what_is_followed_is_printed_as_asked(world: World, words: str, line: str) -> None:
    """--columns and the format hold while following, too."""
    Prompt(world.env).run("flavor", "create", "before", "--ram", "1G")
    following = subprocess.Popen(
        [sys.executable, "-m", "novactl", "events", "--follow", "--event", "flavor.create", *words.split()],
        env={**os.environ, **world.env}, stdout=subprocess.PIPE, text=True)
    assert following.stdout and following.stdout.readline().startswith(line)
    following.send_signal(signal.SIGINT)
    assert following.wait(60) == 130


@pytest.mark.parametrize("kind", databases.SHARED)
def test_a_restart_of_the_database_ends_no_following(tmp_path: Path, kind: str) -> None:
    """What happens after the server has come back is told, and nothing is told twice."""
    with databases.server(kind) as server, small_world(tmp_path, count=1, url=server.create()) as world:
        told = api.follow(world.cluster, Asked(event="flavor.create"), limit=10)
        prompt = Prompt(world.env)
        prompt.run("flavor", "create", "before", "--ram", "1G")
        assert next(told).object_name == "before"
        server.kill()

        def come_back() -> None:
            server.start()
            prompt.run("flavor", "create", "after", "--ram", "1G")

        coming = threading.Timer(2.0, come_back)
        coming.start()
        assert next(told).object_name == "after"
        coming.join()


def test_every_name_of_an_event_is_known() -> None:
    """What the code notes in so many words is in the tables that `--event` is checked against."""
    at = {"note": 2, "note_of": 3, "note_on": 3, "note_cluster": 2, "_note": 2}
    found: set[str] = set()
    for file in Path(api.__file__).parents[1].rglob("*.py"):
        for call in [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]:
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            words = call.args[at[name]:at[name] + 1] if name in at else []
            words += [keyword.value for keyword in call.keywords if name == "EventRecord" and keyword.arg == "event"]
            found |= {part.value for word in words for part in (word, *ast.iter_child_nodes(word))
                      if isinstance(part, ast.Constant) and isinstance(part.value, str)}
    assert {"init", "booted", "drift", "silent"} <= found
    assert found - KINDS - set(SAGAS) - set(Event) <= NOTES


def test_an_event_is_one_word_in_a_narrow_terminal(world: World) -> None:
    """Words of a sentence are folded, names of events are not."""
    prompt = Prompt(world.env)
    name = "a-name-that-is-" + "rather-" * 5 + "long"
    prompt.run("aggregate", "create", name, "--reason", "because it was wanted by somebody, who does not say why it was")
    assert " aggregate.create " in prompt.run("events", tty=True, COLUMNS="80").out
