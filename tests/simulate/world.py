"""A cluster under simulation: one database, nodes with the fake driver, controllers with clocks of their own.

Production code runs as it is; what it takes from the interpreter (`threading`, `time`, processes) is given to its modules
by `simulated`, and what it takes from its Cluster by `World.cluster`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import importlib
import os
import pkgutil
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import nodeagent
import novactl
from nodeagent import dispatch, workers
from nodeagent.admins import FixedAdmins
from nodeagent.agent import Agent
from nodeagent.config import Config as AgentConfig
from nodeagent.dispatch import Call, Dispatcher
from nodeagent.drivers.fake import FakeDriver
from nodeagent.ledger import Ledger
from nodeagent.wire import DomainState
from novactl.agents import client, fanout, link, wire
from novactl.api import cluster as api_cluster
from novactl.cluster import Cluster
from novactl.conductor import background, faults, fleet, owner, saga, seed, transfer
from novactl.conductor.keyring import Ring
from novactl.config import load_config
from novactl.db import flavors, images, meta, nodes
from novactl.db.engine import SqliteDatabase, SqliteTx
from novactl.db.statements import Statement
from novactl.errors import DatabaseLost, NovaError, Uncertain
from novactl.model.flavor import Flavor
from novactl.model.image import Image
from novactl.model.node import Node, NodeState
from tests.simulate import conductors
from tests.simulate.scheduler import Process, ProcessLock, Scheduler, Threading
from tests.simulate.transport import Network, SimAgents, Socket, asked, short

EPOCH_S = 1_800_000_000.0
"""What controllers' clocks say when a history begins."""
TRIP_S = 0.005
"""To the database and back, at most."""
SLOW_S = 40.0
TICK_S = 1.0
SYNC_S = 0.002
"""To a node's disk, at most."""
IMAGE = b"guest" * 100
SEED = bytes(32769) + b"CD001"
NODES = ("n1", "n2", "n3")
FAKE = {"vcpus": 8, "memory_mb": 1536, "disk_gb": 20}
"""With 512 MiB reserved there are two small servers on each node, or a large one."""


# ---------------------------------------------------------------- the interpreter

_now: Scheduler | None = None


def scheduler() -> Scheduler:
    assert _now is not None, "nothing is simulated now"
    return _now


_THREADING = Threading(scheduler)


class _Time:
    """`time` for simulated modules; monotonic clocks of all machines run alike, as they do."""

    gmtime, strftime = staticmethod(time.gmtime), staticmethod(time.strftime)

    @staticmethod
    def monotonic() -> float:
        return 1000.0 + scheduler().now

    @staticmethod
    def time() -> float:
        return EPOCH_S + scheduler().now

    @staticmethod
    def sleep(seconds: float) -> None:
        scheduler().sleep(seconds)


class _SmallChunks:
    """The wire as conductor/transfer.py sees it: its buffers are large, and the image is not."""

    CHUNK_BYTES = 4096

    def __getattr__(self, name: str) -> Any:
        return getattr(wire, name)


_SKIPPED = ("novactl.db.migrations", "novactl.cli", "novactl.enroll", "novactl.__main__", "nodeagent.loop", "nodeagent.endpoint",
            "nodeagent.__main__", "nodeagent.drivers.libvirt", "novactl.agents.diagnose", "novactl.db.core",
            "novactl.db.compile", "novactl.db.migrate")


@functools.cache
def _modules() -> list[Any]:
    """All modules that a history may reach, imported beforehand: one that came later would see the real clock."""
    names = []
    for package in (novactl, nodeagent):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.startswith(_SKIPPED):
                names.append(found.name)
    return [importlib.import_module(name) for name in names if "enroll" not in name and "remove_node" not in name]


@contextlib.contextmanager
def simulated(world: World) -> Iterator[None]:
    """While the block runs, production modules see the world's time, threads and processes."""
    global _now
    changes: list[tuple[Any, str, Any]] = []
    for module in _modules():
        if getattr(module, "threading", None) is not None:
            changes.append((module, "threading", _THREADING))
        if getattr(module, "time", None) is not None and module is not seed:
            changes.append((module, "time", _Time))
    for holder, name in ((fleet, "_ASKING"), (seed, "_BUILDING")):
        changes.append((holder, name, ProcessLock(scheduler, _THREADING.Lock)))
    changes += [
        (transfer, "_LOCKS", defaultdict(lambda: ProcessLock(scheduler, _THREADING.Lock))),
        (fanout, "_asked", asked),
        (transfer, "wire", _SmallChunks()),
        (faults, "trace_of", lambda error: ""),               # costly, and only for people
        (seed, "build_seed", lambda server: SEED),
        (saga.Run, "tx", world.oracle.watched(saga.Run.tx)),
        (owner, "this_process", world.this_process), (owner, "is_alive", world.is_alive),
        (client, "result_of", world.oracle.understood(client.result_of)),
        (link, "dealer", lambda network, keys, server_key: Socket(network, scheduler().living().process)),
        (dispatch, "traceback", SimpleNamespace(print_exc=world.agent_broke)), (dispatch, "log", lambda text: None),
        (workers, "traceback", SimpleNamespace(print_exc=world.agent_broke)),
        (background, "subprocess", SimpleNamespace(Popen=world.popen, DEVNULL=None)),
        *conductors.changes(world),
    ]
    before = [(holder, name, getattr(holder, name)) for holder, name, _ in changes]
    for holder, name, value in changes:
        setattr(holder, name, value)
    _now = world.scheduler
    try:
        yield
    finally:
        for holder, name, value in before:
            setattr(holder, name, value)
        _now = None


# ---------------------------------------------------------------- the database

class Tx(SqliteTx):
    """Tells which statements changed something."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        self.changed: list[str] = []

    def run(self, query: Statement, **params: Any) -> int:
        count = super().run(query, **params)
        if count:
            self.changed.append(query.name)
        return count

    def run_many(self, query: Statement, params: Sequence[Mapping[str, Any]]) -> None:
        super().run_many(query, params)
        self.changed.append(query.name)

    @property
    def what(self) -> str:
        return ", ".join(dict.fromkeys(name.replace("q_", "") for name in self.changed)) or "nothing"


class Database(SqliteDatabase):
    """Real SQLite, one connection in memory for all: a transaction is atomic, and everything else happens between two of them.

    While it refuses, no transaction begins. A commit may be lost (and say so), or the connection may be, and nobody knows.
    """

    def __init__(self, world: World, process: Process) -> None:
        super().__init__(Path("/simulated.db"), 60.0)
        self._world, self._process = world, process

    def _connection(self) -> sqlite3.Connection:
        return self._world.connection

    def close(self) -> None:
        pass

    def check_schema(self) -> None:
        pass

    def read(self) -> contextlib.AbstractContextManager[Any]:
        return self._simulated("BEGIN")

    def write(self) -> contextlib.AbstractContextManager[Any]:
        return self._simulated("BEGIN IMMEDIATE")

    @contextlib.contextmanager
    def _simulated(self, begin: str) -> Iterator[Tx]:
        world, writes = self._world, begin != "BEGIN"
        world.scheduler.step("writes" if writes else "reads", TRIP_S)
        if world.refuses(self._process):
            raise DatabaseLost("database: connection refused")
        fate = world.commit_fate(self._process) if writes else ""
        with self._transaction(begin):
            tx = Tx(world.connection)
            world.in_tx = tx
            try:
                yield tx
                if writes:
                    world.oracle.before_commit(tx, self._process)
                if fate:
                    world.log(world.scheduler.now, self._process.name, f"DATABASE: {fate} at the commit of {tx.what}")
                if fate == "lost":
                    raise DatabaseLost("database: connection lost before the commit")
                if fate == "not committed":
                    raise Uncertain("database: connection lost at the commit")
            finally:
                world.in_tx = None
        if writes:
            world.oracle.after_commit(tx, self._process)
            world.scheduler.step(f"committed {tx.what}")
        if fate == "committed":
            raise Uncertain("database: connection lost at the commit")


class _Clock:
    """A controller's clock: its host's idea of the time."""

    def __init__(self, world: World, process: Process) -> None:
        self._world, self.process = world, process

    def now(self) -> float:
        return EPOCH_S + self._world.scheduler.now + self._world.skew.get(self.process.host, 0.0)

    def monotonic(self) -> float:
        return _Time.monotonic()

    def sleep(self, seconds: float) -> None:
        self._world.scheduler.sleep(seconds)

    @contextlib.contextmanager
    def every(self, seconds: float, act: Callable[[], bool]) -> Iterator[None]:
        stop = _THREADING.Event()

        def tick() -> None:
            while not stop.wait(seconds) and act():
                pass

        _THREADING.Thread(target=tick, name="every").start()
        try:
            yield
        finally:
            stop.set()


class _Ids:
    def __init__(self, chance: Random) -> None:
        self._chance = chance

    def uuid(self) -> str:
        text = f"{self._chance.getrandbits(128) & ~(0xF << 76) | (4 << 76):032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def mac(self) -> str:
        return "52:54:00:" + ":".join(f"{self._chance.getrandbits(8):02x}" for _ in range(3))


def between_two_transactions(tx: Tx) -> None:
    """For a mutant: what `tx` did is committed, anyone may come between, and it goes on in a new transaction."""
    there = scheduler().living().process.own["world"]
    tx._connection.execute("COMMIT")
    there.in_tx = None
    scheduler().step("between two transactions", TRIP_S)
    tx._connection.execute("BEGIN IMMEDIATE")
    there.in_tx = tx


# ---------------------------------------------------------------- a node

class _NodeClock:
    def __init__(self, node: SimNode) -> None:
        self._node = node
        self.boot_id = node.boot_id

    def boottime_s(self) -> float:
        return self._node.boottime_s()


class _Ledger(Ledger):
    """The agent's ledger, its file outliving the agent; a boundary before and after each use."""

    def __init__(self, node: SimNode) -> None:
        super().__init__(":memory:")
        self._node = node

    def _db(self) -> sqlite3.Connection:
        return self._node.ledger

    def close(self) -> None:
        pass

    def answer(self, request_id: str) -> Any:
        return self._stepped("ledger: given?", super().answer, request_id)

    def record(self, request_id: str, *rest: Any) -> None:
        return self._stepped(f"ledger: answer to {short(request_id)}", super().record, request_id, *rest)

    def note(self, *noted: Any) -> str:
        return self._stepped("ledger: note", super().note, *noted)

    def epochs(self, *of: Any) -> Any:
        return self._stepped("ledger: epochs?", super().epochs, *of)

    def raise_epochs(self, operation: str, epoch: int, server: str, server_epoch: int, *rest: Any) -> None:
        self._node.world.oracle.obeyed(self._node, operation, server, epoch, server_epoch)
        return self._stepped("ledger: epochs", super().raise_epochs, operation, epoch, server, server_epoch, *rest)

    def _stepped(self, what: str, act: Callable[..., Any], *args: Any) -> Any:
        scheduler().step(what, SYNC_S)
        found = act(*args)
        scheduler().step(f"{what}.")
        return found


class _Driver(FakeDriver):
    """The fake driver; a boundary before and after each effect, each effect shown to the oracle."""

    def __init__(self, config: AgentConfig, node: SimNode) -> None:
        super().__init__(config)
        self._node, self.world = node, node.world

    def _effect(self, verb: str, server: str, act: Callable[..., None], *args: Any) -> None:
        world = self.world
        scheduler().step(f"{verb} {server[:8]}", world.effect_takes_s())
        if verb in ("create disk", "define") and (self._node.full_until > scheduler().now or world.is_full()):
            raise OSError(errno.ENOSPC, "No space left on device")
        before = self._seen(server)
        try:
            act(*args)
        finally:
            after = self._seen(server)
            changed = world.oracle.differs(self._node, server, before, after)
            if changed:
                world.oracle.effect(self._node, verb, server, scheduler().living().call, before, after)
                world.on_effect(self._node, scheduler().living().call)
        scheduler().step(f"{verb} {server[:8]}" + (" done" if changed else ": nothing to do"), world.effect_takes_s())

    def _seen(self, server: str) -> tuple[Any, ...]:
        guest, path = self._guests.get(server), self._disk_path(server)
        disk = os.stat(path).st_ino if os.path.exists(path) else 0
        return ("", 0, None, disk) if guest is None else (guest.power, guest.runs, guest.spec, disk)

    def create_disk(self, spec: Any, disk_format: str) -> None:
        self._effect("create disk", spec.server, super().create_disk, spec, disk_format)

    def delete_disk(self, server: str) -> None:
        self._effect("delete disk", server, super().delete_disk, server)

    def define(self, spec: Any, disk_format: str, mark: Any) -> None:
        self._effect("define", spec.server, super().define, spec, disk_format, mark)

    def undefine(self, server: str) -> None:
        self._effect("undefine", server, super().undefine, server)

    def start_domain(self, server: str) -> None:
        self._effect("start", server, super().start_domain, server)

    def shut_down(self, server: str) -> None:
        self._effect("shut down", server, super().shut_down, server)

    def destroy(self, server: str) -> None:
        self._effect("destroy", server, super().destroy, server)


class _Dispatcher(Dispatcher):
    """Lets the oracle know which request an effect belongs to. Images, which are no driver's, take their time here."""

    def _mutate(self, call: Call, method: Any, args: Any, payload: Any) -> Any:
        task = scheduler().living()
        if method.key == "sha256":
            scheduler().step(call.request.method, self.agent.driver.world.effect_takes_s())
        task.call = SimpleNamespace(request=call.request, came_s=self.agent.clock.boottime_s(), args=args)
        try:
            return super()._mutate(call, method, args, payload)
        finally:
            task.call = None


class SimNode:
    """A host: its disk, its boots, and its agent while there is one. `session` numbers the agent's lives."""

    def __init__(self, world: World, node: Node, ledger: sqlite3.Connection) -> None:
        self.world, self.node, self.name, self.id, self.ledger = world, node, node.name, node.id, ledger
        self.folder = world.folder / node.name
        for name in ("state", "pool"):
            (self.folder / name).mkdir(parents=True)
        self.fake: dict[str, Any] = {**FAKE, "fail": {}}
        self.config = AgentConfig(
            node_id=node.id, cluster_id=world.template.cluster_id, name=node.name, state_dir=str(self.folder / "state"),
            pool_dir=str(self.folder / "pool"), driver="fake", fake=self.fake)
        self.admins = FixedAdmins({world.template.key: ("admin", wire.ADMIN)})    # its file: outlives the agent
        self.session = self.machine = 0
        self.full_until = 0.0
        self.is_off = False
        self.booted_s = self._next_tick_s = 0.0
        self.process: Process | None = None
        self.agent: Agent | None = None
        self.inbox: deque[tuple[bytes, list[bytes]]] = deque()
        self._waiting: Any = None
        self.boot()

    # ---- life

    def boot(self) -> None:
        self.machine += 1
        self.boot_id = f"boot-{self.name}-{self.machine}"
        self.booted_s = self.world.scheduler.now - 20.0

    def boottime_s(self) -> float:
        return self.world.scheduler.now - self.booted_s

    def start_agent(self) -> None:
        if self.is_off or (self.process is not None and self.process.alive):
            return
        self.session += 1
        self.process = self.world.process(f"{self.name}.{self.session}", host=self.name)
        self.process.at_end.append(self._gone)
        self.world.on_process(self.process)
        self.world.scheduler.spawn(self.process, self._serve, "loop")

    def _serve(self) -> None:
        world, scheduler_ = self.world, self.world.scheduler
        ledger = _Ledger(self)
        agent = Agent(self.config, _Driver(self.config, self), _NodeClock(self), ledger, self.admins)
        agent.start()
        dispatcher = _Dispatcher(agent, lambda peer, frames: world.network.reply(self, peer, frames))
        self.agent = agent
        me = scheduler_.living()
        while True:
            while not self.inbox:
                self._waiting = me
                scheduler_.wait(TICK_S if world.is_conducted else None)
                self._waiting = None
                self._tick(dispatcher)
            peer, frames = self.inbox.popleft()
            scheduler_.step("takes a message")
            reply = dispatcher.receive(peer, world.template.key, frames)
            if reply is not None:
                world.network.reply(self, peer, reply)

    def _tick(self, dispatcher: Dispatcher) -> None:
        """As loop.py does. Without a conductor nobody listens, and no lease was given: then it would change nothing."""
        world = self.world
        if not world.is_conducted or world.scheduler.now < self._next_tick_s:
            return
        self._next_tick_s = world.scheduler.now + TICK_S
        for peer in [peer for peer, _ in dispatcher._streams if not world.network.hears(self, peer)]:
            dispatcher.peer_gone(peer)
        dispatcher.tick()

    def kill_agent(self) -> None:
        if self.process is not None and self.process.alive:
            self.world.log(self.world.scheduler.now, self.name, "AGENT KILLED")
            self.world.scheduler.kill(self.process)

    def _gone(self) -> None:
        """What the agent had in memory, and what its kernel had for it, is gone."""
        if self.agent is not None:
            for arrival in self.agent.images._arriving.values():
                arrival.close()
        self.agent = self._waiting = None
        self.inbox.clear()
        self.world.on_agent_end(self)

    def reboot(self) -> None:
        """Power off and on: guests are off, the clock of commands begins anew. The agent is started by whoever says so."""
        self.kill_agent()
        self.world.log(self.world.scheduler.now, self.name, "HOST REBOOTS")
        self.boot()
        hypervisor = FakeDriver(self.config)
        for server, guest in self.guests().items():
            if guest.power_state == "RUNNING":
                self.world.oracle.power_cut(self, server)
        hypervisor.lose_power()

    def power(self, on: bool) -> None:
        """The host's switch. Off, it stays so until it is switched on."""
        if not on and not self.is_off:
            self.is_off = True
            self.reboot()
        elif on and self.is_off:
            self.world.log(self.world.scheduler.now, self.name, "HOST IS ON AGAIN")
            self.is_off = False
            self.boot()
            self.start_agent()

    def power_cut(self, server: str) -> None:
        """The guest goes off by itself."""
        if self.agent is not None and self.process is not None and self.process.alive and self.agent.driver.run_id(server):
            self.world.log(self.world.scheduler.now, self.name, f"GUEST {server[:8]} GOES OFF")
            self.world.oracle.power_cut(self, server)
            self.agent.driver._off(server, "SHUTDOWN", "shutdown")

    # ---- messages

    @property
    def answers(self) -> bool:
        return self.agent is not None and self.process is not None and self.process.alive and not self.process.stopped

    def deliver(self, peer: bytes, frames: list[bytes]) -> None:
        if self.process is None or not self.process.alive:
            return
        self.inbox.append((peer, frames))
        if self._waiting is not None:
            self.world.scheduler.wake(self._waiting)

    # ---- looking, from outside

    def guests(self) -> dict[str, DomainState]:
        """What the hypervisor has, whether there is an agent or not."""
        hypervisor = FakeDriver(self.config)
        return {spec.server: hypervisor.state(spec.server) for spec in hypervisor.specs()}

    def files(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "pool").iterdir() if not path.name.startswith(("base-", ".")))


# ---------------------------------------------------------------- the world

class Template:
    """What is made once and used by every history: the database as it is after enrolment, the image, the settings."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="simulate-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
        env = {"HOME": str(self.folder), "NOVACTL_DATA_DIR": str(self.folder / "data")}
        self.config = load_config(env=env)
        chance = Random(0)
        ids = _Ids(chance)
        clock = SimpleNamespace(now=lambda: EPOCH_S - 3600.0)
        cluster = Cluster(self.config, clock=clock, ids=ids, actor="template")   # type: ignore[arg-type]
        api_cluster.init(cluster)
        with cluster.db.read() as tx:
            self.cluster_id = meta.cluster_id(tx)
        self.key = cluster.key
        self.nodes = [self._node(cluster, name) for name in NODES]
        sha256 = hashlib.sha256(IMAGE).hexdigest()
        store = self.config.data_dir / "images"
        store.mkdir(mode=0o700, exist_ok=True)
        (store / sha256).write_bytes(IMAGE)
        with cluster.db.write() as tx:
            for name, memory_mb in (("small", 512), ("large", 1024)):
                flavors.insert(tx, Flavor(id=ids.uuid(), name=name, vcpus=1, memory_mb=memory_mb, disk_gb=1, created_at=0.0))
            images.insert(tx, Image(
                id=ids.uuid(), name="guest", sha256=sha256, disk_format="raw", size_bytes=len(IMAGE), virtual_size_bytes=len(IMAGE),
                architecture="x86_64", source="test", created_at=0.0))
        cluster.close()
        file = sqlite3.connect(self.config.sqlite_path)
        self.database = _Rows(file, None)
        file.close()
        self.ledgers = [_Rows(_empty_ledger(), "") for _ in NODES]

    def _node(self, cluster: Cluster, name: str) -> Node:
        node = Node(
            id=cluster.ids.uuid(), name=name, state=NodeState.ENABLED, address=name, public_key="k" * 40, ssh="", host_key="", zone="",
            architecture="x86_64", agent_version="", generation=0, created_at=cluster.clock.now())
        folder = self.folder / "probe" / name
        for part in ("state", "pool"):
            (folder / part).mkdir(parents=True)
        config = AgentConfig(
            node_id=node.id, cluster_id=self.cluster_id, name=name, state_dir=str(folder / "state"), pool_dir=str(folder / "pool"),
            driver="fake", fake=FAKE)
        clock = SimpleNamespace(boot_id="template", boottime_s=lambda: 1.0)
        report = Agent(config, FakeDriver(config), clock, Ledger(":memory:"), FixedAdmins({})).report(0)
        with cluster.db.write() as tx:
            nodes.insert(tx, node)
            nodes.ensure_inventory(tx, node.id, fleet.first_inventories(self.config, report))
            fleet.take_report(tx, node.id, report, cluster.clock.now())
        return node

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class _Rows:
    """A database in memory that can be what it was at first: its statements stay prepared, which loading it anew would end."""

    def __init__(self, source: sqlite3.Connection, isolation_level: Any) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=isolation_level, check_same_thread=False, cached_statements=2000)
        source.backup(self.connection)
        self.connection.execute("PRAGMA synchronous=OFF")
        names = [name for name, in self.connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        self._rows = {name: self.connection.execute(f"SELECT * FROM {name}").fetchall() for name in names}

    def reset(self) -> sqlite3.Connection:
        db = self.connection
        if db.in_transaction:
            db.execute("ROLLBACK")
        db.execute("PRAGMA foreign_keys=OFF")
        db.execute("BEGIN")
        for name, rows in self._rows.items():
            db.execute(f"DELETE FROM {name}")
            if rows:
                db.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(rows[0]))})", rows)
        db.execute("COMMIT")
        return db


def _empty_ledger() -> sqlite3.Connection:
    opened = Ledger(":memory:")
    opened.epochs("", "")
    assert opened._opened is not None
    return opened._opened


class World:
    """One history's cluster. `oracle` watches; see invariants.py."""

    def __init__(self, template: Template, seed_: int, log: Callable[[float, str, str], None], oracle: Any) -> None:
        self.template, self.oracle = template, oracle
        self._log = log
        self.scheduler = Scheduler(Random(f"{seed_}:turns"), log)
        self.scheduler.guards.append(self._not_in_a_transaction)
        self.network = Network(self.scheduler, Random(f"{seed_}:network"), log)
        self._ids, self._fates = _Ids(Random(f"{seed_}:ids")), Random(f"{seed_}:database")
        self.folder = Path(tempfile.mkdtemp(prefix="h", dir=template.folder))
        self.connection = template.database.reset()
        self.connection.row_factory = sqlite3.Row
        self.connection.execute("PRAGMA foreign_keys=ON")
        self.in_tx: Tx | None = None
        self._handed_over = 0
        self.processes: list[Process] = []
        self.skew: dict[str, float] = {}
        self.database_skew = 0.0
        self.refused_until: dict[str, float] = {}
        self.is_conducted = False
        """There are conductors, or have been: agents tick."""
        self.threading, self.sightings = _THREADING, conductors.Sightings(self)
        self.loses = self.hides = self.slow = self.full = 0.0
        self._hardware = Random(f"{seed_}:hardware")
        self.on_process: Callable[[Process], None] = lambda process: None
        self.on_effect: Callable[[SimNode, Any], None] = lambda node, call: None
        self.on_agent_end: Callable[[SimNode], None] = lambda node: None
        self.nodes: dict[str, SimNode] = {}
        for node, ledger in zip(template.nodes, template.ledgers, strict=True):
            self.nodes[node.name] = self.network.nodes[node.address] = SimNode(self, node, ledger.reset())
        oracle.begin(self)

    def log(self, now: float, who: str, what: str) -> None:
        self._log(now, who, what)

    def close(self) -> None:
        self.scheduler.close(self.processes)
        for node in self.nodes.values():
            node.kill_agent()
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
        shutil.rmtree(self.folder, ignore_errors=True)

    def _not_in_a_transaction(self) -> None:
        assert self.in_tx is None, "a transaction spans a boundary: a call to an agent, a sleep, another transaction"

    # ---- processes

    def process(self, name: str, host: str) -> Process:
        process = Process(name, host)
        process.own["world"] = self
        self.processes.append(process)
        return process

    def command(self, name: str, host: str, act: Callable[[Cluster], Any], ended: Callable[[], None] = lambda: None) -> Process:
        """A process that runs `act` on a Cluster of its own and ends."""
        process = self.process(name, host)
        process.at_end.append(ended)
        self.on_process(process)

        def run() -> None:
            cluster = self.cluster(process)
            try:
                act(cluster)
            finally:
                self.scheduler.kill(process)

        self.scheduler.spawn(process, run, "main")
        return process

    def cluster(self, process: Process) -> Cluster:
        cluster = Cluster(self.template.config, clock=_Clock(self, process), ids=self._ids, actor=process.name)
        cluster._db = Database(self, process)
        cluster.__dict__["key"] = self.template.key
        cluster._agents = SimAgents(self.network, process, process.name, self.template.config["agent.connect_s"], Ring(cluster))
        return cluster

    def effect_takes_s(self) -> float:
        """At most; what is slow is a hypervisor or a disk that has much to do."""
        return SLOW_S if self._hardware.random() < self.slow else SYNC_S

    def is_full(self) -> bool:
        """At this moment: somebody else's file has come and goes again."""
        return self.full > 0 and self._hardware.random() < self.full

    def agent_broke(self, **_: Any) -> None:
        """An exception that no handler raises on purpose."""
        fault = sys.exception()
        self.oracle.broken(f"agent: {type(fault).__name__}: {fault}")

    def this_process(self) -> str:
        process = self.scheduler.living().process
        return f"{process.host} {process.name} 1 boot ns"

    def is_alive(self, who: str) -> bool | None:
        """As novactl.conductor.owner.is_alive: exact on the asker's host."""
        host, _, rest = who.partition(" ")
        if not rest or host != self.scheduler.living().process.host:
            return None
        name = rest.split(" ")[0]
        found = next((process for process in reversed(self.processes) if process.name == name), None)
        if found is None or not found.alive:
            return False
        return None if found.stopped else True

    def popen(self, command: Sequence[str], **_: Any) -> None:
        """`novactl operation resume ID…`, detached."""
        from novactl.api import operations as api_operations

        parent = self.scheduler.living().process
        ids = list(command)[list(command).index("resume") + 1:]
        self.scheduler.step(f"hands over {', '.join(id_[:8] for id_ in ids)}")

        def resume(cluster: Cluster) -> None:
            try:
                api_operations.resume(cluster, ids)
            except NovaError as error:
                self.log(self.scheduler.now, cluster.actor, f"ends: {error.message[:100]}")

        self._handed_over += 1
        self.command(f"{parent.name}'{self._handed_over}", parent.host, resume)

    # ---- the database's faults

    def database_now(self) -> float:
        """By its machine's clock, which is nobody else's."""
        return EPOCH_S + self.scheduler.now + self.database_skew

    def refuses(self, process: Process) -> bool:
        return self.scheduler.now < self.refused_until.get(process.host, -1.0)

    def commit_fate(self, process: Process) -> str:
        if not (self.loses or self.hides):
            return ""
        draw = self._fates.random()
        if draw < self.loses:
            return "lost"
        return ("" if draw >= self.loses + self.hides else "committed" if draw < self.loses + self.hides / 2 else "not committed")
