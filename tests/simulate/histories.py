"""One history: admins who give commands, faults that come between, and at the end everything healed and looked at.

Everything is chosen by the seed: the mix of faults, who asks what and when, what breaks, who goes next.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from types import SimpleNamespace
from typing import Any

from novactl.api import ha as api_ha
from novactl.api import nodes as api_nodes
from novactl.api import operations as api_operations
from novactl.api import recovery
from novactl.api import servers as api_servers
from novactl.api import verify as api_verify
from novactl.api.servers import CreateServer
from novactl.cluster import Cluster
from novactl.conductor.leader import LEADER
from novactl.db import nodes, operations, servers
from novactl.db.engine import SqliteTx
from novactl.errors import NotFound, NovaError
from novactl.model.node import NodeState
from tests.simulate.conductors import SELF, SWITCH, conductor, is_conductor
from tests.simulate.invariants import Oracle
from tests.simulate.scheduler import Process
from tests.simulate.transport import BACK, THERE, Weather
from tests.simulate.world import NODES, SimNode, Template, World, simulated

NAMES = ("a", "b", "c", "d", "e")
CLEAN_WITHIN_S = 900.0
"""What a conductor gets once all has healed: operations' leases, and what it tries again only after five minutes."""
PATIENCE_S = 900.0
"""After so long an admin leaves a command alone."""
FROZEN_NODE = "n3"
FROZEN_COSTS_S = 3.0
"""What a node that hangs may cost a command that needs another one: the refresh waits 2 s for it once, then half a second (I9)."""


# ---------------------------------------------------------------- what breaks

@dataclass(frozen=True)
class Mix:
    """What may go wrong in a history. Chances are per process (`killed`, `stopped`), per message, or per commit; `faults` are
    names of FAULTS, one of which comes about every `every_s`."""

    name: str
    killed: float = 0.0
    stopped: float = 0.0
    agent_killed: float = 0.0
    weather: Weather = field(default_factory=Weather)
    slow: float = 0.0
    """Chance of an effect to take up to SLOW_S."""
    full: float = 0.0
    """Chance of an effect to find the disk full."""
    loses: float = 0.0
    hides: float = 0.0
    skew_s: float = 0.0
    every_s: float = 20.0
    faults: tuple[str, ...] = ()
    frozen: bool = False
    """One node hangs all the time."""
    crowded: bool = False
    """Everybody wants the same place."""
    longer: int = 1
    """So many times as many commands."""
    often: tuple[str, ...] = ()
    """Commands given more often than else."""
    conductors: int = 0
    """So many, on one host or two, of which one leads. They are killed and stopped like commands, and begun anew."""
    fencing: Mapping[str, str] = field(default_factory=dict)
    """How nodes are fenced; empty: by hand."""


_CHOPPY = Weather(lost=0.04, doubled=0.08, late=0.10, late_s=60.0)
_HA = ("server create", "server set --ha", "node enable")
_STORM = Weather(lost=0.10, doubled=0.20, late=0.25, late_s=150.0)

MIXES: tuple[tuple[int, Mix], ...] = (
    (1, Mix("calm")),
    (1, Mix("frozen node", frozen=True)),
    (3, Mix("crowd", killed=0.1, stopped=0.1, crowded=True, often=("server create", "server delete"))),
    (3, Mix("killed commands", killed=0.5, weather=_CHOPPY)),
    (4, Mix("killed agents", killed=0.15, agent_killed=0.8, weather=_CHOPPY, slow=0.04, every_s=15, often=("server reboot",),
            faults=("kill agent", "reboot host"))),
    (3, Mix("storm", killed=0.1, weather=_STORM)),
    (3, Mix("partitions", killed=0.15, weather=_CHOPPY, every_s=8, faults=("cut", "cut one way", "isolate"))),
    (3, Mix("zombies", killed=0.1, stopped=0.5, weather=_CHOPPY, every_s=30, faults=("stop agent", "cut"))),
    (2, Mix("database", killed=0.1, loses=0.02, hides=0.04, weather=_CHOPPY, every_s=15, faults=("refuse",))),
    (2, Mix("skewed clocks", killed=0.3, stopped=0.2, skew_s=3600.0, weather=_CHOPPY, every_s=25, faults=("jump", "cut"))),
    (2, Mix("driver", killed=0.2, agent_killed=0.2, weather=_CHOPPY, every_s=8, faults=("break driver", "guest off"))),
    (4, Mix("slow nodes", killed=0.3, stopped=0.1, agent_killed=0.1, weather=_CHOPPY, slow=0.12, every_s=15,
            often=("operation undo", "server reboot"), faults=("cut", "kill agent"))),
    (6, Mix("full disks", killed=0.05, weather=Weather(lost=0.02, doubled=0.8, late=0.1, late_s=100.0), full=0.45, every_s=8, longer=2,
            often=("server create",), faults=("fill disk", "cut"))),
    (4, Mix("lost hosts", killed=0.15, stopped=0.15, weather=_CHOPPY, slow=0.02, every_s=10, longer=3,
            often=("node fence", "server evacuate", "node enable"), faults=("lose host", "lose host", "cut", "reboot host"))),
    (5, Mix("everything", killed=0.25, stopped=0.25, agent_killed=0.25, weather=_CHOPPY, slow=0.03, loses=0.005, hides=0.01,
            skew_s=600.0, every_s=10,
            faults=("kill agent", "reboot host", "cut", "cut one way", "isolate", "stop agent", "refuse", "jump", "break driver",
                    "guest off", "fill disk"))),
    (2, Mix("conductors", killed=0.4, stopped=0.3, weather=_CHOPPY, every_s=12, longer=2, conductors=2, loses=0.01, hides=0.02,
            faults=("kill leader", "stop leader", "kill agent", "reboot host", "cut", "guest off", "refuse"))),
    (3, Mix("power switches", killed=0.2, stopped=0.2, weather=_CHOPPY, every_s=20, longer=3, conductors=2, fencing=SWITCH, often=_HA,
            faults=("isolate", "lose host", "lose host", "stop agent", "stop leader", "kill leader", "cut", "switch on"))),
    (3, Mix("self-fencing nodes", killed=0.2, stopped=0.2, weather=_CHOPPY, every_s=20, longer=3, conductors=2, fencing=SELF, often=_HA,
            faults=("isolate", "isolate", "lose host", "stop agent", "kill agent", "stop leader", "kill leader", "reboot host", "cut"))),
    (1, Mix("skewed conductors", killed=0.2, stopped=0.2, skew_s=3600.0, weather=_CHOPPY, every_s=15, longer=2, conductors=2,
            fencing=SWITCH, often=_HA, faults=("jump", "cut", "lose host", "stop leader", "kill leader", "isolate", "switch on"))),
)


def _kill_agent(history: History, node: SimNode, chance: Random) -> None:
    node.kill_agent()


def _reboot_host(history: History, node: SimNode, chance: Random) -> None:
    node.reboot()


def _lose_host(history: History, node: SimNode, chance: Random) -> None:
    """One that runs something. Two are never off at once: there must be a place to go."""
    others = list(history.world.nodes.values())
    busy = [one for one in (node, *others) if any(guest.power_state == "RUNNING" for guest in one.guests().values())]
    if busy and not any(other.is_off for other in others):
        lost = busy[0]
        lost.power(False)
        history.world.scheduler.after(chance.uniform(30, 400), lambda: lost.power(True))


def _stop_agent(history: History, node: SimNode, chance: Random) -> None:
    process = node.process
    if process is None or not process.alive:
        return
    history.tell(f"{node.name}'s agent is STOPPED")
    history.world.scheduler.stop(process)
    history.world.scheduler.after(chance.uniform(2, 100), lambda: history.world.scheduler.go_on(process))


def _cut(history: History, ways: list[tuple[str, str, str]], chance: Random) -> None:
    history.tell(f"CUT {', '.join(' '.join(way) for way in ways)}")
    history.world.network.cut_off(ways)

    def heal() -> None:
        history.tell(f"HEALED {', '.join(' '.join(way) for way in ways)}")
        history.world.network.heal(ways)

    history.world.scheduler.after(chance.choice((1.0, 5.0, 20.0, 90.0)) * chance.uniform(0.5, 1.5), heal)


def _cut_both(history: History, node: SimNode, chance: Random) -> None:
    host = chance.choice(history.hosts)
    _cut(history, [(host, node.name, THERE), (host, node.name, BACK)], chance)


def _cut_one_way(history: History, node: SimNode, chance: Random) -> None:
    _cut(history, [(chance.choice(history.hosts), node.name, chance.choice((THERE, BACK)))], chance)


def _isolate(history: History, node: SimNode, chance: Random) -> None:
    _cut(history, [(host, node.name, way) for host in history.hosts for way in (THERE, BACK)], chance)


def _refuse(history: History, node: SimNode, chance: Random) -> None:
    host = chance.choice(history.hosts)
    until = history.world.scheduler.now + chance.choice((0.5, 5.0, 40.0))
    history.tell(f"DATABASE REFUSES {host} until {until:.1f}")
    history.world.refused_until[host] = until


def _jump(history: History, node: SimNode, chance: Random) -> None:
    host = chance.choice(history.hosts)
    history.world.skew[host] = chance.uniform(-3600, 3600)
    history.tell(f"CLOCK of {host} jumps to {history.world.skew[host]:+.0f} s")


def _break_driver(history: History, node: SimNode, chance: Random) -> None:
    verb = chance.choice(("create_disk", "define", "start_domain", "destroy", "undefine", "delete_disk"))
    history.tell(f"{node.name} REFUSES {verb}")
    node.fake["fail"][verb] = "no space left on device"

    def mend() -> None:
        node.fake["fail"].pop(verb, None)

    history.world.scheduler.after(chance.choice((2.0, 30.0, 120.0)), mend)


def _guest_off(history: History, node: SimNode, chance: Random) -> None:
    guests = sorted(node.guests())
    if guests:
        node.power_cut(chance.choice(guests))


def _fill_disk(history: History, node: SimNode, chance: Random) -> None:
    node.full_until = history.world.scheduler.now + chance.choice((1.0, 5.0, 30.0))
    history.tell(f"{node.name}'s DISK IS FULL until {node.full_until:.1f}")


def _leader(history: History) -> Process | None:
    for owner, in history.world.connection.execute("SELECT owner FROM lease WHERE name = ?", (LEADER,)):
        return next((process for process in history.conductors if owner.startswith(f"{process.host} {process.name} ")), None)
    return None


def _stop_leader(history: History, node: SimNode, chance: Random) -> None:
    """At one of its next steps; mostly for longer than its lease."""
    leader = _leader(history)
    if leader is not None:
        leader.stops_at = leader.steps + chance.randint(1, 40)
        leader.stops_for_s = chance.choice((5.0, 30.0, 150.0)) * chance.uniform(0.5, 1.5)


def _kill_leader(history: History, node: SimNode, chance: Random) -> None:
    leader = _leader(history)
    if leader is not None:
        leader.dies_at = leader.steps + chance.randint(1, 40)


def _switch_on(history: History, node: SimNode, chance: Random) -> None:
    """Somebody looked after a node that was fenced."""
    for one in history.world.nodes.values():
        one.power(True)


FAULTS: Mapping[str, Callable[[History, SimNode, Random], None]] = {
    "kill agent": _kill_agent, "reboot host": _reboot_host, "stop agent": _stop_agent, "cut": _cut_both, "cut one way": _cut_one_way,
    "fill disk": _fill_disk, "isolate": _isolate, "lose host": _lose_host, "refuse": _refuse, "jump": _jump,
    "break driver": _break_driver, "guest off": _guest_off, "stop leader": _stop_leader, "kill leader": _kill_leader,
    "switch on": _switch_on,
}


# ---------------------------------------------------------------- what admins do

@dataclass(frozen=True)
class Command:
    """A row: how often, what it is asked with (None: there is nothing to ask it of now), and the api call it is."""

    name: str
    weight: int
    choose: Callable[[History, Random], tuple[Any, ...] | None]
    act: Callable[..., Any]
    kind: str = ""
    """Of the operation that it begins."""
    pinned: bool = False
    """It is about one server on one node: what happens to others is none of its business (I9)."""
    settles: bool = True


def _how(chance: Random) -> dict[str, Any]:
    """Most wait; some wait not at all, or only so long."""
    draw = chance.random()
    return {"wait": False} if draw < 0.06 else {"timeout_s": chance.choice((1.0, 10.0, 40.0))} if draw < 0.14 else {}


def _new_server(history: History, chance: Random) -> tuple[Any, ...]:
    is_pinned = chance.random() < (0.9 if history.mix.crowded else 0.25) or history.mix.frozen
    wanted = {"flavor": "large"} if history.mix.crowded or chance.random() < 0.15 else {}
    name = chance.choice(NAMES) + (str(chance.randrange(10)) if history.mix.crowded else "")
    return name, wanted | ({"node": chance.choice(history.open_nodes)} if is_pinned else {}), _how(chance)


def _create(cluster: Cluster, name: str, wanted: dict[str, Any], how: dict[str, Any]) -> None:
    api_servers.create(cluster, CreateServer(**{"name": name, "flavor": "small", "image": "guest", **wanted}), **how)


def _batch(history: History, chance: Random) -> tuple[Any, ...]:
    return chance.choice(NAMES), {"count": chance.choice((2, 3)), "min_count": chance.choice((None, 1))}, _how(chance)


def _a_server(history: History, chance: Random) -> tuple[Any, ...] | None:
    names = history.server_names()
    return (chance.choice(names), _how(chance)) if names else None


def _graceful(history: History, chance: Random) -> tuple[Any, ...] | None:
    asked = _a_server(history, chance)
    return asked and (asked[0], asked[1] | {"grace_s": chance.choice((0.0, 5.0))})


def _a_reboot(history: History, chance: Random) -> tuple[Any, ...] | None:
    asked = _a_server(history, chance)
    return asked and (asked[0], asked[1] | {"hard": chance.random() < 0.5})


def _an_operation(history: History, chance: Random) -> tuple[Any, ...] | None:
    with history.quiet.db.read() as tx:
        found = sorted(operation.id for operation in operations.recent(tx, ended=False))
    return (chance.choice(found),) if found else None


def _delete(cluster: Cluster, name: str, how: dict[str, Any]) -> None:
    api_servers.delete(cluster, name, **how)


def _stop(cluster: Cluster, name: str, how: dict[str, Any]) -> None:
    api_servers.stop(cluster, name, **how)


def _start(cluster: Cluster, name: str, how: dict[str, Any]) -> None:
    api_servers.start(cluster, name, **how)


def _reboot(cluster: Cluster, name: str, how: dict[str, Any]) -> None:
    api_servers.reboot(cluster, name, **how)


def _a_lost_node(history: History, chance: Random) -> tuple[Any, ...] | None:
    """Whoever says that it is off has looked."""
    lost = [node.name for node in history.world.nodes.values() if node.is_off]
    return (chance.choice(lost),) if lost else None


def _nodes_in(history: History, state: NodeState) -> list[str]:
    with history.quiet.db.read() as tx:
        return sorted(node.name for node in nodes.all_(tx) if node.state is state)


def _a_fenced_node(history: History, chance: Random) -> tuple[Any, ...] | None:
    there = _nodes_in(history, NodeState.FENCED)
    return (chance.choice(there),) if there else None


def _on_a_fenced_node(history: History, chance: Random) -> tuple[Any, ...] | None:
    there = _nodes_in(history, NodeState.FENCED)
    with history.quiet.db.read() as tx:
        names = sorted(server.name for server in servers.all_(tx) if server.node_name in there)
    return (chance.choice(names), _how(chance)) if names else None


COMMANDS: tuple[Command, ...] = (
    Command("server create", 30, _new_server, _create, "server.create", pinned=True),
    Command("server create --count", 6, _batch, _create, "server.create"),
    Command("server delete", 16, _a_server, _delete, "server.delete", pinned=True),
    Command("server stop", 9, _graceful, _stop, "server.stop", pinned=True),
    Command("server start", 9, _a_server, _start, "server.start", pinned=True),
    Command("server reboot", 14, _a_reboot, _reboot, "server.reboot", pinned=True),
    Command("operation resume", 6, _an_operation, lambda cluster, id_: api_operations.resume(cluster, [id_])),
    Command("operation undo", 8, _an_operation, lambda cluster, id_: api_operations.undo(cluster, [id_])),
    Command("operation cancel", 6, _an_operation, lambda cluster, id_: api_operations.cancel(cluster, [id_])),
    Command("node fence", 8, _a_lost_node, lambda cluster, name: api_ha.fence(cluster, name, by_hand=True), "node.fence"),
    Command("server evacuate", 8, _on_a_fenced_node, lambda cluster, name, how: api_ha.evacuate(cluster, name, **how), "server.evacuate"),
    Command("server set --ha", 2, _a_server, lambda cluster, name, how: api_ha.set_server(cluster, name, wants_ha=True), settles=False),
    Command("node enable", 2, _a_fenced_node, lambda cluster, name: api_nodes.enable(cluster, name)),
    Command("cluster repair", 3, lambda history, chance: (), lambda cluster: api_verify.repair(cluster)),
    Command("server show", 5, _a_server, lambda cluster, name, how: api_servers.show(cluster, name), settles=False),
)


class History:
    """What happened under one seed: `lines` and `oracle.violations`."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.oracle = Oracle()
        self.events: list[tuple[float, str, str]] = []
        chance = Random(f"{seed}:mix")
        self.mix = chance.choices([mix for _, mix in MIXES], [weight for weight, _ in MIXES])[0]
        self.hosts = ["c1", "c2"][:chance.choice((1, 2, 2))]
        self.open_nodes = [name for name in NODES if name != FROZEN_NODE] if self.mix.frozen else list(NODES)
        if self.mix.crowded:
            self.open_nodes = self.open_nodes[:1]
        self._chance = chance
        self._numbers = itertools.count(1)
        self._shells = 0
        self.fault: Exception | None = None
        self._healing = False
        self._conductors_wanted = 0
        self._conductor_names = itertools.count(1)

    @property
    def lines(self) -> list[str]:
        return [f"{at:9.3f} {who:12} {what}" for at, who, what in self.events]

    def _log(self, now: float, who: str, what: str) -> None:
        self.events.append((now, who, what))

    def tell(self, what: str) -> None:
        self._log(self.world.scheduler.now, "-", what)

    # ---- the course

    def run(self, template: Template) -> History:
        """What no one could catch (Stalled included) is a violation, too: the history is kept either way."""
        self.world = World(template, self.seed, self._log, self.oracle)
        try:
            with simulated(self.world):
                try:
                    self._course()
                except Exception as fault:                    # noqa: BLE001 - whatever broke is what was looked for
                    self.oracle.broken(f"{type(fault).__name__}: {fault}")
                    self.fault = fault
                finally:
                    self.world.close()
        finally:
            del self.world
        return self

    def _course(self) -> None:
        world, mix = self.world, self.mix
        self.tell(f"{mix.name}; controllers {', '.join(self.hosts)}")
        world.network.weather = mix.weather
        world.loses, world.hides, world.slow, world.full = mix.loses, mix.hides, mix.slow, mix.full
        for host in self.hosts:
            world.skew[host] = self._chance.uniform(-mix.skew_s, mix.skew_s)
        world.on_process, world.on_agent_end, world.on_effect = self._doom, self._restart, self._after_effect
        for node in world.nodes.values():
            node.start_agent()
        self.quiet = self._quiet_cluster()
        if mix.frozen:
            world.scheduler.after(0.5, self._freeze)
        if mix.conductors:
            self._conduct(mix.conductors)
        people = world.process("people", host="")
        for number in range(4 if mix.crowded else self._chance.choice((1, 2, 2, 3))):
            self._shells += 1
            chance = Random(f"{self.seed}:admin{number}")
            world.scheduler.spawn(people, lambda chance=chance, number=number: self._shell(number, chance), f"admin{number}")
        if mix.faults:
            world.scheduler.spawn(people, lambda: self._break_things(Random(f"{self.seed}:faults")), "faults")
        self._go(lambda: not self._shells)
        self._heal()
        self._go(lambda: not self._commands(), at_most_s=3000.0)
        if self.oracle.violations:
            return
        for process in self._commands():
            self.oracle.broken(f"I4: {process.name} does not end")
        self._settle()

    def _go(self, until: Callable[[], bool], at_most_s: float = float("inf")) -> None:
        scheduler = self.world.scheduler
        deadline = scheduler.now + at_most_s
        scheduler.run(lambda: until() or bool(self.oracle.violations) or scheduler.now >= deadline)

    def _commands(self) -> list[Process]:
        return [process for process in self.world.processes if process.alive and process.host in self.hosts and not is_conductor(process)]

    @property
    def conductors(self) -> list[Process]:
        return [process for process in self.world.processes if process.alive and is_conductor(process)]

    def _conduct(self, wanted: int) -> None:
        """So many conductors from now on: those that end are begun anew, as systemd would."""
        world = self.world
        if not world.is_conducted:
            world.is_conducted = True
            world.database_skew = self._chance.uniform(-1, 1) * self.mix.skew_s
            world.sightings.begin(self.hosts)
            tx = SqliteTx(world.connection)
            for node in nodes.all_(tx):
                nodes.update(tx, dataclasses.replace(node, fencing=self.mix.fencing))
        self._conductors_wanted = wanted
        for process in self.conductors[wanted:]:
            process.own["stop"].set()
        for number in range(len(self.conductors), wanted):
            self._begin_conductor(self.hosts[number % len(self.hosts)])

    def _begin_conductor(self, host: str) -> None:
        def ended() -> None:
            self.world.scheduler.after(self._chance.choice((1.0, 5.0, 30.0)), again)

        def again() -> None:
            if len(self.conductors) < self._conductors_wanted:
                self._begin_conductor(host)

        conductor(self.world, f"{host}-conductor{next(self._conductor_names)}", host, ended)

    def _quiet_cluster(self) -> Any:
        """For looking without being a part of it."""
        connection = self.world.connection

        class Look:
            def __enter__(self) -> SqliteTx:
                return SqliteTx(connection)

            def __exit__(self, *_: object) -> None: ...

        return SimpleNamespace(db=SimpleNamespace(read=Look))

    # ---- people

    def _shell(self, number: int, chance: Random) -> None:
        try:
            for _ in range(chance.choice((2, 3, 4, 5)) * self.mix.longer):
                self._command(number, chance)
                self.world.scheduler.sleep(chance.choice((0.0, 0.0, 0.5, 5.0, 40.0)) * chance.random() * (3 if self.mix.fencing else 1))
        finally:
            self._shells -= 1

    def _command(self, number: int, chance: Random) -> None:
        rows = [(row, asked) for row in COMMANDS if (asked := row.choose(self, chance)) is not None]
        row, asked = chance.choices(rows, [row.weight * (5 if row.name in self.mix.often else 1) for row, _ in rows])[0]
        host = self.hosts[number % len(self.hosts)]
        actor = f"{host}-{next(self._numbers)}"
        words = " ".join(str(part) for part in asked if part != {})
        self._log(self.world.scheduler.now, actor, f"$ novactl {row.name} {words}")
        began, me = self.world.scheduler.now, self.world.scheduler.living()
        self.world.command(actor, host, lambda cluster: self._acts(cluster, row, asked, began), lambda: self.world.scheduler.wake(me))
        self.world.scheduler.wait(PATIENCE_S if chance.random() < 0.85 else chance.uniform(0, 5))

    def _acts(self, cluster: Cluster, row: Command, asked: tuple[Any, ...], began: float) -> None:
        def note(what: str) -> None:
            self._log(self.world.scheduler.now, cluster.actor, what)

        try:
            if row.settles:
                for sentence in recovery.settle(cluster):
                    note(f"settles: {sentence}")
            row.act(cluster, *asked)
            if self.mix.fencing and row.kind == "server.create":
                with contextlib.suppress(NotFound):           # several get names of their own
                    api_ha.set_server(cluster, asked[0], wants_ha=True)
        except NovaError as error:
            note(f"error[{error.code}]: {error.message[:160]}")
        else:
            note("done")
            if not any(isinstance(part, dict) and part.get("wait") is False for part in asked):
                self.oracle.acknowledged(cluster.actor, row.kind, f"{row.name} {asked}")
        took = self.world.scheduler.now - began
        if self.mix.frozen and took > FROZEN_COSTS_S and row.pinned and not self._touches_frozen(asked):
            self.oracle.broken(f"I9: {row.name} {asked} took {took:.1f} s while only {FROZEN_NODE} hangs")

    def _touches_frozen(self, asked: tuple[Any, ...]) -> bool:
        with self.quiet.db.read() as tx:
            found = servers.by_name(tx, str(asked[0])) or servers.past(tx, str(asked[0]))
        return found is not None and found.node_name == FROZEN_NODE

    def server_names(self) -> list[str]:
        with self.quiet.db.read() as tx:
            return sorted(server.name for server in servers.all_(tx))

    # ---- faults

    def _doom(self, process: Process) -> None:
        """What will happen to a process at which of its steps."""
        if self._healing:
            return
        chance, mix = self._chance, self.mix
        if process.host in NODES:
            if chance.random() < mix.agent_killed:
                if chance.random() < 0.35:
                    process.dies_at = chance.randint(2, 150)
                else:                                         # between an effect and its answer
                    process.own["dies in"] = method = chance.choice(("", "domain.reboot"))
                    process.own["effects left"] = chance.randint(1, 2 if method else 8)
            return
        lasts = 400 if is_conductor(process) else 90
        if chance.random() < mix.killed:
            process.dies_at = chance.randint(1, lasts)
        if chance.random() < mix.stopped:
            process.stops_at, process.stops_for_s = chance.randint(1, lasts), chance.choice((3.0, 40.0, 200.0)) * chance.uniform(0.5, 1.5)

    def _after_effect(self, node: SimNode, call: Any) -> None:
        process = node.process
        if process is None or "effects left" not in process.own or self._healing:
            return
        if call is None or process.own["dies in"] not in ("", call.request.method):
            return
        process.own["effects left"] -= 1
        if not process.own["effects left"]:
            process.dies_at = process.steps + self._chance.randint(1, 4)

    def _restart(self, node: SimNode) -> None:
        self.world.scheduler.after(self._chance.choice((0.2, 2.0, 20.0)), node.start_agent)

    def _freeze(self) -> None:
        process = self.world.nodes[FROZEN_NODE].process
        assert process is not None
        self.tell(f"{FROZEN_NODE}'s agent hangs")
        self.world.scheduler.stop(process)

    def _break_things(self, chance: Random) -> None:
        while True:
            self.world.scheduler.sleep(chance.expovariate(1 / self.mix.every_s))
            if self._healing:
                return
            name = chance.choice(self.mix.faults)
            FAULTS[name](self, self.world.nodes[chance.choice(NODES)], chance)

    # ---- the end

    def _heal(self) -> None:
        world = self.world
        self.tell("ALL HEALS")
        self._healing = True
        world.network.weather = Weather()
        world.network.heal(list(world.network.cut))
        world.refused_until.clear()
        world.skew.clear()
        world.loses = world.hides = world.slow = world.full = 0.0
        for node in world.nodes.values():
            node.fake["fail"].clear()
            node.full_until = 0.0
            node.power(True)
        for process in world.processes:
            process.dies_at = process.stops_at = 0
            if process.host not in self.hosts:
                world.scheduler.go_on(process)                # zombies of controllers come back when their time is over

    def _settle(self) -> None:
        """What is left is ended: by a conductor alone where there were some, then as commands would. Rows are compared with nodes."""
        patience_s = 7300.0 if not self.mix.conductors or self.mix.skew_s else self._chance.choice((5.0, 200.0))
        if self.mix.conductors:
            self._conduct(0)
            self._act(lambda cluster: self.world.scheduler.sleep(patience_s))
            patience_s = 60.0
            self._conduct(1)
            self._act(self._until_clean)
        for _ in range(2):
            self._act(lambda cluster: self._last(cluster, patience_s))
        if self.mix.conductors:
            self._act(self._until_clean)
            self._conduct(0)
            self._go(lambda: not self.conductors, at_most_s=400.0)
            for process in self.conductors:
                self.oracle.broken(f"I4: {process.name} does not end")
        self._act(self.oracle.check_end)

    def _act(self, act: Callable[[Cluster], None]) -> None:
        """Nothing more once something is broken."""
        ended: list[bool] = []
        if not self.oracle.violations:
            self.world.command("last", self.hosts[0], act, lambda: ended.append(True))
            self._go(lambda: bool(ended) and not self._commands())

    def _until_clean(self, cluster: Cluster) -> None:
        deadline = self.world.scheduler.now + CLEAN_WITHIN_S
        while left := self.oracle.unclean(cluster):
            if self.world.scheduler.now >= deadline:
                self.oracle.broken(f"I4: after {CLEAN_WITHIN_S:.0f} s with a conductor: {'; '.join(left)}")
                return
            self.world.scheduler.sleep(20.0)

    def _last(self, cluster: Cluster, patience_s: float) -> None:
        world = self.world
        for node in world.nodes.values():
            node.power(True)
        world.scheduler.sleep(patience_s)                     # leases of clocks that were wrong run out, late messages come
        for _ in range(4):
            for sentence in recovery.settle(cluster, budget_s=900.0):
                self._log(world.scheduler.now, cluster.actor, f"settles: {sentence}")
            with cluster.db.read() as tx:
                if not operations.recent(tx, ended=False):
                    break
            world.scheduler.sleep(40.0)
        with cluster.db.read() as tx:
            left = operations.recent(tx, ended=False)
            names = sorted(server.id for server in servers.all_(tx))
            fenced = sorted(node.name for node in nodes.all_(tx) if node.state is NodeState.FENCED)
        for name in fenced:
            with contextlib.suppress(NovaError):
                api_nodes.enable(cluster, name)
        if not left:
            self.oracle.check_acknowledged(cluster)
        for name in names:
            with contextlib.suppress(NotFound):               # a conductor may be at it, too
                api_servers.show(cluster, name)
        api_verify.repair(cluster)
