"""A small real cluster for tests: a database, an admin key, and agents with the fake driver behind real CURVE sockets."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nodeagent.admins import FixedAdmins
from nodeagent.agent import Agent
from nodeagent.clock import BootClock
from nodeagent.config import Config as AgentConfig
from nodeagent.drivers.fake import FakeDriver
from nodeagent.ledger import Ledger
from nodeagent.loop import Endpoint, Loop, new_keypair, public_of
from nodeagent.nodekeys import NodeKeys
from novactl.agents import keys, wire
from novactl.api import cluster as api_cluster
from novactl.cluster import Cluster
from novactl.conductor import fleet
from novactl.config import load_config
from novactl.db import flavors, images, meta, nodes, operations, placement, projects, servers
from novactl.db import keys as keys_db
from novactl.model.flavor import Flavor
from novactl.model.image import Image
from novactl.model.node import Node, NodeState
from novactl.model.operation import Operation


class World:
    """`agents` maps a node's name to its agent; `disks(name)` are the files in its pool."""

    def __init__(self, folder: Path, *, url: str = "") -> None:
        self.folder = folder
        env = {"HOME": str(folder), "NOVACTL_DATA_DIR": str(folder / "data"), "NOVACTL_AGENT_CONNECT_S": "3"}
        if url:
            env["NOVACTL_DATABASE_URL"] = url
        self.env = env
        self.config = load_config(env=env)
        self.cluster = Cluster(self.config, actor="tester@world")
        api_cluster.init(self.cluster)
        self.loop = Loop()
        self.agents: dict[str, Agent] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self._thread: threading.Thread | None = None

    # ---- building

    def add_node(self, name: str, *, zone: str = "", fake: Mapping[str, Any] | None = None) -> Node:
        """An enrolled, enabled node with a fake driver. Before `start`."""
        cluster, folder = self.cluster, self.folder / name
        (folder / "state").mkdir(parents=True)
        (folder / "pool").mkdir()
        with cluster.db.read() as tx:
            cluster_id, version = meta.cluster_id(tx), keys_db.version(tx)
        config = AgentConfig(
            node_id=cluster.ids.uuid(), cluster_id=cluster_id, name=name, listen="tcp://127.0.0.1:*", keys_dir=str(folder),
            admins_file=str(folder / "admins.json"), state_dir=str(folder / "state"), pool_dir=str(folder / "pool"), driver="fake",
            fake=dict(fake or {}))
        admin = keys.load(self.config.data_dir / "keys").public
        agent = Agent(
            config, FakeDriver(config), BootClock(), Ledger(str(folder / "state" / "ledger.db")),
            FixedAdmins({admin: ("tester", wire.ADMIN)}, version))
        own = NodeKeys(config.keys_dir, public_of, new_keypair)
        public, secret = own.ensure()
        endpoint = self.loop.add(agent, config.listen, secret, public, own)
        agent.start()
        node = Node(
            id=config.node_id, name=name, state=NodeState.ENABLED, address=endpoint.address, public_key=public, ssh="", host_key="",
            zone=zone, architecture="x86_64", agent_version="", generation=0, created_at=cluster.clock.now())
        report = agent.report(0)
        with cluster.db.write() as tx:
            nodes.insert(tx, node)
            nodes.ensure_inventory(tx, node.id, fleet.first_inventories(self.config, report))
            fleet.take_report(tx, node.id, report, cluster.clock.now())
        self.agents[name], self.endpoints[name] = agent, endpoint
        return node

    def share_pool(self, owner: str, *names: str) -> None:
        """The pools of these nodes are that of `owner`: one directory, as over NFS. Before anything is in theirs."""
        for name in names:
            shutil.rmtree(self.folder / name / "pool")
            (self.folder / name / "pool").symlink_to(self.folder / owner / "pool")
            self.agents[name]._report = None

    def start(self) -> World:
        self._thread = threading.Thread(target=self.loop.run, name="agents", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        self.cluster.close()
        self.loop.stop()
        if self._thread:
            self._thread.join(10)
        self.loop.close()

    def add_flavor(self, name: str = "small", *, vcpus: int = 1, memory_mb: int = 512, disk_gb: int = 1) -> Flavor:
        flavor = Flavor(
            id=self.cluster.ids.uuid(), name=name, vcpus=vcpus, memory_mb=memory_mb, disk_gb=disk_gb, created_at=self.cluster.clock.now())
        with self.cluster.db.write() as tx:
            flavors.insert(tx, flavor)
        return flavor

    def add_image(self, name: str = "guest", content: bytes = b"\0" * 3_000_000) -> Image:
        """A raw image whose file is in the store."""
        sha256 = hashlib.sha256(content).hexdigest()
        store = self.config.data_dir / "images"
        store.mkdir(mode=0o700, exist_ok=True)
        (store / sha256).write_bytes(content)
        image = Image(
            id=self.cluster.ids.uuid(), name=name, sha256=sha256, disk_format="raw", size_bytes=len(content),
            virtual_size_bytes=len(content), architecture="x86_64", source="test", created_at=self.cluster.clock.now())
        with self.cluster.db.write() as tx:
            images.insert(tx, image)
        return image

    # ---- looking

    def domains(self) -> dict[str, str]:
        """Server id -> power state, on all agents."""
        return {state.server: state.power_state for agent in self.agents.values() for state in agent.driver.states()[0]}

    def disks(self) -> list[str]:
        """Every file in every pool but base images."""
        return sorted(
            path.name for name in self.agents for path in (self.folder / name / "pool").iterdir()
            if not path.name.startswith(("base-", ".")))

    def leftovers(self) -> list[str]:
        """Whatever a server that is gone should not have left: rows, claims, domains, disks, unfinished operations."""
        with self.cluster.db.read() as tx:
            found = [f"server {s.name} {s.vm_state}/{s.task_state}" for s in servers.all_(tx)]
            found += [f"claim {c.consumer_id} {c.resource_class}" for c in placement.all_(tx)]
            found += [f"fitting on {node}" for node in placement.fittings(tx)]
            found += [f"{count} servers on {node}" for node, count in placement.consumers(tx).items()]
            used = {project.name: projects.usage(tx, project.id) for project in projects.all_(tx)}
            found += [f"{name} uses {usage[kind]} {kind}" for name, usage in used.items() for kind in projects.COUNTED if usage[kind]]
            found += [f"operation {o.kind} {o.state}" for o in operations.recent(tx, ended=False)]
        found += [f"domain {id_} {power}" for id_, power in self.domains().items()]
        return found + [f"file {name}" for name in self.disks()]

    def abandon(self, operation: Operation) -> None:
        """As if the process that drives it had died."""
        with self.cluster.db.write() as tx:
            fresh = operations.by_id(tx, operation.id)
            assert fresh is not None
            operations.take(tx, fresh, state=fresh.state, owner="", lease_until=0.0)

    def reboot(self, name: str) -> None:
        """A node's host loses power and comes back in another boot."""
        agent = self.agents[name]
        agent.driver.lose_power()  # type: ignore[attr-defined]
        agent.clock = BootClock()
        agent.clock.boot_id = self.cluster.ids.uuid()
        agent.autostart.begin()
        agent._report = None

    def agent_config(self, name: str) -> str:
        return json.dumps(wire.to_plain(self.agents[name].config))


@contextmanager
def small_world(folder: Path, *, count: int = 2, url: str = "") -> Iterator[World]:
    """`count` nodes n1, n2 …, flavor `small`, image `guest`."""
    world = World(folder, url=url)
    for number in range(1, count + 1):
        world.add_node(f"n{number}")
    world.add_flavor()
    world.add_image()
    world.start()
    try:
        yield world
    finally:
        world.stop()
