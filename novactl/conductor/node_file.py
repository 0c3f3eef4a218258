"""The nodes in a small file beside the admin's key: what is needed to find them again when the database is lost."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from novactl.cluster import Cluster
from novactl.db import meta, nodes
from novactl.errors import BadConfig, DatabaseFailed
from novactl.model.node import Node, NodeState

NAME = "nodes.json"
_KEPT = ("id", "name", "address", "public_key", "ssh", "host_key", "zone", "architecture", "dedicated_cpus", "shared_disk")
_OBJECTS = ("labels", "undo", "fencing")


@dataclass(frozen=True, kw_only=True)
class Known:
    """`nodes` have what a node's row has, but for what its agent tells. None of it is secret but to whom nodes are."""

    cluster_id: str = ""
    nodes: tuple[Node, ...] = ()
    fault: str = field(default="", compare=False)


def remember(cluster: Cluster) -> None:
    """Write the file anew, if it can be written: what it is for is rare, and enrolling must not fail for it.

    Called by whoever ends what changes nodes, beside that process's own key.
    """
    path = cluster.config.data_dir / NAME
    with contextlib.suppress(OSError, DatabaseFailed), _alone(path.with_suffix(".lock")):
        with cluster.db.read() as tx:
            known = [node for node in nodes.all_(tx) if node.address and node.state is not NodeState.ENROLLING]
            plain = {"cluster_id": meta.cluster_id(tx), "nodes": [_plain(node) for node in known]}
        part = path.with_suffix(".part")
        with os.fdopen(_private(part, os.O_TRUNC), "w", encoding="utf-8") as file:
            json.dump(plain, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Of two who remember at once, the one that has read later writes later."""
    descriptor = _private(lock)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _private(path: Path, more: int = 0) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | more, 0o600)


def _plain(node: Node) -> dict[str, Any]:
    return {name: getattr(node, name) for name in _KEPT} | {name: dict(getattr(node, name)) for name in _OBJECTS}


def recall(cluster: Cluster) -> Known:
    """What was remembered last; nothing where there is no file. Raises BadConfig for one that is damaged."""
    path = cluster.config.data_dir / NAME
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        return Known(cluster_id=plain["cluster_id"], nodes=tuple(_node(cluster, one) for one in plain["nodes"]))
    except FileNotFoundError:
        return Known()
    except (OSError, ValueError, KeyError, TypeError) as bad:
        raise BadConfig(f"{path}: {bad}", hint="give the nodes by --node NAME=tcp://HOST:PORT,KEY") from None


def _node(cluster: Cluster, plain: Mapping[str, Any]) -> Node:
    return Node(
        **{name: plain[name] for name in _KEPT}, **{name: plain.get(name, {}) for name in _OBJECTS},
        state=NodeState.ENABLED, agent_version="", generation=0, created_at=cluster.clock.now())
