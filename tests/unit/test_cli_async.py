"""`--async` and `--timeout` of every command that drives something: what is printed, who goes on, what becomes of it."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from novactl.api import nodes as nodes_api
from novactl.api import operations, servers
from novactl.cli.root import NOUNS
from novactl.conductor.leader import Leadership
from novactl.conductor.recover import find
from novactl.conductor.sagas import SAGAS
from novactl.db import nodes
from novactl.errors import ExitStatus
from novactl.model.operation import OperationState
from tests.sagas.scenarios import LEGACY, SCENARIOS
from tests.unit.cli_world import Prompt
from tests.world import World, small_world

FLAGS = ("--flavor", "small", "--image", "guest")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with small_world(tmp_path) as made:
        made.agents["n1"].driver._wild[LEGACY["uuid"]] = dict(LEGACY)  # type: ignore[attr-defined]
        yield made


def test_what_can_be_left_can_be_left_either_way() -> None:
    """A command has --async and --timeout or neither; every saga's command has both, but `cluster repair`, whose help says why."""
    found = {}
    for name, entry in NOUNS.items():
        noun = importlib.import_module(entry.module).NOUN
        for verb, spec in noun.verbs.items():
            flags = inspect.signature(spec.function).parameters
            if spec.changes:
                assert "dry_run" in flags, f"{name} {verb}"
                found[f"{name}.{verb.replace('-', '_')}"] = ("async_" in flags, "timeout" in flags)
                assert "async_" in flags or "--async" not in spec.function.__doc__ or "no --async" in spec.function.__doc__, verb
    assert set(found.values()) == {(True, True), (False, False)}, found
    without = {"server.revive", "server.clean"}               # the conductor's, and `cluster repair`'s
    assert {kind for kind in SAGAS if not found.get(kind, (False, False))[0]} == without
    assert all(found[f"operation.{verb}"][0] for verb in ("resume", "undo", "cancel")) and not found["cluster.repair"][0]


def test_a_nodes_key_is_changed_in_the_background(world: World) -> None:
    """--async prints an id for each node; the node has its new key once that operation has ended."""
    prompt, before = Prompt(world.env), keys_of(world)
    one = prompt.run("node", "rotate-key", "n1", "--async")
    assert one.status == 0 and find(world.cluster, one.out.strip()).kind == "node.rotate_key"
    assert prompt.run("operation", "wait", one.out.strip()).status == 0
    both = prompt.run("node", "rotate-key", "n1", "n2", "--async", "-o", "json")
    assert prompt.run("operation", "wait", *(item["result"] for item in both.json["items"])).status == 0
    after = keys_of(world)
    assert len({*before.values(), *after.values()}) == 4 and prompt.run("node", "rotate-key", "n1", "--timeout", "1m").status == 0
    late = prompt.run("node", "rotate-key", "n2", "--timeout", "0")
    assert late.status == ExitStatus.TIMEOUT and "novactl operation watch" in late.err
    (under_way,) = operations.list_operations(world.cluster) or (None,)
    if under_way is not None:
        assert prompt.run("operation", "wait", under_way.id).status == 0
    assert keys_of(world)["n2"] != after["n2"]


def keys_of(world: World) -> dict[str, str]:
    with world.cluster.db.read() as tx:
        return {node.name: node.public_key for node in nodes.all_(tx)}


def test_a_domain_is_taken_in_in_the_background(world: World) -> None:
    """--async prints the id; the domain is a server once that operation has ended."""
    prompt = Prompt(world.env)
    ran = prompt.run("server", "adopt", "n1", "legacy", "--async")
    assert ran.status == 0 and find(world.cluster, ran.out.strip()).kind == "server.adopt"
    assert prompt.run("operation", "wait", ran.out.strip()).status == 0
    assert servers.show(world.cluster, "legacy").status == "ACTIVE"


@pytest.mark.parametrize(("verb", "state"), [
    ("resume", OperationState.OK), ("undo", OperationState.FAILED), ("cancel", OperationState.FAILED)])
def test_taking_over_several_with_an_end_to_the_waiting(world: World, verb: str, state: OperationState) -> None:
    """resume, undo and cancel take the same words: many operations, each once, --timeout. Within it they exit as without it; past it
    with 124, naming all that go on."""
    prompt, ids = Prompt(world.env), []
    for name in ("a", "b"):
        held = prompt.run("server", "create", name, *FLAGS)
        assert held.status == 0, held.err
    for name in ("a", "b"):
        operation = SCENARIOS["server.stop"].start(world, servers.show(world.cluster, name))
        world.abandon(operation)
        ids.append(operation.id)
    ran = prompt.run("operation", verb, *ids, ids[0][:8], "--timeout", "1m", "-o", "json")
    assert ran.status == 0, ran.err
    assert [item["id"] for item in ran.json["items"]] == ids and {find(world.cluster, id_).state for id_ in ids} == {state}
    ids = []
    for name in ("a", "b"):
        kind = "server.start" if state is OperationState.OK else "server.stop"
        operation = SCENARIOS[kind].start(world, servers.show(world.cluster, name))
        world.abandon(operation)
        ids.append(operation.id)
    late = prompt.run("operation", verb, *ids, "--timeout", "0")
    assert late.status == ExitStatus.TIMEOUT and all(id_[:8] in late.err.rpartition("try: ")[2] for id_ in ids), late.err
    prompt.run("operation", "wait", *ids)
    assert {find(world.cluster, id_).state for id_ in ids} == {state}


def test_past_a_timeout_all_that_go_on_are_named(tmp_path: Path) -> None:
    """Of several servers, those that are not done: each can be watched by what is printed."""
    world = World(tmp_path)
    world.add_node("n1", fake={"start_delay_s": 2.0})
    world.add_flavor()
    world.add_image()
    world.start()
    try:
        prompt = Prompt(world.env)
        late = prompt.run("server", "create", "web", *FLAGS, "--count", "2", "--timeout", "0.5")
        watch = late.err.rpartition("try: novactl ")[2].split()
        assert late.status == ExitStatus.TIMEOUT and len(watch) == 4 and f"operations {watch[2]}, {watch[3]} go on" in late.err, late.err
        assert prompt.run(*watch).status == 0 and list(world.domains().values()) == ["RUNNING", "RUNNING"]
    finally:
        world.stop()


# ---------------------------------------------------------------- fencing, which is half of what is wanted

def test_who_starts_the_servers_of_a_node_that_is_fenced_meanwhile_is_said(world: World) -> None:
    """--async fences, and no more: who starts the servers elsewhere then is named, with the command where nobody does."""
    prompt = Prompt(world.env)
    assert prompt.run("server", "create", "web", *FLAGS, "--node", "n1").status == 0
    assert prompt.run("server", "set", "web", "--ha").status == 0
    world.endpoints["n1"].dispatcher.receive = lambda peer, key, frames: None  # type: ignore[method-assign]
    words = ("node", "fence", "n1", "--i-have-powered-it-off", "--yes", "--async")
    begun = prompt.run(*words)
    assert begun.status == 0 and "no conductor runs" in begun.err and "then novactl node fence n1 --i-have-powered-it-off" in begun.err
    assert prompt.run("operation", "wait", begun.out.strip()).status == 0
    assert servers.show(world.cluster, "web", refresh=False).node_name == "n1"
    again = prompt.run(*words)
    assert again.status == 0 and find(world.cluster, again.out.strip()).kind == "server.evacuate"
    assert prompt.run("operation", "wait", again.out.strip()).status == 0
    assert servers.show(world.cluster, "web").node_name == "n2"
    nothing = prompt.run(*words)
    assert (nothing.status, nothing.out) == (0, "") and "none of its servers" in nothing.err


def test_past_a_timeout_it_is_said_too(world: World, tmp_path: Path) -> None:
    """Where a conductor leads, it is the one that starts them."""
    slow = tmp_path / "switch"
    slow.write_text("#!/bin/sh\nsleep 2\n")
    slow.chmod(0o755)
    nodes_api.set_(world.cluster, "n1", nodes_api.SetNode(fencing={"method": "command", "command": str(slow)}))
    assert Leadership(world.cluster).take()
    late = Prompt(world.env).run("node", "fence", "n1", "--yes", "--timeout", "0.2")
    assert late.status == ExitStatus.TIMEOUT and f"once it is fenced, the conductor (pid {os.getpid()} on " in late.err, late.err
    Prompt(world.env).run("operation", "wait", operations.list_operations(world.cluster)[0].id)
