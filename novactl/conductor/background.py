"""Handing operations to a process of their own, which outlives this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from novactl.cluster import Cluster
from novactl.db import operations
from novactl.model.operation import OperationState

BACKGROUND = "NOVACTL_BACKGROUND"
"""Set in the environment of such a process: being asked to end, it leaves its operations to the next command."""


def let_go(cluster: Cluster, operation_ids: Sequence[str]) -> list[str]:
    """Give operations up with a new epoch, so that this process changes nothing more, and hand them over; their ids."""
    left: list[str] = []
    with cluster.db.write() as tx:
        until = cluster.clock.now() + cluster.config["operation.lease_s"]
        for id_ in operation_ids:
            operation = operations.locked(tx, id_)
            if operation is None or operation.state.ended or operation.state is OperationState.STUCK:
                continue
            if operations.take(tx, operation, state=operation.state, owner="", lease_until=until):
                left.append(id_)
    for id_ in operation_ids:
        cluster.driving.pop(id_, None)
    if left:
        hand_over(cluster, left)
    return left


_MAIN = "import sys; home = sys.argv.pop(1); home in sys.path or sys.path.insert(0, home); from novactl.__main__ import main; main()"
"""This same novactl, wherever it is. Not `-m`, which looks first in the directory that the user happens to be in."""


def hand_over(cluster: Cluster, operation_ids: Sequence[str]) -> None:
    """Start a detached `novactl operation resume` for operations nobody drives. Its output goes to `logs/background.log`."""
    logs = cluster.config.data_dir / "logs"
    logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = os.open(logs / "background.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        subprocess.Popen(
            [sys.executable, "-P", "-c", _MAIN, str(Path(__file__).parents[2]), "operation", "resume", *operation_ids],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, close_fds=True,
            env={**os.environ, BACKGROUND: "1", "NOVACTL_DATA_DIR": str(cluster.config.data_dir),
                 "NOVACTL_CONFIG": str(cluster.config.config_file)})
    finally:
        os.close(log)
