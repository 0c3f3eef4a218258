"""What the journal costs a creation, and how soon what dead processes left is ended."""

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from novactl.agents import keys, wire
from novactl.agents.link import Fence
from novactl.api import creation
from novactl.api import servers as api
from novactl.cluster import Cluster
from novactl.conductor import create_server, fleet
from novactl.conductor.driver import Driver
from novactl.conductor.recover import recover
from novactl.conductor.saga import Step
from novactl.db import nodes, operations
from novactl.model.node import Node, NodeState
from novactl.model.operation import Operation, OperationState
from tests.bench.registry import Figure, at_most, bench
from tests.world import World

NODES, INTERRUPTED, TURNS = 20, 500, 60


class Killed(BaseException):
    """The process dies here."""


@contextlib.contextmanager
def many_nodes(count: int) -> Iterator[Cluster]:
    """A database on disk, fsync on, and fake agents in a process of their own; flavor `tiny`, image `guest`."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        cluster, key = world.cluster, keys.load(world.config.data_dir / "keys").public
        cluster.config = cluster.config.replace(agent__connect_s=5.0)
        world.add_flavor("tiny", vcpus=1, memory_mb=128)
        world.add_image()
        for number in range(count):
            (Path(folder) / f"agents/h{number}").mkdir(parents=True)
        agents = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.fleet", str(count), key, f"{folder}/agents"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert agents.stdout
            for number, (address, public, id_) in enumerate(json.loads(agents.stdout.readline())):
                _add(cluster, id_, f"h{number}", address, public)
            yield cluster
        finally:
            agents.kill()
            agents.wait()
            world.stop()


def _add(cluster: Cluster, id_: str, name: str, address: str, public: str) -> None:
    node = Node(
        id=id_, name=name, state=NodeState.ENABLED, address=address, public_key=public, ssh="", host_key="", zone="",
        architecture="x86_64", agent_version="", generation=0, created_at=cluster.clock.now())
    operation = cluster.ids.uuid()
    cluster.agents.call(node, "node.prepare", wire.Prepare(), fence=Fence(f"{operation}:prepare", operation, 1))
    report = cluster.agents.call(node, "inventory.read", wire.InventoryRead(0.0)).body
    with cluster.db.write() as tx:
        nodes.insert(tx, node)
        nodes.ensure_inventory(tx, node.id, fleet.first_inventories(cluster.config, report))
        fleet.take_report(tx, node.id, report, cluster.clock.now())


def begun(cluster: Cluster, name: str) -> Operation:
    wanted = api.CreateServer(name=name, flavor="tiny", image="guest")
    with cluster.db.write() as tx:
        ((server, record),) = creation._records(cluster, tx, wanted, [name])
        return creation._begin(cluster, tx, server, record, detached=False)


# ---------------------------------------------------------------- recovery

def interrupted(cluster: Cluster, count: int) -> None:
    """So many creations whose processes died, evenly after each of the steps."""
    steps = create_server.CREATE.steps

    def dying(number: int) -> Any:
        def die(run: Any, record: Any) -> Any:
            steps[number].do(run, record)
            raise Killed

        return create_server.CREATE.__class__(**{
            **vars(create_server.CREATE), "steps": (*steps[:number], Step(steps[number].name, die, steps[number].undo))})

    sagas = [dying(number) for number in range(len(steps))]

    def some(first: int) -> None:
        for number in range(first, count, 4):
            operation = begun(cluster, f"s{number}")
            with contextlib.suppress(Killed):
                Driver(cluster, sagas[number % len(steps)], operation).drive()
        cluster.db.close()

    crew = [threading.Thread(target=some, args=(first,)) for first in range(4)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    with cluster.db.write() as tx:
        left = operations.recent(tx, ended=False)
        assert len(left) == count, len(left)
        for operation in left:
            operations.take(tx, operation, state=operation.state, owner="", lease_until=0.0)


@bench("recovery.500")
def recovery() -> Figure:
    """From the next command's first look to the end of 500 interrupted creations on 20 nodes."""
    with many_nodes(NODES) as cluster:
        interrupted(cluster, INTERRUPTED)
        began = time.perf_counter()
        ended = recover(cluster, budget_s=300.0)
        took = time.perf_counter() - began
        states = {(operation.state, error and error.message) for operation, error in ended}
        assert len(ended) == INTERRUPTED and states == {(OperationState.FAILED, None)}, states
        return at_most("recovery.500", took, "s", limit=30.0)


# ---------------------------------------------------------------- what the journal costs

class Unjournalled(Driver[Any]):
    """The same steps and the same end; in between nothing is written down."""

    def _begin_step(self, finished: int | None, position: int) -> None:
        pass

    def _finish(self, last: int | None) -> None:
        with self.run.tx() as tx:
            self.saga.finish(self.run, tx, self.record)
            self._write(tx, state=OperationState.OK, ended_at=self.cluster.clock.now(), error=None)


@bench("journal.create")
def journal() -> Figure:
    """What the journal adds to a creation on SQLite, fsync on: the median difference between turns with it and without."""
    def driven(kind: type[Driver[Any]], name: str) -> float:
        operation = begun(cluster, name)
        began = time.perf_counter()
        kind(cluster, create_server.CREATE, operation).drive()
        took = time.perf_counter() - began
        api.delete(cluster, name)
        return took

    with many_nodes(2) as cluster:
        for warm in ("w1", "w2", "w3"):
            driven(Driver, warm)
        differences = []
        for turn in range(TURNS):
            first, second = (Driver, Unjournalled) if turn % 2 else (Unjournalled, Driver)
            found = {kind: driven(kind, f"{kind.__name__.lower()}{turn}") for kind in (first, second)}
            differences.append(found[Driver] - found[Unjournalled])
        return at_most("journal.create", statistics.median(differences) * 1000, "ms", limit=15.0)
