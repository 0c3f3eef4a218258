"""Every command that changes something leaves exactly one operation, with who, when, why and what came of it; no other leaves any."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from novactl.api import operations
from novactl.cli.root import NOUNS
from novactl.cli.tree import Noun
from novactl.conductor import unit
from novactl.conductor.change import changing
from novactl.conductor.sagas import SAGAS
from novactl.db import events
from novactl.errors import AlreadyExists, UsageError
from novactl.model.secret import HIDDEN, SECRET, recorded
from tests.unit.cli_world import Prompt
from tests.world import World, small_world

CANARY = "c4n4ry-hunter2"

SCRIPT = """
doctor
cluster show
cluster verify
cluster set --no-n-plus-1
flavor create tiny --ram 256M --disk 1
flavor list
flavor show tiny
flavor set tiny --description small
flavor unset tiny --property hw:cpu_policy
image list
image create other IMAGE --format raw
image show other
image set other --property os_distro=debian
image unset other --property os_distro
image delete other --yes
keypair create mine --private-key KEY
keypair list
keypair show mine
aggregate create rack1 --zone z1
aggregate list
aggregate show rack1
aggregate set rack1 --property ssd=true
aggregate unset rack1 --property ssd
aggregate add-node rack1 n2
zone list
aggregate remove-node rack1 n2
aggregate delete rack1 --yes
project create blue
project list
project show blue
project set blue --description ours
quota set blue cores=10
quota show blue
quota list
project delete blue --yes
server-group create apart --policy anti-affinity
server-group list
server-group show apart
server-group delete apart --yes
node list
node show n1
node set n2 --label rack=r2
node unset n2 --label rack
node disable n2
node enable n2
trait list
resource-class list
scheduler list
scheduler show zone
scheduler check
placement explain --flavor tiny --image guest
placement why-not n1 --flavor tiny --image guest
capacity --flavor tiny
server create web --flavor tiny --image guest --key mine --node n1 --user-data DATA
server list
server show web
placement list
placement export
server console-log web
server why web
server events web
node events n1
events --since 1h --server web
server set web --ha
server stop web --grace 0
server start web
server reboot web --hard
keypair delete mine --yes
operation list --all
server delete web --yes
flavor delete tiny --yes
key create bob --role reader --out BOB
key list
key set bob --role operator
key revoke bob --yes
key rotate
node rotate-key n1
cluster adopt --yes
db check
db rebuild
node remove n2 --lost --yes
version
"""
"""One line after another in one small world; IMAGE, KEY, DATA and BOB are files."""

ELSEWHERE = {
    "operation resume": "acts on an operation that is there", "operation undo": "likewise", "operation cancel": "likewise",
    "cluster repair": "acts on servers that differ: tests of repair", "server adopt": "tests of adopting a domain",
    "node enroll": "tests/integration/test_enroll.py: a machine", "node fence": "tests of HA: a node that is off",
    "server evacuate": "tests of HA: a node that is off",
    "conductor install": "below: a machine with systemd", "conductor uninstall": "likewise",
}
"""Changing verbs that are not in the script, and why."""

EVENTS = {"init", "db upgrade", "db restore"}
"""Those that make the tables of operations themselves: what they leave is an event."""


def declared() -> dict[str, bool]:
    """'noun verb' -> whether it changes something."""
    import importlib

    found = {}
    for name, entry in NOUNS.items():
        noun: Noun = importlib.import_module(entry.module).NOUN
        for verb, spec in noun.verbs.items():
            if noun.name or verb == name:
                found[f"{name} {verb}" if noun.name else name] = spec.changes
    return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with small_world(tmp_path) as made:
        yield made


def test_every_changing_command_leaves_one_operation(world: World, tmp_path: Path) -> None:
    """Kind, arguments, actor, key, reason, result, and an event that tells the same; reading commands leave nothing."""
    files = {"IMAGE": tmp_path / "other.img", "KEY": tmp_path / "key", "DATA": tmp_path / "user-data", "BOB": tmp_path / "bob"}
    files["IMAGE"].write_bytes(b"\1" * (1 << 20))
    files["DATA"].write_text(f"#cloud-config\npassword: {CANARY}\n")
    changes, prompt, covered, known = declared(), Prompt(world.env), set(), 0
    for line in SCRIPT.strip().splitlines():
        words = [str(files.get(word, word)) for word in shlex.split(line)]
        command = " ".join(words[:2]) if " ".join(words[:2]) in changes else words[0]
        covered.add(command)
        reason = ["--reason", f"because of {command}"] if changes[command] else []
        ran = prompt.run(*words, *reason)
        assert ran.status == 0 or not changes[command], f"{line}: {ran.err}"
        found = operations.list_operations(world.cluster, all=True)
        assert len(found) - known == changes[command], line
        known = len(found)
        if not changes[command]:
            continue
        operation = found[0]
        noun, verb = words[:2]
        world.cluster.forget_key()                            # after `key rotate`
        assert operation.kind.replace("_", "-") == f"{noun}.{verb}" and operation.state == "ok" and operation.ended_at, line
        assert operation.actor and operation.actor_key == world.cluster.key and operation.reason == reason[1] and operation.seq, line
        assert isinstance(operation.record, dict) and operation.object_name, line
        with world.cluster.db.read() as tx:
            history = [event for event in events.of(tx, operation.object_id) if event.operation_id == operation.id]
        assert history and history[-1].event == operation.kind and history[-1].detail.startswith("ok"), line
        assert all(event.reason == reason[1] and event.actor == operation.actor for event in history), line
    assert {command for command, changing in changes.items() if changing} <= covered | ELSEWHERE.keys() | EVENTS


def test_what_makes_the_tables_leaves_an_event(tmp_path: Path) -> None:
    """Who, when, why, from which file, from which schema to which: in what `novactl events` shows of the database that results."""
    prompt, file = Prompt({"HOME": str(tmp_path), "NOVACTL_DATA_DIR": str(tmp_path / "data")}), str(tmp_path / "b.nova")
    lines = (f"init --reason {'x' * 256}", "init --reason begun", "init --reason again", f"db backup {file}", "db upgrade --reason nothing",
             "db upgrade --rewrite --reason sums", f"db restore {file} --dry-run --reason tried", f"db restore {file} --reason lost")
    assert [prompt.run(*line.split()).status for line in lines] == [UsageError.exit_status, *[0] * (len(lines) - 1)]

    def told() -> list[str]:
        found = prompt.run("events", "-o", "json").json["items"]
        assert {(item["object_kind"], item["object_name"]) for item in found} == {("cluster", "cluster")} and all(
            item["actor"] and item["at"] for item in found)
        return [f"{item['event']} ({item['reason']}) {item['detail']}" for item in found]

    began, restored = told()                                  # what came after the backup is gone with the rest
    assert began == "init (begun) schema 3"
    assert restored.startswith(f"db.restore (lost) {file}, taken ") and restored.endswith("Z: schema 3 -> 3")
    assert prompt.run("db", "upgrade", "--rewrite", "--reason", "sums").status == 0
    assert told()[2:] == ["db.upgrade (sums) schema 3: sums and limits written anew"]
    assert prompt.run("operation", "list", "--all", "-o", "json").json["items"] == []


def test_setting_up_a_conductor_leaves_an_operation(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On which machine, and which unit; a dry run leaves none."""
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text("#!/bin/sh\n")
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{systemctl.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(unit, "SYSTEMD", tmp_path)
    monkeypatch.setattr(unit, "SYSTEM_DIR", tmp_path / "units")
    prompt = Prompt({name: value for name, value in world.env.items() if name != "NOVACTL_AGENT_CONNECT_S"})
    for line in ("uninstall --dry-run", "install --dry-run", "install --reason nights", "uninstall --dry-run"):
        assert (ran := prompt.run("conductor", *line.split())).status == 0, ran.err
    assert (tmp_path / "units" / unit.UNIT).exists() and prompt.run("conductor", "uninstall").status == 0
    path = str(tmp_path / "units" / unit.UNIT)
    assert [(op.kind, op.object_name, op.reason, dict(op.record)) for op in operations.list_operations(world.cluster, all=True)] == [
        ("conductor.uninstall", os.uname().nodename, "", {"unit": path}),
        ("conductor.install", os.uname().nodename, "nights", {"unit": path})]


def test_no_secret_is_written_down(world: World, tmp_path: Path) -> None:
    """User data and private keys are in no operation, step or event, whatever becomes of the command."""
    prompt, data, key = Prompt(world.env), tmp_path / "user-data", tmp_path / "key"
    data.write_text(f"#cloud-config\npassword: {CANARY}\n")
    flags = ("--flavor", "small", "--image", "guest", "--user-data", str(data))
    prompt.run("keypair", "create", "mine", "--private-key", str(key))
    prompt.run("server", "create", "web", *flags)
    world.agents["n1"].driver.start_domain = world.agents["n2"].driver.start_domain = lambda server: 1 / 0
    ran = prompt.run("server", "create", "web2", *flags)
    assert ran.status != 0 and "ZeroDivisionError" in ran.err, ran.err
    secret = key.read_text().splitlines()[1]
    with world.cluster.db.read() as tx:
        written = repr([operations.operations.recent(tx, ended=True), [
            events.of(tx, operation.object_id) for operation in operations.operations.recent(tx, ended=True)]])
    assert "ZeroDivisionError" in written and CANARY not in written and secret not in written


def test_no_record_of_a_saga_has_a_secret_field() -> None:
    """A saga's record is what goes on after a death, so it cannot be cut: what is secret must not be in it."""
    for saga in SAGAS.values():
        assert not [field.name for field in dataclasses.fields(saga.record) if field.metadata.get("secret")], saga.kind


def test_a_secret_is_a_property_of_the_field() -> None:
    """The field says that it is secret; what is recorded tells whether there was something, and no more."""
    @dataclasses.dataclass
    class Inner:
        password: str = dataclasses.field(default="", metadata=SECRET)
        ask: Any = print

    @dataclasses.dataclass
    class Wanted:
        name: str
        inner: tuple[Inner, ...]
        path: Path = Path("/tmp")

    assert recorded(Wanted("web", (Inner(CANARY), Inner()))) == {
        "name": "web", "inner": [{"password": HIDDEN}, {"password": ""}], "path": "/tmp"}
    assert json.dumps(recorded({"long": "x" * 10_000})) < json.dumps({"long": "x" * 5000})


def test_what_is_refused_or_tried_leaves_nothing(world: World) -> None:
    """A refused change and a dry run write no operation; a reason that cannot be printed is refused first."""
    prompt = Prompt(world.env)
    assert prompt.run("flavor", "create", "tiny", "--ram", "1G", "--dry-run").status == 0
    assert prompt.run("flavor", "create", "small", "--ram", "1G").status == AlreadyExists.exit_status
    assert prompt.run("node", "disable", "n1", "--reason", "a\nb").status == UsageError.exit_status
    assert prompt.run("node", "disable", "n1", "--reason", "x" * 256).status == UsageError.exit_status
    assert operations.list_operations(world.cluster, all=True) == () and prompt.run("node", "show", "n1", "-o", "json").json["reason"] == ""


def test_a_change_must_say_what_it_changes(world: World) -> None:
    """A journalled change without a subject is a fault of the code, and is not made."""
    with pytest.raises(ValueError, match="does not say"), changing(world.cluster, "flavor.create", dry_run=False):
        pass
    assert operations.list_operations(world.cluster, all=True) == ()


def test_the_lines_of_a_batch_have_their_own_reasons(world: World) -> None:
    """One process, one cluster: what one line is for is not what the next one is for."""
    lines = "flavor create a --ram 1G --reason one\nflavor create b --ram 1G\n"
    assert Prompt(world.env).run("batch", stdin=lines).status == 0
    assert [(operation.object_name, operation.reason) for operation in operations.list_operations(world.cluster, all=True)] == [
        ("b", ""), ("a", "one")]
