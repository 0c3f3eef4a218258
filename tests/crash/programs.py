"""What is run for each saga: a command line where there is one, else its scenario (tests/sagas/scenarios.py) as a command runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from novactl.api.recovery import settle
from novactl.conductor.driver import Driver
from novactl.conductor.sagas import SAGAS
from novactl.db import servers
from tests.crash.slot import World
from tests.sagas.scenarios import SCENARIOS

OVER_SSH = ("node.enroll", "node.remove")
"""They change a machine over SSH, and are killed on one of the test hosts: tests/integration/test_crash_over_ssh.py."""

VARIANTS: Mapping[str, str] = {"server.create+async": "--async"}
"""A saga's command with a word more: killed at its own points only, which are those before it hands over to a process of its own."""

COMMANDS: Mapping[str, list[str]] = {
    "server.create": ["server", "create", "web", "--flavor", "small", "--image", "guest"],
    "server.delete": ["server", "delete", "web"],
    "server.start": ["server", "start", "web"],
    "server.stop": ["server", "stop", "web"],
    "server.reboot": ["server", "reboot", "web", "--hard"],
    "server.evacuate": ["server", "evacuate", "web"],
    "server.adopt": ["server", "adopt", "n1", "legacy"],
    "node.rotate_key": ["node", "rotate-key", "n1"],
}


@dataclass(frozen=True)
class Program:
    """`name` is the saga's, with the variant behind a plus. `act` is what `Slot.command` takes."""

    name: str
    saga: str
    act: list[str] | Callable[[World], None]


def programs() -> dict[str, Program]:
    """By name: every saga that has a scenario, and the variants."""
    found = {kind: Program(kind, kind, COMMANDS.get(kind) or _played(kind)) for kind in sorted(SCENARIOS)}
    for name, word in VARIANTS.items():
        saga = name.partition("+")[0]
        found[name] = Program(name, saga, [*COMMANDS[saga], word])
    return found


def lacking() -> set[str]:
    """Sagas that the matrix does not reach."""
    return set(SAGAS) - set(SCENARIOS) - set(OVER_SSH)


def prepare(world: World, kind: str) -> Any:
    """What the saga `kind` starts from, made in a slot."""
    for node in world.agents.values():
        node.preparing = True
    made = SCENARIOS[kind].prepare(world)  # type: ignore[arg-type]
    for node in world.agents.values():
        node.prepared()
    return made


def _played(kind: str) -> Callable[[World], None]:
    def play(world: World) -> None:
        scenario = SCENARIOS[kind]
        for sentence in settle(world.cluster):
            print(sentence)
        subject = world.slot.subject
        if hasattr(subject, "vm_state"):
            with world.cluster.db.read() as tx:
                subject = servers.by_id(tx, subject.id) or subject
        operation = scenario.start(world, subject)  # type: ignore[arg-type]
        Driver(world.cluster, scenario.saga, operation).drive()

    return play
