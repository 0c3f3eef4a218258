"""A slot: one cluster of two nodes in a directory, brought back to the same slate before each case, and its processes."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import json
import os
import pickle
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nodeagent import __main__ as agent_main
from nodeagent import config as agent_config
from nodeagent import wire
from nodeagent.drivers.fake import FakeDriver
from nodeagent.loop import new_keypair, public_of
from nodeagent.nodekeys import NodeKeys
from novactl.agents import client, keys, link
from novactl.api import cluster as api_cluster
from novactl.cli.run import run as run_cli
from novactl.cluster import Cluster, SystemClock
from novactl.conductor import evacuate_server, fleet, recover
from novactl.config import load_config
from novactl.db import flavors, images, meta, nodes
from novactl.db.core import CoreDatabase
from novactl.model.flavor import Flavor
from novactl.model.image import Image
from novactl.model.node import Node, NodeState
from tests.crash.points import Points, Switch, wrap_agent, wrap_command

NODES = ("n1", "n2")
_PR_SET_CHILD_SUBREAPER = 36
PATIENCE_S = 60.0
"""A process that takes longer hangs."""
ASK_AGAIN_S = 0.3
CONNECT_S = 2.5
LOADED_S = 5.0
"""What an agent that is there may take to answer on a machine that has much to do."""
OFF_S = 0.1
"""What one that is known to be off gets to show that."""
IMAGE = b"\0" * ((1 << 20) + 4096)
"""Two chunks."""


class Hung(AssertionError):
    """A process did not end, or did not begin, in PATIENCE_S."""


class Slot:
    """`place` is where it lies, `address` an IP address of its own. `url` is its database, "" for SQLite."""

    def __init__(self, place: Path, address: str, url: str = "") -> None:
        self.place, self.address, self.url = place, address, url
        self.folder = place / "cluster"
        self.agents: dict[str, int] = {}
        self.switches = {name: Switch() for name in NODES}
        self.switch = Switch()
        self.statuses: dict[int, int] = {}
        self.stopped: set[int] = set()
        self.ahead_s = 0.0
        self.subject: Any = None
        self.connect_s = CONNECT_S
        self.spared: set[int] = set()
        place.mkdir(parents=True, exist_ok=True)
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)   # what a command leaves in the background comes to us
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})

    @property
    def env(self) -> dict[str, str]:
        env = {
            "HOME": str(self.folder), "PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8",
            "NOVACTL_DATA_DIR": str(self.folder / "data"), "NOVACTL_AGENT_CONNECT_S": str(self.connect_s), "NOVACTL_YES": "1",
            "NOVACTL_NO_INPUT": "1", "NOVACTL_DATABASE_BUSY_TIMEOUT_S": "30", "NOVACTL_PLACEMENT_REFRESH_S": "0",
            "NOVACTL_OPERATION_RETRY_S": "0.05", "NOVACTL_OPERATION_PARALLEL": "1"}
        return env | ({"NOVACTL_DATABASE_URL": self.url} if self.url else {})

    # ---- processes

    def fork(self, act: Callable[[], int], log: str) -> int:
        """`act` in a process of its own, its output in the file `log`; it must end by os._exit or a signal."""
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            return pid
        status = 70
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, set())
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            out = os.open(self.folder / log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0), os.dup2(out, 1), os.dup2(out, 2)
            sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
            os.chdir(self.folder)
            os.environ.clear()
            os.environ.update(self.env)
            SystemClock.now = staticmethod(lambda: time.time() + self.ahead_s)  # type: ignore[method-assign]
            CoreDatabase.now = lambda database, clock: clock.now()  # type: ignore[method-assign]
            link.ASK_AGAIN_S = ASK_AGAIN_S
            fleet.REFRESH_DEADLINE_S = recover.PROBE_S = LOADED_S
            if self.off:
                evacuate_server.ANSWERS_S = client.DIAGNOSE_S = OFF_S
                fleet.reports = _hurried(fleet.reports, self.off)
            status = act()
            sys.stdout.flush(), sys.stderr.flush()
        except BaseException:  # noqa: BLE001 - this process must not go on as its parent
            with contextlib.suppress(BaseException):
                traceback.print_exc(file=sys.stderr)
                sys.stderr.flush()
        finally:
            os._exit(status)

    def wait(self, until: Callable[[], Any], what: str, within_s: float = PATIENCE_S) -> Any:
        """What `until` says, as soon as it is true: asked whenever a child ends or stops."""
        deadline = time.monotonic() + within_s
        while True:
            self._reap()
            found = until()
            if found:
                return found
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise Hung(f"{what}: not in {within_s:g} s")
            signal.sigtimedwait({signal.SIGCHLD}, min(left_s, 0.02))

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if not pid:
                return
            if os.WIFSTOPPED(status):
                self.stopped.add(pid)
            else:
                self.statuses[pid] = os.waitstatus_to_exitcode(status)

    def ended(self, pid: int, what: str, within_s: float = PATIENCE_S) -> int:
        """Its exit status, or minus the signal that ended it."""
        try:
            self.wait(lambda: pid in self.statuses, what, within_s)
        except Hung:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self.wait(lambda: pid in self.statuses, what)
            raise
        return self.statuses.pop(pid)

    def cont(self, pid: int) -> None:
        self.stopped.discard(pid)
        os.kill(pid, signal.SIGCONT)

    def ask(self, question: Callable[[World], Any]) -> Any:
        """The answer of a process of its own, in which the database may be opened."""
        path = self.folder / "answer"
        path.unlink(missing_ok=True)

        def act() -> int:
            world = World(self)
            try:
                path.write_bytes(pickle.dumps(question(world)))
            finally:
                world.cluster.close()
            return 0

        if self.ended(self.fork(act, "observer.log"), "a look") or not path.exists():
            raise AssertionError(f"a look failed:\n{self.tail('observer.log')}")
        return pickle.loads(path.read_bytes())

    def see(self, question: Callable[[World], Any]) -> Any:
        """The same here, for what only reads: nothing stays open that a fork might inherit."""
        world = World(self)
        try:
            return question(world)
        finally:
            database = world.cluster.db
            world.cluster.close()
            if isinstance(database, CoreDatabase):
                database.engine.dispose()

    def tail(self, log: str, lines: int = 25) -> str:
        path = self.folder / log
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    # ---- the command and the agents

    def command(self, act: list[str] | Callable[[World], None], *, trace: str = "command") -> int:
        """Begin `novactl WORDS`, or a function that plays it, with points in `trace`. The switch says what becomes of it."""
        points = self.folder / f"{trace}.points"
        points.unlink(missing_ok=True)

        def child() -> int:
            wrap_command(Points(self.switch, points))
            if isinstance(act, list):
                return run_cli(act)
            world = World(self)
            act(world)
            world.cluster.close()
            return 0

        return self.fork(child, f"{trace}.log")

    @property
    def off(self) -> set[str]:
        """Nodes without power."""
        return {name for name in NODES if (self.folder / name / "off").exists()}

    def points(self, trace: str) -> list[str]:
        path = self.folder / f"{trace}.points"
        return [line.partition(" ")[2] for line in path.read_text().splitlines()] if path.exists() else []

    def start_agents(self) -> None:
        """Of the nodes that are not off."""
        there = [name for name in NODES if name not in self.off]
        for name in there:
            self.start_agent(name)
        for name in there:
            self.await_agent(name)

    def start_agent(self, name: str) -> None:
        switch = self.switches[name]
        switch.disarm()
        switch.ready = 0
        points = self.folder / f"{name}.points"
        points.unlink(missing_ok=True)

        def child() -> int:
            from nodeagent.loop import Loop

            wrap_agent(Points(switch, points))
            serve = Loop.run

            def ready(loop: Any) -> None:
                switch.ready = 1
                serve(loop)

            Loop.run = ready  # type: ignore[method-assign]
            return agent_main.run(agent_config.load(str(self.folder / name / "config.json")))

        self.agents[name] = self.fork(child, f"{name}.log")

    def await_agent(self, name: str) -> None:
        pid = self.agents[name]
        deadline = time.monotonic() + PATIENCE_S
        while not self.switches[name].ready:
            self._reap()
            if pid in self.statuses or time.monotonic() > deadline:
                raise Hung(f"the agent {name} did not start:\n{self.tail(f'{name}.log')}")
            time.sleep(0.002)

    def restart(self, name: str) -> None:
        """The agent as its supervisor starts it again, once it is dead."""
        self.ended(self.agents[name], f"the agent {name}")
        self.start_agent(name)
        self.await_agent(name)

    def stop_agents(self, number: int = signal.SIGKILL) -> None:
        for pid in self.agents.values():
            if pid not in self.statuses:
                os.kill(pid, number)
        for name, pid in self.agents.items():
            self.ended(pid, f"the end of the agent {name}")
        self.agents.clear()

    # ---- slates

    def build(self) -> None:
        """The cluster, its nodes, flavor `small` and image `guest`, all running."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o700)
        configs = self.ask(_made)
        for name, config in configs.items():
            (self.folder / name / "config.json").write_text(json.dumps(config))
        self.start_agents()
        self.ask(lambda world: _enrolled(world, configs))

    def switch_off_fenced(self) -> None:
        """What is fenced is off, also in the slate that is kept."""
        self.ask(_switch_off)

    def keep(self, name: str) -> None:
        """Remember the slate as `name`."""
        self.stop_agents(signal.SIGTERM)
        target = self.place / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.folder, target)
        if self.url:
            _postgres(self.url, _keep, f"kept_{name}")

    def take(self, name: str) -> None:
        """Begin at the slate `name`: its files and its rows, its agents running, nothing else."""
        self.kill_all()
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.place / name, self.folder, copy_function=_copied)
        if self.url:
            _postgres(self.url, _take, f"kept_{name}")
        self.ahead_s, self.connect_s = 0.0, CONNECT_S
        self.switch.disarm()
        self.start_agents()

    def has(self, name: str) -> bool:
        return (self.place / name).is_dir()

    def kill_all(self) -> None:
        """Whatever of the last case still runs: agents, and commands that were left."""
        deadline = time.monotonic() + PATIENCE_S
        while (children := self.children()) and time.monotonic() < deadline:
            for pid in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._reap()
            time.sleep(0.001)
        self.agents.clear(), self.statuses.clear(), self.stopped.clear()

    def children(self) -> set[int]:
        """All that runs in the slot, or is dead and not yet known to be."""
        return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())) - self.spared

    def await_background(self) -> None:
        """Until what commands have left to processes of their own has been done."""
        self.wait(lambda: not self.children() - set(self.agents.values()) - self.stopped, "what goes on in the background")


def _hurried(reports: Callable[..., Any], off: set[str]) -> Callable[..., Any]:
    """Nobody waits for those that are `off`."""
    def asked(cluster: Any, peers: Any, max_age_s: float, *, timeout_s: float, hurry: Mapping[str, float] | None = None) -> Any:
        more = {peer.id: OFF_S for peer in peers if peer.name in off}
        return reports(cluster, peers, max_age_s, timeout_s=timeout_s, hurry={**(hurry or {}), **more})

    return asked


def _copied(source: str, target: str) -> str:
    """Images are never changed in place: another name of the same file will do."""
    if "/images/" in source:
        os.link(source, target)
        return target
    return str(shutil.copy2(source, target))


def _postgres(url: str, act: Callable[[Any, str], None], kept: str) -> None:
    """In a process of its own, so that no connection is ever forked."""
    pid = os.fork()
    if not pid:
        status = 70
        try:
            import psycopg

            with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
                act(connection, kept)
            status = 0
        except BaseException:  # noqa: BLE001 - this process must not go on as its parent
            traceback.print_exc()
        finally:
            os._exit(status)
    if os.waitpid(pid, 0)[1]:
        raise AssertionError(f"{act.__name__} {kept} failed")


_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
_OTHERS = (
    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
    " WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()")


def _keep(connection: Any, kept: str) -> None:
    """The rows, in a schema beside: a new database costs twenty times what rows cost."""
    connection.execute(f'DROP SCHEMA IF EXISTS "{kept}" CASCADE')
    connection.execute(f'CREATE SCHEMA "{kept}"')
    for (table,) in connection.execute(_TABLES).fetchall():
        connection.execute(f'CREATE TABLE "{kept}"."{table}" AS TABLE public."{table}"')
    connection.execute(f'CREATE TABLE "{kept}"."its sequences" AS SELECT sequencename, last_value FROM pg_sequences')


def _take(connection: Any, kept: str) -> None:
    """The rows as they were kept, when nobody of the last case is connected any more."""
    while connection.execute(_OTHERS).fetchall():
        pass
    with connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")                      # no keys are checked
        for (table,) in connection.execute(_TABLES).fetchall():
            connection.execute(f'DELETE FROM public."{table}"')
            connection.execute(f'INSERT INTO public."{table}" SELECT * FROM "{kept}"."{table}"')
        connection.execute(
            f'SELECT setval(sequencename::regclass, coalesce(last_value, 1), last_value IS NOT NULL) FROM "{kept}"."its sequences"')


class World:
    """A slot's cluster as the scenarios see one (tests.world.World): in a process that may open it."""

    def __init__(self, slot: Slot) -> None:
        self.slot, self.folder = slot, slot.folder
        self.config = load_config(env=slot.env)
        self.cluster = Cluster(self.config, actor="tester@crash")
        self.agents = {name: NodeFiles(slot, name) for name in NODES}
        self.endpoints = self.agents

    def domains(self) -> dict[str, str]:
        """Server id -> power state, on all nodes."""
        return {server: guest["power"] for name in NODES for server, guest in self.guests(name).items()}

    def guests(self, name: str) -> Mapping[str, Any]:
        """What the fake driver of a node keeps of each domain."""
        try:
            found = json.loads((self.folder / name / "state" / "fake.json").read_text())
        except FileNotFoundError:
            return {}
        return {server: guest for server, guest in found.items() if server != "wild"}

    def disks(self) -> list[str]:
        """Every file in every pool but base images."""
        return sorted(name for node in NODES for name in self.pool(node) if not name.startswith("base-"))

    def pool(self, name: str) -> list[str]:
        return sorted(path.name for path in (self.folder / name / "pool").iterdir() if path.name[0] != ".")


class NodeFiles:
    """What an agent keeps, as scenarios look at an agent in their own process, and change it while they prepare."""

    def __init__(self, slot: Slot, name: str) -> None:
        self._slot, self._name = slot, name
        self.preparing = False
        self.own_keys = SimpleNamespace(keys=NodeKeys(str(slot.folder / name / "keys"), public_of, new_keypair))

    @functools.cached_property
    def driver(self) -> FakeDriver:
        """What the node has. While it is prepared the agent is killed for it, and knows when it is started next."""
        if self.preparing:
            with contextlib.suppress(ProcessLookupError, KeyError):
                os.kill(self._slot.agents[self._name], signal.SIGKILL)
        return FakeDriver(agent_config.load(str(self._slot.folder / self._name / "config.json")))

    def prepared(self) -> None:
        if "driver" in self.__dict__:
            self.driver._save()

    @property
    def public(self) -> str:
        return self.own_keys.keys.current().public


def _made(world: World) -> dict[str, dict[str, Any]]:
    """Init, flavor, image; each node's directories, keys and configuration."""
    cluster, slot = world.cluster, world.slot
    made = api_cluster.init(cluster)
    sha256 = hashlib.sha256(IMAGE).hexdigest()
    (world.config.data_dir / "images").mkdir(mode=0o700, exist_ok=True)
    (world.config.data_dir / "images" / sha256).write_bytes(IMAGE)
    now = cluster.clock.now()
    with cluster.db.write() as tx:
        flavors.insert(tx, Flavor(id=cluster.ids.uuid(), name="small", vcpus=1, memory_mb=512, disk_gb=1, created_at=now))
        images.insert(tx, Image(
            id=cluster.ids.uuid(), name="guest", sha256=sha256, disk_format="raw", size_bytes=len(IMAGE), virtual_size_bytes=len(IMAGE),
            architecture="x86_64", source="test", created_at=now))
        cluster_id = meta.cluster_id(tx)
    found = {}
    for number, name in enumerate(NODES):
        home = world.folder / name
        for part in ("state", "pool"):
            (home / part).mkdir(parents=True)
        agent_main.ensure_keys(str(home / "keys"))
        admins = {made.admin_key: {"name": "tester", "role": wire.ADMIN}}
        (home / "admins.json").write_text(json.dumps({"keys": admins}))
        found[name] = {
            "node_id": cluster.ids.uuid(), "cluster_id": cluster_id, "name": name, "listen": f"tcp://{slot.address}:{7766 + number}",
            "keys_dir": str(home / "keys"), "admins_file": str(home / "admins.json"), "state_dir": str(home / "state"),
            "pool_dir": str(home / "pool"), "driver": "fake",
            "fake": {"vcpus": 64 // (number + 1), "memory_mb": 65536 // (number + 1), "disk_gb": 1000}}     # the first is the best
    return found


def _switch_off(world: World) -> None:
    with world.cluster.db.write() as tx:
        for node in nodes.all_(tx):
            if node.state is NodeState.FENCED:
                (world.folder / node.name / "off").touch()
                nodes.silent(tx, node.id, world.cluster.clock.now())


def _enrolled(world: World, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Both nodes as enrolment leaves them."""
    cluster = world.cluster
    for name, config in configs.items():
        node = Node(
            id=config["node_id"], name=name, state=NodeState.ENABLED, address=config["listen"],
            public_key=(world.folder / name / "keys" / "agent.pub").read_text().strip(), ssh="", host_key="", zone="",
            architecture="x86_64", agent_version="", generation=0, created_at=cluster.clock.now())
        report = cluster.agents.call(node, "inventory.read", wire.InventoryRead(0)).body
        with cluster.db.write() as tx:
            nodes.insert(tx, node)
            nodes.ensure_inventory(tx, node.id, fleet.first_inventories(world.config, report))
            fleet.take_report(tx, node.id, report, cluster.clock.now())
    assert keys.load(world.config.data_dir / "keys").public
