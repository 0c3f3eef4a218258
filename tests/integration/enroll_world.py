"""One bare lab host and a cluster of its own: what the enrolment tests start from and come back to."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from novactl.agents import keys
from novactl.api import cluster as api_cluster
from novactl.cluster import Cluster
from novactl.conductor import enroll_node, remove_node
from novactl.config import load_config
from novactl.db import nodes, operations
from novactl.enroll.request import EnrollNode, EnrolPlan
from novactl.model.node import Node
from tests.lab import Host, Lab

_SLATE = """
for p in /opt /etc/nodeagent /var/lib/nodeagent /var/lib/libvirt/images /run/nodeagent* /run/novactl* /etc/rc.local; do
    find $p -printf '%p %m %u\\n' 2>/dev/null
done
cat /etc/rc.local 2>/dev/null; sort /etc/passwd | sha256sum; virsh -q pool-list --all; virsh -q net-list --all
for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -a 'nodeagent.pyz\\|supervise' | grep -av grep; done; true
"""


class World:
    """`cluster` is the first admin's; `admin(name)` makes another admin of the same database."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.host, self.folder = lab, lab.hosts[0], folder
        self.clusters: list[Cluster] = []
        folder.mkdir(mode=0o700)
        config = load_config(env={"HOME": str(lab.home), "NOVACTL_DATA_DIR": str(folder)})
        self.cluster = self._opened(Cluster(config))
        api_cluster.init(self.cluster)

    def _opened(self, cluster: Cluster) -> Cluster:
        self.clusters.append(cluster)
        return cluster

    def admin(self, name: str) -> Cluster:
        """Another admin: the same database, a key pair of their own that nobody knows yet."""
        home = self.folder / name
        home.mkdir(mode=0o700)
        keys.ensure(home / "keys")
        env = {"HOME": str(self.lab.home), "NOVACTL_DATA_DIR": str(home), "NOVACTL_DATABASE_URL": self.cluster.config.database_url}
        return self._opened(Cluster(load_config(env=env), actor=f"{name}@test"))

    def enroll(self, *, cluster: Cluster | None = None, dry_run: bool = False, watch: Any = None, **wanted: Any) -> str | EnrolPlan:
        wanted.setdefault("target", f"root@{self.host.address}")
        return enroll_node.enroll(cluster or self.cluster, EnrollNode(**wanted), dry_run=dry_run, watch=watch)

    def remove(self, name: str = "h1", **how: Any) -> tuple[str, ...]:
        return remove_node.remove(self.cluster, self.node(name).id, **how)

    def node(self, name: str = "h1") -> Node:
        with self.cluster.db.read() as tx:
            found = nodes.by_name(tx, name)
        assert found is not None
        return found

    def slate(self) -> dict[str, Any]:
        """All that enrolment may leave behind: on the host, and in the database."""
        with self.cluster.db.read() as tx:
            return {
                "host": self.host.run("sh", "-c", _SLATE).stdout, "nodes": [n.name for n in nodes.all_(tx)],
                "open": [(o.kind, o.state.value) for o in operations.recent(tx, ended=False)],
            }

    def log(self, name: str = "h1") -> str:
        return (self.folder / "logs" / f"enrol-{name}.log").read_text()

    def pid(self) -> int:
        """The agent's process on the host, 0 where there is none."""
        return int(self.host.run("sh", "-c", "cat /run/nodeagent.child.pid 2>/dev/null || echo 0").stdout)

    def close(self) -> None:
        for cluster in self.clusters:
            cluster.close()


def await_true(what: Callable[[], Any], within_s: float = 120.0) -> None:
    until = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < until, "it did not become true in time"
        time.sleep(0.05)


def private_host_key(host: Host) -> str:
    """Give the host another SSH host key, as a reinstallation does; returns its fingerprint."""
    host.run("sh", "-c", "rm -f /etc/ssh/ssh_host_ed25519_key*; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key;"
             " kill -HUP $(cat /run/sshd.pid)")
    await_true(lambda: _offered(host) == host.host_key)
    return host.fingerprint


def _offered(host: Host) -> str:
    done = subprocess.run(["ssh-keyscan", "-t", "ed25519", host.address], capture_output=True, text=True, timeout=60, env=dict(os.environ))
    keys = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    return " ".join(keys[0].split()[1:3]) if keys else ""


def home_of(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and known_hosts are those of the lab's client."""
    monkeypatch.setenv("HOME", str(lab.home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
